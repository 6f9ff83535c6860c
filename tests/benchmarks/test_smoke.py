"""The measurements can be made: one cheap case, end to end."""

import subprocess
import sys

import pytest

from benchmarks.table import Row, render
from tests.servers import ROOT

pytestmark = pytest.mark.waits


def bench(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def test_a_quick_case_prints_its_table() -> None:
    done = bench("--quick", "--only", "catalog-sqlite")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "20,000 rows merged into the catalog, SQLite" in done.stdout


@pytest.mark.slow
def test_the_uploads_can_be_measured() -> None:
    done = bench("--quick", "--only", "objects")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "50,000 rows as JSON Lines to a bucket" in done.stdout


def test_an_unknown_case_is_refused_with_the_known_ones() -> None:
    done = bench("--only", "nonsense")

    assert done.returncode == 2
    assert "there is no case nonsense; there are stages-sqlite" in done.stderr


def test_a_goal_that_is_missed_is_said() -> None:
    rows = [Row("fast", 1.0, yardstick=1.0, goal=1.5), Row("slow", 2.0, yardstick=1.0, goal=1.5), Row("free", 3.0)]

    fast, slow, free = render(rows).splitlines()[2:]

    assert fast.split()[-2] == "yes"
    assert slow.split()[-2] == "NO"
    assert free.split()[-2] == "-"


def test_a_goal_without_a_yardstick_bounds_the_figure_itself() -> None:
    assert Row("answer", 150.0, "ms", goal=200).is_met
    assert not Row("answer", 250.0, "ms", goal=200).is_met

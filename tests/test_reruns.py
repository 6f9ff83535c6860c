"""Tests that are run again: only those of processes, and every one of them is listed."""

import pytest

from tests.servers import ROOT

pytest_plugins = ["pytester"]

TESTS = """
import pytest

TRIES = {}

def fail_once(name):
    TRIES[name] = TRIES.get(name, 0) + 1
    assert TRIES[name] > 1, f"{name} has failed"

class ThingConformance:
    @pytest.mark.waits
    def test_contract(self):
        fail_once("contract")

class TestThing(ThingConformance):
    pass

@pytest.mark.waits
def test_waiting():
    fail_once("waiting")

@pytest.mark.waits
@pytest.mark.faults
def test_fault():
    fail_once("fault")

def test_of_code_alone():
    fail_once("code")
"""


def test_only_tests_of_processes_are_run_again_and_each_is_listed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_them=TESTS)
    pytester.makeconftest("from tests.conftest import pytest_collection_modifyitems, pytest_terminal_summary")
    pytester.makeini(f"[pytest]\npythonpath = {ROOT}\nmarkers = waits\n    faults\n    worker\n    druid\n    database")

    result = pytester.runpytest_subprocess("--reruns", "2")

    result.assert_outcomes(passed=1, failed=3)
    result.stdout.fnmatch_lines(
        ["*1 times a test was run again*", "test_them.py::test_waiting (call): *waiting has failed*"]
    )

"""The bundled sample, through the real use cases and the real demo provider."""

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from ingestion import registry
from ingestion.models import Destination, Pipeline, Run, Source
from ingestion.runs.operate.samples import move_demo_source
from ingestion.runs.read.progress import summarize
from sample.provider import serve
from tests.runs.driver import Driver
from tests.servers import ROOT, Valkey


@pytest.fixture
def provider(settings: Any, valkey: Valkey) -> Iterator[int]:
    """The demo provider on a port that may be reached."""
    server = serve(request_delay_s=0)
    port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    settings.HEADGATE_DEMO_PORT = port
    settings.HEADGATE_EGRESS_ALLOW = [f"127.0.0.1:{port}"]
    settings.HEADGATE_REDIS_URL = valkey.url(7)
    yield port
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_books_of_both_runs_balance_and_a_second_time_changes_nothing(
    transactional_db: None, stack: Driver, provider: int, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("load_sample")
    call_command("load_sample")

    printed = capsys.readouterr().out
    assert [(run.pipeline.name, run.state, run.fetched, run.accepted) for run in Run.objects.order_by("pk")] == [
        ("measurements", "succeeded", 1000, 988),
        ("demo-structures", "succeeded", 85, 85),
    ]
    assert printed.count("1000  =       988  +        10  +          2  +         0") == 2
    assert Pipeline.objects.get(name="demo-structures").mode == Pipeline.Mode.INCREMENTAL


@pytest.fixture
def druid_sink(settings: Any) -> None:
    """A sink of the kind `druid` that works."""
    settings.HEADGATE_SINKS = {**settings.HEADGATE_SINKS, "druid": "tests.fakes.plugins:MemorySink"}
    registry._table.cache_clear()


def test_it_is_delivered_to_druid_where_there_is_one(
    transactional_db: None, stack: Driver, settings: Any, druid_sink: None, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.HEADGATE_DEMO_PORT, settings.HEADGATE_DRUID = None, {"url": "http://router:8888"}

    call_command("load_sample")
    call_command("load_sample")

    run = Run.objects.get()
    assert summarize(run)["destinations"] == {"lake": 988, "catalog": 988, "druid": 988}
    assert "in druid" in capsys.readouterr().out


def test_a_druid_that_came_later_gets_it_too(
    transactional_db: None, stack: Driver, settings: Any, druid_sink: None
) -> None:
    settings.HEADGATE_DEMO_PORT, settings.HEADGATE_DRUID = None, None
    call_command("load_sample")
    settings.HEADGATE_DRUID = {"url": "http://router:8888"}

    call_command("load_sample")
    call_command("load_sample")

    first, again = Run.objects.order_by("pk")
    assert again.republishes == first
    assert summarize(again)["destinations"] == {"lake": 988, "catalog": 988, "druid": 988}


def test_a_druid_that_lacks_rows_is_an_error(
    transactional_db: None, stack: Driver, settings: Any, druid_sink: None
) -> None:
    settings.HEADGATE_DEMO_PORT, settings.HEADGATE_DRUID = None, {"url": "http://router:8888"}
    Destination.objects.create(name="druid", kind="memory")  # somebody's own, so nothing is delivered there

    with pytest.raises(CommandError, match="Destination druid accounts for 0 of the 988"):
        call_command("load_sample")


def test_other_counts_than_expected_are_an_error(
    transactional_db: None, stack: Driver, settings: Any, tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "sample", tmp_path / "sample", ignore=shutil.ignore_patterns("__pycache__"))
    expected = json.loads((tmp_path / "sample" / "expected.json").read_text())
    expected["measurements"]["accepted"] = 989
    (tmp_path / "sample" / "expected.json").write_text(json.dumps(expected))
    settings.BASE_DIR, settings.HEADGATE_DEMO_PORT = tmp_path, None

    with pytest.raises(CommandError, match="989") as caught:
        call_command("load_sample")

    assert caught.value.returncode == 1


def test_without_a_stack_it_says_how_to_start_one(transactional_db: None, settings: Any, lake: Path) -> None:
    settings.HEADGATE_DEMO_PORT = None

    with pytest.raises(CommandError, match=r"manage.py up.*stack.not_running") as caught:
        call_command("load_sample")

    assert caught.value.returncode == 5


def test_the_source_follows_the_provider_to_another_port(transactional_db: None) -> None:
    Source.objects.create(name="demo-optimade", kind="optimade", config={"base_url": "http://127.0.0.1:1/optimade"})

    move_demo_source(port=2)

    assert Source.objects.get().config == {"base_url": "http://127.0.0.1:2/optimade"}

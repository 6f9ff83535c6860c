"""The bundled sample, through the real use cases and the real demo provider."""

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from ingestion.models import Pipeline, Run, Source
from ingestion.runs.samples import move_demo_source
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

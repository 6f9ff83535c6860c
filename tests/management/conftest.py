"""The command line in this process: what it prints, how it ends, and a driver in the workers' place."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from ingestion import dispatch
from ingestion.management.cli import following
from ingestion.management.commands.ingest import Command
from tests.runs.conftest import clear_registry, contract, driver, lake, make_pipeline  # noqa: F401
from tests.runs.driver import Driver


@dataclass(frozen=True)
class Answer:
    """What a command printed and the exit code it ended with."""

    code: int
    out: str
    err: str


Ingest = Callable[..., Answer]


@pytest.fixture
def ingest(transactional_db: None, capfd: pytest.CaptureFixture[str]) -> Ingest:
    """Return a caller of `manage.py ingest`."""

    def call(*words: object) -> Answer:
        capfd.readouterr()
        code = 0
        try:
            Command().run_from_argv(["manage.py", "ingest", *map(str, words)])
        except SystemExit as end:
            code = int(end.code or 0)
        printed = capfd.readouterr()
        return Answer(code, printed.out, printed.err)

    return call


@pytest.fixture
def stack(driver: Driver, monkeypatch: pytest.MonkeyPatch, settings: Any) -> Driver:  # noqa: F811
    """The driver as a running stack: whoever waits lets it work."""
    settings.CELERY_BROKER_URL = "redis://127.0.0.1:2/0"
    monkeypatch.setattr(dispatch, "broker_answers", lambda: True)
    monkeypatch.setattr(following.time, "sleep", lambda _seconds: driver.drain())
    return driver

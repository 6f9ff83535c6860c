"""A plugin's own error codes: its sentences reach a person as those of the house do."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from rest_framework.authtoken.models import Token

from ingestion import registry
from ingestion.models import Pipeline, Run, RunEvent
from ingestion.ports import messages
from ingestion.ports.batch import Cursor, Page, PartitionSpec
from ingestion.ports.context import Context
from ingestion.ports.errors import ConfigError, SourceRejected
from ingestion.runs.start.creation import create_run
from tests.fakes.plugins import PagesConnector
from tests.management.conftest import Ingest, ingest  # noqa: F401
from tests.runs.driver import Driver

SENTENCE = "The library is closed on Mondays (door 7). Come back tomorrow."


class LibraryConnector(PagesConnector):
    """A third party's connector, with a code of its own, and one of the house that it may not change."""

    kind: ClassVar[str] = "pages"
    messages: ClassVar[Mapping[str, str]] = {
        "library.closed": "The library is closed on {day}s (door {door}). Come back tomorrow.",
        "source.auth": "Mine.",
    }

    def fetch(self, spec: PartitionSpec, cursor: Cursor | None, ctx: Context) -> Iterator[Page]:
        """Refuse."""
        raise SourceRejected("library.closed", day="Monday", door=7)


class OtherConnector(PagesConnector):
    """Another one, with the same code for something else."""

    messages: ClassVar[Mapping[str, str]] = {"library.closed": "The library was sold."}


@pytest.fixture(autouse=True)
def plugins(lake: object, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both connectors beside the built-in ones, and no message of theirs known yet."""
    path = f"{__name__}:{{}}".format
    settings.HEADGATE_CONNECTORS = {
        **settings.HEADGATE_CONNECTORS,
        "pages": path("LibraryConnector"),
        "other": path("OtherConnector"),
    }
    registry._table.cache_clear()
    monkeypatch.setattr(messages, "_OF_PLUGINS", {})


def test_a_plugins_sentence_is_read_in_the_log_the_api_the_admin_and_on_the_command_line(
    driver: Driver,
    make_pipeline: Callable[..., Pipeline],
    ingest: Ingest,  # noqa: F811
) -> None:
    run, _ = create_run(make_pipeline(), trigger=Run.Trigger.API)
    driver.drain()
    user = get_user_model().objects.create_superuser("root", password="a long password")
    client = Client(headers={"Authorization": f"Token {Token.objects.create(user=user).key}"})
    client.force_login(user)

    run.refresh_from_db()
    answer = client.get(f"/api/v1/runs/{run.pk}").json()

    assert (run.code, run.message) == ("library.closed", SENTENCE)
    assert RunEvent.objects.filter(run=run, kind="partition.failed", message=SENTENCE).exists()
    assert (answer["code"], answer["message"]) == ("library.closed", SENTENCE)
    assert SENTENCE in client.get(f"/admin/ingestion/run/{run.pk}/change/").content.decode()
    assert SENTENCE in " ".join(ingest("show", run.pk).out.split())


def test_a_plugin_cannot_change_what_the_house_says() -> None:
    registry.plugin_class("connector", "pages")

    assert messages.sentence("source.auth", {}) != "Mine."


def test_two_plugins_that_mean_different_things_by_one_code_are_named_when_the_second_is_loaded() -> None:
    registry.plugin_class("connector", "pages")
    registry.plugin_class("connector", "pages")

    with pytest.raises(ConfigError) as raised:
        registry.plugin_class("connector", "other")

    assert raised.value.code == "config.message_conflict"
    assert all(name in str(raised.value) for name in ("other", "library.closed", "LibraryConnector"))

"""The default Druid destination: made where a Druid is known, and following its addresses."""

from typing import Any

import pytest

from ingestion import registry
from ingestion.models import Destination
from ingestion.runs.start.pipelines import default_destinations, move_druid_destination, upload_pipeline

EMBEDDED = {"url": "http://127.0.0.1:8081", "broker_url": "http://127.0.0.1:8082", "shares_disk": True}
REMOTE = {"url": "http://router:8888", "username": "ingest"}

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def kinds(settings: Any) -> None:
    """A sink of that kind, whatever it does."""
    settings.HEADGATE_SINKS = {**settings.HEADGATE_SINKS, "druid": "tests.fakes.plugins:MemorySink"}
    registry._table.cache_clear()


def names() -> list[str]:
    """Return where an upload is delivered to."""
    return [destination.name for destination in default_destinations()]


def test_without_a_druid_there_is_no_destination_for_it(settings: Any) -> None:
    settings.HEADGATE_DRUID = None

    assert names() == ["lake", "catalog"]
    assert not Destination.objects.filter(kind="druid").exists()


def test_an_upload_goes_to_the_druid_that_is_known(settings: Any) -> None:
    settings.HEADGATE_DRUID, settings.HEADGATE_DRUID_SECRETS = REMOTE, {"password": "canary"}

    pipeline = upload_pipeline("readings")

    druid = Destination.objects.get(name="druid")
    assert (druid.kind, druid.config, druid.secrets) == ("druid", REMOTE, {"password": "canary"})
    assert druid in pipeline.destinations.all()


@pytest.mark.both
def test_it_is_made_once(settings: Any) -> None:
    settings.HEADGATE_DRUID = EMBEDDED

    assert names() == names() == ["lake", "catalog", "druid"]
    assert Destination.objects.count() == 3


def test_it_follows_the_setting_and_keeps_what_people_set(settings: Any) -> None:
    settings.HEADGATE_DRUID = EMBEDDED
    default_destinations()
    druid = Destination.objects.get(name="druid")
    druid.config = {**druid.config, "datasource": "mine_{pipeline}"}
    druid.save(update_fields=["config"])

    settings.HEADGATE_DRUID, settings.HEADGATE_DRUID_SECRETS = REMOTE, {"password": "canary"}
    default_destinations()

    druid.refresh_from_db()
    # What the embedded one had besides, its Broker and the shared disk, is gone.
    assert druid.config == {**REMOTE, "datasource": "mine_{pipeline}"}
    assert druid.secrets == {"password": "canary"}


def test_a_password_that_is_not_set_any_more_is_forgotten(settings: Any) -> None:
    settings.HEADGATE_DRUID, settings.HEADGATE_DRUID_SECRETS = REMOTE, {"password": "canary"}
    default_destinations()

    move_druid_destination({"url": "http://router:8888"}, secrets={})

    druid = Destination.objects.get(name="druid")
    assert (druid.config, druid.secrets) == ({"url": "http://router:8888"}, {})


@pytest.mark.both
def test_what_did_not_move_is_not_written(settings: Any) -> None:
    settings.HEADGATE_DRUID = EMBEDDED
    default_destinations()
    before = Destination.objects.get(name="druid").updated_at

    move_druid_destination(EMBEDDED, secrets={})

    assert Destination.objects.get(name="druid").updated_at == before


def test_moving_makes_none() -> None:
    move_druid_destination(EMBEDDED, secrets={})

    assert not Destination.objects.exists()


def test_another_destination_of_that_name_stays_out_of_it(settings: Any) -> None:
    settings.HEADGATE_DRUID = EMBEDDED
    Destination.objects.create(name="druid", kind="memory", config={})

    assert names() == ["lake", "catalog"]
    assert Destination.objects.get(name="druid").config == {}

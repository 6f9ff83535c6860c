"""Fixtures for the tests of a real Druid: one that runs, a lake in a real S3 server, runs that are driven from here."""

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import transaction

from ingestion import dispatch, registry
from ingestion.models import Delivery, DeliveryPart, Run
from ingestion.runs.record import lake as lakes
from tests.druid_server import Druid
from tests.faults.conftest import pytest_terminal_summary
from tests.runs.driver import Driver
from tests.servers import Valkey, VersityGateway, wait_until
from tests.worker.conftest import make_cluster, own_valkey

__all__ = ["make_cluster", "own_valkey", "pytest_terminal_summary"]
DELIVERY_PATIENCE_S = 120.0


@pytest.fixture
def running(druid: Druid) -> Druid:
    """A running Druid, whatever the test before did to it."""
    druid.ensure_running()
    return druid


@pytest.fixture
def bucket(versitygw: VersityGateway, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A lake in a bucket of the test's own on the S3 gateway, as this process uses it."""
    for name, value in versitygw.credentials().items():
        monkeypatch.setenv(name, value)
    url = versitygw.create_bucket(f"b{secrets.token_hex(6)}")
    settings.HEADGATE_LAKE_URL = url
    lakes._open.cache_clear()
    registry._table.cache_clear()
    yield url
    lakes._open.cache_clear()


@pytest.fixture
def deliver_into(settings: Any, running: Druid) -> Druid:
    """Let new pipelines deliver into the running Druid, too, without a disk in common."""
    settings.HEADGATE_DRUID = {"url": running.overlord_url, "broker_url": running.broker_url}
    settings.HEADGATE_DRUID_SECRETS = {}
    settings.HEADGATE_EGRESS_ALLOW = ["127.0.0.0/8"]
    settings.HEADGATE_EGRESS_PORTS = list(range(1, 65536))
    return running


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch, transactional_db: None, settings: Any, valkey: Valkey) -> Driver:
    """The broker's place: messages are collected and carried out on request."""
    settings.HEADGATE_REDIS_URL = valkey.url(2)
    driver = Driver()
    monkeypatch.setattr(dispatch, "send_as_is", driver.publish)
    monkeypatch.setattr(dispatch, "send_chord", driver.send_chord)
    monkeypatch.setattr(dispatch, "queue_depth", lambda _queue: 0)
    return driver


@pytest.fixture
def finish(driver: Driver) -> Callable[..., Run]:
    """Return what carries a run to its end, copies of every message included where asked for."""

    def finish(run: Run, *, copies: int = 1) -> Run:
        def is_over() -> bool:
            driver.drain(copies=copies)
            with transaction.atomic():
                for model in (Delivery, DeliveryPart):
                    model.objects.update(not_before=None)
            for delivery in Delivery.objects.filter(run=run).exclude(state__in=("verified", "failed")):
                driver.publish(_load(delivery))
            run.refresh_from_db()
            return run.is_terminal and not driver.waiting

        wait_until(is_over, what="the end of the run", patience_s=DELIVERY_PATIENCE_S)
        return run

    return finish


def _load(delivery: Delivery) -> dispatch.TaskMessage:
    return dispatch.TaskMessage("ingestion.load", {"delivery_id": delivery.pk})

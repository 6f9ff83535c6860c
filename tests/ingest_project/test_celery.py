"""The configuration that a worker tells to whoever may ask it."""

from typing import Any

import pytest
from celery.signals import beat_init, worker_init
from django.conf import settings as django_settings

from ingest_project.celery import CelerySettings, app


def test_a_worker_shows_celerys_settings_alone(settings: Any) -> None:
    settings.HEADGATE_DRUID = {"broker_url": "http://broker:8082"}

    shown = app.conf.table(with_defaults=False)

    known = {name.removeprefix("CELERY_").lower() for name in dir(django_settings) if name.startswith("CELERY_")}
    known.add("task_queues")
    assert shown["task_acks_late"] is True
    assert set(shown) <= known | {"deprecated_settings"}
    assert set(dir(CelerySettings())) == known
    assert not hasattr(CelerySettings(), "headgate_druid")


def test_no_setting_is_under_a_name_that_celery_will_forget() -> None:
    assert not app.conf.maybe_warn_deprecated_settings()


def test_celery_follows_djangos_settings() -> None:
    assert app.conf.task_acks_late is True
    assert app.conf.task_default_queue == "system"
    assert set(app.conf.beat_schedule) == {"reconcile", "create_due_runs", "clean_up"}


@pytest.mark.parametrize("begun", [worker_init, beat_init])
def test_neither_worker_nor_beat_starts_with_settings_that_lose_work(begun: Any, settings: Any) -> None:
    settings.CELERY_TASK_ACKS_LATE = False

    with pytest.raises(SystemExit, match=r"ingestion\.E0"):
        begun.send(sender=None)

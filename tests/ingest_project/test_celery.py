"""What a worker tells of its configuration to whoever may ask it."""

from typing import Any

from ingest_project.celery import CelerySettings, app


def test_a_worker_shows_celerys_settings_alone(settings: Any) -> None:
    settings.HEADGATE_DRUID = {"broker_url": "http://broker:8082"}

    shown = app.conf.table(with_defaults=False)

    assert shown["CELERY_TASK_ACKS_LATE"] is True
    assert {name for name in shown if not name.startswith("CELERY_")} <= {"deprecated_settings"}
    assert all(name.startswith("CELERY_") for name in dir(CelerySettings()))
    assert not hasattr(CelerySettings(), "HEADGATE_DRUID")


def test_celery_follows_djangos_settings() -> None:
    assert app.conf.task_acks_late is True
    assert app.conf.task_default_queue == "system"
    assert set(app.conf.beat_schedule) == {"reconcile", "create_due_runs", "clean_up"}

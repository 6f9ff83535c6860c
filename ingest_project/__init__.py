"""Composition: settings, processes, queues and addresses; knows everybody, only by name."""

from ingest_project.celery import app as celery_app

__all__ = ["celery_app"]

"""The product's Celery application with a broker that delivers everything twice, or late and in any order."""

import logging
import os
import random
from typing import Any

from ingest_project.celery import app
from ingestion import dispatch
from ingestion.dispatch import TaskMessage

logger = logging.getLogger("doubling")
HABIT = os.environ["DOUBLING"]
LONGEST_S = 2.0

_publish, _publish_chord = dispatch.send_as_is, dispatch.send_chord
_chance = random.Random(os.environ.get("SEED", "1"))


def publish(call: TaskMessage, *, priority: int | None, countdown_s: float | None = None) -> bool:
    """Send the message as the habit says."""
    logger.warning("doubled %s %s", call.name, call.ids)
    if HABIT == "late":
        return _publish(call, priority=priority, countdown_s=_chance.uniform(0, LONGEST_S))
    sent = _publish(call, priority=priority, countdown_s=countdown_s)
    return _publish(call, priority=priority, countdown_s=_chance.choice((None, LONGEST_S))) and sent


def send_chord(chains: Any, body: TaskMessage) -> bool:
    """Send the chord, and every link and the body once more, at once and in reverse, or late."""
    sent = _publish_chord(chains, body)
    for call in reversed([*(call for links in chains for call in links), body]):
        publish(call, priority=None)
    return sent


dispatch.send_as_is, dispatch.send_chord = publish, send_chord

__all__ = ["app"]

"""The yardstick of the stages: a Celery application of nothing but tasks that say the recorded SQL to a copy.

Variables: BARE_BROKER, BARE_RESULTS, BARE_RECORDED (file of `recording`, or nothing), BARE_LIKE_OURS=1 for our
Celery settings instead of Celery's own.
"""

import json
import os
from pathlib import Path
from typing import Any

import redis
from celery import Celery, chain, chord

from benchmarks.recording import Recorded, Statement

app = Celery("bare", broker=os.environ.get("BARE_BROKER"), backend=os.environ.get("BARE_RESULTS"))
app.conf.update(
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    task_acks_late=True,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)
if os.environ.get("BARE_LIKE_OURS") == "1":
    app.conf.update(
        task_track_started=True,
        task_send_sent_event=True,
        worker_send_task_events=True,
        worker_prefetch_multiplier=1,
        worker_max_tasks_per_child=200,
    )
_file = os.environ.get("BARE_RECORDED", "")
_recorded: Recorded = json.loads(Path(_file).read_text()) if _file else {}
_connections: dict[str, Any] = {}


@app.task(name="bare.plan")
def plan(copy: str, size: int) -> None:
    """Say what creating and planning a run say, then send the chord."""
    say(copy, "create", 0)
    say(copy, "plan_run", 0)
    send_chord(copy, size)


@app.task(name="bare.fetch")
def fetch(copy: str, number: int) -> int:
    """Say what fetching a partition says."""
    say(copy, "fetch", number)
    return number


@app.task(name="bare.validate")
def validate(copy: str, number: int) -> int:
    """Say what validating a partition says."""
    say(copy, "validate", number)
    return number


@app.task(name="bare.complete")
def complete(copy: str) -> None:
    """Say what completing a run says, and send the publication."""
    say(copy, "complete_run", 0)
    publish.delay(copy)


@app.task(name="bare.publish")
def publish(copy: str) -> None:
    """Say what publishing a run says; then all is done."""
    say(copy, "publish_run", 0)
    counter().set("done", copy)


@app.task(name="bare.ping")
def ping() -> None:
    """Show that a worker works."""
    counter().incr("pings")


def send_chord(copy: str, size: int) -> None:
    """Send the chains and their end, as our dispatch does, by nothing but Celery."""
    header = (chain(fetch.si(copy, number), validate.si(copy, number)) for number in range(size))
    chord(header)(complete.si(copy))


def say(copy: str, task: str, number: int) -> None:
    """Say one message's statements to the copy; without a copy nothing is said."""
    if not copy:
        return
    connection = _connect(copy)
    for statement in _recorded[task][number]:
        _execute(connection, statement)


def counter() -> redis.Redis:
    """Return where this application tells how far it is."""
    return redis.Redis.from_url(os.environ["BARE_RESULTS"])


def _execute(connection: Any, statement: Statement) -> None:
    sql, params = statement
    cursor = connection.execute(sql, params) if params else connection.execute(sql)
    if cursor.description:
        cursor.fetchall()


def _connect(copy: str) -> Any:
    """Return the process's connection to a copy, by the driver alone."""
    if copy not in _connections:
        for other in _connections.values():
            other.close()
        _connections.clear()
        _connections[copy] = _connect_postgres(copy) if copy.startswith("postgresql:") else _connect_sqlite(copy)
    return _connections[copy]


def _connect_postgres(url: str) -> Any:
    import psycopg

    return psycopg.connect(url, autocommit=True, prepare_threshold=None, cursor_factory=psycopg.ClientCursor)


def _connect_sqlite(path: str) -> Any:
    import sqlite3

    from django.db.backends.sqlite3._functions import register  # type: ignore[import-untyped]

    connection = sqlite3.connect(path, timeout=20, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA foreign_keys=ON")
    register(connection)  # the functions in our statements are Django's
    return connection

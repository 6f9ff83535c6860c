"""The SQL that our stages issue: recorded task by task in one process, with everything that nothing else may add."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

Statement = tuple[str, tuple[Any, ...]]
Recorded = dict[str, list[list[Statement]]]
"""Task name -> for each of its messages, in order, the statements."""


def record_run(create: Callable[[], Any], *, into: Path) -> int:
    """Write down what a run's creation and its tasks say to the database; return how many statements that is.

    The run is carried out here, message by message. Every statement is kept as the driver gets it, with its values
    and the borders of the transactions.
    """
    from ingestion import dispatch
    from ingestion.dispatch import TaskMessage
    from ingestion.runs.deliver import publishing
    from ingestion.runs.ingest import completion, fetching, planning, validation

    tasks: dict[str, Callable[..., Any]] = {
        "ingestion.plan_run": planning.plan_run,
        "ingestion.fetch": lambda partition_id: fetching.fetch_partition(partition_id, is_chained=True),
        "ingestion.validate": validation.validate_partition,
        "ingestion.complete_run": completion.complete_run,
        "ingestion.publish_run": publishing.publish_run,
    }
    waiting: list[TaskMessage] = []

    def publish(call: TaskMessage, *, countdown_s: float | None = None) -> bool:
        waiting.append(call)
        return True

    def send_chord(chains: Sequence[Sequence[TaskMessage]], body: TaskMessage) -> bool:
        waiting.extend([*(call for chain in chains for call in chain), body])
        return True

    recorded: Recorded = defaultdict(list)
    with mock.patch.object(dispatch, "send", publish), mock.patch.object(dispatch, "send_chord", send_chord):
        with _recording() as statements:
            create()
        recorded["create"].append(statements)
        while waiting:
            call = waiting.pop(0)
            with _recording() as statements:
                tasks[call.name](**call.ids)
            recorded[call.name.removeprefix("ingestion.")].append(statements)
    into.write_text(json.dumps(recorded))
    return sum(len(statements) for messages in recorded.values() for statements in messages)


@contextmanager
def _recording() -> Iterator[list[Statement]]:
    from django.db import connection

    statements: list[Statement] = []
    is_postgres = connection.vendor == "postgresql"

    def note(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        for values in params if many else [params]:
            statements.append(_as_sent(sql, values, is_postgres=is_postgres))
        return execute(sql, params, many, context)

    def noting(text: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            # Django asks PostgreSQL's driver for a transaction, and SQLite by a statement, which `note` sees.
            if text != "BEGIN" or (is_postgres and args[0] is False):
                statements.append((text, ()))
            return original(*args, **kwargs)

        return call

    connection.ensure_connection()
    with (
        connection.execute_wrapper(note),
        mock.patch.object(connection, "commit", noting("COMMIT", connection.commit)),
        mock.patch.object(connection, "rollback", noting("ROLLBACK", connection.rollback)),
        mock.patch.object(connection, "set_autocommit", noting("BEGIN", connection.set_autocommit)),
    ):
        yield statements


def _as_sent(sql: str, params: Any, *, is_postgres: bool) -> Statement:
    from django.db import connection

    if not params:
        return (sql, ()) if params is None else (sql.replace("%%", "%"), ())
    if is_postgres:
        from django.db.backends.postgresql.psycopg_any import mogrify

        return mogrify(sql, params, connection), ()
    return sql % (("?",) * len(params)), tuple(params)

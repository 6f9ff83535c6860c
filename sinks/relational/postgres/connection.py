"""A connection to PostgreSQL through psycopg, rows by COPY, and what its errors mean."""

import re
from collections.abc import Sequence
from contextlib import closing
from typing import Any, ClassVar

import psycopg

from sinks.relational.connection import Connection, RowWriter
from sinks.relational.diagnosis import Diagnosis, ErrorClass, first_line
from sinks.relational.dialect import Dialect
from sinks.relational.inspection import describe
from sinks.relational.postgres.dialect import PostgresDialect
from sinks.relational.statements import Value, sql

CONNECT_TIMEOUT_S = 10


class PostgresConnection(Connection):
    """A connection to one schema of a PostgreSQL database."""

    dialect_class: ClassVar[type[Dialect]] = PostgresDialect
    driver_errors: ClassVar[tuple[type[Exception], ...]] = (psycopg.Error, OSError)

    def __init__(self, *, schema: str, **options: Any) -> None:
        """Connect as libpq's options say."""
        self._schema, self._options = schema, options
        self._connection = psycopg.connect(
            **{
                "connect_timeout": CONNECT_TIMEOUT_S,
                "application_name": "headgate",
                "client_encoding": "UTF8",
                # Nothing of the account that the worker runs under: no password file, no options, no ticket.
                **{"passfile": "/dev/null/none", "options": "", "gssencmode": "disable"},
                "keepalives_idle": 30,
                "keepalives_interval": 10,
                "keepalives_count": 3,
                "tcp_user_timeout": 60_000,
                **options,
            },
            autocommit=True,
            # Poolers between us and the server may give each transaction another connection.
            prepare_threshold=None,
        )
        self.dialect = PostgresDialect(schema, version=self._connection.info.server_version)

    @staticmethod
    def diagnose(error: Exception) -> Diagnosis:
        return diagnose(error)

    def send(self, text: str, values: Sequence[Any]) -> Any:
        return self._connection.execute(text.encode(), values or None)

    def end(self, *, commits: bool) -> None:
        if commits:
            self._connection.execute("COMMIT")
            return
        try:
            self._connection.execute("ROLLBACK")
        except psycopg.Error:
            # A broken connection has rolled back already; one that is in a COPY will when it is closed.
            self._connection.close()

    def lock(self, name: str, *, shared: bool) -> None:
        function = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
        self.rows(sql("SELECT {}(hashtextextended({}, 0))", function, Value(f"headgate {name}")))

    def writer(self, table: str, columns: Sequence[str]) -> RowWriter:
        from ingestion.toolkit.postgres_copy import CopyWriter  # noqa: PLC0415 (heavy)

        found, quote = describe(self, table), self.dialect.quote
        name, _ = self.dialect.render(sql("{}", self.dialect.table(table)))
        return CopyWriter(self._connection, name, list(map(quote, columns)), [found[column].type for column in columns])

    def cancel(self) -> None:
        self._connection.cancel_safe(timeout=CONNECT_TIMEOUT_S)

    def is_working(self) -> bool:
        pid = self._connection.info.backend_pid
        with closing(PostgresConnection(schema=self._schema, **self._options)) as other:
            found = other.first(sql("SELECT state FROM pg_stat_activity WHERE pid = {}", Value(pid)))
        return found == ("active",)

    def encryption(self) -> str:
        pgconn = self._connection.pgconn
        return "the connection is encrypted" if pgconn.ssl_in_use else "the connection is not encrypted"

    def close(self) -> None:
        self._connection.close()


_CLASSES = {
    "08": ErrorClass.UNAVAILABLE,  # connection exception
    "09": ErrorClass.ROW,  # a trigger of the table failed
    "0A": ErrorClass.REJECTED,  # feature not supported
    "21": ErrorClass.ROW,  # one row would be touched twice
    "22": ErrorClass.ROW,  # data exception
    "23": ErrorClass.ROW,  # integrity constraint violation
    "25": ErrorClass.UNAVAILABLE,  # invalid transaction state: read only, or idle for too long
    "28": ErrorClass.AUTH,  # invalid authorization
    "3D": ErrorClass.CONFIG,  # no such database
    "3F": ErrorClass.CONFIG,  # no such schema
    "40": ErrorClass.UNAVAILABLE,  # rollback: serialization failure, deadlock
    "44": ErrorClass.ROW,  # WITH CHECK OPTION violation
    "53": ErrorClass.UNAVAILABLE,  # insufficient resources: disk full, out of memory, too many connections
    "54": ErrorClass.ROW,  # program limit exceeded: a key too long for its index
    "55": ErrorClass.UNAVAILABLE,  # object not in prerequisite state
    "57": ErrorClass.UNAVAILABLE,  # operator intervention: shutdown, restart
    "58": ErrorClass.UNAVAILABLE,  # system error: I/O
    "P0": ErrorClass.ROW,  # raised by a trigger's function
}
_STATES = {
    "25001": ErrorClass.REJECTED,
    "42501": ErrorClass.AUTH,
    "55P03": ErrorClass.BUSY,
    "55000": ErrorClass.REJECTED,
    "57014": ErrorClass.STOPPED,
    "57P04": ErrorClass.CONFIG,
    "P0000": ErrorClass.REJECTED,
}
_UNSPOKEN = (
    # English, as servers speak unless told otherwise; another language ends as unavailable, which a person sees, too.
    (r"authentication failed|no pg_hba.conf entry|role \S+ does not exist|no password supplied", ErrorClass.AUTH),
    (
        r"is not permitted to log in|permission denied for database|password is required|certificate auth",
        ErrorClass.AUTH,
    ),
    (r"database \S+ does not exist|invalid connection option|invalid (sslmode|port|integer) value", ErrorClass.CONFIG),
    (
        r"server does not support SSL|certificate verify failed|root certificate|does not match host name",
        ErrorClass.CONFIG,
    ),
)
_PLACE = re.compile(r"^COPY .*?, line (\d+)(?:, column ([^:]+))?")


def diagnose(error: Exception) -> Diagnosis:
    """Return what an error of psycopg means, by its SQLSTATE; a failed connection has none, so its text has to do."""
    if not isinstance(error, psycopg.Error):
        return Diagnosis(ErrorClass.UNAVAILABLE, first_line(str(error)) or type(error).__name__)
    state = error.sqlstate
    if not state:
        return Diagnosis(_class_of_text(error), _last_line(str(error)) or type(error).__name__)
    error_class = _STATES.get(state) or _CLASSES.get(state[:2], ErrorClass.REJECTED)
    diagnosis = error.diag
    message = first_line(diagnosis.message_primary or str(error)) or type(error).__name__
    if error_class is not ErrorClass.ROW:
        return Diagnosis(error_class, message)
    place = _PLACE.match(diagnosis.context or "")
    return Diagnosis(
        error_class,
        message,
        rule=diagnosis.constraint_name or _condition(error, state),
        column=diagnosis.column_name or (place.group(2) if place else "") or "",
        at=int(place.group(1)) - 1 if place else None,
    )


def _class_of_text(error: psycopg.Error) -> ErrorClass:
    text = str(error)
    for pattern, error_class in _UNSPOKEN:
        if re.search(pattern, text):
            return error_class
    # A connection that broke or did not come about; anything else without a state is our own misuse of the driver.
    is_outage = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return (
        ErrorClass.UNAVAILABLE
        if is_outage
        else ErrorClass.ROW
        if isinstance(error, psycopg.DataError)
        else ErrorClass.REJECTED
    )


def _last_line(text: str) -> str:
    """Return a failed connection's last attempt: one line a host address, hints indented below."""
    lines = [line for line in text.strip().splitlines() if line and not line.startswith(("\t", "Multiple", "- "))]
    return first_line(lines[-1] if lines else text)


def _condition(error: psycopg.Error, state: str) -> str:
    """Return the condition's name, such as not_null_violation; an unknown one is its SQLSTATE."""
    name = type(error).__name__
    if type(error).__module__ != "psycopg.errors":
        return state
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()

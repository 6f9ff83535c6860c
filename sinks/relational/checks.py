"""The check of a database, layer by layer: which one fails, and what to do about it, within five seconds."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from ingestion.ports.check import Finding
from ingestion.ports.errors import ConfigError, IngestError, SinkUnavailable
from sinks.relational.connection import Connection
from sinks.relational.diagnosis import Diagnosis, ErrorClass, as_error
from sinks.relational.naming import PREFIX
from sinks.relational.statements import Value, sql

CHECK_LIMIT_S = 5.0
PROBE_LIMIT_S = 2
_TLS_WORDS = ("ssl", "tls", "certificate")


@dataclass(frozen=True, slots=True)
class Step:
    """One layer: its answer where it holds, and what to do where it does not."""

    layer: str
    ask: Callable[[], str]
    fix: str


@dataclass(frozen=True)
class DatabaseCheck:
    """The check of one destination. `connect` takes the seconds it may wait."""

    connect: Callable[[int], Connection]
    connection_class: type[Connection]
    address: str
    user: str

    def findings(self, before: tuple[Step, ...] = ()) -> Iterator[Finding]:
        """Yield what each layer says, those of `before` first, and stop at the first that fails."""
        deadline_at = time.monotonic() + CHECK_LIMIT_S
        for step in before:
            finding = self._finding(step)
            yield finding
            if not finding.ok:
                return
        began_at = time.perf_counter()
        try:
            connection = self.connect(max(1, int(deadline_at - time.monotonic())))
        except IngestError as error:
            diagnosis = Diagnosis(ErrorClass.CONFIG, str(error))
            yield self._failure(diagnosis, began_at)
            return
        except self.connection_class.driver_errors as error:
            yield self._failure(self.connection_class.diagnose(error), began_at)
            return
        with closing(connection):
            connected_ms = (time.perf_counter() - began_at) * 1000
            for layer, detail in (("tls", connection.encryption()), ("auth", f"signed in as {self.user}")):
                if detail:
                    yield Finding(layer, ok=True, elapsed_ms=connected_ms, detail=detail)
            for step in self._steps(connection):
                finding = self._finding(step)
                yield finding
                if not finding.ok:
                    return

    def _steps(self, connection: Connection) -> Iterator[Step]:
        namespace = connection.dialect.namespace
        yield Step(
            "database",
            lambda: self._present(connection),
            f"Create {namespace!r} there, or correct its name in the settings.",
        )
        yield Step(
            "write",
            lambda: self._written(connection),
            f"Let {self.user} create, fill and drop tables in {namespace!r}, and see that space is left.",
        )

    def _present(self, connection: Connection) -> str:
        query, problem = connection.dialect.namespace_check() or (None, "")
        if query is not None and connection.first(query) is None:
            raise ConfigError("config.invalid", where=f"destination {self.address}", detail=problem)
        return f"{connection.dialect.namespace} is there"

    def _written(self, connection: Connection) -> str:
        """Create, fill and remove a table, leaving nothing."""
        dialect = connection.dialect
        probe = dialect.table(f"{PREFIX}check")
        with connection.locked("headgate check"):
            connection.execute(
                sql("CREATE TABLE {} (tried {})", probe, dialect.own_types["integer"]),
                sql("INSERT INTO {} (tried) VALUES ({})", probe, Value(1)),
                sql("DROP TABLE {}", probe),
            )
        return "a table was created, filled and removed again"

    def _finding(self, step: Step) -> Finding:
        began_at = time.perf_counter()
        detail, code, layer = "", "", step.layer
        try:
            detail = step.ask()
        except IngestError as error:
            detail, code = str(error), error.code
        except self.connection_class.driver_errors as error:
            diagnosis = self.connection_class.diagnose(error)
            mapped = as_error(diagnosis, destination=self.address)
            detail, code = str(mapped), mapped.code
            layer = "rights" if diagnosis.error_class is ErrorClass.AUTH else layer
        elapsed_ms = (time.perf_counter() - began_at) * 1000
        return Finding(
            layer, ok=not code, elapsed_ms=elapsed_ms, detail=detail, fix=step.fix if code else "", code=code
        )

    def _failure(self, diagnosis: Diagnosis, began_at: float) -> Finding:
        error = as_error(diagnosis, destination=self.address)
        layer, fix = "server", "Start the server, or wait until it takes connections."
        if (
            any(word in diagnosis.message.lower() for word in _TLS_WORDS)
            and diagnosis.error_class is not ErrorClass.AUTH
        ):
            layer, fix = "tls", "Correct the TLS setting, the CA file, or the server's certificate."
        elif diagnosis.error_class is ErrorClass.AUTH:
            layer, fix = "auth", "Correct user and password, and let the user connect from this machine."
        elif diagnosis.error_class is ErrorClass.CONFIG:
            layer, fix = "database", "Create the database, or correct its name in the settings."
        elapsed_ms = (time.perf_counter() - began_at) * 1000
        return Finding(layer, ok=False, elapsed_ms=elapsed_ms, detail=str(error), fix=fix, code=error.code)


def network_steps(host: str, port: int) -> tuple[Step, ...]:
    """Return the layers below a database's own: its name, its port."""
    return (
        Step(
            "dns",
            lambda: ", ".join(sorted({str(found[4][0]) for found in _resolved(host, port)})),
            f"Correct the server's name {host!r}, or this machine's name service.",
        ),
        Step(
            "tcp",
            lambda: _connected(host, port),
            f"Start the server, or open port {port} of {host} for this machine.",
        ),
    )


def _resolved(host: str, port: int) -> list[Any]:
    """Return the addresses of a name; a name service that does not answer is not waited for."""
    answers: list[Any] = []

    def resolve() -> None:
        try:
            answers.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError):
            return

    thread = threading.Thread(target=resolve, daemon=True)
    thread.start()
    thread.join(PROBE_LIMIT_S)
    if not answers:
        raise SinkUnavailable("egress.unresolved", host=host)
    return list(answers)


def _connected(host: str, port: int) -> str:
    try:
        with socket.create_connection((host, port), timeout=PROBE_LIMIT_S):
            return f"port {port} answers"
    except OSError as error:
        detail = f"{error.strerror or type(error).__name__} at {host} port {port}"
        raise SinkUnavailable("sink.unavailable", destination=host, detail=detail) from error

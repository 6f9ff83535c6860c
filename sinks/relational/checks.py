"""Whether a database can be delivered to: which layer fails, and what to do about it, within five seconds."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from ingestion.ports.check import Finding
from ingestion.ports.errors import ConfigError, IngestError, SinkUnavailable
from sinks.relational.database import Session
from sinks.relational.troubles import Meaning, Trouble, as_error

CHECK_LIMIT_S = 5.0
PROBE_LIMIT_S = 2
_TLS_WORDS = ("ssl", "tls", "certificate")


@dataclass(frozen=True, slots=True)
class Step:
    """One layer: what it says where it holds, and what to do where it does not."""

    layer: str
    ask: Callable[[], str]
    fix: str


@dataclass(frozen=True)
class DatabaseCheck:
    """The check of one destination. `connect` takes the seconds it may wait."""

    connect: Callable[[int], Session]
    session_class: type[Session]
    address: str
    user: str

    def findings(self, before: tuple[Step, ...] = ()) -> Iterator[Finding]:
        """Yield what each layer says, those of `before` first, and stop at the first that fails."""
        deadline_at = time.monotonic() + CHECK_LIMIT_S
        for step in before:
            finding = self._asked(step)
            yield finding
            if not finding.ok:
                return
        began_at = time.perf_counter()
        try:
            session = self.connect(max(1, int(deadline_at - time.monotonic())))
        except IngestError as error:
            trouble = Trouble(Meaning.CONFIG, str(error))
            yield self._refusal(trouble, began_at)
            return
        except self.session_class.driver_errors as error:
            yield self._refusal(self.session_class.explain(error), began_at)
            return
        with closing(session):
            connected_ms = (time.perf_counter() - began_at) * 1000
            for layer, detail in (("tls", session.encryption()), ("auth", f"signed in as {self.user}")):
                if detail:
                    yield Finding(layer, ok=True, elapsed_ms=connected_ms, detail=detail)
            for step in self._steps(session):
                finding = self._asked(step)
                yield finding
                if not finding.ok:
                    return

    def _steps(self, session: Session) -> Iterator[Step]:
        yield Step(
            "database",
            lambda: self._present(session),
            f"Create {session.place!r} there, or correct its name in the settings.",
        )
        yield Step(
            "write",
            lambda: self._written(session),
            f"Let {self.user} create, fill and drop tables in {session.place!r}, and see that space is left.",
        )

    def _present(self, session: Session) -> str:
        if problem := session.problem_of_place():
            raise ConfigError("config.invalid", where=f"destination {self.address}", detail=problem)
        return f"{session.place} is there"

    def _written(self, session: Session) -> str:
        session.probe_writing()
        return "a table was created, filled and removed again"

    def _asked(self, step: Step) -> Finding:
        began_at = time.perf_counter()
        detail, code, layer = "", "", step.layer
        try:
            detail = step.ask()
        except IngestError as error:
            detail, code = str(error), error.code
        except self.session_class.driver_errors as error:
            trouble = self.session_class.explain(error)
            mapped = as_error(trouble, destination=self.address)
            detail, code = str(mapped), mapped.code
            layer = "rights" if trouble.meaning is Meaning.AUTH else layer
        elapsed_ms = (time.perf_counter() - began_at) * 1000
        return Finding(
            layer, ok=not code, elapsed_ms=elapsed_ms, detail=detail, fix=step.fix if code else "", code=code
        )

    def _refusal(self, trouble: Trouble, began_at: float) -> Finding:
        error = as_error(trouble, destination=self.address)
        layer, fix = "server", "Start the server, or wait until it takes connections."
        if any(word in trouble.message.lower() for word in _TLS_WORDS) and trouble.meaning is not Meaning.AUTH:
            layer, fix = "tls", "Correct the TLS setting, the CA file, or the server's certificate."
        elif trouble.meaning is Meaning.AUTH:
            layer, fix = "auth", "Correct user and password, and let the user connect from this machine."
        elif trouble.meaning is Meaning.CONFIG:
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

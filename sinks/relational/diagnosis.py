"""The meaning of a database's error for a delivery, whichever driver it came from."""

from dataclasses import dataclass
from enum import Enum

from ingestion.ports.errors import AuthError, ConfigError, IngestError, SinkRejected, SinkUnavailable
from ingestion.toolkit.redact import redact

LONGEST_MESSAGE = 300
BUSY_RETRY_S = 1.0


class ErrorClass(Enum):
    """The ways to go on after an error."""

    ROW = "row"
    """A row is rejected; the others may land."""
    UNAVAILABLE = "unavailable"
    """Try again later."""
    BUSY = "busy"
    """Somebody holds a lock; try again without counting."""
    STOPPED = "stopped"
    """The statement was broken off: by us, or because it took too long."""
    AUTH = "auth"
    """A credential or a right is missing."""
    CONFIG = "config"
    """A setting is wrong."""
    REJECTED = "rejected"
    """The database will not do this, however often it is asked."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """An error of a database.

    For a rejected row `rule` is the constraint or condition that it broke, `column` the column where the database names
    one, and `at` the row's place within what was written, where it tells.
    """

    error_class: ErrorClass
    message: str
    rule: str = ""
    column: str = ""
    at: int | None = None


def first_line(text: str) -> str:
    """Return what a person should read of a driver's message: one line, without secrets, not too long."""
    line = redact((text.strip().splitlines() or [""])[0])
    return line if len(line) <= LONGEST_MESSAGE else f"{line[: LONGEST_MESSAGE - 3]}..."


def as_error(diagnosis: Diagnosis, *, destination: str) -> IngestError:
    """Return the error that the engine understands."""
    values = {"destination": destination, "detail": diagnosis.message}
    match diagnosis.error_class:
        case ErrorClass.UNAVAILABLE | ErrorClass.STOPPED:
            return SinkUnavailable("sink.unavailable", **values)
        case ErrorClass.BUSY:
            return SinkUnavailable("sink.busy", **values, retry_after_s=BUSY_RETRY_S)
        case ErrorClass.AUTH:
            return AuthError("sink.auth", **values)
        case ErrorClass.CONFIG:
            return ConfigError("config.invalid", where=f"destination {destination}", detail=diagnosis.message)
    return SinkRejected("sink.rejected", **values)

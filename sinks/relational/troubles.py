"""What an error of a database means for us, whichever driver it came from."""

from dataclasses import dataclass
from enum import Enum

from ingestion.ports.errors import AuthError, ConfigError, IngestError, SinkRejected, SinkUnavailable
from ingestion.toolkit.redact import redact

LONGEST_MESSAGE = 300
BUSY_RETRY_S = 1.0


class Meaning(Enum):
    """What to do about an error."""

    ROW = "row"
    """A row is refused; the others may land."""
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
class Trouble:
    """An error of a database.

    For a refused row `rule` is the constraint or condition that it broke, `column` the column where the database names
    one, and `at` the row's place within what was written, where it tells.
    """

    meaning: Meaning
    message: str
    rule: str = ""
    column: str = ""
    at: int | None = None


def first_line(text: str) -> str:
    """Return what a person should read of a driver's message: one line, without secrets, not too long."""
    line = redact((text.strip().splitlines() or [""])[0])
    return line if len(line) <= LONGEST_MESSAGE else f"{line[: LONGEST_MESSAGE - 3]}..."


def as_error(trouble: Trouble, *, destination: str) -> IngestError:
    """Return the error that the engine understands."""
    values = {"destination": destination, "detail": trouble.message}
    match trouble.meaning:
        case Meaning.UNAVAILABLE | Meaning.STOPPED:
            return SinkUnavailable("sink.unavailable", **values)
        case Meaning.BUSY:
            return SinkUnavailable("sink.busy", **values, retry_after_s=BUSY_RETRY_S)
        case Meaning.AUTH:
            return AuthError("sink.auth", **values)
        case Meaning.CONFIG:
            return ConfigError("config.invalid", where=f"destination {destination}", detail=trouble.message)
    return SinkRejected("sink.rejected", **values)

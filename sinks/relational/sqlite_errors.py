"""What SQLite's errors mean, by their names."""

import sqlite3

from sinks.relational.troubles import Meaning, Trouble, first_line


class NotANumberError(ValueError):
    """A float that is no number, which SQLite would store as null."""


_PRIMARY = {
    "SQLITE_CONSTRAINT": Meaning.ROW,
    "SQLITE_TOOBIG": Meaning.ROW,
    "SQLITE_MISMATCH": Meaning.ROW,
    "SQLITE_BUSY": Meaning.BUSY,
    "SQLITE_LOCKED": Meaning.BUSY,
    "SQLITE_PROTOCOL": Meaning.BUSY,
    "SQLITE_IOERR": Meaning.UNAVAILABLE,
    "SQLITE_FULL": Meaning.UNAVAILABLE,
    "SQLITE_NOMEM": Meaning.UNAVAILABLE,
    "SQLITE_CANTOPEN": Meaning.CONFIG,
    "SQLITE_NOTADB": Meaning.CONFIG,
    "SQLITE_CORRUPT": Meaning.CONFIG,
    "SQLITE_READONLY": Meaning.AUTH,
    "SQLITE_PERM": Meaning.AUTH,
    "SQLITE_AUTH": Meaning.AUTH,
    "SQLITE_INTERRUPT": Meaning.STOPPED,
    "SQLITE_ABORT": Meaning.STOPPED,
}
_FAILED = " constraint failed: "


def explain(error: Exception) -> Trouble:
    """Return what an error of sqlite3 means."""
    message = first_line(str(error)) or type(error).__name__
    if isinstance(error, NotANumberError):
        return Trouble(Meaning.ROW, message, rule="not_a_number")
    if not isinstance(error, sqlite3.Error):
        return Trouble(Meaning.UNAVAILABLE, message)
    name = str(getattr(error, "sqlite_errorname", ""))
    primary = "_".join(name.split("_")[:2])
    meaning = _PRIMARY.get(primary, Meaning.REJECTED)
    if meaning is not Meaning.ROW:
        return Trouble(meaning, message)
    # "CHECK constraint failed: price_positive", "NOT NULL constraint failed: samples.formula"
    kind, _, subject = message.partition(_FAILED)
    rule = name.removeprefix("SQLITE_").lower() or "constraint"
    column = subject.partition(", ")[0].rpartition(".")[2] if "." in subject else ""
    return Trouble(meaning, message, rule=subject if kind == "CHECK" and subject else rule, column=column)

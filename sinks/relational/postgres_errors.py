"""What PostgreSQL's errors mean, by their SQLSTATE; a connection that fails has none, so its text has to do."""

import re

import psycopg

from sinks.relational.troubles import Meaning, Trouble, first_line

_CLASSES = {
    "08": Meaning.UNAVAILABLE,  # connection exception
    "09": Meaning.ROW,  # a trigger of the table failed
    "0A": Meaning.REJECTED,  # feature not supported
    "21": Meaning.ROW,  # one row would be touched twice
    "22": Meaning.ROW,  # data exception
    "23": Meaning.ROW,  # integrity constraint violation
    "25": Meaning.UNAVAILABLE,  # invalid transaction state: read only, or idle for too long
    "28": Meaning.AUTH,  # invalid authorization
    "3D": Meaning.CONFIG,  # no such database
    "3F": Meaning.CONFIG,  # no such schema
    "40": Meaning.UNAVAILABLE,  # rollback: serialization failure, deadlock
    "44": Meaning.ROW,  # WITH CHECK OPTION violation
    "53": Meaning.UNAVAILABLE,  # insufficient resources: disk full, out of memory, too many connections
    "54": Meaning.ROW,  # program limit exceeded: a key too long for its index
    "55": Meaning.UNAVAILABLE,  # object not in prerequisite state
    "57": Meaning.UNAVAILABLE,  # operator intervention: shutdown, restart
    "58": Meaning.UNAVAILABLE,  # system error: I/O
    "P0": Meaning.ROW,  # raised by a trigger's function
}
_STATES = {
    "25001": Meaning.REJECTED,
    "42501": Meaning.AUTH,
    "55P03": Meaning.BUSY,
    "55000": Meaning.REJECTED,
    "57014": Meaning.STOPPED,
    "57P04": Meaning.CONFIG,
    "P0000": Meaning.REJECTED,
}
_UNSPOKEN = (
    # English, as servers speak unless told otherwise; another language ends as unavailable, which a person sees, too.
    (r"authentication failed|no pg_hba.conf entry|role \S+ does not exist|no password supplied", Meaning.AUTH),
    (r"is not permitted to log in|permission denied for database|password is required|certificate auth", Meaning.AUTH),
    (r"database \S+ does not exist|invalid connection option|invalid (sslmode|port|integer) value", Meaning.CONFIG),
    (
        r"server does not support SSL|certificate verify failed|root certificate|does not match host name",
        Meaning.CONFIG,
    ),
)
_PLACE = re.compile(r"^COPY .*?, line (\d+)(?:, column ([^:]+))?")


def explain(error: Exception) -> Trouble:
    """Return what an error of psycopg means."""
    if not isinstance(error, psycopg.Error):
        return Trouble(Meaning.UNAVAILABLE, first_line(str(error)) or type(error).__name__)
    state = error.sqlstate
    if not state:
        return Trouble(_meaning_of_text(error), _last_line(str(error)) or type(error).__name__)
    meaning = _STATES.get(state) or _CLASSES.get(state[:2], Meaning.REJECTED)
    diagnosis = error.diag
    message = first_line(diagnosis.message_primary or str(error)) or type(error).__name__
    if meaning is not Meaning.ROW:
        return Trouble(meaning, message)
    place = _PLACE.match(diagnosis.context or "")
    return Trouble(
        meaning,
        message,
        rule=diagnosis.constraint_name or _condition(error, state),
        column=diagnosis.column_name or (place.group(2) if place else "") or "",
        at=int(place.group(1)) - 1 if place else None,
    )


def _meaning_of_text(error: psycopg.Error) -> Meaning:
    text = str(error)
    for pattern, meaning in _UNSPOKEN:
        if re.search(pattern, text):
            return meaning
    # A connection that broke or did not come about; anything else without a state is our own misuse of the driver.
    is_outage = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return (
        Meaning.UNAVAILABLE if is_outage else Meaning.ROW if isinstance(error, psycopg.DataError) else Meaning.REJECTED
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

"""The errors of a store that belongs to a destination, so that they are not taken for errors of our own lake."""

from collections.abc import Iterator
from contextlib import contextmanager

from ingestion.ports.errors import AuthError, ConfigError, IngestError, SinkRejected, SinkUnavailable, StoreCorrupt


@contextmanager
def as_destination(name: str, *, part: str = "") -> Iterator[None]:
    """Give the store's errors with the destination's name; those that have it pass.

    `part` says which part of the destination the store is, where it is not all of it.
    """
    try:
        yield
    except IngestError as error:
        if error.code.startswith("store."):
            raise _of_destination(error, name, part) from error
        raise


def _of_destination(error: IngestError, name: str, part: str) -> IngestError:
    whose = f"its {part}: " if part else ""
    detail = whose + str(error.values.get("detail") or error)
    match error:
        case AuthError():
            return AuthError("sink.auth", destination=name, detail=detail)
        case SinkUnavailable():
            return SinkUnavailable("sink.unavailable", destination=name, detail=detail)
        case StoreCorrupt():
            return SinkRejected("sink.rejected", destination=name, detail=whose + _what(error))
    # Who looks for the causes in a part has remedies of its own, so the store's are left out.
    return ConfigError("config.invalid", where=f"destination {name}", detail=detail if part else str(error).rstrip("."))


def _what(error: StoreCorrupt) -> str:
    key = error.values.get("key")
    known = {
        "store.missing": f"it has no file {key}: it was removed since, or the endpoint is that of no object store",
        "store.corrupt": f"the file {key} has other bytes than were written ({error.values.get('detail')})",
        "store.conflict": f"another file already lies under {key}",
    }
    return known.get(error.code, str(error))

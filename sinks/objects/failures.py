"""The store's errors as the destination's, so that they are not taken for errors of our own lake."""

from collections.abc import Iterator
from contextlib import contextmanager

from ingestion.ports.errors import AuthError, ConfigError, IngestError, SinkRejected, SinkUnavailable, StoreCorrupt


@contextmanager
def as_destination(name: str) -> Iterator[None]:
    """Give the store's errors with the destination's name; those that have it pass."""
    try:
        yield
    except IngestError as error:
        if error.code.startswith("store."):
            raise _of_destination(error, name) from error
        raise


def _of_destination(error: IngestError, name: str) -> IngestError:
    detail = str(error.values.get("detail") or error)
    match error:
        case AuthError():
            return AuthError("sink.auth", destination=name, detail=detail)
        case SinkUnavailable():
            return SinkUnavailable("sink.unavailable", destination=name, detail=detail)
        case StoreCorrupt():
            return SinkRejected("sink.rejected", destination=name, detail=_what(error))
    return ConfigError("config.invalid", where=f"destination {name}", detail=str(error))


def _what(error: StoreCorrupt) -> str:
    key = error.values.get("key")
    known = {
        "store.missing": f"the file {key} is not there any more",
        "store.corrupt": f"the file {key} has other bytes than were written ({error.values.get('detail')})",
        "store.conflict": f"another file already lies under {key}",
    }
    return known.get(error.code, str(error))

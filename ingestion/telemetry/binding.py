"""Ids that every log line of a piece of work carries, so that one run can be followed through all processes."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_bound: ContextVar[dict[str, object]] = ContextVar("bound", default={})  # noqa: B039 (never changed in place)


@contextmanager
def bind(**ids: object) -> Iterator[None]:
    """Add the ids to every log line that is written inside the block."""
    token = _bound.set({**_bound.get(), **ids})
    try:
        yield
    finally:
        _bound.reset(token)


class BindingFilter(logging.Filter):
    """Gives log records `bound`: the bound ids as " name=value name=value", or nothing."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True, always."""
        record.bound = "".join(f" {name}={value}" for name, value in _bound.get().items())
        return True

"""The errors and signals that cross a boundary, split by what the engine does next.

    IngestError
    ├── ConfigError          a person changes a setting; no retry
    ├── AuthError            a person changes a credential; no retry
    ├── Retryable
    │   ├── SourceUnavailable    try again later, the attempt counts
    │   ├── RateLimited          try again after `retry_after_s`, the attempt does not count
    │   └── SinkUnavailable      try again later, the attempt counts
    ├── Rejected
    │   ├── SourceRejected       the source rejects this request; the partition fails
    │   ├── SourceChanged        the source is not what it was; the partition fails
    │   ├── SinkRejected         the destination rejects this delivery; the delivery fails
    │   └── StoreCorrupt         stored bytes are missing or differ from their hash; the work fails
    ├── RowsRejected         rows go to quarantine, the work goes on
    └── Refused              a use case may not be done now (conflict, limit, not found)
    Signal (not an error)
    ├── Cancelled            the run was cancelled
    ├── LeaseLost            somebody else owns the work now; write nothing
    └── DeadlineReached      the worker slot is handed back; the work goes on later

Each error has a stable `code`; the sentence that belongs to it stands in `messages.py`.
Anything else that is raised is our own defect: the work is retried once, then fails with an incident id.
"""

from typing import Any

from ingestion.ports.messages import sentence


class IngestError(Exception):
    """An expected failure: a stable code, the values that explain it, one sentence for a person."""

    def __init__(self, code: str, /, **values: Any) -> None:
        self.code = code
        self.values = values
        super().__init__(code)

    def __str__(self) -> str:
        return sentence(self.code, self.values)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.code, self.values)


def _rebuild(kind: type[IngestError], code: str, values: dict[str, Any]) -> IngestError:
    return kind(code, **values)


class ConfigError(IngestError):
    """A setting is wrong; trying again cannot help."""


class AuthError(IngestError):
    """A credential is missing or refused; trying again cannot help."""


class Retryable(IngestError):
    """The same call may succeed later."""

    @property
    def retry_after_s(self) -> float | None:
        """Return the seconds to wait that the other side named, or None."""
        value = self.values.get("retry_after_s")
        return None if value is None else float(value)


class SourceUnavailable(Retryable):
    """The source does not answer, or answers with a server error."""


class RateLimited(Retryable):
    """The source's limit, or ours, is used up; `retry_after_s` says until when."""


class SinkUnavailable(Retryable):
    """The destination does not answer, or is busy."""


class Rejected(IngestError):
    """The other side has decided; the same call will be rejected again."""


class SourceRejected(Rejected):
    """The source rejects this request."""


class SourceChanged(Rejected):
    """The source's answer is not of the form that was agreed."""


class SinkRejected(Rejected):
    """The destination rejects this delivery."""


def count_mismatch(destination: str, *, stage: str, found: int, expected: int) -> SinkRejected:
    """Return the error that names the stage of a delivery after which rows are missing, and how many."""
    counts = {"found": found, "expected": expected, "short": expected - found}
    return SinkRejected("sink.count_mismatch", destination=destination, stage=stage, **counts)


class StoreCorrupt(Rejected):
    """A stored object is missing, or its bytes are not the ones that were recorded."""


class RowsRejected(IngestError):
    """Some rows cannot be taken; they go to quarantine and the rest goes on."""


class Refused(IngestError):
    """A use case may not be done now; nothing was changed."""


class Signal(Exception):
    """A reason to stop that is not an error."""


class Cancelled(Signal):
    """The run was cancelled by a person."""


class LeaseLost(Signal):
    """Somebody else owns the work; nothing more may be written."""


class DeadlineReached(Signal):
    """The worker slot is handed back; the work stays where it is and goes on later."""

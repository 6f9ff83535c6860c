"""The context: all that a plugin is handed to cause effects with; nothing else of the core reaches it."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

if TYPE_CHECKING:
    from ingestion.ports.check import CheckReport
    from ingestion.ports.errors import Signal
    from ingestion.ports.publication import DeliveryView, Manifest, PartView, Receipt
    from ingestion.ports.schema import Column


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A whole answer: the body is complete, within the size limit, and decoded from its transfer encoding."""

    status: int
    url: str
    headers: Mapping[str, str]
    body: bytes
    elapsed_ms: float


class HttpClient(Protocol):
    """HTTP behind the egress guard, the limiter and one retry policy; errors are those of `ports.errors`."""

    def get(
        self,
        url: str,
        *,
        params: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        accept_status: Sequence[int] = (),
    ) -> HttpResponse:
        """Return the answer to a GET; a status from 400 raises unless it is in `accept_status`."""
        ...

    def post(
        self,
        url: str,
        *,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        accept_status: Sequence[int] = (),
        is_repeatable: bool = False,
    ) -> HttpResponse:
        """Return the answer to a POST of `json`; statuses as in `get`.

        Only one that is repeatable (a search) is sent again where it is unclear whether the first one arrived.
        """
        ...

    def probe(self, url: str, *, headers: Mapping[str, str] | None = None) -> "CheckReport":
        """Return which layer between here and a GET of the URL fails: dns, tcp, tls, http, auth."""
        ...

    def slow_down(self, seconds: float) -> None:
        """Make all workers silent towards the source for that long, an hour at most: it asked for it."""
        ...

    def variant(self, *, ca_file: str | None = None, deadline_s: float | None = None) -> "HttpClient":
        """Return a client that trusts another authority, or gives up sooner; it ends with this one."""
        ...


class Limiter(Protocol):
    """The shared rate limit, exact over all worker processes."""

    def acquire(self, key: str, *, tokens: int = 1) -> float:
        """Wait for permission and return the seconds waited; RateLimited where the wait would be long."""
        ...

    def slow_down(self, key: str, *, seconds: float) -> None:
        """Grant nothing on `key` for that long: the other side asked for it."""
        ...


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """The facts that a store knows of one object; `sha256` is None where the store was not told."""

    key: str
    size_bytes: int
    sha256: str | None
    modified_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class BucketPlace:
    """Place of one object in a bucket, for another system that reads it."""

    bucket: str
    path: str
    endpoint: str | None
    region: str | None
    path_style: bool


class Lake(Protocol):
    """Immutable objects under deterministic keys, on a local directory or an S3 bucket."""

    def put_if_absent(self, key: str, source: bytes | Path, *, sha256: str | None = None) -> ObjectInfo:
        """Store the object unless it is there; the same content there already is success, other content StoreCorrupt."""
        ...

    def put(self, key: str, source: bytes | Path, *, sha256: str | None = None) -> ObjectInfo:
        """Store the object, replacing what is there; only for pointers that are meant to move."""
        ...

    def writer(self, key: str) -> "LakeWriter":
        """Return a writer that streams one object of unknown length; nothing is seen before `commit`."""
        ...

    def open(self, key: str) -> BinaryIO:
        """Return the object as a seekable binary file; StoreCorrupt where it is missing."""
        ...

    def read(self, key: str, *, offset: int = 0, length: int | None = None) -> bytes:
        """Return `length` bytes from `offset`, or all that follow it."""
        ...

    def head(self, key: str) -> ObjectInfo | None:
        """Return what the store knows of the object, or None."""
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects whose key begins with `prefix`, in key order."""
        ...

    def delete(self, key: str) -> None:
        """Remove the object; nothing happens where it is not there."""
        ...

    def presign(self, key: str, *, expires_s: int) -> str:
        """Return a URL that reads this one object until it expires."""
        ...

    def local_path(self, key: str) -> Path | None:
        """Return the local file that holds the object, or None where the store is elsewhere: then `open` it."""
        ...

    def place(self, key: str) -> BucketPlace | None:
        """Return where in a bucket the object lies, or None where the store is none."""
        ...


class LakeWriter(Protocol):
    """One object being written; `write` hashes as it goes."""

    size_bytes: int

    def write(self, data: bytes) -> None:
        """Append the bytes."""
        ...

    def commit(self) -> ObjectInfo:
        """Make the object visible, durable and immutable, and return its size and SHA-256."""
        ...

    def abort(self) -> None:
        """Remove what was written; harmless after `commit`."""
        ...


class CatalogStore(Protocol):
    """The published records in our own database, as a sink needs them; all calls are idempotent."""

    def stage(self, part: "PartView", delivery: "DeliveryView", *, open_part: Callable[[], BinaryIO]) -> "Receipt":
        """Load the part's rows where no reader sees them yet."""
        ...

    def commit(self, delivery: "DeliveryView") -> "Receipt":
        """Merge the staged rows by key and make them visible at once; counts as of the first call."""
        ...

    def count(self, delivery: "DeliveryView") -> int:
        """Return how many of this run's rows a reader sees."""
        ...

    def abort(self, delivery: "DeliveryView") -> None:
        """Remove what was staged and never became visible."""
        ...


class PublishedRuns(Protocol):
    """The manifests of other runs, for a sink that has to write rows of theirs again."""

    def state(self, pipeline_id: int) -> Sequence["Manifest"]:
        """Return the manifests of the pipeline's published state, in the order of runs."""
        ...

    def delivered(self, delivery: "DeliveryView") -> Sequence["Manifest"]:
        """Return what the destination holds of the pipeline beside this delivery, in the order of runs.

        These are the verified deliveries into it since the last full refresh there, also those of later runs.
        """
        ...

    def manifests(self, run_ids: Collection[int], *, pipeline_id: int) -> Mapping[int, "Manifest | None"]:
        """Return by run id what the run has published or is about to.

        None stands for a run of the pipeline that was cancelled or has failed: none of its rows may be seen. A run of
        another pipeline, or an unknown one, is left out.
        """
        ...


def _no_event(kind: str, /, **values: Any) -> None: ...


def _no_cast(_values: Any, column: "Column", /) -> "tuple[Any, Any]":
    msg = f"this context casts no values, such as those of {column.name}"
    raise NotImplementedError(msg)


def _never(_callback: "Callable[[Signal], None]", /) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass(frozen=True, slots=True)
class Context:
    """Everything with an effect that a plugin may use.

    `beat` says that work goes on, and raises the Signal that says why where it must stop (cancelled, lease lost, worker
    slot due): call it at least once per page or block, and hand it to what works for you. `with on_stop(callback)` has
    `callback` called from another thread, within HEADGATE_WATCH_S, if the block must be broken off. `log` writes an
    event of the run (a dotted kind and JSON values, never secrets); `partition_bytes` is how much raw data a partition
    may have.

    `cast(values, column)` reads values of one column (a series of polars) as a contract that declares it so would, and
    returns them with the positions of those that are none; these are null.
    """

    http: HttpClient
    limiter: Limiter
    lake: Lake
    clock: Callable[[], datetime]
    catalog: CatalogStore | None = None
    published: PublishedRuns | None = None
    beat: Callable[[], None] = lambda: None
    on_stop: "Callable[[Callable[[Signal], None]], AbstractContextManager[None]]" = _never
    log: Callable[..., None] = field(default=_no_event)
    cast: "Callable[[Any, Column], tuple[Any, Any]]" = _no_cast
    scratch: Path | None = None
    partition_bytes: int = 64 * 1024 * 1024

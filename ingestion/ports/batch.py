"""Values that travel between the stages: queries, partitions, pages, raw records."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, TypeAlias

Cursor: TypeAlias = Mapping[str, Any]
"""Place up to which a stream was read: JSON values only, written and understood by its connector alone."""

ROW = "_row"
"""Row number in the source, from 0; what a person can look up in the file or page."""
PAGE = "_page"
"""Sequence number of the raw page a record came from."""
RAW = "_raw"
"""The record as it arrived, as JSON text; where absent it is made from the row's own columns."""
ERROR_CODE = "_error_code"
"""Stable code of the reason why a record could not be read; null for a readable one."""
ERROR = "_error"
"""The sentence that belongs to `_error_code`."""
FILTERED = "_filtered"
"""True for a record outside the query (beyond its limit); counted, not published."""
READER_COLUMNS = (ROW, PAGE, RAW, ERROR_CODE, ERROR, FILTERED)
DELIMITER = b"headgate.delimiter"
"""The key, in the metadata of a table that was read from text, of what stood between its cells."""

RUN = "_run"
PART = "_part"
CLEAN_COLUMNS = (RUN, PART, ROW, PAGE)
"""Columns that every clean row carries besides its data: run id, "<lane>-<link>", row number, page."""


@dataclass(frozen=True, slots=True)
class StoredInput:
    """A file that is in our lake already, such as an upload."""

    key: str
    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Query:
    """A question to a source."""

    stream: str
    filter: str | None = None
    fields: tuple[str, ...] = ()
    limit: int | None = None
    inputs: tuple[StoredInput, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PartitionSpec:
    """A bounded piece of a run's work, as its connector described it in planning.

    `lane` numbers from 0 and orders the records of a run; `data` is JSON that `fetch` and `standardize` get back.
    """

    lane: int
    data: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    expected_records: int | None = None


@dataclass(frozen=True, slots=True)
class StoredSpan:
    """Bytes that already lie in the lake: `length` bytes of `key` from `offset`; `sha256` is the whole object's."""

    key: str
    offset: int
    length: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Page:
    """One response body as received, or one span of a stored file, and where to go on after it.

    `next_cursor` is None on the last page. Headers and url carry no secrets. `total` is how many records the source
    announces for all pages of the partition's lane; it may change from page to page.
    """

    body: bytes
    next_cursor: Cursor | None
    url: str = ""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    record_count: int | None = None
    total: int | None = None
    stored: StoredSpan | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RawPage:
    """One stored page, read back for standardizing; `read` gives its bytes, `open` the whole seekable object."""

    seq: int
    url: str
    read: Callable[[], bytes]
    open: Callable[[], BinaryIO]
    offset: int = 0
    length: int = 0


@dataclass(frozen=True, slots=True)
class Records:
    """The raw pages of one partition, in order, with what is needed to understand them."""

    pages: Sequence[RawPage]
    spec: PartitionSpec
    query: Query

"""The contract of a connector: how records come out of a place."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from pydantic import BaseModel

from ingestion.ports.batch import Cursor, Page, PartitionSpec, Query, Records
from ingestion.ports.check import CheckReport
from ingestion.ports.context import Context
from ingestion.ports.schema import ContractBody

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Stream:
    """One named collection of records that a source offers.

    `cursor_field` names the field that only grows (None: no incremental reading). `is_file` decides which of two
    records with one key stays: the first in a file, else the highest cursor_field value, then the last.
    """

    name: str
    key: tuple[str, ...] = ()
    cursor_field: str | None = None
    schema: ContractBody | None = None
    is_file: bool = False
    description: str = ""


@runtime_checkable
class TakesUploads(Protocol):
    """The ability of a connector class to read files that people send; `upload_stream` names the stream of their rows."""

    upload_stream: ClassVar[str]


@runtime_checkable
class Connector(Protocol):
    """Reads one kind of source. Built with its validated Config; holds no other state."""

    kind: ClassVar[str]
    Config: ClassVar[type[BaseModel]]

    def streams(self) -> Sequence[Stream]:
        """Return the streams this source offers, without asking it."""
        ...

    def check(self, ctx: Context) -> CheckReport:
        """Return which layer answers and which does not: dns, tcp, tls, http, auth, schema."""
        ...

    def plan(self, query: Query, since: Cursor | None, ctx: Context) -> Iterable[PartitionSpec]:
        """Yield the partitions of a run, lanes numbered from 0; the same question gives the same partitions."""
        ...

    def fetch(self, spec: PartitionSpec, cursor: Cursor | None, ctx: Context) -> Iterator[Page]:
        """Yield pages from `cursor` on (None: from the start); every page's `next_cursor` must resume after it."""
        ...

    def standardize(self, records: Records, stream: Stream) -> "pa.Table":
        """Return the records as one Arrow table, in order, with the reader columns of `ports.batch`. Pure.

        A record that cannot be read is a row with `_error_code`, `_error` and `_raw`, never an exception.
        """
        ...

    def checkpoint(self, spec: PartitionSpec, since: Cursor | None, high_water: str | None) -> Cursor | None:
        """Return the cursor that the next incremental run may begin from, or None where the stream has none.

        `high_water` is the greatest accepted value of the stream's cursor_field, as ISO text. Pure.
        """
        ...

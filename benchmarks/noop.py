"""A source with any number of partitions and nothing in them: what is left is the cost of the stages."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel

from ingestion.ports.batch import Cursor, Page, PartitionSpec, Query, Records
from ingestion.ports.check import CheckReport
from ingestion.ports.connector import Stream
from ingestion.ports.context import Context

if TYPE_CHECKING:
    import pyarrow as pa


class NoopConfig(BaseModel):
    """Configuration of a source: the number of its partitions."""

    partitions: int = 1


class NoopConnector:
    """Plans partitions and finds them empty."""

    kind: ClassVar[str] = "noop"
    Config: ClassVar[type[BaseModel]] = NoopConfig

    def __init__(self, config: NoopConfig) -> None:
        self._config = config

    def streams(self) -> Sequence[Stream]:
        """Return the one stream."""
        return (Stream("nothing"),)

    def check(self, ctx: Context) -> CheckReport:
        """Return that all is well."""
        return CheckReport()

    def plan(self, query: Query, since: Cursor | None, ctx: Context) -> Iterable[PartitionSpec]:
        """Yield as many partitions as configured."""
        for lane in range(self._config.partitions):
            yield PartitionSpec(lane)

    def fetch(self, spec: PartitionSpec, cursor: Cursor | None, ctx: Context) -> Iterator[Page]:
        """Yield nothing."""
        return iter(())

    def standardize(self, records: Records, stream: Stream) -> "pa.Table":
        """Return an empty table."""
        import polars as pl

        # Made by polars: pyarrow imports pandas for what it makes of Python values.
        return pl.DataFrame(schema={"id": pl.Int64}).to_arrow()

    def checkpoint(self, spec: PartitionSpec, since: Cursor | None, high_water: str | None) -> Cursor | None:
        """Return None: every run reads everything."""
        return None

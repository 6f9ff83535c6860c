"""Files that lie in the lake already: CSV, JSON Lines, JSON, Parquet and XLSX."""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, BinaryIO, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ingestion.ports.batch import (
    FILTERED,
    READER_COLUMNS,
    ROW,
    Cursor,
    Page,
    PartitionSpec,
    Query,
    Records,
    StoredInput,
    StoredSpan,
)
from ingestion.ports.check import CheckReport
from ingestion.ports.connector import Stream
from ingestion.ports.context import Context
from ingestion.ports.errors import ConfigError, StoreCorrupt
from ingestion.ports.messages import sentence
from ingestion.toolkit.http.probe import Steps
from ingestion.toolkit.tabular.spans import Opener, Span

if TYPE_CHECKING:
    import pyarrow as pa

STREAM = "rows"
_CHECK_PREFIX = "uploads/"


class FilesConfig(BaseModel):
    """Instructions for reading files; what is not said is told from each file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Annotated[
        Literal["auto", "csv", "jsonl", "json", "parquet", "xlsx"],
        Field(description="Format of the files; auto tells it from their content."),
    ] = "auto"
    delimiter: Annotated[
        str | None,
        Field(min_length=1, max_length=1, pattern=r"^[ -~\t]$", description="CSV: what stands between cells."),
    ] = None
    quote: Annotated[
        str | None, Field(min_length=1, max_length=1, pattern=r"^[!-~]$", description="CSV: what stands around cells.")
    ] = None
    sheet: Annotated[
        str | None, Field(max_length=31, description="XLSX: the sheet to read, else the first visible.")
    ] = None
    encoding: Annotated[Literal["utf-8"], Field(description="Encoding of text files.")] = "utf-8"


class FilesConnector:
    """Reads the files that a query names; each is cut into spans of about 64 MB where its format allows."""

    kind: ClassVar[str] = "files"
    upload_stream: ClassVar[str] = STREAM
    messages: ClassVar[Mapping[str, str]] = {"file.no_rows": "{name} holds a header but no rows."}
    Config: ClassVar[type[BaseModel]] = FilesConfig

    def __init__(self, config: FilesConfig | None = None, *, target_bytes: int | None = None) -> None:
        self._config = config or FilesConfig()
        self._target_bytes = target_bytes

    def streams(self) -> Sequence[Stream]:
        """Return the one stream of all records."""
        return (Stream(STREAM, is_file=True, description="The records of the files, in file order."),)

    def check(self, ctx: Context) -> CheckReport:
        """Return whether the lake, where the files lie, answers."""
        with Steps() as steps:
            steps.take("store", lambda: next(iter(ctx.lake.list(_CHECK_PREFIX)), None), detail=lambda _: "")
        return steps.report

    def plan(self, query: Query, since: Cursor | None, ctx: Context) -> Iterable[PartitionSpec]:
        """Yield one partition per span of each file; files without rows leave the event file.no_rows.

        A file that cannot be used as a whole is a ConfigError with a `file.*` code, before anything is ingested.
        """
        config = self._overridden(query)
        lane = rows_before = 0
        for number, stored in enumerate(query.inputs):
            _check_there(stored, ctx)
            opener = partial(_open_watched, stored.key, ctx)
            spans = self._split(opener, stored, config, ctx)
            if query.limit is not None and number + 1 < len(query.inputs):
                spans = [_counted(opener, span, name=stored.name) for span in spans]
            if spans[0].renamed:
                ctx.log("file.renamed_columns", name=stored.name, renamed=dict(spans[0].renamed))
            for note in spans[0].notes:
                ctx.log("file.choice", name=stored.name, message=note)
            if len(spans) == 1 and spans[0].row_count == 0:
                message = sentence("file.no_rows", {"name": stored.name})
                ctx.log("file.no_rows", level="warning", name=stored.name, message=message)
            for span in spans:
                data = {"key": stored.key, "name": stored.name, "sha256": stored.sha256, "rows_before": rows_before}
                yield PartitionSpec(
                    lane=lane,
                    data={**data, **span.to_data()},
                    label=_label(stored.name, span, span_count=len(spans)),
                    expected_records=span.row_count,
                )
                lane += 1
            rows_before += sum(span.row_count or 0 for span in spans)

    def fetch(self, spec: PartitionSpec, cursor: Cursor | None, ctx: Context) -> Iterator[Page]:
        """Yield the partition's one page, which points at bytes that are in the lake already; nothing is copied."""
        ctx.beat()
        data = spec.data
        info = ctx.lake.head(data["key"])
        if info is None:
            raise StoreCorrupt("store.missing", key=data["key"])
        if info.size_bytes < data["offset"] + data["length"]:
            detail = f"{info.size_bytes} bytes where {data['offset'] + data['length']} are needed"
            raise StoreCorrupt("store.corrupt", key=data["key"], detail=detail)
        yield Page(
            body=b"",
            next_cursor=None,
            url=data["name"],
            record_count=data["row_count"],
            stored=StoredSpan(data["key"], data["offset"], data["length"], data["sha256"]),
        )

    def standardize(self, records: Records, stream: Stream) -> "pa.Table":
        """Return the span's records in file order; beyond the query's limit they are marked as filtered.

        Text columns of CSV and XLSX are Arrow string views (`pl.from_arrow` takes them over without a copy).
        """
        from ingestion.toolkit.tabular.formats import read_span  # noqa: PLC0415 - polars and pyarrow

        span, name = Span.from_data(records.spec.data), records.spec.data["name"]
        page = records.pages[0]
        table = read_span(page.open, span, name=name)
        if records.query.fields:
            wanted = {*records.query.fields, *READER_COLUMNS}
            table = table.select([column for column in table.column_names if column in wanted])
        limit = records.query.limit
        if limit is not None:
            import pyarrow.compute as pc  # noqa: PLC0415 - heavy

            left = limit - records.spec.data["rows_before"]
            table = table.append_column(FILTERED, pc.greater_equal(table.column(ROW), left))
        return table

    def checkpoint(self, spec: PartitionSpec, since: Cursor | None, high_water: str | None) -> Cursor | None:
        """Return None: every run reads the files it is given."""
        return None

    def _overridden(self, query: Query) -> FilesConfig:
        """Return the Config with the query's options over it."""
        if query.filter:
            raise ConfigError("config.invalid", where="the query", detail="filter: files cannot be filtered")
        try:
            return FilesConfig.model_validate({**self._config.model_dump(), **query.options})
        except ValidationError as error:
            detail = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
            raise ConfigError("config.invalid", where="the query's options", detail=detail) from error

    def _split(self, opener: Opener, stored: StoredInput, config: FilesConfig, ctx: Context) -> list[Span]:
        from ingestion.toolkit.tabular.formats import split_file  # noqa: PLC0415 - polars and pyarrow

        options = {"delimiter": config.delimiter, "quote": config.quote, "sheet": config.sheet}
        return split_file(
            opener,
            stored.size_bytes,
            name=stored.name,
            wanted=None if config.format == "auto" else config.format,
            options={option: value for option, value in options.items() if value is not None},
            target_bytes=self._target_bytes or ctx.partition_bytes,
        )


class _Watched(io.RawIOBase):
    """The file with a heartbeat: every read says that work goes on, and stops it where the run was cancelled."""

    def __init__(self, file: BinaryIO, ctx: Context) -> None:
        self._file, self._ctx = file, ctx

    def read(self, size: int | None = -1, /) -> bytes:
        self._ctx.beat()
        return self._file.read(-1 if size is None else size)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()


def _open_watched(key: str, ctx: Context) -> BinaryIO:
    path = ctx.lake.local_path(key)
    file = path.open("rb") if path is not None else ctx.lake.open(key)
    return _Watched(file, ctx)  # type: ignore[return-value]


def _check_there(stored: StoredInput, ctx: Context) -> None:
    info = ctx.lake.head(stored.key)
    if info is None:
        raise StoreCorrupt("store.missing", key=stored.key)
    if info.size_bytes != stored.size_bytes:
        detail = f"{info.size_bytes} bytes instead of {stored.size_bytes}"
        raise StoreCorrupt("store.corrupt", key=stored.key, detail=detail)


def _counted(opener: Opener, span: Span, *, name: str) -> Span:
    """Return the span with its record count, read for it where splitting could not tell."""
    from ingestion.toolkit.tabular.formats import read_span  # noqa: PLC0415 - polars and pyarrow

    if span.row_count is not None:
        return span
    return replace(span, row_count=read_span(opener, span, name=name).num_rows)


def _label(name: str, span: Span, *, span_count: int) -> str:
    if span_count == 1:
        return name
    return f"{name} from row {span.first_row + 1}"

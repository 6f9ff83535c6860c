"""The file formats that rows are written in, by name and by a file's extension."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingestion.ports.errors import ConfigError

if TYPE_CHECKING:
    from ingestion.toolkit.clean.sequence import RowSequence

MEDIA_TYPES = {
    "csv": "text/csv; charset=utf-8",
    "jsonl": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
EXTENSIONS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".xlsx": "xlsx"}


def format_of(path: Path) -> str:
    """Return the format that a file's extension names; ConfigError for another."""
    found = EXTENSIONS.get(path.suffix.lower())
    if found is None:
        raise ConfigError("file.unknown_output", name=path.name, known=", ".join(EXTENSIONS))
    return found


def write(
    rows: "RowSequence", *, file_format: str, after: int = 0, limit: int | None = None, scratch: Path
) -> Iterator[bytes]:
    """Yield the rows behind row `after`, at most `limit`, as a file; memory does not grow with their number.

    A workbook is written into `scratch` first; ConfigError where it would not hold the rows.
    """
    from ingestion.toolkit.rows import workbook, writers  # noqa: PLC0415 - they load pyarrow, polars, pandas

    wanted: dict[str, Any] = {"after": after, "limit": limit}
    if file_format == "xlsx":
        return workbook.write_xlsx(rows, scratch=scratch, **wanted)
    return {"csv": writers.write_csv, "jsonl": writers.write_jsonl, "parquet": writers.write_parquet}[file_format](
        rows, **wanted
    )

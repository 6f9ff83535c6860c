"""The accepted rows of a run as a file, straight from the parts that its manifest names."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from ingestion.models import PUBLISHED_RUN_STATES, Run
from ingestion.ports.batch import CLEAN_COLUMNS
from ingestion.ports.errors import ConfigError, Refused
from ingestion.runs.lake import open_lake
from ingestion.runs.manifests import contract_body, manifest_of
from ingestion.toolkit.spreadsheets import defuse

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
_BATCH_ROWS = 10_000


def output_format(path: Path) -> str:
    """Return csv, jsonl or parquet by the file's extension; ConfigError for another."""
    found = FORMATS.get(path.suffix.lower())
    if found is None:
        raise ConfigError("file.unknown_output", name=path.name, known=", ".join(FORMATS))
    return found


def export_accepted(run: Run, path: Path, *, fields: Sequence[str] = ()) -> int:
    """Write what the run published into a file, in the format its extension names, and return how many rows.

    With `fields`, only these and the key are written. The file is there whole or not at all. In CSV a cell that a spreadsheet would take for a formula begins with an
    apostrophe, and nested values are JSON.
    """
    write = {"csv": _write_csv, "jsonl": _write_jsonl, "parquet": _write_parquet}[output_format(path)]
    _ensure_published(run)
    partial = path.with_name(f".{path.name}.part")
    try:
        with partial.open("wb") as file:
            rows = write(run, file, fields)
        partial.replace(path)
    except OSError as error:
        raise ConfigError("file.unwritable", name=str(path), detail=error.strerror or type(error).__name__) from error
    finally:
        partial.unlink(missing_ok=True)
    return rows


def write_accepted(run: Run, file: BinaryIO, *, fields: Sequence[str] = ()) -> int:
    """Write what the run published as JSON Lines and return how many rows; with `fields`, only these and the key."""
    _ensure_published(run)
    return _write_jsonl(run, file, fields)


def _ensure_published(run: Run) -> None:
    if run.state not in PUBLISHED_RUN_STATES:
        raise Refused("run.not_published", run=run.pk)


def _write_jsonl(run: Run, file: BinaryIO, fields: Sequence[str]) -> int:
    rows = 0
    for batch in _batches(run, fields):
        for row in batch.to_pylist():
            file.write(json.dumps(row, ensure_ascii=False, default=_plain).encode() + b"\n")
            rows += 1
    return rows


def _write_csv(run: Run, file: BinaryIO, fields: Sequence[str]) -> int:
    rows = 0
    names = _schema(run, fields).names
    with _as_text(file) as text:
        writer = csv.DictWriter(text, names, lineterminator="\r\n")
        writer.writeheader()
        for batch in _batches(run, fields):
            for row in batch.to_pylist():
                writer.writerow({name: defuse(_cell(value)) for name, value in row.items()})
                rows += 1
    return rows


def _write_parquet(run: Run, file: BinaryIO, fields: Sequence[str]) -> int:
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    rows = 0
    schema = _schema(run, fields)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in _batches(run, fields):
            columns = [
                batch.column(field.name).cast(field.type)
                if field.name in batch.schema.names
                else pa.nulls(batch.num_rows, field.type)
                for field in schema
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
            rows += batch.num_rows
    return rows


def _schema(run: Run, fields: Sequence[str]) -> "pa.Schema":
    """Return the data columns of all parts: later ones may have columns that the first has not."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    schemas = []
    for part in manifest_of(run).parts:
        with open_lake().open(part.key) as stored:
            schemas.append(pq.read_schema(stored).remove_metadata())
    whole = pa.unify_schemas(schemas, promote_options="permissive") if schemas else pa.schema([])
    is_wanted = _choice(run, fields)
    return pa.schema([field for field in whole if is_wanted(field.name)])


def _batches(run: Run, fields: Sequence[str]) -> Iterator["pa.RecordBatch"]:
    """Yield the published rows in (lane, link, row) order, without the columns that Headgate added."""
    import pyarrow.parquet as pq  # noqa: PLC0415

    is_wanted = _choice(run, fields)
    for part in manifest_of(run).parts:
        with open_lake().open(part.key) as stored:
            file = pq.ParquetFile(stored)
            columns = [name for name in file.schema_arrow.names if is_wanted(name)]
            yield from file.iter_batches(batch_size=_BATCH_ROWS, columns=columns)


def _choice(run: Run, fields: Sequence[str]) -> Callable[[str], bool]:
    chosen = {*fields, *contract_body(run).key} if fields else None
    return lambda name: name not in CLEAN_COLUMNS and (chosen is None or name in chosen)


@contextmanager
def _as_text(file: BinaryIO) -> Iterator[IO[str]]:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    yield text
    text.detach()


def _cell(value: Any) -> Any:
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False, default=_plain)
    return _plain(value) if hasattr(value, "isoformat") else value


def _plain(value: Any) -> str:
    isoformat: Callable[[], str] | None = getattr(value, "isoformat", None)
    return isoformat() if isoformat else str(value)

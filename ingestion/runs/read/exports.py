"""Published rows with fixed positions: of one run, or of a pipeline's state; and as files.

Whatever the face, rows are chosen here and written by `toolkit/rows`: the command line, the API, a fetch into a file.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from django.conf import settings

from ingestion.models import Pipeline, Run
from ingestion.ports.errors import ConfigError, Refused
from ingestion.ports.publication import Manifest
from ingestion.runs.read.current_rows import replaced_rows
from ingestion.runs.record.lake import open_lake
from ingestion.runs.record.views import (
    contract_body,
    ensure_published,
    latest_publication,
    manifest_of,
    published_state,
)
from ingestion.toolkit.clean.kinds import LINEAGE, PartShape, agreed_kinds, declared_kinds
from ingestion.toolkit.rows.formats import format_of, write

if TYPE_CHECKING:
    from ingestion.toolkit.clean.sequence import RowSequence


@dataclass(frozen=True, slots=True)
class Published:
    """Rows that were published, in an order that never changes; `publication` is the run that names this state."""

    pipeline: str
    publication: int
    rows: "RowSequence"


def rows_of_run(run: Run, *, columns: Sequence[str] = (), with_lineage: bool = False) -> Published:
    """Return what the run published, in (lane, link, row) order; Refused for one that was not.

    `columns` chooses columns and their order; ConfigError for one that is not there.
    """
    ensure_published(run)
    rows = _sequence([manifest_of(run)])
    return Published(run.pipeline.name, run.pk, _choose(rows, columns, with_lineage=with_lineage))


def rows_of_pipeline(
    pipeline: Pipeline,
    *,
    publication: int | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    columns: Sequence[str] = (),
    with_lineage: bool = False,
) -> Published:
    """Return the pipeline's published state, oldest run first; of each key of a merging pipeline the latest row.

    With `publication` the state as that run's publication left it; ConfigError where it is none of the pipeline's.
    `since` and `until` choose rows with an event time in [since, until): the contract's time column, else the run's
    logical time.
    """
    newest = latest_publication(pipeline) if publication is None else _publication(pipeline, publication)
    if newest is None:
        raise Refused("pipeline.not_published", pipeline=pipeline.name)
    rows = _sequence(published_state(pipeline, until=newest), since=since, until=until)
    return Published(pipeline.name, newest.pk, _choose(rows, columns, with_lineage=with_lineage))


def export_accepted(run: Run, path: Path, *, fields: Sequence[str] = ()) -> int:
    """Write what the run published into a file, in the format its extension names, and return how many rows.

    With `fields`, only these and the key are written.
    """
    file_format = format_of(path)
    return save(_with_key(run, fields), path, file_format=file_format)


def write_accepted(run: Run, file: BinaryIO, *, fields: Sequence[str] = ()) -> int:
    """Write what the run published as JSON Lines and return how many rows; with `fields`, only these and the key."""
    return pour(_with_key(run, fields), file, file_format="jsonl")


def save(published: Published, path: Path, *, file_format: str, limit: int | None = None) -> int:
    """Write the rows, at most `limit`, into a file that is there whole or not at all; return how many."""
    partial = path.with_name(f".{path.name}.part")
    try:
        with partial.open("wb") as file:
            count = pour(published, file, file_format=file_format, limit=limit)
        partial.replace(path)
    except OSError as error:
        raise ConfigError("file.unwritable", name=str(path), detail=error.strerror or type(error).__name__) from error
    finally:
        partial.unlink(missing_ok=True)
    return count


def pour(published: Published, file: BinaryIO, *, file_format: str, limit: int | None = None) -> int:
    """Write the rows, at most `limit`, into an open file; return how many."""
    file.writelines(download(published, file_format=file_format, limit=limit))
    return published.rows.total if limit is None else min(limit, published.rows.total)


def download(published: Published, *, file_format: str, after: int = 0, limit: int | None = None) -> Iterator[bytes]:
    """Yield the rows behind row `after`, at most `limit`, as a file, block by block."""
    scratch: Path = settings.HEADGATE_DATA_DIR / "scratch"
    return write(published.rows, file_format=file_format, after=after, limit=limit, scratch=scratch)


def page(published: Published, *, after: int, limit: int) -> list[dict[str, Any]]:
    """Return the rows behind row `after`, at most `limit`, as mappings; what lies before is not read."""
    from ingestion.toolkit.rows.writers import python_rows  # noqa: PLC0415 (heavy)

    names = list(published.rows.kinds)
    batches = published.rows.batches(after=after, limit=limit)
    return [dict(zip(names, row, strict=True)) for batch in batches for row in python_rows(batch)]


def _publication(pipeline: Pipeline, number: int) -> Run:
    found = Run.objects.filter(pipeline=pipeline, pk=number, published_at__isnull=False).first()
    if found is None:
        raise ConfigError("pipeline.unknown_publication", pipeline=pipeline.name, run=number)
    return found


def _with_key(run: Run, fields: Sequence[str]) -> Published:
    """Return the run's rows with the key and those of the fields that there are; a source may not have all of them."""
    published = rows_of_run(run)
    if not fields:
        return published
    wanted = {*fields, *contract_body(run).key}
    chosen = [name for name in published.rows.kinds if name in wanted]
    return Published(published.pipeline, published.publication, published.rows.choose(chosen))


def _choose(rows: "RowSequence", columns: Sequence[str], *, with_lineage: bool) -> "RowSequence":
    known = [name for name in rows.kinds if with_lineage or name not in LINEAGE]
    for name in columns:
        if name not in rows.kinds:
            raise ConfigError("export.unknown_column", column=name, known=", ".join(rows.kinds))
    lineage = [name for name in LINEAGE if with_lineage and name not in columns]
    return rows.choose([*dict.fromkeys(columns), *lineage] if columns else known)


def _sequence(
    manifests: Sequence[Manifest], *, since: datetime | None = None, until: datetime | None = None
) -> "RowSequence":
    from ingestion.toolkit.clean.reader import read_shape  # noqa: PLC0415 (heavy)
    from ingestion.toolkit.clean.sequence import Piece, RowSequence, Window  # noqa: PLC0415 (heavy)

    lake = open_lake()
    replaced = replaced_rows(manifests)
    pieces: list[Piece] = []
    shapes: list[PartShape] = []
    number = -1
    for manifest in manifests:
        has_times = manifest.contract.time is not None
        is_chosen = has_times or _is_within(datetime.fromisoformat(manifest.logical_time), since=since, until=until)
        window = Window(str(manifest.contract.time), since, until) if has_times and (since or until) else None
        for part in manifest.parts:
            number += 1
            shape = read_shape(lake, part)
            shapes.append(shape)
            if is_chosen:
                pieces.append(Piece(part, shape, dropped=replaced.get(number), window=window))
    declared = {
        name: kind for manifest in manifests for name, kind in declared_kinds(manifest.contract.columns).items()
    }
    return RowSequence(lake, pieces, kinds=agreed_kinds(shapes, declared=declared))


def _is_within(at: datetime, *, since: datetime | None, until: datetime | None) -> bool:
    return (since is None or at >= since) and (until is None or at < until)

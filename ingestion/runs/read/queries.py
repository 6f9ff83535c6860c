"""SQL of people over what a pipeline has published."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings

from ingestion.models import Pipeline
from ingestion.ports.errors import Refused, Retryable
from ingestion.runs.read.current_rows import replaced_rows
from ingestion.runs.record.lake import open_lake
from ingestion.runs.record.views import latest_publication, published_state
from ingestion.toolkit.clean.kinds import agreed_kinds, declared_kinds
from ingestion.toolkit.scratch import scratch_folder

MAX_ROWS = 10_000
DEFAULT_ROWS = 1_000
AT_ONCE = 2
PATIENCE_S = 5.0

_places = threading.BoundedSemaphore(AT_ONCE)
"""Each query may take the memory of the settings and two cores, so a process works on a few at once."""


@dataclass(frozen=True, slots=True)
class QueryAnswer:
    """The first rows of a query's result; `truncated` says that there are more."""

    pipeline: str
    publication: int
    columns: list[str]
    types: list[str]
    rows: list[list[Any]]
    truncated: bool
    elapsed_ms: float


def query_published(pipeline: Pipeline, sql: str, *, limit: int = DEFAULT_ROWS) -> QueryAnswer:
    """Return the answer to one SELECT over `rows`, the pipeline's published state: of each key the latest row.

    ConfigError where the query cannot be run or uses more than the settings allow; Refused where nothing was published.
    """
    from ingestion.toolkit.clean.reader import read_shape  # noqa: PLC0415 (heavy)
    from ingestion.toolkit.duck.files import local_files  # noqa: PLC0415 - few processes query
    from ingestion.toolkit.duck.sandbox import Limits, run_query  # noqa: PLC0415
    from ingestion.toolkit.duck.views import ViewFile, view_statements, write_replaced  # noqa: PLC0415

    started = time.perf_counter()
    newest = latest_publication(pipeline)
    if newest is None:
        raise Refused("pipeline.not_published", pipeline=pipeline.name)
    manifests = published_state(pipeline, until=newest)
    lake, scratch = open_lake(), Path(settings.HEADGATE_DATA_DIR) / "scratch"
    parts = [part for manifest in manifests for part in manifest.parts]
    shapes = [read_shape(lake, part) for part in parts]
    declared = {
        name: kind for manifest in manifests for name, kind in declared_kinds(manifest.contract.columns).items()
    }
    with _place(), scratch_folder(scratch, "replaced") as folder:
        paths = local_files(lake, parts, folder=scratch / "parts", limit_bytes=settings.HEADGATE_QUERY_CACHE_BYTES)
        files = [ViewFile(path, shape) for path, shape in zip(paths, shapes, strict=True)]
        limits = Limits(
            timeout_s=settings.HEADGATE_QUERY_TIMEOUT_S, memory_bytes=settings.HEADGATE_QUERY_MEMORY_BYTES, rows=limit
        )
        replaced = write_replaced(replaced_rows(manifests), folder / "replaced.parquet")
        setup = view_statements(files, kinds=agreed_kinds(shapes, declared=declared), replaced=replaced)
        readable = [*paths, replaced] if replaced else paths
        answer = run_query(sql, setup=setup, files=readable, limits=limits, scratch=scratch)
    elapsed_ms = round((time.perf_counter() - started) * 1000, 1)
    return QueryAnswer(
        pipeline.name, newest.pk, answer.columns, answer.types, answer.rows, answer.truncated, elapsed_ms
    )


@contextmanager
def _place() -> Iterator[None]:
    if not _places.acquire(timeout=PATIENCE_S):
        raise Retryable("query.busy", retry_after_s=PATIENCE_S)
    try:
        yield
    finally:
        _places.release()

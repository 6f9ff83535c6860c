"""State of a datasource as Coordinator and Broker have it: chunks, rows by run, nulls, segments not served yet.

The Coordinator says what is published, the Broker whose rows are seen. Between the two lies the time in which segments
are loaded: as long as it lasts nobody can say whose rows lie where, and nothing is planned that would replace them.
In queries values are bound and names are quoted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ingestion.ports.batch import RUN
from ingestion.ports.context import Context
from ingestion.ports.errors import ConfigError, SinkRejected
from ingestion.ports.publication import DeliveryView, Manifest
from sinks.druid.client import DruidClient, UnknownObjectError
from sinks.druid.config import Granularity
from sinks.druid.intervals import Interval
from sinks.druid.state import Load

_COLUMNS_AT_ONCE = 40
_PERIODS = {Granularity.HOUR: "PT1H", Granularity.DAY: "P1D", Granularity.MONTH: "P1M", Granularity.YEAR: "P1Y"}


class UnclearError(Exception):
    """State that cannot be told yet, a reason to poll again; the text says why."""


@dataclass(frozen=True, slots=True)
class DatasourceState:
    """State of a datasource: its chunks, whose rows are seen, and how many segments are published but not served."""

    chunks: tuple[Interval, ...]
    runs: frozenset[int]
    unloaded: int = 0


@dataclass(frozen=True, slots=True)
class OtherRuns:
    """Other runs of a pipeline at a destination: what is to be seen of them, and those that may not be seen."""

    manifests: tuple[Manifest, ...]
    withdrawn: frozenset[int]


def read_state(client: DruidClient, datasource: str, *, is_late: bool, destination: str) -> DatasourceState:
    """Return what the datasource holds; UnclearError while Coordinator and Broker contradict each other.

    `is_late` says that they have had their time: then what the Coordinator knows is what counts. SinkRejected where
    rows lie there that no pipeline brought.
    """
    unloaded = client.unloaded_count(datasource)
    chunks = client.chunks(datasource) if unloaded is not None else ()
    if unloaded is not None and not chunks:
        raise UnclearError("the Coordinator has just learned of its segments")
    if not client.has_table(datasource):
        if chunks:
            raise UnclearError(f"{unloaded} of its segments are not served, and the Broker does not know it yet")
        return DatasourceState((), frozenset())
    if not chunks:
        # Emptied a moment ago; or the Coordinator does not know what it will know soon.
        if not is_late:
            raise UnclearError("the Broker still answers for segments that the Coordinator does not list")
        return DatasourceState((), frozenset())
    if RUN not in client.table_columns(datasource):
        raise SinkRejected("sink.foreign_rows", destination=destination, where=datasource)
    return DatasourceState(chunks, runs_held(client, datasource), unloaded or 0)


def known_runs(present: DatasourceState, datasource: str, *, delivery: DeliveryView, ctx: Context) -> frozenset[int]:
    """Return the runs with rows there; SinkRejected where one of them is none of this pipeline's."""
    if ctx.published is None:
        known = present.runs - {0}
    else:
        known = frozenset(ctx.published.manifests(sorted(present.runs - {0}), pipeline_id=delivery.pipeline_id))
    if present.runs - known:
        raise SinkRejected("sink.foreign_rows", destination=delivery.destination, where=datasource)
    return known


def other_runs(present: DatasourceState, *, delivery: DeliveryView, ctx: Context) -> OtherRuns:
    """Return what other runs have brought, and the runs whose rows may not be there."""
    unseen = present.runs - {delivery.run_id}
    if ctx.published is None:
        if unseen:
            raise ConfigError("config.invalid", where="the delivery", detail="this process knows no other runs")
        return OtherRuns((), frozenset())
    delivered = {found.run_id: found for found in ctx.published.delivered(delivery)}
    unknown = sorted(unseen - set(delivered))
    resolved = ctx.published.manifests(unknown, pipeline_id=delivery.pipeline_id) if unknown else {}
    # Rows of a delivery that was never verified are the run's all the same; rows of a withdrawn run must go.
    delivered |= {run_id: found for run_id, found in resolved.items() if found is not None}
    withdrawn = frozenset(run_id for run_id, found in resolved.items() if found is None)
    delivered.pop(delivery.run_id, None)
    return OtherRuns(tuple(delivered[run_id] for run_id in sorted(delivered)), withdrawn)


def quoted(name: str) -> str:
    """Return a name as SQL quotes it."""
    return '"' + name.replace('"', '""') + '"'


def count_run(client: DruidClient, datasource: str, run_id: int) -> int:
    """Return how many rows of the run a reader sees; 0 where the Broker knows no such datasource (yet)."""
    query = f"SELECT COUNT(*) AS c FROM {quoted(datasource)} WHERE {quoted(RUN)} = ?"  # noqa: S608 (quoted names)
    try:
        return int(client.sql(query, run_id)[0]["c"])
    except UnknownObjectError:
        return 0


def runs_held(client: DruidClient, datasource: str) -> frozenset[int]:
    """Return whose rows lie in the datasource; rows without a run are those of run 0, which is nobody's."""
    query = f"SELECT COALESCE({quoted(RUN)}, 0) AS r FROM {quoted(datasource)} GROUP BY 1"  # noqa: S608
    return frozenset(int(row["r"]) for row in client.sql(query))


def rows_held(client: DruidClient, datasource: str, granularity: Granularity) -> dict[tuple[int, int], int]:
    """Return how many rows lie in each chunk by the run they are of: {(start of the chunk, run): rows}."""
    start = f"TIMESTAMP_TO_MILLIS(TIME_FLOOR(__time, '{_PERIODS[granularity]}'))"
    query = (
        f"SELECT {start} AS s, COALESCE({quoted(RUN)}, 0) AS r, COUNT(*) AS c "  # noqa: S608
        f"FROM {quoted(datasource)} GROUP BY 1, 2"
    )
    return {(int(row["s"]), int(row["r"])): int(row["c"]) for row in client.sql(query)}


def null_counts(client: DruidClient, datasource: str, run_id: int, columns: Sequence[str]) -> dict[str, int]:
    """Return by column how many nulls a reader finds in the run's rows."""
    found: dict[str, int] = {}
    for start in range(0, len(columns), _COLUMNS_AT_ONCE):
        names = columns[start : start + _COLUMNS_AT_ONCE]
        counts = ", ".join(
            f"COUNT(*) FILTER (WHERE {quoted(name)} IS NULL) AS c{place}" for place, name in enumerate(names)
        )
        query = f"SELECT {counts} FROM {quoted(datasource)} WHERE {quoted(RUN)} = ?"  # noqa: S608
        row: Mapping[str, Any] = client.sql(query, run_id)[0]
        found |= {name: int(row[f"c{place}"]) for place, name in enumerate(names)}
    return found


def shows_rows(client: DruidClient, datasource: str) -> bool:
    """Return whether a reader sees any row of the datasource."""
    return client.has_table(datasource) and bool(runs_held(client, datasource))


def unloaded_of(client: DruidClient, load: Load) -> int | None:
    """Return how many segments of a load's intervals are published and not served; None where none is there."""
    if not load.intervals:
        return 0
    # One question for all of it: a list of a thousand chunks would be a thousand questions.
    return client.unloaded_count(load.datasource, (load.intervals[0][0], load.intervals[-1][1]))


def is_dropped(client: DruidClient, datasource: str) -> bool:
    """Return whether Coordinator and Broker agree that there is no such datasource."""
    return client.unloaded_count(datasource) is None and not client.has_table(datasource)

"""What we ask the Broker, and the Coordinator, about a datasource. Values are bound, names are quoted."""

from collections.abc import Mapping, Sequence
from typing import Any

from ingestion.ports.batch import RUN
from sinks.druid.client import DruidClient, UnknownObjectError
from sinks.druid.config import Granularity

_COLUMNS_AT_ONCE = 40
_PERIODS = {Granularity.HOUR: "PT1H", Granularity.DAY: "P1D", Granularity.MONTH: "P1M", Granularity.YEAR: "P1Y"}


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


def unloaded_of(client: DruidClient, refs: Mapping[str, Any]) -> int | None:
    """Return how many segments of a noted load's intervals are published and not served; None where none is there."""
    intervals = refs.get("intervals") or ()
    if not intervals:
        return 0
    # One question for all of it: a list of a thousand chunks would be a thousand questions.
    return client.unloaded_count(refs["datasource"], (int(intervals[0][0]), int(intervals[-1][1])))


def is_dropped(client: DruidClient, datasource: str) -> bool:
    """Return whether Coordinator and Broker agree that there is no such datasource."""
    return client.unloaded_count(datasource) is None and not client.has_table(datasource)

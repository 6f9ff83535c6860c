"""What we ask the Broker about a datasource. Values are bound, names are quoted."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ingestion.ports.batch import RUN
from ingestion.ports.errors import SinkRejected
from sinks.druid.client import DruidClient, is_unknown_table
from sinks.druid.intervals import Interval

_COLUMNS_AT_ONCE = 40


def quoted(name: str) -> str:
    """Return a name as SQL quotes it."""
    return '"' + name.replace('"', '""') + '"'


def count_run(client: DruidClient, datasource: str, run_id: int) -> int:
    """Return how many rows of the run a reader sees; 0 where the Broker knows no such datasource (yet)."""
    query = f"SELECT COUNT(*) AS c FROM {quoted(datasource)} WHERE {quoted(RUN)} = ?"  # noqa: S608 (quoted names)
    rows = _rows_or_none(client, query, run_id)
    return int(rows[0]["c"]) if rows else 0


def runs_held(client: DruidClient, datasource: str, intervals: Iterable[Interval]) -> dict[Interval, frozenset[int]]:
    """Return whose rows lie in each interval; rows without a run are those of run 0, which is nobody's.

    SinkRejected where the datasource has rows and no column that names runs: it is not ours.
    """
    table = quoted(datasource)
    where = "__time >= MILLIS_TO_TIMESTAMP(?) AND __time < MILLIS_TO_TIMESTAMP(?)"
    query = f"SELECT COALESCE({quoted(RUN)}, 0) AS r FROM {table} WHERE {where} GROUP BY 1"  # noqa: S608
    return {interval: frozenset(int(row["r"]) for row in client.sql(query, *interval)) for interval in intervals}


def moments_of(client: DruidClient, datasource: str, run_ids: Sequence[int]) -> list[Interval]:
    """Return for each of the runs the first and last moment of its rows, as (first, last + 1)."""
    query = (
        f"SELECT TIMESTAMP_TO_MILLIS(MIN(__time)) AS a, TIMESTAMP_TO_MILLIS(MAX(__time)) AS b "  # noqa: S608
        f"FROM {quoted(datasource)} WHERE {quoted(RUN)} = ? HAVING COUNT(*) > 0"
    )
    found = [row for run_id in run_ids for row in client.sql(query, run_id)]
    return [(int(row["a"]), int(row["b"]) + 1) for row in found]


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


def _rows_or_none(client: DruidClient, query: str, *values: Any) -> list[dict[str, Any]] | None:
    try:
        return client.sql(query, *values)
    except SinkRejected as error:
        if is_unknown_table(error):
            return None
        raise

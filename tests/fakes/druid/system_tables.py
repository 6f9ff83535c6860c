"""The tables about tables: INFORMATION_SCHEMA and sys."""

from collections.abc import Callable, Sequence
from typing import Any

from tests.fakes.druid.broker import Table
from tests.fakes.druid.segments import SegmentStore, is_overshadowed, schema
from tests.fakes.druid.tasks import TaskRunner
from tests.fakes.druid.times import iso, now_ms
from tests.fakes.druid.values import compact


def _names(text: str) -> list[str]:
    return text.split()


_JDBC = {"TIMESTAMP": 93, "BIGINT": -5, "DOUBLE": 8, "FLOAT": 6, "VARCHAR": 12, "ARRAY": 2003, "COMPLEX<json>": 1111}
_COLUMNS = _names(
    "TABLE_CATALOG TABLE_SCHEMA TABLE_NAME COLUMN_NAME ORDINAL_POSITION COLUMN_DEFAULT IS_NULLABLE DATA_TYPE"
    " CHARACTER_MAXIMUM_LENGTH CHARACTER_OCTET_LENGTH NUMERIC_PRECISION NUMERIC_PRECISION_RADIX NUMERIC_SCALE"
    " DATETIME_PRECISION CHARACTER_SET_NAME COLLATION_NAME JDBC_TYPE"
)
_TABLES = _names("TABLE_CATALOG TABLE_SCHEMA TABLE_NAME TABLE_TYPE IS_JOINABLE IS_BROADCAST")
_SEGMENTS = _names(
    "segment_id datasource start end size version partition_num num_replicas num_rows is_active is_published"
    " is_available is_realtime is_overshadowed shard_spec dimensions metrics last_compaction_state"
    " replication_factor"
)
_TASKS = _names(
    "task_id group_id type datasource created_time queue_insertion_time status runner_status duration location host"
    " plaintext_port tls_port error_msg"
)
_SERVERS = _names("server host plaintext_port tls_port server_type tier curr_size max_size is_leader start_time")
_NUMERIC = {"BIGINT": (19, 10, 0), "DOUBLE": (15, 10, None), "FLOAT": (15, 10, None)}


class SystemTables:
    """Gives the system tables as they are now. `ports` are those of the services, by type."""

    def __init__(self, store: SegmentStore, runner: TaskRunner, ports: Callable[[], dict[str, int]]) -> None:
        self._store = store
        self._runner = runner
        self._ports = ports
        self._started = iso(now_ms())

    def by_name(self) -> dict[str, Callable[[], Table]]:
        """Return the tables' makers by full name."""
        return {
            "INFORMATION_SCHEMA.COLUMNS": self._columns,
            "INFORMATION_SCHEMA.TABLES": self._tables,
            "sys.segments": self._segments,
            "sys.tasks": self._tasks,
            "sys.servers": self._servers,
        }

    def _columns(self) -> Table:
        rows = []
        for name in self._store.known():
            types = schema(self._store.seen(name, counted=False))
            for position, (column, kind) in enumerate(types.items(), start=1):
                rows.append(_column_row(name, position, column, kind))
        return _COLUMNS, rows

    def _tables(self) -> Table:
        return _TABLES, [("druid", "druid", name, "TABLE", "NO", "NO") for name in self._store.known()]

    def _segments(self) -> Table:
        rows: list[Sequence[Any]] = []
        for name, used in sorted(self._store.in_list().items()):
            for each in used:
                is_hidden, is_loaded = is_overshadowed(each, used), self._store.is_loaded(each)
                shard = {"type": "numbered", "partitionNum": each.partition, "partitions": 1}
                row = {
                    "segment_id": each.segment_id,
                    "datasource": name,
                    "start": iso(each.interval.start),
                    "end": iso(each.interval.end),
                    "size": each.size,
                    "version": each.version,
                    "partition_num": each.partition,
                    "num_replicas": int(is_loaded),
                    "num_rows": len(each.rows) if is_loaded else 0,
                    "is_active": int(not is_hidden),
                    "is_published": 1,
                    "is_available": int(is_loaded),
                    "is_realtime": 0,
                    "is_overshadowed": int(is_hidden),
                    "shard_spec": compact(
                        shard if each.rows else {"type": "tombstone", "partitionNum": 0, "partitions": 1}
                    ),
                    "dimensions": compact(list(each.columns)),
                    "metrics": "[]",
                    "last_compaction_state": None,
                    "replication_factor": 1,
                }
                rows.append(tuple(row.values()))
        return _SEGMENTS, rows

    def _tasks(self) -> Table:
        rows: list[Sequence[Any]] = []
        for task in reversed(self._runner.snapshot()):
            status, place = task.status(is_listed=True), task.location()
            host, port = place["host"], place["port"]
            rows.append(
                (
                    task.task_id,
                    task.task_id,
                    task.kind,
                    task.datasource,
                    task.created,
                    status["queueInsertionTime"],
                    task.state,
                    status["runnerStatusCode"],
                    task.duration,
                    f"{host}:{port}" if host else None,
                    host,
                    port,
                    -1,
                    task.error,
                )
            )
        return _TASKS, rows

    def _servers(self) -> Table:
        rows: list[Sequence[Any]] = []
        held = sum(each.size for name in self._store.names() for each in self._store.used(name))
        for kind, port in self._ports().items():
            tier = "_default_tier" if kind in ("historical", "indexer") else None
            sizes = (held, 10_000_000_000) if kind == "historical" else (0, 0)
            leads = 1 if kind in ("coordinator", "overlord") else None
            rows.append((f"127.0.0.1:{port}", "127.0.0.1", port, -1, kind, tier, *sizes, leads, self._started))
        return _SERVERS, rows


def _column_row(table: str, position: int, name: str, kind: str) -> tuple[Any, ...]:
    is_time = kind == "TIMESTAMP"
    return (
        *("druid", "druid", table, name, position, "", "NO" if is_time else "YES", kind, None, None),
        *_NUMERIC.get(kind, (None, None, None)),
        *(3 if is_time else None, "UTF-8" if kind == "VARCHAR" else None, None, _JDBC[kind]),
    )

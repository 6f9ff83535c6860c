"""The process that runs one query: it takes a job as JSON from standard input and writes the answer to standard output.

It has no secrets, no environment, and no way out: files that the job names can be read, nothing can be written but the
spill files of a folder of its own. What it uses beyond its limits kills it, and nothing else.
"""

import base64
import json
import math
import resource
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from ingestion.toolkit.duck.guard import NotAllowed, check_query

GRACE_S = 2
"""Time after the limit in which the process may still be there: not every function can be interrupted."""
_OVERHEAD_BYTES = 256 << 20
"""Memory of interpreter, library and threads; measured: 85 MB, and 150 MB more where a query sorts or groups."""
_SPILL_BYTES = 2 << 30
_FETCH_ROWS = 200
_EXPRESSION_DEPTH = 250
_EXACT_DIGITS = 15


def main() -> None:
    """Run the job of standard input."""
    job = json.load(sys.stdin)
    _limit_process(job)
    sys.stdout.write(json.dumps(_answer(job), allow_nan=False))


def _limit_process(job: Mapping[str, Any]) -> None:
    """Let the system end what DuckDB's own limits do not hold: it does not count the texts and lists of a result."""
    room = job["memory_bytes"] * 3 // 2 + _OVERHEAD_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (room, room))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    seconds = math.ceil(job["timeout_s"] + GRACE_S)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds * job["threads"], seconds * job["threads"]))
    signal.setitimer(signal.ITIMER_REAL, job["timeout_s"] + GRACE_S)


def _answer(job: Mapping[str, Any]) -> dict[str, Any]:
    import duckdb  # noqa: PLC0415 - after the limits were set

    with duckdb.connect(":memory:", config=_config(job)) as connection:
        try:
            _close_in(connection, job)
        except duckdb.IOException:
            return {"error": "query.unreadable"}
        try:
            check_query(connection, job["sql"])
            return _run(connection, job)
        except NotAllowed as error:
            return {"error": "query.not_allowed", "detail": str(error)}
        except RecursionError:
            return {"error": "query.not_allowed", "detail": "it is nested too deeply"}
        except (duckdb.Error, MemoryError) as error:
            return {"error": _code_of(error), "detail": str(error)}


def _code_of(error: Exception) -> str:
    import duckdb  # noqa: PLC0415 - loaded by now

    codes: tuple[tuple[type[Exception], str], ...] = (
        (duckdb.InterruptException, "query.timeout"),
        (duckdb.OutOfMemoryException, "query.out_of_memory"),
        (MemoryError, "query.out_of_memory"),
        (duckdb.IOException, "query.unreadable"),
    )
    return next((code for kind, code in codes if isinstance(error, kind)), "query.invalid")


def _config(job: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "memory_limit": f"{job['memory_bytes']}B",
        "threads": job["threads"],
        "temp_directory": job["scratch"],
        "max_temp_directory_size": f"{_SPILL_BYTES}B",
        "python_enable_replacements": "false",
        "max_expression_depth": _EXPRESSION_DEPTH,
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
    }


def _close_in(connection: Any, job: Mapping[str, Any]) -> None:
    """Make the views, then shut every way to files, network and settings for good."""
    files = ", ".join("'{}'".format(path.replace("'", "''")) for path in job["files"])
    connection.execute(f"SET allowed_paths = [{files}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET TimeZone = 'UTC'")
    for statement in job["setup"]:
        connection.execute(statement)
    connection.execute("SET lock_configuration = true")


def _run(connection: Any, job: Mapping[str, Any]) -> dict[str, Any]:
    timer = threading.Timer(job["timeout_s"], connection.interrupt)
    timer.daemon = True
    timer.start()
    try:
        connection.execute(job["sql"])
        described = connection.description or []
        rows: list[list[Any]] = []
        used_bytes, truncated = 0, False
        for row in _fetched(connection):
            values = [plain(value) for value in row]
            used_bytes += len(json.dumps(values))
            if len(rows) == job["rows"] or used_bytes > job["answer_bytes"]:
                truncated = True
                break
            rows.append(values)
    finally:
        timer.cancel()
    if truncated and not rows:
        return {"error": "query.too_wide"}
    return {
        "columns": [column[0] for column in described],
        "types": [str(column[1]) for column in described],
        "rows": rows,
        "truncated": truncated,
    }


def _fetched(connection: Any) -> Iterator[tuple[Any, ...]]:
    while block := connection.fetchmany(_FETCH_ROWS):
        yield from block


def plain(value: Any) -> Any:  # noqa: PLR0911 - one return per type
    """Return a value as JSON can hold it: times as ISO 8601, bytes as base64, what is no number as text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    if isinstance(value, Decimal):
        return float(value) if len(value.as_tuple().digits) <= _EXACT_DIGITS else str(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    return str(value)


if __name__ == "__main__":
    main()

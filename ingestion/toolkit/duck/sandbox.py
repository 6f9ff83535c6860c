"""Running one query of a person in a process of its own, within limits of time, memory and answer.

In the web process a query could do harm that DuckDB's own limits do not prevent: they count neither the texts and lists
of a result (`SELECT range(1000000000)` took 8 GB under a limit of 256 MB), nor can its planner be interrupted.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ingestion.ports.errors import ConfigError, StoreCorrupt
from ingestion.toolkit.duck.child import GRACE_S
from ingestion.toolkit.scratch import scratch_folder

MAX_SQL_CHARACTERS = 20_000
_ROOT = Path(__file__).resolve().parents[3]
_STOPPED_IN_TIME = frozenset({-signal.SIGALRM, -signal.SIGXCPU})


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of time, memory and answer that a query must keep to."""

    timeout_s: float
    memory_bytes: int
    rows: int
    answer_bytes: int = 10_000_000
    threads: int = 2


@dataclass(frozen=True, slots=True)
class Answer:
    """The first rows of a query's result; `truncated` says that there are more. Values are those of JSON."""

    columns: list[str]
    types: list[str]
    rows: list[list[Any]]
    truncated: bool


def run_query(sql: str, *, setup: Sequence[str], files: Sequence[Path], limits: Limits, scratch: Path) -> Answer:
    """Return the answer to one SELECT over the view `rows`, which the statements of `setup` make of the files.

    ConfigError where the query is none of those, does not fit the data, or uses more than the limits.
    """
    if len(sql) > MAX_SQL_CHARACTERS:
        detail = f"it has {len(sql)} characters, {MAX_SQL_CHARACTERS} are allowed"
        raise ConfigError("query.invalid", detail=detail)
    with scratch_folder(scratch, "query") as folder:
        job = {
            "sql": sql,
            "setup": list(setup),
            "files": [str(path) for path in files],
            "scratch": str(folder),
            **asdict(limits),
        }
        return _answer_of(_run(job, limits=limits), limits=limits)


def _run(job: Mapping[str, Any], *, limits: Limits) -> Mapping[str, Any]:
    process = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-E", "-s", "-m", "ingestion.toolkit.duck.child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=_ROOT,
        env={},
        text=True,
        encoding="utf-8",
    )
    with process:
        try:
            told, complaint = process.communicate(json.dumps(job), timeout=limits.timeout_s + 2 * GRACE_S)
        except subprocess.TimeoutExpired:
            return {"error": "query.timeout"}
        finally:
            process.kill()
    if process.returncode in _STOPPED_IN_TIME:
        return {"error": "query.timeout"}
    if process.returncode < 0:
        # Not every library bears to be refused memory.
        return {"error": "query.out_of_memory"}
    if process.returncode:
        raise RuntimeError(complaint[-2000:])
    answer: Mapping[str, Any] = json.loads(told)
    return answer


def _answer_of(told: Mapping[str, Any], *, limits: Limits) -> Answer:
    code = told.get("error")
    if code == "query.unreadable":
        raise StoreCorrupt("store.corrupt", key="of a published part", detail="DuckDB cannot read it")
    if code is not None:
        known: dict[str, dict[str, Any]] = {
            "query.timeout": {"seconds": f"{limits.timeout_s:g}"},
            "query.out_of_memory": {"limit_bytes": limits.memory_bytes},
            "query.too_wide": {"limit_bytes": limits.answer_bytes},
        }
        values = known.get(code) or {"detail": _in_one_line(str(told.get("detail", "")))}
        raise ConfigError(code, **values)
    return Answer(told["columns"], told["types"], told["rows"], told["truncated"])


def _in_one_line(complaint: str) -> str:
    """Return what the database says without the line that points at a column of the line before."""
    lines = [line.strip() for line in complaint.splitlines()]
    return "; ".join(line.rstrip(".;") for line in lines if line.strip("^"))

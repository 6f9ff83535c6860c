"""One sequence of calls that covers what a client asks of a Druid without extensions, for the fake and the real one.

    answers = perform(Addresses(overlord=url, coordinator=url, broker=url, files=site.url), prefix="hgs1", folder=path)

`FILES` must be served below `files`. Every answer bears a name, so that two performances can be compared one by one
(druid_shapes.py). All rows are of the year 2001; any other time in an answer is the clock's.
"""

import gzip
import json
from collections.abc import Iterable
from pathlib import Path

import httpx

from tests.fakes.druid_performance import PATIENCE_S, Addresses, Answer, Performance
from tests.fakes.druid_specs import day_rows, lines
from tests.fakes.druid_steps import layout_steps, refusal_steps, removal_steps, sampler_steps, status_steps
from tests.fakes.druid_steps_of_data import input_steps, query_steps, type_steps

__all__ = ["FILES", "UNCOMPARED", "Addresses", "Answer", "kept_answers", "perform", "write_answers"]

UNCOMPARED = frozenset({"task_payload"})
"""Answers that cannot be compared by value: a payload lists every default of the tuning."""

ROWS = lines(*day_rows(1, 2, count=20)).encode() + b"\n"
FILES: dict[str, bytes] = {
    "/rows.ndjson": ROWS,
    "/rows.ndjson.gz": gzip.compress(ROWS, mtime=0),
    "/bad.ndjson": lines(*day_rows(1, count=8), "not json", *day_rows(1, count=1), '{"t":"never"}').encode() + b"\n",
    "/rows.csv": b't,name,e,n\n2001-01-01,a,1.5,1\n2001-01-01,,,\n2001-01-01,"b,""c""",x,2\n2001-01-01,d\n',
    "/empty.ndjson": b"",
}


def perform(at: Addresses, *, prefix: str, folder: Path) -> list[Answer]:
    """Make all calls and return their answers in order; `folder` is a place on the disk that the Druid can read."""
    with httpx.Client(timeout=PATIENCE_S) as client:
        performance = Performance(at, prefix, folder, client)
        for steps in (
            status_steps,
            refusal_steps,
            layout_steps,
            type_steps,
            input_steps,
            sampler_steps,
            query_steps,
            removal_steps,
        ):
            steps(performance)
        return performance.answers


def kept_answers(path: Path) -> dict[str, Answer]:
    """Return answers that were written before, by name."""
    found = json.loads(path.read_text(encoding="utf-8"))
    return {name: Answer(name, **answer) for name, answer in found.items()}


def write_answers(path: Path, answers: Iterable[Answer]) -> None:
    """Write answers, one a line; of a page of HTML without its stack trace, of a long list of SQL words nothing."""
    written = [f"{json.dumps(each.name)}: {_as_json(each)}" for each in answers]
    path.write_text("{\n" + ",\n".join(written) + "\n}\n", encoding="utf-8")


def _as_json(answer: Answer) -> str:
    body = answer.body
    if isinstance(body, str) and body.startswith("<html>"):
        body = body.partition("<h3>")[0]
    if isinstance(body, dict) and isinstance(body.get("errorMessage"), str):
        for begin in ("acceptable options: ", "Was expecting one of:"):
            before, found, _ = body["errorMessage"].partition(begin)
            body = {**body, "errorMessage": f"{before}{found}.." if found else before}
    kept = {"status": answer.status, "content_type": answer.content_type, "body": body, "is_json": answer.is_json}
    return json.dumps(kept, ensure_ascii=False)

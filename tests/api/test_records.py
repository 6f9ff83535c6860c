"""Published rows and queries over them, as clients get them."""

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import fastexcel
import pyarrow.parquet as pq
import pytest

from ingestion.models import Pipeline, Run
from ingestion.toolkit.rows import workbook
from tests.api.conftest import CONTRACT, Api, problem
from tests.api.test_uploads import form
from tests.runs.driver import Driver

CONTRACT_WITH_TIME = {
    "name": "timed",
    "key": ["id"],
    "columns": [
        {"name": "id", "type": "integer"},
        {"name": "note", "type": "string"},
        {"name": "at", "type": "datetime"},
    ],
    "time": "at",
}
Send = Callable[..., Run]


@pytest.fixture
def send(transactional_db: None, staff: Api, driver: Driver) -> Send:
    """Return a sender of rows into a pipeline, which gives their run after its end."""

    def send(*rows: str, header: str = "id,note,at", contract: Any = CONTRACT_WITH_TIME) -> Run:
        data = "\n".join([header, *rows]).encode() + b"\n"
        answer = staff.raw("/v1/uploads", form(data, contract=json.dumps(contract)))
        assert answer.status_code == 202, answer.content
        driver.drain()
        run = Run.objects.get(pk=answer.json()["run"])
        assert run.state == "succeeded", run.message
        return run

    return send


@pytest.fixture
def run(send: Send) -> Run:
    """A run of five rows, one of them a formula."""
    return send("1,one,2026-01-01", "2,=2+2,2026-01-02", "3,three,2026-01-03", "4,vier €,2026-01-04", "5,,2026-01-05")


def body(response: Any) -> bytes:
    assert response.status_code == 200, response.content
    return b"".join(response.streaming_content)


def test_a_page_of_a_run_leads_to_the_next(user: Api, run: Run) -> None:
    first = user.get(f"/v1/runs/{run.pk}/records?limit=3&columns=id,note").json()
    second = user.client.get(first["next"], headers=user.headers).json()

    assert first["results"] == [{"id": 1, "note": "one"}, {"id": 2, "note": "=2+2"}, {"id": 3, "note": "three"}]
    assert (first["first_row"], first["total"], first["publication"]) == (1, 5, run.pk)
    assert [row["id"] for row in second["results"]] == [4, 5]
    assert (second["first_row"], second["next"]) == (4, None)


def test_lineage_says_where_a_row_came_from(user: Api, run: Run) -> None:
    row = user.get(f"/v1/runs/{run.pk}/records?lineage=1&limit=1").json()["results"][0]

    assert row == {
        "id": 1, "note": "one", "at": "2026-01-01T00:00:00+00:00", "_run": run.pk, "_part": "0-0", "_row": 0,
        "_page": None,
    }  # fmt: skip


@pytest.mark.parametrize("file_format", ["csv", "jsonl", "parquet", "xlsx"])
def test_a_file_says_what_it_is_and_where_it_begins(user: Api, run: Run, file_format: str) -> None:
    response = user.get(f"/v1/runs/{run.pk}/records?format={file_format}&after=1&columns=id,note")
    data = body(response)

    assert response["Content-Disposition"] == f'attachment; filename="timed-{run.pk}.{file_format}"'
    assert [response[f"Headgate-{name}"] for name in ("Publication", "First-Row", "Total-Rows")] == [
        str(run.pk), "2", "5",
    ]  # fmt: skip
    notes: list[Any]
    if file_format == "csv":
        assert response["Content-Type"] == "text/csv; charset=utf-8"
        notes = [line[1] for line in csv.reader(io.StringIO(data.decode(), newline=""))]
    elif file_format == "jsonl":
        notes = [json.loads(line)["note"] for line in data.splitlines()]
    elif file_format == "parquet":
        notes = pq.read_table(io.BytesIO(data))["note"].to_pylist()
    else:
        notes = [row["note"] for row in fastexcel.read_excel(data).load_sheet("rows").to_arrow().to_pylist()]
    is_for_people = file_format in ("csv", "xlsx")
    assert notes == ["'=2+2" if is_for_people else "=2+2", "three", "vier €", "" if file_format == "csv" else None]


@pytest.mark.parametrize("file_format", ["csv", "jsonl"])
def test_lines_that_were_counted_say_where_to_go_on(user: Api, run: Run, file_format: str) -> None:
    path = f"/v1/runs/{run.pk}/records?format={file_format}"
    whole = body(user.get(path)).splitlines(keepends=True)
    header = 1 if file_format == "csv" else 0

    for broken_off in range(header + 1, len(whole)):
        rest = user.get(f"{path}&after={broken_off - header}")
        assert whole[:broken_off] + body(rest).splitlines(keepends=True) == whole
        assert int(rest["Headgate-First-Row"]) == broken_off - header + 1


@pytest.mark.both
def test_the_state_of_a_pipeline_stays_readable_as_it_was(user: Api, run: Run, send: Send) -> None:
    path = "/v1/data/export?pipeline=timed&format=jsonl&columns=id,note"
    first = user.get(path)
    before = body(first)
    newer = send("2,new,2026-02-01", "6,six,2026-02-02")

    now = user.get(path)
    pinned = user.get(f"{path}&publication={first['Headgate-Publication']}&after=2")

    assert [json.loads(line) for line in body(now).splitlines()] == [
        {"id": 1, "note": "one"}, {"id": 3, "note": "three"}, {"id": 4, "note": "vier €"}, {"id": 5, "note": None},
        {"id": 2, "note": "new"}, {"id": 6, "note": "six"},
    ]  # fmt: skip
    assert (now["Headgate-Publication"], now["Headgate-Total-Rows"]) == (str(newer.pk), "6")
    assert body(pinned) == b"".join(before.splitlines(keepends=True)[2:])


@pytest.mark.both
def test_pages_of_the_state_are_those_of_one_publication(user: Api, run: Run, send: Send) -> None:
    first = user.get("/v1/data/export?pipeline=timed&limit=3&columns=id").json()
    send("1,new,2026-02-01")

    second = user.client.get(first["next"], headers=user.headers).json()

    assert [row["id"] for row in first["results"] + second["results"]] == [1, 2, 3, 4, 5]
    assert first["publication"] == second["publication"] == run.pk


def test_event_times_choose_from_the_state(user: Api, run: Run) -> None:
    path = "/v1/data/export?pipeline=timed&columns=id&since=2026-01-02&until=2026-01-04T00:00:00"

    for same in (path, path.replace("01-02&", f"01-01T23:00:00{quote('-')}01:00&")):
        found = user.get(same).json()
        assert [row["id"] for row in found["results"]] == [2, 3]
        assert found["total"] == 2
    problem(user.get(path.replace("2026-01-02", "yesterday")), 400, "request.invalid")


def test_a_column_may_have_any_name(user: Api, send: Send) -> None:
    header = '"a,b",=id'
    run = send("1,2", header=header, contract={"name": "odd", "columns": [{"name": "a,b", "type": "integer"}]})
    path = f"/v1/runs/{run.pk}/records?columns=" + quote('=id,"a,b"')

    assert user.get(path).json()["results"] == [{"=id": "2", "a,b": 1}]
    assert body(user.get(f"{path}&format=csv")) == b'\'=id,"a,b"\r\n2,1\r\n'


@pytest.mark.parametrize(
    ("parameters", "status", "code"),
    [
        ("columns=nope", 400, "export.unknown_column"),
        ("columns=", 400, "request.invalid"),
        ("columns=id,,note", 400, "request.invalid"),
        ("columns=id%0Anote", 400, "request.invalid"),
        ("limit=1001", 400, "request.invalid"),
        ("after=-1", 400, "request.invalid"),
        ("after=x", 400, "request.invalid"),
        ("format=exe", 400, "request.invalid"),
        ("shape=round", 400, "request.invalid"),
        ("format=xlsx", 400, "export.too_many_rows"),
    ],
)
def test_what_cannot_be_read_is_a_problem(  # noqa: PLR0917
    user: Api, run: Run, monkeypatch: pytest.MonkeyPatch, parameters: str, status: int, code: str
) -> None:
    monkeypatch.setattr(workbook, "MAX_ROWS", 4)

    problem(user.get(f"/v1/runs/{run.pk}/records?{parameters}"), status, code)


def test_what_is_missing_is_told_before_a_file_begins(user: Api, run: Run, lake: Path) -> None:
    for path in (lake / "clean").rglob("*.parquet"):
        path.parent.chmod(0o700)
        path.unlink()

    problem(user.get(f"/v1/runs/{run.pk}/records?format=csv"), 500, "store.missing")


def test_what_was_not_published_is_a_conflict(user: Api, pipeline: Pipeline) -> None:
    run = user.post("/v1/runs", {"pipeline": pipeline.name}).json()["id"]

    problem(user.get(f"/v1/runs/{run}/records"), 409, "run.not_published")
    problem(user.get("/v1/runs/999999/records"), 404, "request.not_found")
    problem(user.get(f"/v1/data/export?pipeline={pipeline.name}"), 409, "pipeline.not_published")
    problem(user.get("/v1/data/export"), 400, "request.invalid")
    problem(
        user.get(f"/v1/data/export?pipeline={pipeline.name}&publication={run}"), 400, "pipeline.unknown_publication"
    )
    problem(user.post("/v1/query", {"pipeline": pipeline.name, "sql": "SELECT 1"}), 409, "pipeline.not_published")


# --- queries


def test_a_query_is_answered_with_columns_types_and_rows(user: Api, run: Run) -> None:
    sql = "SELECT note, count(*) AS n, sum(id) AS s FROM rows GROUP BY ALL ORDER BY s DESC"

    answer = user.post("/v1/query", {"pipeline": "timed", "sql": sql, "limit": 2}).json()

    assert answer.pop("elapsed_ms") > 0
    assert answer == {
        "pipeline": "timed",
        "publication": run.pk,
        "columns": ["note", "n", "s"],
        "types": ["VARCHAR", "BIGINT", "HUGEINT"],
        "rows": [[None, 1, 5], ["vier €", 1, 4]],
        "truncated": True,
    }


@pytest.mark.parametrize(
    ("sql", "code", "words"),
    [
        ("SELECT nope FROM rows", "query.invalid", "nope"),
        ("SELEC 1", "query.invalid", "syntax"),
        ("SELECT * FROM read_csv('/etc/passwd')", "query.not_allowed", "read_csv"),
        ("COPY rows TO '/tmp/x.csv'", "query.not_allowed", "SELECT"),
        ("", "request.invalid", "sql"),
    ],
)
def test_a_query_that_cannot_run_is_a_problem(user: Api, run: Run, sql: str, code: str, words: str) -> None:
    found = problem(user.post("/v1/query", {"pipeline": "timed", "sql": sql}), 400, code)

    assert words in found["detail"]


def test_a_query_ends_with_its_time(user: Api, run: Run, settings: Any) -> None:
    settings.HEADGATE_QUERY_TIMEOUT_S = 0.5

    found = problem(
        user.post(
            "/v1/query", {"pipeline": "timed", "sql": "SELECT count(*) FROM range(99999999) a, range(99999999) b"}
        ),
        400,
        "query.timeout",
    )

    assert re.search(r"0\.5 s", found["detail"])


def test_the_contract_of_the_other_tests_has_no_time(user: Api, send: Send) -> None:
    run = send("1,Fe,2", header="id,formula,energy", contract=CONTRACT)

    path = f"/v1/data/export?pipeline=sample&columns=id&since={quote(run.created_at.isoformat())}"

    assert user.get(path).json()["total"] == 1
    assert user.get(path.replace("since", "until")).json()["total"] == 0

"""Runs: asked for once, listed, shown, stopped, and what they leave."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from ingestion.models import Destination, Pipeline, Run, RunState
from tests.api.conftest import CSV, Api, problem
from tests.runs.driver import Driver

pytestmark = pytest.mark.both


def ask(api: Api, key: str | None = None, **body: Any) -> Any:
    headers = {"Idempotency-Key": key} if key is not None else {}
    return api.post("/v1/runs", {"pipeline": "items", **body}, headers=headers)


def upload(api: Api, data: bytes = CSV) -> int:
    return int(api.raw("/v1/uploads?name=items.csv&run=false", data, content_type="text/csv").json()["id"])


@pytest.mark.usefixtures("pipeline")
def test_a_run_is_asked_for(user: Api) -> None:
    response = ask(user, query={"limit": 5}, priority=10, uploads=[upload(user)])

    body = response.json()
    assert response.status_code == 201, response.content
    assert response["Location"].endswith(f"/api/v1/runs/{body['id']}")
    assert (body["run"], body["state"], body["trigger"], body["priority"]) == (body["id"], "pending", "api", 10)
    assert body["query"]["limit"] == 5
    assert len(body["uploads"]) == 1
    assert body["waiting"]["cause"] == "worker"
    assert [stage["stage"] for stage in body["progress"]["stages"]] == ["fetch", "validate", "deliver", "load"]
    assert user.get(f"/v1/runs/{body['id']}").json()["state"] == "pending"


@pytest.mark.usefixtures("pipeline")
def test_the_same_key_is_the_same_run(user: Api, staff: Api) -> None:
    first, again = ask(user, "k1", query={"limit": 5}), ask(user, "k1", query={"limit": 5})

    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    for other in ({"query": {"limit": 6}}, {}, {"query": {"limit": 5}, "priority": 10}):
        body = problem(ask(user, "k1", **other), 409, "run.idempotency_mismatch")
        assert "'k1'" in body["detail"]
    assert ask(staff, "k1").status_code == 201, "a key belongs to its user"
    assert Run.objects.count() == 2


@pytest.mark.usefixtures("pipeline")
@pytest.mark.parametrize("key", ["", "x" * 151, "a\tb"])
def test_a_key_must_be_short_and_printable(user: Api, key: str) -> None:
    problem(ask(user, key), 400, "request.invalid")


@pytest.mark.usefixtures("pipeline")
@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"pipeline": "nowhere"}, "pipeline"),
        ({"query": {"colour": "red"}}, "query.colour"),
        ({"uploads": [999]}, "uploads"),
        ({"uploads": "all"}, "uploads"),
        ({"priority": 3}, "priority"),
        ({"state": "succeeded"}, "state"),
        ({"query": {"filter": "a\0b"}}, "NUL"),
    ],
)
def test_a_request_that_does_not_validate_makes_no_run(user: Api, body: dict[str, Any], named: str) -> None:
    answer = problem(ask(user, **body), 400, "request.invalid")

    assert named in str(answer)
    assert not Run.objects.exists()


def test_runs_are_filtered_and_listed_newest_first(user: Api, make_pipeline: Any) -> None:
    items, others = make_pipeline("items"), make_pipeline("others")
    ids = [
        Run.objects.create(pipeline=pipeline, trigger=trigger, mode=pipeline.mode, state=state, priority=priority).pk
        for pipeline, trigger, state, priority in (
            (items, "api", "failed", 5),
            (items, "schedule", "succeeded", 8),
            (others, "upload", "succeeded", 5),
        )
    ]
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()

    def listed(query: str) -> list[int]:
        response = user.get(f"/v1/runs?{query}")
        assert response.status_code == 200, response.content
        return [ids.index(row["id"]) for row in response.json()["results"]]

    assert listed("") == [2, 1, 0]
    assert listed("pipeline=items") == listed(f"pipeline={items.pk}") == [1, 0]
    assert listed("state=succeeded") == [2, 1]
    assert listed("trigger=upload") == [2]
    assert listed("priority=8") == [1]
    assert listed("source=uploads&state=failed") == [0]
    assert listed(f"since={later}") == []
    assert listed(f"until={later}&since=2020-01-01") == [2, 1, 0]
    problem(user.get("/v1/runs?state=happy"), 400, "request.invalid")
    problem(user.get("/v1/runs?pipeline=nowhere"), 400, "request.invalid")
    problem(user.get("/v1/runs?since=yesterday"), 400, "request.invalid")


def test_pages_join_without_gap_or_overlap(user: Api, pipeline: Pipeline) -> None:
    runs = [Run.objects.create(pipeline=pipeline, trigger="api", mode=pipeline.mode).pk for _ in range(7)]

    seen: list[int] = []
    address: str | None = "/api/v1/runs?limit=3&pipeline=items"
    while address:
        page = user.client.get(address, headers=user.headers).json()
        seen += [row["id"] for row in page["results"]]
        address = page["next"]

    assert seen == runs[::-1]


def test_a_list_of_runs_takes_the_same_few_statements_however_long(user: Api, pipeline: Pipeline) -> None:
    def statements(count: int) -> list[str]:
        Run.objects.bulk_create(Run(pipeline=pipeline, trigger="api", mode=pipeline.mode) for _ in range(count))
        with CaptureQueriesContext(
            connection,
        ) as queries:
            user.get("/v1/runs?limit=1000")
        return [query["sql"] for query in queries]

    few, many = statements(2), statements(200)

    assert len(few) == len(many) <= 2
    assert not any("COUNT(" in sql for sql in many)


@pytest.mark.usefixtures("pipeline")
def test_a_run_is_cancelled_once(user: Api) -> None:
    run = ask(user).json()["id"]

    assert user.post(f"/v1/runs/{run}/cancel").json()["state"] == "cancelled"
    problem(user.post(f"/v1/runs/{run}/cancel"), 409, "run.not_cancellable")
    problem(user.post(f"/v1/runs/{run}/retry"), 409, "run.not_retryable")
    problem(user.post(f"/v1/runs/{run}/rollback"), 409, "run.not_published")
    kinds = [event["kind"] for event in user.get(f"/v1/runs/{run}/events").json()["results"]]
    assert kinds == ["run.created", "run.cancelled"]
    assert user.get(f"/v1/runs/{run}/events?level=warning").json()["results"][0]["values"]["by"] == "user"


@pytest.mark.usefixtures("pipeline")
def test_a_failed_run_is_retried(user: Api) -> None:
    run = ask(user).json()["id"]
    Run.objects.filter(pk=run).update(state=RunState.FAILED, code="source.unavailable")

    assert user.post(f"/v1/runs/{run}/retry").json()["state"] == "pending"


@pytest.mark.usefixtures("pipeline")
@pytest.mark.parametrize(("word", "state", "kind"), [
    ("approve", "completing", "run.approved"), ("discard", "cancelled", "run.discarded"),
])  # fmt: skip
def test_a_held_run_is_approved_or_discarded_once(user: Api, word: str, state: str, kind: str) -> None:
    run = ask(user).json()["id"]
    problem(user.post(f"/v1/runs/{run}/{word}"), 409, "run.not_held")
    Run.objects.filter(pk=run).update(state=RunState.HELD, code="held.empty", message="The source had no rows.")

    waiting = user.get(f"/v1/runs/{run}").json()["waiting"]
    answers = [user.post(f"/v1/runs/{run}/{word}").json()["state"] for _ in range(2)]

    assert (waiting["cause"], waiting["sentence"]) == ("held", "The run is held. The source had no rows.")
    assert answers == [state] * 2
    events = user.get(f"/v1/runs/{run}/events").json()["results"]
    assert [(event["kind"], event["values"]["by"]) for event in events[1:]] == [(kind, "user")]


@pytest.mark.usefixtures("pipeline")
def test_many_runs_are_asked_for_and_each_is_answered(user: Api) -> None:
    response = user.post(
        "/v1/runs/bulk",
        {"runs": [{"pipeline": "items"}, {"pipeline": "items", "idempotency_key": "a"},
                  {"pipeline": "items", "idempotency_key": "a"},
                  {"pipeline": "items", "idempotency_key": "a", "priority": 1}]},
    )  # fmt: skip

    results = response.json()["results"]
    assert response.status_code == 207
    assert [result["status"] for result in results] == [201, 201, 200, 409]
    assert results[1]["run"]["id"] == results[2]["run"]["id"]
    assert results[3]["problem"]["code"] == "run.idempotency_mismatch"

    ids = [results[0]["run"]["id"], results[0]["run"]["id"], 999]
    cancelled = user.post("/v1/runs/cancel", {"ids": ids}).json()["results"]
    assert [result["status"] for result in cancelled] == [200, 409, 404]
    assert cancelled[0]["run"]["state"] == "cancelled"
    problem(user.post("/v1/runs/cancel", {"ids": []}), 400, "request.invalid")
    problem(user.post("/v1/runs/bulk", {"runs": [{"pipeline": "items"}] * 101}), 400, "request.invalid")


# --- a run that was carried out


@pytest.fixture
def finished(transactional_db: None, staff: Api, make_pipeline: Any, driver: Driver) -> int:
    """A run of four rows, of which two break a rule."""
    make_pipeline()
    run = int(ask(staff, uploads=[upload(staff)]).json()["id"])
    driver.drain()
    return run


def test_a_finished_run_shows_its_books(user: Api, finished: int) -> None:
    body = user.get(f"/v1/runs/{finished}").json()

    totals = {name: body[name] for name in ("fetched", "accepted", "rejected", "duplicate", "filtered")}
    assert body["state"] == "succeeded", body
    assert totals == {"fetched": 4, "accepted": 2, "rejected": 2, "duplicate": 0, "filtered": 0}
    assert body["destinations"] == {"catalog": 2}
    assert body["waiting"] is None
    for name, expected in (("partitions", 1), ("deliveries", 1), ("parts", 3), ("events", 1)):
        rows = user.client.get(body["links"][name], headers=user.headers).json()["results"]
        assert len(rows) >= expected, name
    assert user.get(f"/v1/runs/{finished}/parts?zone=clean").json()["results"][0]["rows"] == 2
    assert user.get(f"/v1/runs/{finished}/deliveries").json()["results"][0]["destination"] == "catalog"


def test_rejected_rows_are_shown_page_by_page(user: Api, finished: int) -> None:
    address = f"/v1/runs/{finished}/rejected"
    first = user.get(f"{address}?limit=1").json()
    second = user.client.get(first["next"], headers=user.headers).json()

    rows = first["results"] + second["results"]
    assert [row["row"] for row in rows] == [1, 2]
    assert rows[0]["errors"][0]["column"] == "formula"
    assert rows[0]["outcome"] == "rejected"
    assert json.loads(rows[0]["raw"])["id"] in ("2", 2)
    assert second["next"] is None
    assert [row["row"] for row in user.get(f"{address}?column=energy").json()["results"]] == [2]
    assert user.get(f"{address}?outcome=duplicate").json()["results"] == []
    assert user.get(f"{address}?rule={rows[0]['errors'][0]['rule']}").json()["results"][0]["row"] == 1
    for query in ("outcome=lost", "download=doc", "after=1"):
        problem(user.get(f"{address}?{query}"), 400, "request.invalid")


def test_rejected_rows_are_downloaded(user: Api, finished: int) -> None:
    def download(kind: str) -> bytes:
        response = user.get(f"/v1/runs/{finished}/rejected?download={kind}")
        assert response.status_code == 200
        assert response["Content-Disposition"] == f'attachment; filename="items-{finished}-rejected.{kind}"'
        return b"".join(response.streaming_content)

    lines = list(csv.DictReader(io.StringIO(download("csv").decode())))
    objects = [json.loads(line) for line in download("jsonl").splitlines()]

    assert [line["column"] for line in lines] == ["formula", "energy"]
    assert [row["_row"] for row in objects] == [1, 2]
    assert download("xlsx")[:2] == b"PK"


def test_accepted_records_are_served(user: Api, finished: int, pipeline_rows: None = None) -> None:
    first = user.get("/v1/data?limit=1").json()
    second = user.client.get(first["next"], headers=user.headers).json()

    rows = first["results"] + second["results"]
    assert [row["record"]["formula"] for row in rows] == ["SiO2", "Al2O3"]
    assert {(row["pipeline"], row["source"], row["run"]) for row in rows} == {("items", "uploads", finished)}
    assert second["next"] is None
    assert len(user.get("/v1/data?pipeline=items&source=uploads").json()["results"]) == 2
    assert len(user.get("/v1/data?since=2020-01-01T00:00:00+01:00").json()["results"]) == 2
    assert user.get("/v1/data?until=2020-01-01").json()["results"] == []
    problem(user.get("/v1/data?pipeline=nowhere"), 400, "request.invalid")


def test_a_published_run_is_rolled_back_to(user: Api, finished: int, driver: Driver) -> None:
    response = user.post(f"/v1/runs/{finished}/rollback")
    driver.drain()

    body = response.json()
    assert response.status_code == 201
    assert (body["republishes"], body["trigger"]) == (finished, "rollback")
    assert user.get(f"/v1/runs/{body['id']}").json()["state"] == "succeeded"


def test_numbers_agree_with_the_run(user: Api, finished: int) -> None:
    stats = user.get("/v1/stats?days=7").json()

    assert stats["runs"] == {"total": 1, "by_state": {"succeeded": 1}}
    assert stats["rows"]["accepted"] == 2
    assert stats["by_source"][0]["source"] == "uploads"
    assert Destination.objects.count() == len(stats["by_destination"]) == 1
    problem(user.get("/v1/stats?days=0"), 400, "request.invalid")

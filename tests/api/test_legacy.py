"""The addresses of the earlier system: a file is sent, and its state is asked for until it has ended."""

import json
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from ingestion.api.legacy import WORDS, TaskStatus
from ingestion.models import Delivery, Destination, Run, RunState, Upload
from tests.api.conftest import CONTRACT, CSV, Api, problem
from tests.api.test_uploads import form
from tests.runs.driver import Driver


@pytest.fixture
def client(transactional_db: None, staff: Api) -> Api:
    """A client whose runs begin when its request is committed."""
    return staff


def status_of(client: Api, task: Any) -> dict[str, Any]:
    answer = client.client.get(task["status_url"], headers=client.headers)
    assert answer.status_code == 200, answer.content
    body: dict[str, Any] = answer.json()
    return body


def test_a_file_and_a_name_are_enough(client: Api, driver: Driver) -> None:
    answer = client.raw("/ingest/upload", form(datasource_name="My Items"))

    task = answer.json()
    run = Run.objects.get()
    assert answer.status_code == 202, answer.content
    assert task["status_url"].endswith(f"/api/ingest/status/{run.pk}")
    assert {name: task[name] for name in ("task_id", "status", "datasource", "filename")} == {
        "task_id": str(run.pk), "status": "PENDING", "datasource": "my_items", "filename": "items.csv",
    }  # fmt: skip
    assert task["message"]
    assert run.pipeline.contract is None, "it is drafted from the data"


def test_the_state_goes_from_pending_to_success_and_books_what_came(client: Api, driver: Driver) -> None:
    task = client.raw("/ingest/upload", form(datasource_name="items", contract=json.dumps(CONTRACT))).json()
    seen = [status_of(client, task)]
    while driver.waiting:
        driver.step()
        seen.append(status_of(client, task))

    last = seen[-1]
    assert list(dict.fromkeys(found["status"] for found in seen)) == ["PENDING", "PROCESSING", "SUCCESS"]
    progress = [found["progress"] for found in seen]
    assert (progress[0], progress[-1], progress) == (0, 100, sorted(progress))
    assert last["rows"] == {
        "total": 4, "processed": 4, "accepted": 2, "rejected": 2, "duplicate": 0, "filtered": 0,
    }  # fmt: skip
    assert (last["run_state"], last["error"], last["druid"]) == ("succeeded", None, None)
    assert last["s3"]["destination"] == "lake"
    assert (last["s3"]["state"], last["s3"]["rows"]) == ("verified", 2)
    assert last["s3"]["path"].endswith(".json")
    assert {place["destination"]: place["rows"] for place in last["deliveries"]} == {"catalog": 2, "lake": 2}
    assert last["created_at"] <= last["updated_at"]
    assert last["finished_at"] <= last["updated_at"]


def test_druid_is_told_of_where_there_is_a_delivery_into_it(client: Api, driver: Driver) -> None:
    task = client.raw("/ingest/upload", form(datasource_name="items")).json()
    driver.drain()
    druid = Destination.objects.create(name="druid", kind="druid")
    refs = {"datasource": "items", "task": "hg.items.1.0.a1"}
    Delivery.objects.create(run=Run.objects.get(), destination=druid, state="submitted", refs=refs, inserted=4)

    found = status_of(client, task)["druid"]

    assert (found["datasource"], found["task_id"], found["state"]) == ("items", "hg.items.1.0.a1", "submitted")


def test_the_same_file_again_is_the_same_task(client: Api) -> None:
    first = client.raw("/ingest/upload", form(datasource_name="items"))
    second = client.raw("/ingest/upload", form(name="copy.csv", datasource_name="items"))

    assert (first.status_code, second.status_code) == (202, 200)
    assert first.json()["task_id"] == second.json()["task_id"]
    assert Upload.objects.count() == Run.objects.count() == 1


def test_fields_that_are_not_known_are_passed_over(client: Api) -> None:
    answer = client.raw("/ingest/upload?tenant=a", form(datasource_name="items", description="x", format="csv"))

    assert answer.status_code == 202, answer.content


def test_what_went_wrong_has_a_code_and_a_sentence(client: Api, driver: Driver) -> None:
    task = client.raw("/ingest/upload", form(b"PK\x03\x04 no archive", datasource_name="items")).json()
    driver.drain()

    found = status_of(client, task)

    assert found["status"] == "FAILED"
    assert found["error"]["code"]
    assert found["message"] == found["error"]["message"]
    assert found["progress"] < 100


def test_a_cancelled_run_is_told_as_cancelled(client: Api) -> None:
    task = client.raw("/ingest/upload", form(datasource_name="items")).json()
    client.post(f"/v1/runs/{task['task_id']}/cancel")

    assert status_of(client, task)["status"] == "CANCELLED"


def test_every_state_has_a_word() -> None:
    assert set(WORDS) == set(RunState)
    assert {state for state, word in WORDS.items() if word is TaskStatus.SUCCESS} == {RunState.SUCCEEDED}
    assert {state for state, word in WORDS.items() if word is TaskStatus.FAILED} == {RunState.PARTIAL, RunState.FAILED}


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"file": SimpleUploadedFile("a.csv", CSV)}, 400, "request.invalid"),
        ({"file": SimpleUploadedFile("a.csv", CSV), "datasource_name": "///"}, 400, "upload.unnamed"),
        ({"file": SimpleUploadedFile("a.csv", b""), "datasource_name": "a"}, 400, "file.empty"),
        ({"datasource_name": "a"}, 400, "request.invalid"),
    ],
)
def test_half_a_form_is_refused(client: Api, fields: dict[str, Any], status: int, code: str) -> None:
    problem(client.raw("/ingest/upload", fields), status, code)


def test_a_bare_file_is_no_form(client: Api) -> None:
    problem(client.raw("/ingest/upload?datasource_name=a", CSV, content_type="text/csv"), 415, "request.media_type")
    problem(client.get("/ingest/status/999999"), 404, "request.not_found")
    problem(client.get("/ingest/status/abc"), 404, "request.not_found")

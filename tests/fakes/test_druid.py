"""What a test can ask of the fake Druid: faults of requests, tasks, loading and queries, and extensions."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fakes.druid import FakeDruid
from tests.fakes.druid_specs import day_rows, http, inline, task

DAY = ["2001-01-01/2001-01-02"]
CLIENT = httpx.Client()
TASK = "/druid/indexer/v1/task"
LOADING = "loadstatus?simple&forceMetadataRefresh=true&interval=2001-01-01_2001-02-01"


@pytest.fixture
def druid() -> Iterator[FakeDruid]:
    with FakeDruid() as running:
        yield running


def spec(name: str = "t1", *, rows: int = 3, **options: Any) -> dict[str, Any]:
    return task("demo", name, inline(day_rows(1, count=rows)), **{"intervals": DAY, "drop": True, **options})


def submit(druid: FakeDruid, body: dict[str, Any] | None = None) -> httpx.Response:
    return CLIENT.post(f"{druid.url}{TASK}", json=body or spec())


def status(druid: FakeDruid, name: str = "t1") -> httpx.Response:
    return CLIENT.get(f"{druid.url}{TASK}/{name}/status")


def load(druid: FakeDruid, name: str = "t1", **options: Any) -> str:
    submit(druid, spec(name, **options))
    return druid.await_task(name)


def count(druid: FakeDruid) -> Any:
    return CLIENT.post(f"{druid.url}/druid/v2/sql", json={"query": 'SELECT COUNT(*) AS "c" FROM "demo"'}).json()


def looks(druid: FakeDruid) -> httpx.Response:
    return CLIENT.get(f"{druid.url}/druid/coordinator/v1/datasources/demo/{LOADING}")


@pytest.mark.parametrize(
    ("how", "values", "expected"),
    [
        ("unavailable", {}, (503, None, "")),
        ("text", {"text": "busy", "status": 502}, (502, "text/plain", "busy")),
        ("empty", {}, (200, "application/json", "")),
        ("json", {"body": {"a": 1}, "status": 429}, (429, "application/json", '{"a":1}')),
        ("not_found", {}, (404, "text/plain", "Cannot find any task with id: [t1]")),
    ],
)
def test_a_request_is_answered_as_asked_for_and_the_next_one_as_usual(
    druid: FakeDruid, how: str, values: dict[str, Any], expected: tuple[int, str | None, str]
) -> None:
    load(druid)
    druid.fail_next(f"GET {TASK}/*/status", how, **values)

    found = status(druid)

    assert (found.status_code, found.headers.get("Content-Type"), found.text) == expected
    assert status(druid).json()["status"]["statusCode"] == "SUCCESS"


def test_a_page_of_html_names_the_error(druid: FakeDruid) -> None:
    druid.fail_next("POST *", "html", message="java.lang.Error: <no>")

    found = submit(druid)

    assert (found.status_code, found.headers["Content-Type"]) == (500, "text/html;charset=iso-8859-1")
    assert "java.lang.Error: &lt;no&gt;" in found.text


def test_a_reset_request_does_nothing(druid: FakeDruid) -> None:
    druid.fail_next(f"POST {TASK}", "reset")

    with pytest.raises(httpx.TransportError):
        submit(druid)

    assert druid.task_state("t1") is None
    assert druid.count(f"POST {TASK}") == 1


def test_a_lost_answer_leaves_the_task_behind(druid: FakeDruid) -> None:
    druid.fail_next(f"POST {TASK}", "lost")

    with pytest.raises(httpx.TransportError):
        submit(druid)

    assert druid.await_task("t1") == "SUCCESS"
    assert submit(druid).json()["errorCode"] == "entryAlreadyExists"


def test_a_hanging_request_ends_when_the_port_closes(druid: FakeDruid) -> None:
    druid.fail_next(f"POST {TASK}", "hang", seconds=600)

    with pytest.raises(httpx.ReadTimeout):
        CLIENT.post(f"{druid.url}{TASK}", json=spec(), timeout=0.2)


def test_an_unknown_fault_is_refused(druid: FakeDruid) -> None:
    with pytest.raises(ValueError, match="there are: broken_json"):
        druid.fail_next("GET *", "earthquake")


def test_a_fault_may_skip_requests_and_last_for_ever(druid: FakeDruid) -> None:
    load(druid)
    druid.fail_next(f"GET {TASK}/*", "unavailable", skip=1, times=None)

    assert [status(druid).status_code for _ in range(3)] == [200, 503, 503]
    druid.clear_faults()
    assert status(druid).status_code == 200


def test_what_is_known_outlives_a_stop(druid: FakeDruid) -> None:
    load(druid)
    port = httpx.URL(druid.url).port

    druid.stop()
    with pytest.raises(httpx.ConnectError):
        status(druid)
    druid.start()

    assert httpx.URL(druid.url).port == port
    assert count(druid) == [{"c": 3}]


def test_services_apart_stop_alone() -> None:
    with FakeDruid(apart=True) as druid:
        load_url = f"{druid.overlord_url}{TASK}"
        CLIENT.post(load_url, json=spec()).raise_for_status()
        druid.stop("broker")

        assert len({druid.overlord_url, druid.coordinator_url, druid.broker_url}) == 3
        assert CLIENT.get(f"{druid.broker_url.replace(druid.broker_url, druid.overlord_url)}/status").status_code == 200
        assert CLIENT.get(f"{druid.overlord_url}/druid/coordinator/v1/datasources").status_code == 404
        with pytest.raises(httpx.ConnectError):
            CLIENT.get(f"{druid.broker_url}/status")


def test_without_a_leader_there_is_an_empty_503(druid: FakeDruid) -> None:
    druid.lose_leader()

    found = submit(druid)

    assert (found.status_code, found.content) == (503, b"")
    assert CLIENT.get(f"{druid.url}/status/health").json() is True
    druid.gain_leader()
    assert submit(druid).status_code == 200


def test_a_follower_redirects_to_the_leader(druid: FakeDruid) -> None:
    with FakeDruid() as leader:
        druid.lose_leader(leader_url=leader.url)

        found = CLIENT.post(f"{druid.url}{TASK}", json=spec(), follow_redirects=True)

        assert found.json() == {"task": "t1"}
        assert leader.await_task("t1") == "SUCCESS"


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (None, (401, "application/json", '"Unauthorized request"')),
        (("admin", "wrong"), (401, "text/html;charset=iso-8859-1", "User authentication failed username[admin].")),
        (("reader", "pw"), (403, "application/json", '{"Access-Check-Result":"Unauthorized"}')),
        (("admin", "pw"), (200, "application/json", '{"task":"t1"}')),
    ],
)
def test_users_are_asked_for(user: tuple[str, str] | None, expected: tuple[int, str, str]) -> None:
    with FakeDruid(users={"admin": "pw", "reader": "pw"}, powerless=["reader"]) as druid:
        headers = {}
        if user is not None:
            headers["Authorization"] = f"Basic {base64.b64encode(':'.join(user).encode()).decode()}"
        found = CLIENT.post(f"{druid.url}{TASK}", json=spec(), headers=headers)

        assert (found.status_code, found.headers["Content-Type"]) == expected[:2]
        assert expected[2] in found.text


def test_a_held_task_runs_when_it_is_released(druid: FakeDruid) -> None:
    druid.hold()
    submit(druid)

    assert status(druid).json()["status"]["statusCode"] == "RUNNING"
    druid.release()
    assert druid.await_task("t1") == "SUCCESS"


def test_a_task_fails_with_the_message_that_was_asked_for(druid: FakeDruid) -> None:
    druid.fail_next_task("disk full")

    assert load(druid) == "FAILED"

    assert status(druid).json()["status"]["errorMsg"] == "disk full"
    assert druid.rows("demo") == []


def test_a_task_may_fail_after_its_rows_were_published(druid: FakeDruid) -> None:
    druid.fail_next_task("no place for the log", is_after_publishing=True)

    assert load(druid) == "FAILED"

    assert count(druid) == [{"c": 3}]


def test_a_task_may_succeed_with_nothing(druid: FakeDruid) -> None:
    druid.empty_next_task()

    assert load(druid) == "SUCCESS"

    assert counts_of(druid)["processed"] == 0
    assert druid.rows("demo") == []


@pytest.mark.parametrize(("is_counted", "expected"), [(True, (2, 1)), (False, (3, 0))])
def test_a_task_may_lose_rows(druid: FakeDruid, is_counted: bool, expected: tuple[int, int]) -> None:
    druid.drop_rows_of_next_task(1, is_counted=is_counted)

    load(druid)

    found = counts_of(druid)
    assert (found["processed"], found["thrownAway"]) == expected
    assert count(druid) == [{"c": 2}]


def counts_of(druid: FakeDruid) -> dict[str, int]:
    report = CLIENT.get(f"{druid.url}{TASK}/t1/reports").json()
    counts: dict[str, int] = report["ingestionStatsAndErrors"]["payload"]["rowStats"]["buildSegments"]
    return counts


def test_a_forgotten_task_is_unknown_and_can_be_submitted_again(druid: FakeDruid) -> None:
    druid.forget_next_task()

    assert submit(druid).json() == {"task": "t1"}

    assert status(druid).status_code == 404
    assert load(druid) == "SUCCESS"


def test_a_hidden_task_is_unknown_for_a_while(druid: FakeDruid) -> None:
    druid.spare_next_task()
    druid.hide_next_task(polls=2)
    load(druid, "t0")

    submit(druid)

    assert status(druid, "t0").status_code == 200
    assert [status(druid).status_code for _ in range(3)] == [404, 404, 200]


def test_a_report_can_be_missing(druid: FakeDruid) -> None:
    load(druid)
    druid.fail_next(f"GET {TASK}/t1/reports", "not_found")

    assert CLIENT.get(f"{druid.url}{TASK}/t1/reports").status_code == 404


def test_a_log_is_what_the_test_wrote(druid: FakeDruid) -> None:
    load(druid)
    missing = CLIENT.get(f"{druid.url}{TASK}/t1/log")
    druid.write_log("t1", "ERROR no space left")

    found = CLIENT.get(f"{druid.url}{TASK}/t1/log?offset=-10")

    assert (missing.status_code, found.status_code, found.text) == (404, 200, "space left")


def test_segments_are_loaded_after_some_looks_and_old_rows_are_read_until_then(druid: FakeDruid) -> None:
    load(druid, "t0", rows=2)
    druid.load_after(2)
    load(druid)

    assert [looks(druid).json(), count(druid)] == [{"demo": 1}, [{"c": 2}]]
    assert looks(druid).json() == {"demo": 1}
    assert [looks(druid).json(), count(druid)] == [{"demo": 0}, [{"c": 3}]]


def test_segments_may_never_be_loaded(druid: FakeDruid) -> None:
    druid.load_after(None)
    load(druid)

    assert [looks(druid).json() for _ in range(5)] == [{"demo": 1}] * 5
    assert count(druid)["errorCode"] == "invalidInput"
    druid.finish_loading()
    assert [looks(druid).json(), count(druid)] == [{"demo": 0}, [{"c": 3}]]


def test_the_load_status_may_know_nothing_for_a_while(druid: FakeDruid) -> None:
    druid.hide_load_status(2)
    load(druid)

    assert [looks(druid).status_code for _ in range(3)] == [204, 204, 200]


def test_queries_may_see_the_old_rows_though_the_new_ones_are_loaded(druid: FakeDruid) -> None:
    load(druid, "t0", rows=2)
    druid.lag_broker(2)
    load(druid)

    assert looks(druid).json() == {"demo": 0}
    assert [count(druid)[0]["c"] for _ in range(3)] == [2, 2, 3]


def test_a_missing_input_keeps_the_task_running_until_it_is_shut_down(druid: FakeDruid) -> None:
    submit(druid, task("demo", "t1", http(f"{druid.url}/nothing.json"), intervals=DAY))

    CLIENT.post(f"{druid.url}{TASK}/t1/shutdown")

    assert druid.await_task("t1") == "FAILED"
    assert status(druid).json()["status"]["errorMsg"] == "Shutdown request from user"


def test_eternity_by_days_wedges_the_question_for_that_task(druid: FakeDruid) -> None:
    eternity = "-146136543-09-08T08:23:32.096Z/146140482-04-24T15:36:27.903Z"
    submit(druid, spec(intervals=[eternity]))

    with pytest.raises(httpx.ReadTimeout):
        CLIENT.get(f"{druid.url}{TASK}/t1/status", timeout=0.2)

    assert CLIENT.get(f"{druid.url}/druid/indexer/v1/workers").status_code == 200


def test_rows_are_kept_as_they_are_stored(druid: FakeDruid) -> None:
    load(druid, rows=1)

    assert druid.rows("demo") == [{"__time": 978307200000, "name": "a", "e": 0.0, "n": 0}]


def test_requests_are_kept_with_query_and_body(druid: FakeDruid) -> None:
    load(druid)
    looks(druid)

    first, last = druid.requests[0], druid.requests[-1]
    assert (first.method, first.path, json.loads(first.body)["id"]) == ("POST", TASK, "t1")
    assert last.query == {"simple": "", "forceMetadataRefresh": "true", "interval": "2001-01-01_2001-02-01"}

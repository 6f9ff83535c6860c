"""The fake answers as the real Druid 33.0.0 did: call by call, in status, content type, keys, types and values."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.druid import FakeDruid
from tests.fakes.druid_performance import body_of
from tests.fakes.druid_script import FILES, UNCOMPARED, Addresses, Answer, kept_answers, perform
from tests.fakes.druid_shapes import answer_differences, differences, same_shape, shape_differences
from tests.fakes.druid_specs import http, inline, lines, task
from tests.fakes.http_server import FakeSite, Reply
from tests.servers import wait_until

DATA = Path(__file__).parent.parent / "data" / "druid"
PAIRS: dict[str, Any] = json.loads((DATA / "recorded_33.0.0.json").read_text())
MORE: dict[str, Any] = json.loads((DATA / "recorded_33.0.0_more.json").read_text())
SCRIPT = kept_answers(DATA / "script_33.0.0.json")
RECORDED_SITE = "http://127.0.0.1:9000"
DEMO_DAY = ["2026-01-01/2026-01-02"]
CLIENT = httpx.Client()
UNENDING = ("load_url_404", "load_refused")


def demo_rows(count: int) -> list[dict[str, Any]]:
    return [
        {"t": "2026-01-01T00:00:00Z", "name": f"r{n}", "e": n / 2, "n": n, "elements": ["Si", "O"] if n % 2 else None}
        for n in range(count)
    ]


def demo_files() -> dict[str, bytes]:
    good = lines(*demo_rows(100)).encode()
    import gzip

    return {
        "/a.ndjson.gz": gzip.compress(good),
        "/b.ndjson": lines(*demo_rows(50), "not json", '{"t":"never"}').encode(),
        "/c.csv": b"t,name,e,n\n" + b"2026-01-01,a,1.5,1\n" * 10,
        "/empty.ndjson": b"",
    }


def replayed(pairs: Mapping[str, Any], druid: FakeDruid, site: FakeSite) -> dict[str, httpx.Response]:
    """Ask the fake what was asked of the real one, in the same order, in a state like that of the recording."""
    found = {}
    with httpx.Client() as client:
        prepare(client, druid)
        for name, pair in pairs.items():
            request = pair["request"]
            if name == "running_status":
                druid.hold()
                submit(client, druid, task("demok", "hg.demo.r1.cancel", inline(demo_rows(9)), intervals=DEMO_DAY))
                await_start(client, druid, "hg.demo.r1.cancel")
            if name.endswith(("_status", "_reports")) and request["path"].count("/task/hg.") == 1:
                await_as_recorded(client, druid, name, request["path"])
            path = request["path"].partition("}")[2]
            body = b"{not json" if name == "not_json" else body_bytes(request["body"], site)
            headers = {"Content-Type": "application/json"} if body else {}
            found[name] = client.request(request["method"], f"{druid.url}{path}", content=body, headers=headers)
    return found


def body_bytes(body: Any, site: FakeSite) -> bytes | None:
    if body is None:
        return None
    return json.dumps(body).replace(RECORDED_SITE, site.url).encode()


def submit(client: httpx.Client, druid: FakeDruid, spec: dict[str, Any]) -> None:
    client.post(f"{druid.url}/druid/indexer/v1/task", json=spec).raise_for_status()


def is_placed(client: httpx.Client, druid: FakeDruid, task_id: str) -> bool:
    found = client.get(f"{druid.url}/druid/indexer/v1/task/{task_id}/status").json()
    return bool(found["status"]["location"]["host"])


def await_start(client: httpx.Client, druid: FakeDruid, task_id: str) -> None:
    wait_until(lambda: is_placed(client, druid, task_id), what=f"the start of {task_id}")


def await_as_recorded(client: httpx.Client, druid: FakeDruid, name: str, path: str) -> None:
    task_id = path.rpartition("/task/")[2].partition("/")[0]
    if name.startswith(UNENDING) or name.startswith("running"):
        await_start(client, druid, task_id)
    else:
        druid.await_task(task_id)


def prepare(client: httpx.Client, druid: FakeDruid) -> None:
    """Load what the recording had loaded before."""
    for datasource, name in (("democ", "democ"), ("demo", "hg.demo.r1.append")):
        submit(client, druid, task(datasource, name, inline(demo_rows(3)), intervals=DEMO_DAY))
        druid.await_task(name)


@pytest.fixture(scope="module")
def site() -> Iterator[FakeSite]:
    with FakeSite({path: Reply(content) for path, content in {**FILES, **demo_files()}.items()}) as running:
        yield running


@pytest.fixture(scope="module")
def replies(site: FakeSite) -> dict[str, httpx.Response]:
    with FakeDruid() as druid:
        return replayed(PAIRS, druid, site)


@pytest.fixture(scope="module")
def performance(site: FakeSite, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    with FakeDruid() as druid:
        at = Addresses(overlord=druid.url, coordinator=druid.url, broker=druid.url, files=site.url)
        answers = perform(at, prefix="hgs0", folder=tmp_path_factory.mktemp("shared"))
    return {answer.name: answer for answer in answers}


SAME_TO_THE_LETTER = (
    *("status_unknown_task", "loadstatus_no_force", "loadstatus_loaded", "duplicate_submit", "bad_spec"),
    *("s3_extension_missing_submit", "parquet_extension_missing_submit", "mark_unused", "shutdown_running"),
    *("shutdown_finished", "load_empty_reports", "load_url_404_reports", "not_json", "sql_columns"),
    *("sql_unknown_table", "cancelled_status"),
)
"""Calls whose answers do not depend on the data."""


def test_every_recorded_call_is_answered_alike(replies: dict[str, httpx.Response]) -> None:
    wrong = {}
    for name, pair in PAIRS.items():
        recorded, reply = pair["response"], replies[name]
        compare = differences if name in SAME_TO_THE_LETTER else shape_differences
        found = compare(recorded["body"], body_of(reply))
        if found or (reply.status_code, reply.headers.get("Content-Type")) != (
            recorded["status"],
            recorded["content_type"],
        ):
            wrong[name] = reply.status_code, reply.headers.get("Content-Type"), found

    assert wrong == {}


def test_a_task_out_of_parse_errors_fails_as_recorded(replies: dict[str, httpx.Response]) -> None:
    recorded = PAIRS["load_strict_bad_status"]["response"]["body"]["status"]

    found = replies["load_strict_bad_status"].json()["status"]

    assert differences(recorded["errorMsg"], found["errorMsg"]) == []


def test_every_call_of_the_script_is_answered_alike(performance: dict[str, Answer]) -> None:
    compared = [name for name in SCRIPT if name not in UNCOMPARED]

    found = {name: answer_differences(SCRIPT[name], performance[name]) for name in compared}

    assert {name: each for name, each in found.items() if each} == {}
    assert list(performance) == list(SCRIPT)


def test_a_payload_names_what_was_submitted(performance: dict[str, Answer]) -> None:
    recorded, found = SCRIPT["task_payload"].body["payload"], performance["task_payload"].body["payload"]

    assert set(found) == set(recorded)
    assert same_shape(recorded["spec"]["ioConfig"]["inputSource"], found["spec"]["ioConfig"]["inputSource"])


# --- states that take more than calls


def ask(druid: FakeDruid, name: str) -> None:
    """Ask the fake a call of the second recording and compare the answer."""
    recorded = MORE[name]
    request, response = recorded["request"], recorded["response"]
    path = request["path"].partition("}")[2]
    reply = CLIENT.request(request["method"], f"{druid.url}{path}", json=request["body"])

    assert (reply.status_code, reply.headers.get("Content-Type")) == (response["status"], response["content_type"])
    assert differences(response["body"], body_of(reply)) == []


@pytest.fixture
def druid() -> Iterator[FakeDruid]:
    with FakeDruid() as running:
        yield running


def start(druid: FakeDruid, *ids: str, placed: str | None = None, **options: Any) -> None:
    with httpx.Client() as client:
        for each in ids:
            datasource = each.partition(".")[0] + (each.partition(".")[2] if each.startswith("is.") else "")
            submit(client, druid, task(datasource, each, inline(demo_rows(1)), **{"intervals": DEMO_DAY, **options}))
            if placed is None or each == placed:
                await_start(client, druid, each)


def test_a_task_of_a_dead_worker_stays_running_and_is_lost_when_it_comes_back(druid: FakeDruid) -> None:
    druid.hold()
    start(druid, "i1.kill")

    ask(druid, "status_running_http")
    druid.stop_worker()
    ask(druid, "status_running_http")
    ask(druid, "reports_worker_just_killed")
    ask(druid, "workers_none")
    start(druid, "i2.pending", placed="nothing")
    wait_until(
        lambda: '"PENDING"' in CLIENT.get(f"{druid.url}/druid/indexer/v1/task/i2.pending/status").text,
        what="the wait for a worker",
    )
    ask(druid, "status_pending_no_worker")
    ask(druid, "reports_pending_no_worker")
    ask(druid, "tasks_pending")
    druid.release()
    druid.start_worker()

    for name in ("status_indexer_killed", "reports_indexer_killed"):
        ask(druid, name)
    assert druid.await_task("i2.pending") == "SUCCESS"
    assert druid.rows("i1") == []


def test_a_second_task_for_the_same_chunks_waits(druid: FakeDruid) -> None:
    druid.hold()
    start(druid, "il.0", "il.1", placed="il.0")

    for name in ("status_waiting_for_lock", "reports_waiting_for_lock", "tasks_waiting", "workers_busy"):
        ask(druid, name)
    ask(druid, "task_status_running")
    ask(druid, "sql_sys_tasks_running")
    druid.release()

    assert (druid.await_task("il.0"), druid.await_task("il.1")) == ("SUCCESS", "SUCCESS")


def test_a_task_without_intervals_fails_where_its_chunk_is_taken(druid: FakeDruid, site: FakeSite) -> None:
    with httpx.Client() as client:
        submit(client, druid, task("lk", "lk.slow", http(f"{site.url}/missing"), intervals=DEMO_DAY))
        await_start(client, druid, "lk.slow")
        submit(client, druid, task("lk", "lk.app", inline(demo_rows(1)), append=True))

    assert druid.await_task("lk.app") == "FAILED"
    ask(druid, "status_locks_refused")


def test_a_pending_task_can_be_shut_down(druid: FakeDruid) -> None:
    druid.hold()
    start(druid, *(f"is.{n}" for n in range(4)))
    start(druid, "is.5", placed="nothing")
    wait_until(
        lambda: '"PENDING"' in CLIENT.get(f"{druid.url}/druid/indexer/v1/task/is.5/status").text,
        what="the wait for a slot",
    )

    CLIENT.post(f"{druid.url}/druid/indexer/v1/task/is.5/shutdown")

    ask(druid, "status_shutdown_pending")
    ask(druid, "reports_shutdown_pending")


def test_after_a_crash_the_overlord_redirects_to_itself(druid: FakeDruid) -> None:
    druid.lose_leader(leader_url=druid.url)

    ask(druid, "leader_lost_self_redirect")
    ask(druid, "leader_lost_is_leader")
    location = CLIENT.get(f"{druid.url}/druid/indexer/v1/task/x/status").headers["Location"]

    assert location == f"{druid.url}/druid/indexer/v1/task/x/status"


def test_a_missing_file_on_the_disk_is_a_success_that_empties_the_chunks(druid: FakeDruid, tmp_path: Path) -> None:
    missing = {"type": "local", "files": [str(tmp_path / "gone.json")]}
    with httpx.Client() as client:
        submit(client, druid, task("q", "q.first", inline(demo_rows(2)), intervals=DEMO_DAY))
        druid.await_task("q.first")
        submit(client, druid, task("q", "q.gone", missing, intervals=DEMO_DAY, drop=True))

    assert druid.await_task("q.gone") == "SUCCESS"
    assert druid.rows("q") == []


def test_a_torn_transfer_is_a_success_with_the_rows_that_came(druid: FakeDruid, site: FakeSite) -> None:
    site.fault("cut", path="/rows.ndjson")
    with httpx.Client() as client:
        torn = task("torn", "torn", http(f"{site.url}/rows.ndjson"), intervals=["2001-01-01/2001-01-03"])
        submit(client, druid, torn)

    assert druid.await_task("torn") == "SUCCESS"
    assert 0 < len(druid.rows("torn")) < 40

"""Destinations: how they fare, what staff may do with them, and the tasks they run for us."""

from typing import Any

import pytest

from ingestion import registry
from ingestion.models import Delivery, Destination, Pipeline, Run
from tests.api.conftest import Api, problem
from tests.fakes import plugins
from tests.fakes.druid_destination import held_task
from tests.runs.driver import Driver


def at(destination: Destination, what: str = "") -> str:
    return f"/v1/destinations/{destination.pk}{what}"


def test_a_destination_tells_what_it_can_do_and_how_it_fares(user: Api, memory: Destination, published: Run) -> None:
    body = user.get(at(memory)).json()

    assert body["operations"] == ["compact", "retain", "drop", "schema", "tasks"]
    health = body["health"]
    assert (health["state"], health["open"], health["failed"], health["rows"]) == ("ok", 0, 0, 2)
    assert (health["last_verified_run"], health["failing"]) == (published.pk, [])
    assert "canary" not in str(body)


@pytest.mark.both
def test_a_list_of_destinations_takes_the_same_few_statements_however_long(
    user: Api, memory: Destination, django_assert_max_num_queries: Any
) -> None:
    Destination.objects.bulk_create(Destination(name=f"d{number}", kind="catalog") for number in range(50))

    with django_assert_max_num_queries(6):
        listed = user.get("/v1/destinations").json()["results"]

    assert {row["health"]["state"] for row in listed} == {"unused"}


def test_what_is_shown_cannot_be_written(staff: Api, memory: Destination) -> None:
    body = problem(staff.send("patch", at(memory), {"health": {}}), 400, "request.invalid")

    assert "health" in body["detail"]


@pytest.mark.parametrize(
    ("what", "body", "asked"),
    [
        ("/compact", {}, "compact items"),
        ("/retain", {"keep_runs": 3, "keep_days": 30}, "retain items 3 30"),
        ("/drop", {"confirm": "items"}, "drop items"),
    ],
)
def test_upkeep_is_tried_dry_and_then_done(  # noqa: PLR0917 (what is asked, and of whom)
    staff: Api, memory: Destination, published: Run, what: str, body: dict[str, Any], asked: str
) -> None:
    tried = staff.post(at(memory, what), {"pipeline": "items", "dry_run": True}).json()
    after_trying = list(plugins.CALLS)
    done = staff.post(at(memory, what), {"pipeline": "items", **body}).json()

    assert (tried["is_dry_run"], after_trying) == (True, [])
    assert (done["actions"], done["object_count"], done["is_dry_run"]) == ([f"{asked}: 3 files"], 3, False)
    assert [asked] == plugins.CALLS


def test_nothing_is_dropped_that_was_not_confirmed_and_what_was_can_be_brought_back(
    staff: Api, memory: Destination, published: Run, driver: Driver
) -> None:
    for confirm in ({}, {"confirm": "memory"}):
        problem(staff.post(at(memory, "/drop"), {"pipeline": "items", **confirm}), 409, "destination.unconfirmed")
    kept = Delivery.objects.get().state
    staff.post(at(memory, "/drop"), {"pipeline": "items", "confirm": "items"})

    begun = staff.post(at(memory, "/redeliver"), {"pipeline": "items"})
    driver.drain()
    again = staff.post(at(memory, "/redeliver"), {"pipeline": "items"})

    assert (kept, begun.status_code, again.json()) == ("verified", 202, {"deliveries": []})
    assert [row["run"] for row in begun.json()["deliveries"]] == [published.pk]
    assert Delivery.objects.get().state == "verified"
    assert published.events.filter(kind="delivery.removed", values__by="staff").exists()


@pytest.mark.parametrize(
    ("what", "body", "status", "code"),
    [
        ("/compact", {}, 400, "request.invalid"),
        ("/compact", {"pipeline": "nowhere"}, 400, "request.invalid"),
        ("/compact", {"pipeline": "items", "confirm": "items"}, 400, "request.invalid"),
        ("/retain", {"pipeline": "items", "keep_days": 10**9}, 400, "request.invalid"),
        ("/retain", {"pipeline": "items", "keep_runs": -1}, 400, "request.invalid"),
        ("/schema/revert", {"pipeline": "items", "change": "c9"}, 400, "config.invalid"),
        ("/tasks/a%2Fb/cancel", None, 404, "request.not_found"),
        ("/tasks/a b/cancel", None, 404, "request.not_found"),
    ],
)
def test_what_does_not_validate_changes_nothing(  # noqa: PLR0917
    staff: Api, memory: Destination, what: str, body: Any, status: int, code: str
) -> None:
    problem(staff.post(at(memory, what), body), status, code)

    assert plugins.CALLS == []


def test_a_kind_that_cannot_is_refused(staff: Api, make_pipeline: Any) -> None:
    make_pipeline()
    catalog = Destination.objects.get(name="catalog")

    for what in ("/compact", "/retain", "/drop"):
        body = {"pipeline": "items"} | ({"confirm": "items"} if what == "/drop" else {})
        problem(staff.post(at(catalog, what), body), 409, "destination.cannot")
    for what in ("/schema?pipeline=items", "/tasks", "/tasks/hg.1/log"):
        problem(staff.get(at(catalog, what)), 409, "destination.cannot")
    assert staff.get(at(catalog)).json()["operations"] == []


def test_nobody_but_staff_changes_anything(user: Api, memory: Destination, published: Run) -> None:
    body = {"pipeline": "items", "confirm": "items", "change": "c1", "destination": "memory"}
    for what in ("/redeliver", "/fill", "/compact", "/retain", "/drop", "/schema/revert", "/tasks/hg.1/cancel"):
        problem(user.post(at(memory, what), body), 403, "request.forbidden")
    problem(user.post(f"/v1/runs/{published.pk}/redeliver", body), 403, "request.forbidden")

    assert plugins.CALLS == []


def test_changes_of_a_table_are_shown_and_reverted(user: Api, staff: Api, memory: Destination) -> None:
    shown = user.get(at(memory, "/schema?pipeline=items")).json()
    reverted = staff.post(at(memory, "/schema/revert"), {"pipeline": "items", "change": "c1"}).json()
    problem(user.get(at(memory, "/schema")), 400, "request.invalid")

    assert [change["column"] for change in shown["planned"]] == ["colour"]
    assert [(change["id"], change["revertible_until"][:10]) for change in shown["applied"]] == [("c1", "2030-01-08")]
    assert (reverted["column"], plugins.CALLS) == ("size", ["revert items c1"])


def test_tasks_are_shown_without_secrets(user: Api, memory: Destination, published: Run) -> None:
    Delivery.objects.update(refs={"task": "hg.items.1.1.a1"})

    [task] = user.get(at(memory, "/tasks?limit=5")).json()["results"]
    log = user.get(at(memory, "/tasks/hg.items.1.1.a1/log?tail=1000")).json()

    assert (task["id"], task["run"], task["delivery"]) == ("hg.items.1.1.a1", published.pk, Delivery.objects.get().pk)
    assert "is done" in log["log"]
    assert "canary" not in str(task) + str(log)
    problem(user.get(at(memory, "/tasks/hg.1/log?tail=0")), 400, "request.invalid")


def test_a_task_of_druids_is_read_and_stopped(
    staff: Api, transactional_db: None, make_pipeline: Any, driver: Driver, settings: Any
) -> None:
    settings.HEADGATE_CONNECTORS = {**settings.HEADGATE_CONNECTORS, "pages": "tests.fakes.plugins:PagesConnector"}
    registry._table.cache_clear()
    pipeline: Pipeline = make_pipeline()
    pipeline.source.kind = "pages"
    pipeline.source.save()
    Pipeline.objects.update(stream="items", contract=None)
    with held_task(Pipeline.objects.get(), driver=driver, settings=settings) as held:
        tasks = at(held.delivery.destination, "/tasks")
        [task] = staff.get(tasks).json()["results"]
        log = staff.get(f"{tasks}/{held.task_id}/log").json()["log"]
        stopped = staff.post(f"{tasks}/{held.task_id}/cancel")
        problem(staff.post(f"{tasks}/index_parallel_x/cancel"), 400, "sink.foreign_task")

        assert (task["state"], task["run"], task["duration_ms"]) == ("RUNNING", held.delivery.run_id, None)
        assert ("has read 12 rows" in log, "canary" in log) == (True, False)
        assert (stopped.status_code, held.druid.await_task(held.task_id)) == (204, "FAILED")
        held.druid.stop()
        problem(staff.get(tasks), 503, "sink.unavailable")

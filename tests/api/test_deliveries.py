"""Deliveries: listed, shown with their history, and made again; rejected rows name who rejected them."""

import pytest

from ingestion.models import Delivery, Destination, Run
from tests.api.conftest import Api, problem
from tests.fakes import plugins
from tests.runs.driver import Driver

pytestmark = pytest.mark.both


@pytest.fixture
def later(published: Run) -> Destination:
    """A destination that has not got the run."""
    return Destination.objects.create(name="later", kind="memory")


def test_deliveries_are_chosen_and_listed_newest_first(
    user: Api, staff: Api, later: Destination, driver: Driver
) -> None:
    run = Run.objects.get()
    staff.post(f"/v1/destinations/{later.pk}/redeliver", {"run": run.pk})

    def listed(query: str) -> list[str]:
        return [row["destination"] for row in user.get(f"/v1/deliveries?{query}").json()["results"]]

    assert listed("") == ["later", "memory"]
    assert listed(f"destination={later.pk}") == listed("state=planned") == ["later"]
    assert listed(f"run={run.pk}&pipeline=items&state=verified") == ["memory"]
    assert listed("run=999") == []
    page = user.get("/v1/deliveries?limit=1").json()
    following = user.client.get(page["next"], headers=user.headers).json()
    assert [row["destination"] for row in page["results"] + following["results"]] == ["later", "memory"]
    problem(user.get("/v1/deliveries?state=happy"), 400, "request.invalid")


def test_a_delivery_shows_its_history_and_notes(user: Api, published: Run) -> None:
    Delivery.objects.update(refs={"task": "t1", "url": "https://store/key?X-Amz-Signature=canary-1"})

    body = user.get(f"/v1/deliveries/{Delivery.objects.get().pk}").json()

    assert [line["state"] for line in body["history"]] == ["planned", "staged", "available", "verified"]
    assert (body["notes"]["task"], body["link"], body["run"]) == ("t1", "http://console/t1", published.pk)
    assert user.client.get(body["links"]["rejected"], headers=user.headers).json()["results"] == []
    assert "canary" not in str(body)
    problem(user.get("/v1/deliveries/999"), 404, "request.not_found")


def test_a_run_is_delivered_elsewhere_once(staff: Api, later: Destination, driver: Driver) -> None:
    run, address = Run.objects.get(), f"/v1/destinations/{later.pk}/redeliver"

    begun = staff.post(address, {"run": run.pk})
    problem(staff.post(address, {"run": run.pk}), 409, "delivery.exists")
    driver.drain()

    [made] = begun.json()["deliveries"]
    shown = staff.get(f"/v1/deliveries/{made['id']}").json()
    assert (begun.status_code, made["state"], shown["state"]) == (202, "planned", "verified")
    assert (shown["history"][0]["by"], "Deprecation" in begun) == ("staff", False)
    problem(staff.post(address, {"run": 999}), 404, "request.not_found")
    for body in ({}, {"run": run.pk, "pipeline": "items"}):
        problem(staff.post(address, body), 400, "request.invalid")


def test_rejected_rows_name_the_destination(user: Api, staff: Api, later: Destination, driver: Driver) -> None:
    run = Run.objects.get()
    plugins.TROUBLE["refuse.first"] = 1
    staff.post(f"/v1/destinations/{later.pk}/redeliver", {"run": run.pk})
    driver.drain()

    rejected = user.get(f"/v1/runs/{run.pk}/rejected?outcome=rejected_by_destination").json()["results"]
    every = user.get(f"/v1/runs/{run.pk}/rejected").json()["results"]

    assert [(row["outcome"], row["destination"], row["errors"][0]["rule"]) for row in rejected] == [
        ("rejected_by_destination", "later", "too_long")
    ]
    assert {(row["outcome"], row["destination"]) for row in every} == {
        ("rejected", None),
        ("rejected_by_destination", "later"),
    }


def test_older_names_answer_and_say_the_newer_ones(staff: Api, later: Destination, driver: Driver) -> None:
    run = Run.objects.get()

    begun = staff.post(f"/v1/runs/{run.pk}/redeliver", {"destination": "later"})
    driver.drain()
    filled = staff.post(f"/v1/destinations/{later.pk}/fill", {"pipeline": "items"})
    rows = staff.get(f"/v1/runs/{run.pk}/rejected?outcome=refused")
    shown = staff.client.get(begun["Location"], headers=staff.headers).json()

    assert (begun.status_code, filled.json(), rows.json()["results"]) == (202, {"deliveries": []}, [])
    assert (shown["looks"], shown["refused"]) == (shown["polls"], shown["rejected"])
    assert staff.client.get(shown["links"]["refused"], headers=staff.headers).status_code == 200
    for answer, new in ((begun, "/redeliver"), (filled, "/redeliver"), (rows, "rejected_by_destination")):
        assert answer["Deprecation"].startswith("@")
        assert answer["Headgate-Renamed"].endswith(new)
    problem(staff.post("/v1/runs/999/redeliver", {"destination": "later"}), 404, "request.not_found")
    problem(staff.post(f"/v1/runs/{run.pk}/redeliver", {}), 400, "request.invalid")

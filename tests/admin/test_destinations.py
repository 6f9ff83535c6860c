"""What operators see of destinations and deliveries, and what they do with them."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from ingestion import registry
from ingestion.models import Delivery, Destination, Pipeline, Run
from tests.admin.pages import choose, notices, page, press, text_of
from tests.fakes import plugins
from tests.fakes.keeper import TASK
from tests.runs.driver import Driver


@pytest.fixture
def memory(settings: Any, driver: Driver, send_file: Callable[..., Run]) -> Destination:
    """A destination that can do everything, and has got the two rows of a run."""
    settings.HEADGATE_SINKS = {**settings.HEADGATE_SINKS, "memory": "tests.fakes.keeper:KeepingSink"}
    registry._table.cache_clear()
    for noted in (plugins.CALLS, plugins.TROUBLE, plugins.MemorySink.staged, plugins.MemorySink.committed):
        noted.clear()
    memory = Destination.objects.create(name="memory", kind="memory", secrets={"password": "canary-3"})
    run = send_file()
    run.pipeline.destinations.set([memory])
    driver.drain()
    plugins.CALLS.clear()
    return memory


def at(destination: Destination, what: str, query: str = "") -> str:
    return reverse(f"admin:ingestion_destination_{what}", args=(destination.pk,)) + query


def watcher() -> Client:
    """Return a browser of somebody who may see destinations and change nothing."""
    user = get_user_model().objects.create_user("watcher", password="correct horse", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=("view_destination", "view_delivery")))
    client = Client()
    client.force_login(user)
    return client


def test_a_destinations_page_tells_how_it_fares_and_what_can_be_done(operator: Client, memory: Destination) -> None:
    response = operator.get(page(Destination, "change", memory.pk))

    assert [label for label, _ in response.context["links"]] == [
        "Redeliver",
        "Compact",
        "Retain",
        "Schema",
        "Tasks",
        "Drop",
    ]
    assert (response.context["health"].state, response.context["health"].rows) == ("ok", 2)
    assert page(Run, "change", Run.objects.get().pk) in text_of(response)


def test_the_list_of_destinations_tells_state_and_is_filtered_by_kind(operator: Client, memory: Destination) -> None:
    every = text_of(operator.get(page(Destination, "changelist")))
    catalogs = text_of(operator.get(page(Destination, "changelist") + "?kind__exact=catalog"))

    assert (">ok<" in every, ">unused<" in every, ">memory<" in every) == (True, True, True)
    assert page(Destination, "change", memory.pk) not in catalogs


@pytest.mark.parametrize(
    ("what", "values", "asked"),
    [
        ("compact", {}, "compact sample"),
        ("retain", {"keep_runs": "3", "keep_days": ""}, "retain sample 3 None"),
        ("drop", {"confirm": "sample"}, "drop sample"),
    ],
)
def test_what_would_be_done_is_shown_first_and_done_when_sent(
    operator: Client, memory: Destination, what: str, values: dict[str, str], asked: str
) -> None:
    shown = operator.get(at(memory, what), {"pipeline": Pipeline.objects.get().pk, **values})
    after_looking = list(plugins.CALLS)
    response = operator.post(at(memory, what), {"pipeline": Pipeline.objects.get().pk, **values}, follow=True)

    assert (f"{asked}: 3 files" in text_of(shown), after_looking) == (True, [])
    assert [asked] == plugins.CALLS
    assert response.redirect_chain == [(page(Destination, "change", memory.pk), 302)]
    assert f"{asked}: 3 files" in notices(response)[0]


def test_the_only_pipeline_is_chosen_already_and_of_several_one_is_asked_for(
    operator: Client, memory: Destination
) -> None:
    alone = operator.get(at(memory, "drop")).context["pipeline"]
    other = Pipeline.objects.create(name="other", source=Pipeline.objects.get().source, stream="rows")
    other.destinations.add(memory)

    response = operator.get(at(memory, "drop"))

    assert (alone.name, response.context["pipeline"], response.context["work"]) == ("sample", None, None)


def test_nothing_is_dropped_without_the_pipelines_name(operator: Client, memory: Destination) -> None:
    for confirm in ("", "memory", "Sample"):
        response = operator.post(at(memory, "drop"), {"pipeline": Pipeline.objects.get().pk, "confirm": confirm})

        assert (response.status_code, plugins.CALLS, Delivery.objects.get().state) == (200, [], "verified")
        assert "Confirm that by the pipeline" in notices(response)[0]
        assert "drop sample: 3 files" in text_of(response)


def test_everything_that_a_destination_lacks_is_delivered(
    operator: Client, memory: Destination, driver: Driver
) -> None:
    operator.post(at(memory, "drop"), {"pipeline": Pipeline.objects.get().pk, "confirm": "sample"})
    planned = operator.get(at(memory, "redeliver"))

    response = operator.post(at(memory, "redeliver"), {"pipeline": Pipeline.objects.get().pk}, follow=True)
    driver.drain()

    assert f"run {Run.objects.get().pk}, published" in text_of(planned)
    assert "Deliveries begun: 1." in notices(response)[0]
    assert "run__pipeline__id__exact" in response.redirect_chain[0][0]
    assert Delivery.objects.get().state == "verified"
    assert "Nothing is to be done." in text_of(operator.get(at(memory, "redeliver")))
    assert operator.get(f"{at(memory, 'redeliver').removesuffix('redeliver/')}fill/").url == at(memory, "redeliver")


def test_changes_of_a_table_are_shown_and_undone(operator: Client, memory: Destination) -> None:
    text = text_of(operator.get(at(memory, "schema")))
    response = operator.post(at(memory, "schema"), {"pipeline": Pipeline.objects.get().pk, "change": "c1"}, follow=True)
    unknown = operator.post(at(memory, "schema"), {"pipeline": Pipeline.objects.get().pk, "change": "c2"})

    assert ("ADD COLUMN colour" in text, "2030-01-08" in text) == (True, True)
    assert (plugins.CALLS, "Undone" in notices(response)[0]) == (["revert sample c1"], True)
    assert "there is no change c2" in notices(unknown)[0]


def test_tasks_are_shown_with_their_run_their_log_and_a_way_to_stop_them(operator: Client, memory: Destination) -> None:
    Delivery.objects.update(refs={"task": TASK.id})

    text = text_of(operator.get(at(memory, "tasks", f"?log={TASK.id}&tail=16384")))
    response = operator.post(at(memory, "tasks"), {"task": TASK.id}, follow=True)

    assert ("and is done" in text, page(Delivery, "change", Delivery.objects.get().pk) in text) == (True, True)
    assert ("canary" in text, TASK.link in text) == (False, True)
    assert (plugins.CALLS, f"was told to stop {TASK.id}" in notices(response)[0]) == ([f"cancel {TASK.id}"], True)


def test_what_a_kind_cannot_do_is_told(operator: Client, memory: Destination) -> None:
    catalog = Destination.objects.get(name="catalog")
    Pipeline.objects.get().destinations.add(catalog)

    for what in ("compact", "retain", "drop", "schema", "tasks"):
        response = operator.get(at(catalog, what))

        assert (response.status_code, f"with which {what} is not possible" in notices(response)[0]) == (200, True)


def test_who_may_only_look_changes_nothing(memory: Destination) -> None:
    client = watcher()
    pipeline = Pipeline.objects.get().pk

    labels = [label for label, _ in client.get(page(Destination, "change", memory.pk)).context["links"]]
    looked = [client.get(at(memory, what)).status_code for what in ("schema", "tasks", "redeliver", "drop")]
    sent = [
        client.post(at(memory, what), {"pipeline": pipeline, "confirm": "sample", "change": "c1", "task": TASK.id})
        for what in ("redeliver", "compact", "retain", "drop", "schema", "tasks")
    ]
    pressed = client.post(page(Delivery, "do", Delivery.objects.get().pk, "deliver_again"))

    assert (labels, looked) == (["Schema", "Tasks"], [200, 200, 403, 403])
    assert {response.status_code for response in [*sent, pressed]} == {403}
    assert plugins.CALLS == []


def test_a_deliverys_page_tells_how_it_went(operator: Client, memory: Destination) -> None:
    Delivery.objects.update(refs={"task": "t1", "token": "canary-1"})

    response = operator.get(page(Delivery, "change", Delivery.objects.get().pk))

    text = text_of(response)
    assert [line.state for line in response.context["history"]] == ["planned", "staged", "available", "verified"]
    assert ("http://console/t1" in text, "canary" in text, response.context["buttons"]) == (True, False, [])


def test_a_failed_delivery_is_made_again(
    operator: Client, memory: Destination, driver: Driver, send_file: Callable[..., Run]
) -> None:
    plugins.TROUBLE["commit.rejected"] = 1
    run = send_file(b"id,formula,energy\n7,H2O,1\n", name="b.csv")
    driver.drain()
    failed = Delivery.objects.get(run=run)
    shown = operator.get(page(Delivery, "change", failed.pk))

    said = press(operator, failed, "deliver_again")
    driver.drain()

    failed.refresh_from_db()
    assert [button["label"] for button in shown.context["buttons"]] == ["Deliver again"]
    assert "Its run is partial" in text_of(shown)
    assert ("It is made again" in said, failed.state, failed.is_redelivery) == (True, "verified", True)
    assert "is delivered to memory already" in choose(operator, failed, "deliver_again")


def test_a_runs_page_tells_the_states_of_its_deliveries_and_what_was_refused(
    operator: Client, memory: Destination, driver: Driver, send_file: Callable[..., Run]
) -> None:
    plugins.TROUBLE["refuse.first"] = 1
    run = send_file(b"id,formula,energy\n7,H2O,1\n8,SiO2,1\n", name="b.csv")
    driver.drain()
    rejected = reverse("admin:ingestion_run_rejected", args=(run.pk,))

    text = text_of(operator.get(page(Run, "change", run.pk)))
    refused = operator.get(f"{rejected}?outcome=refused")

    assert f"{rejected}?outcome=rejected_by_destination" in text
    assert text.index("planned ") < text.index("staged ") < text.index("available ") < text.index("verified ")
    assert [row["destination"] for row in refused.context["rows"]] == ["memory"]
    assert "memory rejected 1." in text_of(refused)

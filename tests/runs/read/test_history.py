"""The history of a delivery in order and in words, and its sink's notes without secrets."""

from collections.abc import Callable
from typing import Any

import pytest

from ingestion.models import Delivery, Destination, Pipeline, Run
from ingestion.ports.publication import DeliveryState
from ingestion.runs.deliver.cancellation import cancel_run
from ingestion.runs.deliver.redelivery import redeliver_everything
from ingestion.runs.operate import housekeeping
from ingestion.runs.operate.retry import retry_run
from ingestion.runs.read import history
from ingestion.runs.start.creation import create_run
from tests.fakes import plugins
from tests.runs.driver import Driver

MakePipeline = Callable[..., Pipeline]


def publish(driver: Driver, pipeline: Pipeline) -> Run:
    run, _ = create_run(pipeline, trigger=Run.Trigger.API)
    driver.drain()
    return run


def states(delivery: Delivery) -> list[str]:
    delivery.refresh_from_db()
    return [line.state for line in history.history_of(delivery)]


def test_every_state_is_told_in_order_with_a_sentence(driver: Driver, make_pipeline: MakePipeline) -> None:
    publish(driver, make_pipeline())

    lines = history.history_of(Delivery.objects.get())

    assert [line.state for line in lines] == ["planned", "staged", "available", "verified"]
    assert [line.at for line in lines] == sorted(line.at for line in lines if line.at)
    assert lines[-1].message == "Readers see 12 rows, as they should."
    assert all(line.message for line in lines)


def test_a_retry_and_what_went_wrong_before_it_stay_in_the_history(driver: Driver, make_pipeline: MakePipeline) -> None:
    plugins.TROUBLE["commit.rejected"] = 1
    run = publish(driver, make_pipeline())

    retry_run(run.pk, by="tester")
    driver.drain()

    delivery = Delivery.objects.get()
    assert states(delivery) == ["planned", "staged", "failed", "planned", "staged", "available", "verified"]
    failed, again = history.history_of(delivery)[2:4]
    assert (failed.level, "asked for" in failed.message) == ("error", True)
    assert (again.by, again.message) == ("tester", "Made again, from the lake.")


def test_what_a_person_removed_and_filled_again_is_told(
    driver: Driver, make_pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins.MemorySink, "drop", lambda *_, **__: housekeeping.Housekeeping(), raising=False)
    pipeline = make_pipeline()
    publish(driver, pipeline)
    memory = Destination.objects.get()

    housekeeping.drop(memory, pipeline, confirm="items", by="tester")
    redeliver_everything(pipeline, memory, by="tester")

    assert states(Delivery.objects.get()) == ["planned", "staged", "available", "verified", "removed", "planned"]


def test_a_delivery_that_waits_for_its_destination_tells_why(driver: Driver, make_pipeline: MakePipeline) -> None:
    def refuse(*_: Any) -> Any:
        raise plugins.SinkUnavailable("sink.unavailable", destination="memory", detail="asked for")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugins.MemorySink, "commit", refuse)
        create_run(make_pipeline(), trigger=Run.Trigger.API)
        while not Delivery.objects.filter(attempt__gt=0, lease_until=None).exists():
            driver.step()

    *_, last = history.history_of(Delivery.objects.get())

    assert (last.state, last.level) == ("", "warning")
    assert "does not answer (asked for)" in last.message


def test_a_delivery_that_was_withdrawn_with_its_run_says_so(driver: Driver, make_pipeline: MakePipeline) -> None:
    plugins.TROUBLE["commit.later"] = 1
    run, _ = create_run(make_pipeline(), trigger=Run.Trigger.API)
    while not Delivery.objects.filter(state=DeliveryState.SUBMITTED).exists():
        driver.step()

    cancel_run(run.pk, by="tester")
    driver.drain()

    last = history.history_of(Delivery.objects.get())[-1]
    assert (last.state, last.message) == ("failed", "The run was cancelled.")


def test_a_state_that_no_line_of_the_log_tells_is_told_all_the_same(
    driver: Driver, make_pipeline: MakePipeline
) -> None:
    run = publish(driver, make_pipeline())
    run.events.all().delete()

    assert states(Delivery.objects.get()) == ["planned", "verified"]


@pytest.mark.both
def test_the_histories_of_many_deliveries_take_one_question(
    driver: Driver, make_pipeline: MakePipeline, django_assert_num_queries: Any
) -> None:
    pipeline = make_pipeline()
    pipeline.destinations.add(Destination.objects.create(name="second", kind="memory"))
    publish(driver, pipeline)
    deliveries = list(Delivery.objects.all())

    with django_assert_num_queries(1):
        found = history.histories_of(deliveries)

    assert {number: lines[-1].state for number, lines in found.items()} == {
        delivery.pk: "verified" for delivery in deliveries
    }


def test_notes_hold_no_secret_no_signature_and_no_endless_list() -> None:
    refs = {
        "task": "hg.items.1.1.a1",
        "handed": 12,
        "url": "https://bucket.example.org/key?X-Amz-Signature=canary-1&v=2",
        "login": "https://me:canary-2@example.org/",
        "session_token": "canary-3",
        "objects": [{"key": f"k{number}", "secret_key": "canary-4"} for number in range(30)],
    }

    notes = history.notes_of(Delivery(refs=refs))

    assert "canary" not in str(notes)
    assert (notes["task"], notes["handed"]) == ("hg.items.1.1.a1", 12)
    assert notes["url"] == "https://bucket.example.org/key?***"
    assert (len(notes["objects"]), notes["objects"][-1]) == (21, "and 10 more")

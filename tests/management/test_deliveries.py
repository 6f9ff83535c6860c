"""Commands that show deliveries and make them from the lake."""

import json
from collections.abc import Callable

import pytest

from ingestion.management.cli import following
from ingestion.models import Delivery, Destination, Pipeline, Run
from tests.fakes import plugins
from tests.management.conftest import Ingest
from tests.runs.driver import Driver

MakePipeline = Callable[..., Pipeline]


@pytest.fixture
def run(ingest: Ingest, stack: Driver, make_pipeline: MakePipeline) -> Run:
    """A published run of a pipeline, and a destination that has not got it."""
    make_pipeline()
    Destination.objects.create(name="later", kind="memory")
    ingest("run", "items", "--wait")
    return Run.objects.get()


def test_deliveries_are_listed_and_chosen(ingest: Ingest, run: Run) -> None:
    head, line = (text.split("\t") for text in ingest("deliveries", "--run", run.pk).out.splitlines())
    none = json.loads(ingest("deliveries", "--state", "failed", "--json").out)
    chosen = json.loads(ingest("deliveries", "--pipeline", "items", "--destination", "memory", "--json").out)

    shown = dict(zip(head, line, strict=True))
    assert (shown["state"], shown["inserted"], shown["destination"]) == ("verified", "12", "memory")
    assert none == {"deliveries": []}
    assert [one["run"] for one in chosen["deliveries"]] == [run.pk]


def test_one_delivery_is_shown_with_its_history_and_notes(ingest: Ingest, run: Run) -> None:
    delivery = Delivery.objects.get()
    Delivery.objects.update(refs={"task": "t1", "token": "canary-1", "handed": 12})

    text = ingest("deliveries", "--id", delivery.pk).out
    told = json.loads(ingest("deliveries", "--id", delivery.pk, "--json").out)

    assert "Readers see 12 rows, as they should." in text
    assert [line["state"] for line in told["history"]] == ["planned", "staged", "available", "verified"]
    assert told["notes"] == {"task": "t1", "token": "***", "handed": 12}
    assert "canary" not in text


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--id", 999), "delivery.not_found"),
        (("--id", 1, "--run", 1), "config.invalid"),
        (("--wait",), "config.invalid"),
        (("--run", 999), "run.not_found"),
        (("--destination", "nowhere"), "config.unknown_name"),
    ],
)
def test_what_is_not_there_is_bad_input(ingest: Ingest, words: tuple[object, ...], code: str) -> None:
    answer = ingest("deliveries", *words)

    assert (answer.code, f"[{code}]" in answer.err) == (2, True)


def test_a_run_shows_the_states_of_its_deliveries_in_order(ingest: Ingest, run: Run) -> None:
    text = ingest("show", run.pk).out
    told = json.loads(ingest("show", run.pk, "--json").out)

    [line] = [line for line in text.splitlines() if line.strip().startswith("planned")]
    assert [word for word in line.split() if word.isalpha()] == ["planned", "staged", "available", "verified"]
    assert told["deliveries"][0]["history"][-1]["state"] == "verified"


def test_a_run_is_redelivered_and_waited_for(ingest: Ingest, run: Run) -> None:
    answer = ingest("redeliver", run.pk, "--to", "later", "--wait", "--json")

    told = json.loads(answer.out)
    assert (answer.code, told["state"], told["inserted"], told["is_redelivery"]) == (0, "verified", 12, True)
    assert Run.objects.get().events.filter(kind="delivery.again", values__by__endswith="(command line)").exists()


def test_a_redelivery_that_is_given_up_ends_with_1(ingest: Ingest, run: Run) -> None:
    plugins.TROUBLE["commit.rejected"] = 1

    answer = ingest("redeliver", run.pk, "--to", "later", "--wait")

    assert answer.code == 1
    assert "to later: failed" in answer.out
    assert "[sink.rejected]" in answer.err


def test_what_is_there_already_is_refused(ingest: Ingest, run: Run) -> None:
    answer = ingest("redeliver", run.pk, "--to", "memory", "--json")

    assert (answer.code, json.loads(answer.out)["code"]) == (2, "delivery.exists")


def test_a_redelivery_goes_on_when_the_person_stops_waiting(
    ingest: Ingest, run: Run, stack: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(following.time, "sleep", interrupt)

    answer = ingest("redeliver", run.pk, "--to", "later", "--wait")
    stack.drain()

    delivery = Delivery.objects.get(destination__name="later")
    assert (answer.code, delivery.state) == (130, "verified")
    assert f"ingest deliveries --id {delivery.pk} --wait" in answer.err


def test_what_was_begun_before_is_waited_for(ingest: Ingest, run: Run, make_pipeline: MakePipeline) -> None:
    begun = json.loads(ingest("redeliver", run.pk, "--to", "later", "--json").out)
    filled = json.loads(ingest("redeliver", "--everything", "items", "--to", "later", "--json").out)

    answer = ingest("deliveries", "--id", begun["delivery"], "--wait", "--json")

    assert [(one["delivery"], one["state"]) for one in filled["deliveries"]] == [(begun["delivery"], "planned")]
    assert (answer.code, json.loads(answer.out)["state"]) == (0, "verified")


def test_without_a_stack_it_is_begun_and_cannot_be_waited_for(
    ingest: Ingest, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingestion.management.cli.stack.has_stack", lambda: False)
    monkeypatch.setattr(following, "has_stack", lambda: False)

    waited = ingest("redeliver", run.pk, "--to", "later", "--wait", "--json")
    Delivery.objects.filter(destination__name="later").delete()
    begun = ingest("redeliver", run.pk, "--to", "later")

    assert (waited.code, json.loads(waited.out)["code"]) == (5, "stack.not_running")
    assert (begun.code, "manage.py up" in begun.err) == (0, True)


def test_everything_that_a_destination_lacks_is_delivered(ingest: Ingest, run: Run) -> None:
    words = ("redeliver", "--everything", "items", "--to", "later")
    planned = json.loads(ingest(*words, "--dry-run", "--json").out)
    assert not Delivery.objects.filter(destination__name="later").exists()

    done = ingest(*words, "--wait", "--json")
    again = ingest(*words)

    told = json.loads(done.out)
    assert (planned["runs"], done.code, told["exit_code"]) == ([run.pk], 0, 0)
    assert [(one["run"], one["state"]) for one in told["deliveries"]] == [(run.pk, "verified")]
    assert "later lacks nothing that items has published." in again.out


@pytest.mark.parametrize("words", [(), (1, "--everything", "items"), (1, "--dry-run")])
def test_either_a_run_or_everything_is_delivered(ingest: Ingest, run: Run, words: tuple[object, ...]) -> None:
    answer = ingest("redeliver", *words, "--to", "later")

    assert (answer.code, "--everything" in answer.err) == (2, True)


def test_older_names_answer_and_say_the_newer_ones(ingest: Ingest, run: Run) -> None:
    filled = ingest("fill", "later", "--pipeline", "items", "--wait", "--json")
    shown = ingest("rejected", run.pk, "--outcome", "refused", "--json")
    wrong = ingest("rejected", run.pk, "--outcome", "happy")

    [told] = json.loads(filled.out)["deliveries"]
    assert (filled.code, "ingest redeliver --everything" in filled.err) == (0, True)
    assert (told["refused"], told["looks"]) == (told["rejected"], told["polls"])
    assert (shown.code, "rejected_by_destination" in shown.err) == (0, True)
    assert wrong.code == 2

"""Commands that look at destinations, tidy them up, and empty them when a person means it."""

import io
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from ingestion import registry
from ingestion.models import Delivery, Destination, Pipeline, Run, Source
from tests.fakes import plugins
from tests.fakes.druid_destination import held_task
from tests.management.conftest import Ingest
from tests.runs.driver import Driver
from tests.servers import ROOT

MakePipeline = Callable[..., Pipeline]


@pytest.fixture
def keeper(settings: Any, lake: Any, ingest: Ingest, stack: Driver, make_pipeline: MakePipeline) -> Run:
    """A published run in a destination that can do everything."""
    settings.HEADGATE_SINKS = {**settings.HEADGATE_SINKS, "memory": "tests.fakes.keeper:KeepingSink"}
    registry._table.cache_clear()
    make_pipeline()
    Destination.objects.update(config={"url": "https://me:canary-2@store/prefix"})
    ingest("run", "items", "--wait")
    plugins.CALLS.clear()
    return Run.objects.get()


def test_destinations_tell_how_they_fare(ingest: Ingest, keeper: Run) -> None:
    Destination.objects.create(name="new", kind="catalog")

    text = ingest("destinations").out
    told = {one["destination"]: one for one in json.loads(ingest("destinations", "--json").out)["destinations"]}

    memory = told["memory"]
    assert (memory["address"], memory["state"], memory["rows"]) == ("https://store/prefix", "ok", 12)
    assert (memory["pipelines"], memory["last_verified_run"], memory["failed"]) == (["items"], keeper.pk, 0)
    assert memory["operations"] == ["compact", "retain", "drop", "schema", "tasks"]
    assert (told["new"]["state"], told["new"]["operations"]) == ("unused", [])
    assert "canary" not in text


def test_check_finds_sources_and_destinations_by_name(ingest: Ingest, make_pipeline: MakePipeline) -> None:
    make_pipeline()
    Source.objects.create(name="memory", kind="pages")

    both = ingest("check", "memory")
    source = json.loads(ingest("check", "memory", "--source", "--json").out)
    destination = json.loads(ingest("check", "memory", "--destination", "--json").out)
    unknown = ingest("check", "nothing")

    assert (both.code, "--source or --destination" in both.err) == (2, True)
    assert (source["source"], source["findings"][0]["layer"]) == ("memory", "pages")
    assert (destination["destination"], destination["findings"][0]["layer"]) == ("memory", "memory")
    assert (unknown.code, "no source or destination named 'nothing'" in unknown.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (("compact", "memory"), "compact items"),
        (("retain", "memory", "--keep-runs", 3, "--keep-days", 30), "retain items 3 30"),
        (("drop", "memory", "--yes", "items"), "drop items"),
    ],
)
def test_upkeep_is_tried_dry_and_then_done(ingest: Ingest, keeper: Run, words: tuple[object, ...], asked: str) -> None:
    tried = ingest(*words, "--pipeline", "items", "--dry-run")
    after_trying = list(plugins.CALLS)
    done = json.loads(ingest(*words, "--pipeline", "items", "--json").out)

    assert (f"{asked}: 3 files" in tried.out, "Nothing was changed" in tried.out) == (True, True)
    assert (after_trying, plugins.CALLS) == ([], [asked])
    assert (done["actions"], done["is_dry_run"], done["size_bytes"]) == ([f"{asked}: 3 files"], False, 2048)


def test_nothing_is_dropped_in_a_pipe_without_the_pipelines_name(ingest: Ingest, keeper: Run) -> None:
    for words in ((), ("--yes", "memory"), ("--json",)):
        answer = ingest("drop", "memory", "--pipeline", "items", *words)

        assert (answer.code, plugins.CALLS) == (2, [])
        assert "[destination.unconfirmed]" in answer.err


@pytest.mark.parametrize("typed", ["items", "yes"])
def test_on_a_terminal_the_pipelines_name_is_asked_for(
    ingest: Ingest, keeper: Run, monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{typed}\n"))
    monkeypatch.setattr("ingestion.management.cli.output.Output.can_ask", property(lambda _self: True))

    answer = ingest("drop", "memory", "--pipeline", "items")

    expected = (0, "removed") if typed == "items" else (2, "verified")
    assert (answer.code, Delivery.objects.get().state) == expected
    assert "drop items: 3 files" in answer.err
    assert "type the pipeline's name:" in answer.err


def test_what_a_kind_cannot_do_is_bad_input(ingest: Ingest, make_pipeline: MakePipeline) -> None:
    make_pipeline()

    answers = [
        ingest(*words)
        for words in (
            ("compact", "memory", "--pipeline", "items"), ("drop", "memory", "--pipeline", "items", "--yes", "items"),
            ("schema", "memory", "--pipeline", "items"), ("tasks", "memory"),
        )
    ]  # fmt: skip

    assert [(answer.code, "[destination.cannot]" in answer.err) for answer in answers] == [(2, True)] * 4


def test_changes_of_a_table_are_shown_and_undone(ingest: Ingest, keeper: Run) -> None:
    told = json.loads(ingest("schema", "memory", "--pipeline", "items", "--json").out)
    undone = ingest("schema", "memory", "--pipeline", "items", "--revert", "c1")
    unknown = ingest("schema", "memory", "--pipeline", "items", "--revert", "c2")

    assert [(change["column"], change["id"]) for change in told["planned"] + told["applied"]] == [
        ("colour", ""),
        ("size", "c1"),
    ]
    assert (undone.code, "Undone, column size: The column is widened." in undone.out) == (0, True)
    assert (unknown.code, plugins.CALLS) == (2, ["revert items c1"])


def test_rejected_rows_name_the_destination_that_would_not_take_them(ingest: Ingest, keeper: Run) -> None:
    plugins.TROUBLE["refuse.first"] = 1
    ingest("run", "items", "--wait")

    head, line = (text.split("\t") for text in ingest("rejected", keeper.pk + 1).out.splitlines())
    others = json.loads(ingest("rejected", keeper.pk + 1, "--outcome", "duplicate", "--json").out)

    shown = dict(zip(head, line, strict=True))
    assert (shown["outcome"], shown["destination"], shown["rule"]) == ("rejected_by_destination", "memory", "too_long")
    assert others["rows"] == []


def test_druids_tasks_are_listed_read_and_stopped(
    ingest: Ingest, stack: Driver, make_pipeline: MakePipeline, settings: Any
) -> None:
    with held_task(make_pipeline(), driver=stack, settings=settings) as held:
        [task] = json.loads(ingest("tasks", "druid", "--json").out)["tasks"]
        log = ingest("tasks", "druid", "--log", held.task_id, "--tail", 1000).out
        shown = json.loads(ingest("deliveries", "--id", held.delivery.pk, "--json").out)
        stopped = ingest("tasks", "druid", "--cancel", held.task_id)
        foreign = ingest("tasks", "druid", "--cancel", "index_parallel_other")

        assert (task["task"], task["state"], task["run"]) == (held.task_id, "RUNNING", held.delivery.run_id)
        assert task["link"] == shown["link"] == f"{held.druid.url}/unified-console.html#tasks/task_id~{held.task_id}"
        assert (shown["notes"]["task"], shown["notes"]["way"]) == (held.task_id, "inline")
        assert ("has read 12 rows" in log, "canary" in log) == (True, False)
        assert (stopped.code, held.druid.await_task(held.task_id)) == (0, "FAILED")
        assert (foreign.code, "[sink.foreign_task]" in foreign.err) == (2, True)


def test_every_command_stands_in_the_help_and_in_the_docs(ingest: Ingest) -> None:
    listed = ingest("--help").out.partition("Commands:")[2]
    names = {line.split()[0] for line in listed.splitlines() if line.startswith("  ") and line[2] != " "}
    docs = (ROOT / "docs" / "cli.md").read_text()

    assert {"deliveries", "redeliver", "drop", "compact", "retain", "schema", "tasks", "check"} <= names
    assert [name for name in sorted(names) if f"`{name}" not in docs] == []

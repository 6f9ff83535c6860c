"""Commands that make runs, and how they end."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ingestion.management.cli import following
from ingestion.models import Destination, Pipeline, Run, RunState, Source
from tests.fakes import plugins
from tests.management.conftest import Ingest
from tests.runs.driver import Driver

MakePipeline = Callable[..., Pipeline]

CONTRACT = """
name: items
key: [id]
columns:
  - {name: id, type: integer, nullable: false}
  - {name: energy, type: number, max: 10}
"""


@pytest.fixture
def items(tmp_path: Path) -> Path:
    """A file with three rows, the last of which breaks the contract."""
    path = tmp_path / "items.csv"
    path.write_text("id,energy\n1,2.5\n2,3.5\n3,99\n")
    return path


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """The contract of the file."""
    path = tmp_path / "items.yaml"
    path.write_text(CONTRACT)
    return path


class TestUpload:
    def test_gives_the_books_of_the_run_as_one_json_object(
        self, ingest: Ingest, stack: Driver, items: Path, rules: Path
    ) -> None:
        answer = ingest("upload", items, "--contract", rules, "--wait", "--json")

        told = json.loads(answer.out)
        assert answer.code == 0
        assert (told["state"], told["code"], told["pipeline"]) == ("succeeded", "", "items")
        assert [told[name] for name in ("fetched", "accepted", "rejected", "duplicate", "filtered")] == [3, 2, 1, 0, 0]
        assert told["destinations"] == {"lake": 2, "catalog": 2}

    def test_tells_a_person_the_balance_and_where_the_rejected_rows_are(
        self, ingest: Ingest, stack: Driver, items: Path, rules: Path
    ) -> None:
        answer = ingest("upload", items, "--contract", rules, "--wait")

        assert "3 fetched = 2 accepted + 1 rejected + 0 duplicate + 0 filtered" in answer.out
        assert f"ingest rejected {Run.objects.get().pk}" in answer.out
        assert answer.err == ""

    def test_of_the_same_file_is_the_same_run(self, ingest: Ingest, stack: Driver, items: Path) -> None:
        ingest("upload", items, "--wait")

        answer = ingest("upload", items, "--wait", "--json")

        assert Run.objects.count() == 1
        assert json.loads(answer.out)["run"] == Run.objects.get().pk
        assert "is known" in answer.err

    def test_of_a_file_whose_run_was_cancelled_is_a_new_run(self, ingest: Ingest, stack: Driver, items: Path) -> None:
        ingest("upload", items)
        ingest("cancel", Run.objects.get().pk)

        answer = ingest("upload", items, "--wait", "--json")

        assert (answer.code, Run.objects.count()) == (0, 2)
        assert json.loads(answer.out)["state"] == "succeeded"

    def test_goes_on_with_the_other_files_where_one_is_missing(
        self, ingest: Ingest, stack: Driver, items: Path, tmp_path: Path
    ) -> None:
        answer = ingest("upload", tmp_path / "none.csv", items, "--wait", "--json")

        told = json.loads(answer.out)
        assert answer.code == told["exit_code"] == 2
        assert [(one["run"] is None, one["code"], one["state"]) for one in told["runs"]] == [
            (True, "file.unreadable", "refused"),
            (False, "", "succeeded"),
        ]
        assert "[file.unreadable]" in answer.err

    def test_of_an_empty_file_says_what_to_do(self, ingest: Ingest, stack: Driver, tmp_path: Path) -> None:
        (tmp_path / "empty.csv").touch()

        answer = ingest("upload", tmp_path / "empty.csv", "--json")

        assert (answer.code, json.loads(answer.out)["code"]) == (2, "file.empty")
        assert "Send a file with at least a header line. [file.empty]" in answer.err

    def test_into_an_unknown_pipeline_names_those_there_are(
        self, ingest: Ingest, make_pipeline: MakePipeline, items: Path
    ) -> None:
        make_pipeline("known")

        answer = ingest("upload", items, "--pipeline", "other")

        assert answer.code == 2
        assert "no pipeline named 'other'. Choose one of: known." in answer.err

    def test_without_a_stack_stores_the_file_and_says_how_to_start_one(self, ingest: Ingest, items: Path) -> None:
        answer = ingest("upload", items)

        assert (answer.code, Run.objects.get().state) == (0, RunState.PENDING)
        assert "manage.py up" in answer.err
        assert "pending" in answer.out

    def test_without_a_stack_cannot_wait(self, ingest: Ingest, items: Path) -> None:
        answer = ingest("upload", items, "--wait", "--json")

        told = json.loads(answer.out)
        assert (answer.code, told["code"]) == (5, "stack.not_running")
        assert told["run"] == Run.objects.get().pk


class TestRun:
    def test_waits_for_the_end(self, ingest: Ingest, stack: Driver, make_pipeline: MakePipeline) -> None:
        make_pipeline()

        answer = ingest("run", "items", "--wait", "--priority", "high", "--json")

        assert (answer.code, json.loads(answer.out)["accepted"]) == (0, 12)
        assert Run.objects.get().priority == 8

    def test_ends_with_1_where_the_run_failed(self, ingest: Ingest, stack: Driver, make_pipeline: MakePipeline) -> None:
        make_pipeline()
        plugins.TROUBLE["fetch.rejected"] = 1

        answer = ingest("run", "items", "--wait")

        assert answer.code == 1
        assert "failed" in answer.out
        assert f"[{Run.objects.get().code}]" in answer.err

    def test_ends_with_3_where_a_destination_failed(
        self, ingest: Ingest, stack: Driver, make_pipeline: MakePipeline
    ) -> None:
        make_pipeline()
        plugins.TROUBLE["commit.rejected"] = 1

        answer = ingest("run", "items", "--wait")

        assert (answer.code, Run.objects.get().state) == (3, RunState.PARTIAL)

    def test_goes_on_when_the_person_stops_waiting(
        self, ingest: Ingest, stack: Driver, make_pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_pipeline()

        def interrupt(_seconds: float) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(following.time, "sleep", interrupt)

        answer = ingest("run", "items", "--wait", "--json")
        stack.drain()

        run = Run.objects.get()
        assert answer.code == 130
        assert json.loads(answer.out)["run"] == run.pk
        assert f"ingest show {run.pk} --wait" in answer.err
        assert run.state == RunState.SUCCEEDED

    def test_of_a_paused_pipeline_is_refused(self, ingest: Ingest, make_pipeline: MakePipeline) -> None:
        make_pipeline(is_paused=True)

        answer = ingest("run", "items")

        assert (answer.code, Run.objects.count()) == (2, 0)
        assert "[pipeline.paused]" in answer.err

    def test_with_wrong_usage_is_one_sentence_and_2(self, ingest: Ingest, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "argv", ["manage.py", "ingest", "run", "--json"])

        answer = ingest("run", "--nonsense", "--json")

        assert answer.code == 2
        assert len(answer.err.splitlines()) == 1
        assert json.loads(answer.out)["code"] == "command.usage"


class TestAfterwards:
    def test_retry_goes_on_where_the_run_stopped(
        self, ingest: Ingest, stack: Driver, make_pipeline: MakePipeline
    ) -> None:
        make_pipeline()
        plugins.TROUBLE["fetch.rejected"] = 1
        ingest("run", "items", "--wait")

        answer = ingest("retry", Run.objects.get().pk, "--wait")

        assert (answer.code, Run.objects.get().accepted) == (0, 12)

    def test_rollback_publishes_an_earlier_run_again(
        self, ingest: Ingest, stack: Driver, make_pipeline: MakePipeline
    ) -> None:
        make_pipeline()
        ingest("run", "items", "--wait")

        answer = ingest("rollback", Run.objects.get().pk, "--wait", "--json")

        told = json.loads(answer.out)
        assert (answer.code, told["state"], told["destinations"]) == (0, "succeeded", {"memory": 12})
        assert Run.objects.count() == 2

    def test_cancel_ends_a_run_and_the_one_who_waits_gets_4(
        self, ingest: Ingest, stack: Driver, make_pipeline: MakePipeline
    ) -> None:
        make_pipeline()
        ingest("run", "items")
        run = Run.objects.get()

        cancelled = ingest("cancel", run.pk)
        waited = ingest("show", run.pk, "--wait")
        again = ingest("cancel", run.pk)

        assert (cancelled.code, waited.code, again.code) == (0, 4, 2)
        assert "[run.not_cancellable]" in again.err

    def test_a_held_run_ends_the_wait_with_6_and_is_decided_upon(
        self, ingest: Ingest, stack: Driver, make_pipeline: MakePipeline
    ) -> None:
        made = make_pipeline()
        ingest("run", "items", "--wait")
        made.source.config = {"lanes": 0}
        made.source.save()

        held = [ingest("run", "items", "--wait") for _ in range(3)]
        approved = ingest("approve", Run.objects.order_by("pk")[3].pk, "--wait")
        discarded = ingest("discard", Run.objects.order_by("pk")[2].pk)
        allowed = ingest("pipeline", "items", "--allow-empty", "--json")
        empty = ingest("run", "items", "--wait")

        assert [answer.code for answer in held] == [6] * 3
        assert "approve it to publish it as it is, or discard it" in held[0].err
        assert (approved.code, discarded.code, empty.code) == (0, 0, 0)
        assert json.loads(allowed.out)["allow_empty"] is True

    def test_a_pipeline_gets_destinations_and_says_when_it_has_none(
        self, ingest: Ingest, stack: Driver, make_pipeline: MakePipeline
    ) -> None:
        make_pipeline()
        Destination.objects.create(name="second", kind="memory")

        added = ingest("pipeline", "items", "--add", "second", "--json")
        emptied = ingest("pipeline", "items", "--remove", "second", "--remove", "memory")
        run = ingest("run", "items", "--wait")

        assert json.loads(added.out)["destinations"] == ["memory", "second"]
        assert "delivers to no destination" in emptied.out
        assert (run.code, Run.objects.get().state) == (0, "succeeded")
        assert "Nothing was delivered: pipeline items has no destination" in run.out

    def test_a_number_that_is_no_run_is_bad_input(self, ingest: Ingest) -> None:
        words = ("retry", "rollback", "cancel", "approve", "discard", "show", "rejected")
        answers = [ingest(word, 99) for word in words]

        assert [answer.code for answer in answers] == [2] * len(words)
        assert all("There is no run 99" in answer.err for answer in answers)


class TestFetch:
    ADDRESS = ("--source", "pages", "--base-url", "http://data.example.org:81/api/")

    def test_prints_json_lines_without_a_file(self, ingest: Ingest, stack: Driver) -> None:
        answer = ingest("fetch", *self.ADDRESS)

        rows = [json.loads(line) for line in answer.out.splitlines()]
        assert answer.code == 0
        assert [row["id"] for row in rows] == list(range(12))
        assert set(rows[0]) == {"id", "name", "version"}
        assert "12 fetched = 12 accepted" in answer.err

    def test_names_source_and_pipeline_after_kind_and_host_and_finds_them_again(
        self, ingest: Ingest, stack: Driver
    ) -> None:
        for _ in range(2):
            ingest("fetch", *self.ADDRESS)

        assert [source.name for source in Source.objects.all()] == ["pages-data-example-org-81"]
        assert [pipeline.name for pipeline in Pipeline.objects.all()] == ["pages-data-example-org-81-items"]
        assert Run.objects.count() == 2

    @pytest.mark.parametrize("extension", ["csv", "jsonl", "parquet"])
    def test_writes_a_file_by_its_extension(
        self, ingest: Ingest, stack: Driver, tmp_path: Path, extension: str
    ) -> None:
        path = tmp_path / f"items.{extension}"

        answer = ingest("fetch", *self.ADDRESS, "--fields", "id, name", "-o", path, "--json")

        told = json.loads(answer.out)
        assert (answer.code, told["rows_written"], told["output"]) == (0, 12, str(path))
        if extension == "csv":
            assert path.read_bytes().splitlines()[:2] == [b"id,name", b"0,n0"]
        elif extension == "jsonl":
            assert json.loads(path.read_text().splitlines()[0]) == {"id": 0, "name": "n0"}
        else:
            assert pq.read_table(path).to_pylist()[0] == {"id": 0, "name": "n0"}

    def test_refuses_an_unknown_extension_before_it_asks_the_source(self, ingest: Ingest, tmp_path: Path) -> None:
        answer = ingest("fetch", *self.ADDRESS, "-o", tmp_path / "items.docx")

        assert (answer.code, Run.objects.count()) == (2, 0)
        assert "[file.unknown_output]" in answer.err

    def test_leaves_no_file_where_the_run_failed(self, ingest: Ingest, stack: Driver, tmp_path: Path) -> None:
        plugins.TROUBLE["fetch.rejected"] = 1

        answer = ingest("fetch", *self.ADDRESS, "-o", tmp_path / "items.csv")

        assert answer.code == 1
        assert list(tmp_path.glob("*items*")) == []

    def test_of_an_unknown_kind_names_those_there_are(self, ingest: Ingest) -> None:
        answer = ingest("fetch", "--source", "teleport", "--base-url", "http://x")

        assert answer.code == 2
        assert "[config.unknown_kind]" in answer.err

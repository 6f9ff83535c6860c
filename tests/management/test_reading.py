"""Commands that read what was published."""

import json
from collections.abc import Callable
from pathlib import Path

import fastexcel
import pyarrow.parquet as pq
import pytest

from ingestion.management.cli.output import Output
from ingestion.models import Pipeline, Run
from tests.management.conftest import Ingest
from tests.runs.driver import Driver

MakePipeline = Callable[..., Pipeline]


@pytest.fixture
def run(ingest: Ingest, stack: Driver, make_pipeline: MakePipeline) -> Run:
    """A published run of twelve rows."""
    make_pipeline()
    ingest("run", "items", "--wait")
    return Run.objects.get()


class TestExport:
    def test_goes_to_standard_output_as_json_lines(self, ingest: Ingest, run: Run) -> None:
        answer = ingest("export", "items", "--columns", "name,id", "--limit", "2")

        assert [json.loads(line) for line in answer.out.splitlines()] == [
            {"name": "n0", "id": 0}, {"name": "n1", "id": 1},
        ]  # fmt: skip
        assert f"2 of 12 rows of items, as run {run.pk} published them" in answer.err

    @pytest.mark.parametrize("extension", ["csv", "jsonl", "parquet", "xlsx"])
    def test_writes_the_format_that_the_name_tells(
        self, ingest: Ingest, run: Run, tmp_path: Path, extension: str
    ) -> None:
        path = tmp_path / f"items.{extension}"

        answer = ingest("export", "--run", run.pk, "-o", path, "--json")

        told = json.loads(answer.out)
        assert (answer.code, told["rows_written"], told["format"]) == (0, 12, extension)
        assert (told["publication"], told["columns"]) == (run.pk, ["id", "name", "version"])
        if extension == "parquet":
            assert pq.read_table(path).num_rows == 12
        elif extension == "xlsx":
            assert fastexcel.read_excel(path).load_sheet("rows").height == 12
        else:
            assert len(path.read_text().splitlines()) == 12 + (extension == "csv")

    def test_takes_a_format_and_times(self, ingest: Ingest, run: Run, tmp_path: Path) -> None:
        path = tmp_path / "items.txt"
        times = ("--since", "2026-01-02", "--until", "2026-01-03T01:00:00+01:00")

        answer = ingest("export", "items", "-o", path, "--format", "csv", *times)

        assert answer.code == 0, answer.err
        assert [line.split(",")[0] for line in path.read_text().splitlines()] == ["id", "4", "5", "6", "7"]
        assert "4 rows of items" in answer.out

    def test_shows_where_rows_came_from(self, ingest: Ingest, run: Run) -> None:
        row = json.loads(ingest("export", "items", "--lineage", "--limit", "1").out)

        assert (row["_run"], row["_part"], row["_row"], row["_page"]) == (run.pk, "0-0", 0, 0)

    @pytest.mark.parametrize(
        ("words", "code"),
        [
            ((), "config.invalid"),
            (("items", "--run", "1"), "config.invalid"),
            (("items", "--json"), "config.invalid"),
            (("--run", "1", "--since", "2026-01-01"), "config.invalid"),
            (("items", "--since", "soon"), "config.invalid"),
            (("items", "--columns", "nope"), "export.unknown_column"),
            (("nothing",), "config.unknown_name"),
            (("--run", "999"), "run.not_found"),
            (("items", "-o", "items.doc"), "file.unknown_output"),
            (("items", "-o", "/nowhere/items.csv"), "file.unwritable"),
        ],
    )
    def test_says_what_is_wrong(self, ingest: Ingest, run: Run, words: tuple[str, ...], code: str) -> None:
        answer = ingest("export", *words)

        assert answer.code == 2
        assert f"[{code}]" in answer.err

    def test_needs_a_publication(self, ingest: Ingest, make_pipeline: MakePipeline) -> None:
        make_pipeline()

        assert "[pipeline.not_published]" in ingest("export", "items").err


class TestQuery:
    SQL = "SELECT version, count(*) AS n, avg(id) / 3 AS third FROM rows GROUP BY ALL ORDER BY 1"

    def test_is_tab_separated_in_a_pipe(self, ingest: Ingest, run: Run) -> None:
        lines = ingest("query", "items", self.SQL).out.splitlines()

        assert lines[0].split("\t") == ["version", "n", "third"]
        assert lines[1].split("\t") == ["2026-01-01T00:00:00+00:00", "4", "0.5"]
        assert len(lines) == 4

    def test_is_a_table_on_a_terminal(self, ingest: Ingest, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Output, "is_terminal", property(lambda _self: True))
        monkeypatch.setenv("COLUMNS", "200")

        assert "third" in ingest("query", "items", self.SQL).out

    def test_is_one_json_object_where_asked_for(self, ingest: Ingest, run: Run) -> None:
        answer = ingest("query", "items", "SELECT id FROM rows ORDER BY id DESC", "--limit", "2", "--json")

        told = json.loads(answer.out)
        assert (told["columns"], told["types"], told["rows"], told["truncated"]) == (
            ["id"],
            ["BIGINT"],
            [[11], [10]],
            True,
        )
        assert "more than 2 rows" in answer.err

    def test_says_what_is_wrong(self, ingest: Ingest, run: Run) -> None:
        answer = ingest("query", "items", "SELECT nope FROM rows", "--json")

        assert (answer.code, json.loads(answer.out)["code"]) == (2, "query.invalid")

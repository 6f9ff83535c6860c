"""Commands that show what there is."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ingestion.management.cli.output import Output
from ingestion.management.cli.results import control_totals_of
from ingestion.models import Pipeline, Run
from ingestion.ports.check import CheckReport, Finding
from ingestion.runs.read.progress import CONTROL_TOTALS
from tests.fakes import plugins
from tests.management.conftest import Ingest
from tests.runs.driver import Driver

pytestmark = pytest.mark.both

MakePipeline = Callable[..., Pipeline]


@pytest.fixture
def run(ingest: Ingest, stack: Driver, make_pipeline: MakePipeline) -> Run:
    """A run that ended well."""
    make_pipeline()
    ingest("run", "items", "--wait")
    return Run.objects.get()


@pytest.fixture
def faulty(ingest: Ingest, stack: Driver, tmp_path: Path) -> Run:
    """A run with two rejected rows, one of which begins like a formula."""
    path = tmp_path / "prices.csv"
    path.write_text("id,price\n1,2.5\n2,=1+1\n,4\n")
    rules = tmp_path / "prices.yaml"
    rules.write_text(
        "name: prices\nkey: [id]\ncolumns:\n  - {name: id, type: integer}\n  - {name: price, type: number}\n"
    )
    ingest("upload", path, "--contract", rules, "--wait")
    return Run.objects.get()


def test_runs_are_tab_separated_in_a_pipe(ingest: Ingest, run: Run) -> None:
    answer = ingest("runs", "--state", "succeeded", "--pipeline", "items", "--limit", "5")

    head, line = (text.split("\t") for text in answer.out.splitlines())
    assert dict(zip(head, line, strict=True))["accepted"] == "12"


def test_runs_are_a_table_on_a_terminal(ingest: Ingest, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Output, "is_terminal", property(lambda _self: True))
    monkeypatch.setenv("COLUMNS", "200")

    answer = ingest("runs")

    assert "\t" not in answer.out
    assert "succeeded" in answer.out


def test_runs_can_be_chosen_by_state(ingest: Ingest, run: Run) -> None:
    answer = ingest("runs", "--state", "failed", "--json")

    assert json.loads(answer.out) == {"runs": []}


def test_show_tells_books_stages_deliveries_and_log(ingest: Ingest, run: Run) -> None:
    text = ingest("show", run.pk).out
    told = json.loads(ingest("show", run.pk, "--json").out)

    assert "12 fetched = 12 accepted" in text
    assert "validate   1 of 1" in text
    assert "memory: verified; 12 inserted" in text
    assert "run.published" in text
    assert [event["kind"] for event in told["events"]][-1] == "run.published"
    assert told["waiting"] is None


def test_show_tells_why_a_run_waits(ingest: Ingest, make_pipeline: MakePipeline) -> None:
    make_pipeline()
    ingest("run", "items")

    answer = ingest("show", Run.objects.get().pk)

    assert answer.code == 0
    assert "Waiting for a free worker to be planned." in answer.out


def test_show_waits_for_the_end_where_asked(ingest: Ingest, stack: Driver, make_pipeline: MakePipeline) -> None:
    make_pipeline()
    plugins.TROUBLE["fetch.rejected"] = 1
    ingest("run", "items")

    answer = ingest("show", Run.objects.get().pk, "--wait", "--json")

    assert (answer.code, json.loads(answer.out)["state"]) == (1, "failed")


def test_rejected_rows_name_the_rule_and_the_row_as_it_came(ingest: Ingest, faulty: Run) -> None:
    head, *lines = (line.split("\t") for line in ingest("rejected", faulty.pk).out.splitlines())

    first = dict(zip(head, lines[0], strict=True))
    assert (first["row"], first["column"], first["value"]) == ("1", "price", "=1+1")
    assert json.loads(first["raw"]) == {"id": "2", "price": "=1+1"}


def test_rejected_rows_are_filtered_by_column(ingest: Ingest, faulty: Run) -> None:
    told = json.loads(ingest("rejected", faulty.pk, "--column", "id", "--json").out)

    assert [row["_row"] for row in told["rows"]] == [2]
    assert told["has_more"] is False


def test_rejected_rows_as_csv_hold_no_formula(ingest: Ingest, faulty: Run, tmp_path: Path) -> None:
    shown = ingest("rejected", faulty.pk, "--format", "csv").out
    ingest("rejected", faulty.pk, "-o", tmp_path / "rejected.csv")

    rows = list(csv.DictReader(io.StringIO((tmp_path / "rejected.csv").read_text())))
    assert rows[0]["value"] == "'=1+1"
    assert shown.split() == (tmp_path / "rejected.csv").read_text().split()


@pytest.mark.parametrize(("name", "begin"), [("rejected.jsonl", b"{"), ("rejected.xlsx", b"PK")])
def test_rejected_rows_are_downloaded_by_the_files_extension(
    ingest: Ingest, faulty: Run, tmp_path: Path, name: str, begin: bytes
) -> None:
    answer = ingest("rejected", faulty.pk, "-o", tmp_path / name)

    assert answer.code == 0
    assert (tmp_path / name).read_bytes().startswith(begin)


def test_rejected_rows_into_an_impossible_place_are_bad_input(ingest: Ingest, faulty: Run, tmp_path: Path) -> None:
    nowhere = ingest("rejected", faulty.pk, "-o", tmp_path / "none" / "rejected.csv")
    unknown = ingest("rejected", faulty.pk, "-o", tmp_path / "rejected.doc")

    assert (nowhere.code, unknown.code) == (2, 2)
    assert "[file.unwritable]" in nowhere.err
    assert "[file.unknown_output]" in unknown.err


def test_sources_pipelines_and_contracts_are_listed(ingest: Ingest, run: Run) -> None:
    sources = json.loads(ingest("sources", "--json").out)["sources"]
    pipelines = json.loads(ingest("pipelines", "--json").out)["pipelines"]
    contracts = json.loads(ingest("contracts", "--json").out)["contracts"]

    assert [(one["source"], one["kind"], one["pipelines"]) for one in sources] == [("items-source", "pages", ["items"])]
    assert [(one["pipeline"], one["last_run"], one["state"]) for one in pipelines] == [("items", run.pk, "succeeded")]
    assert [(one["contract"], one["version"]) for one in contracts] == [("items", 1)]


def test_check_names_each_layer(ingest: Ingest, make_pipeline: MakePipeline) -> None:
    make_pipeline()

    answer = ingest("check", "items-source", "--json")

    told = json.loads(answer.out)
    assert (answer.code, told["ok"]) == (0, True)
    assert (told["findings"][0]["layer"], told["findings"][0]["ms"]) == ("pages", 0.0)


def test_check_ends_with_1_where_a_layer_does_not_answer(
    ingest: Ingest, make_pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_pipeline()
    refused = CheckReport(
        (Finding("tls", ok=False, elapsed_ms=3, detail="expired", fix="renew it", code="source.tls"),)
    )
    monkeypatch.setattr(plugins.PagesConnector, "check", lambda _self, _ctx: refused)

    answer = ingest("check", "items-source")

    assert answer.code == 1
    assert "tls\tno\t3\texpired\trenew it\tsource.tls" in answer.out


def test_text_from_outside_cannot_drive_the_terminal(ingest: Ingest, stack: Driver, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('id,note\n1,a\n1,"x\x1b[2J\ty"\n')
    rules = tmp_path / "rows.yaml"
    rules.write_text("name: rows\nkey: [id]\ncolumns:\n  - {name: id, type: integer}\n  - {name: note, enum: [a]}\n")
    ingest("upload", path, "--contract", rules, "--wait")

    answer = ingest("rejected", Run.objects.get().pk)

    assert "\x1b" not in answer.out
    assert len({line.count("\t") for line in answer.out.splitlines()}) == 1


def test_a_run_without_rows_says_so_once_it_is_over() -> None:
    told = {"fetched": 0, **dict.fromkeys(CONTROL_TOTALS, 0), "destinations": {}}

    waiting, done = (control_totals_of(told | {"state": state}) for state in ("running", "succeeded"))

    assert waiting == ""
    assert done == "; 0 fetched = 0 accepted + 0 rejected + 0 duplicate + 0 filtered"

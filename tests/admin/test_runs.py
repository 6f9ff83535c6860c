"""What operators do with runs and see of them; errors are told in words."""

import re
from collections.abc import Callable
from html import unescape

import pytest
from django.test import Client
from django.urls import reverse

from ingestion.models import Contract, Part, Pipeline, PipelineDependency, Run, RunState, Upload
from ingestion.runs.record.lake import open_lake
from tests.admin.pages import SAMPLE, WAYS, Act, notices, page, text_of
from tests.runs.driver import Driver

pytestmark = pytest.mark.usefixtures("driver")


@WAYS
def test_a_failed_run_is_retried(operator: Client, send_file: Callable[..., Run], driver: Driver, act: Act) -> None:
    run = send_file(b"nothing,fits\n1,2\n")
    driver.drain()

    assert "It goes on as running" in act(operator, run, "retry")
    driver.drain()

    run.refresh_from_db()
    assert run.state == RunState.FAILED
    assert run.events.filter(kind="run.retried", values__by="operator").exists()


@WAYS
def test_a_run_that_may_not_be_retried_says_why(operator: Client, published: Run, act: Act) -> None:
    assert "only a failed or partial run can be retried" in act(operator, published, "retry")


@WAYS
def test_a_run_is_cancelled(operator: Client, send_file: Callable[..., Run], act: Act) -> None:
    run = send_file()

    assert "cancelled before any destination" in act(operator, run, "cancel")
    assert "cannot be cancelled any more" in act(operator, run, "cancel")
    run.refresh_from_db()
    assert run.state == RunState.CANCELLED


@WAYS
@pytest.mark.parametrize(("name", "said", "state"), [
    ("approve", "It goes on as completing", RunState.COMPLETING), ("discard", "discarded", RunState.CANCELLED),
])  # fmt: skip
def test_a_held_run_is_decided_upon(
    operator: Client, send_file: Callable[..., Run], act: Act, *, name: str, said: str, state: str
) -> None:
    run = send_file()
    assert "only a held run can be" in act(operator, run, name)
    Run.objects.filter(pk=run.pk).update(state=RunState.HELD, code="held.empty", message="The source had no rows.")

    shown = operator.get(page(Run, "change", run.pk))
    assert "The run is held. The source had no rows." in text_of(shown)
    assert [button["label"] for button in shown.context["buttons"]] == ["Approve held runs", "Discard held runs"]
    assert "The source had no rows." in text_of(operator.get(reverse("admin:index")))
    assert said in act(operator, run, name)

    run.refresh_from_db()
    assert run.state == state
    assert run.events.filter(values__by="operator").count() == 1


@WAYS
def test_a_published_run_is_rolled_back_to(operator: Client, published: Run, driver: Driver, act: Act) -> None:
    assert "publishes its data again" in act(operator, published, "roll_back")
    driver.drain()

    run = Run.objects.latest("pk")
    assert (run.republishes_id, run.state, run.accepted) == (published.pk, RunState.SUCCEEDED, 2)
    assert operator.get(page(Run, "change", run.pk)).status_code == 200


def test_every_list_that_a_runs_page_links_to_opens(operator: Client, published: Run) -> None:
    text = operator.get(page(Run, "change", published.pk)).content.decode()
    lists = re.findall(r'href="(/admin/ingestion/\w+/\?[^"]+)"', text)

    assert any("deliverypart" in address for address in lists)
    assert {address: operator.get(unescape(address)).status_code for address in lists} == dict.fromkeys(lists, 200)


def test_a_runs_page_shows_only_the_buttons_that_make_sense(
    operator: Client, published: Run, send_file: Callable[..., Run]
) -> None:
    waiting = send_file(b"id,formula\n1,A\n", name="b.csv")

    labels = {
        run.pk: [button["label"] for button in operator.get(page(Run, "change", run.pk)).context["buttons"]]
        for run in (published, waiting)
    }

    assert labels == {published.pk: ["Roll back to this run"], waiting.pk: ["Cancel"]}


def test_a_runs_page_shows_its_books_and_pieces(operator: Client, published: Run) -> None:
    response = operator.get(page(Run, "change", published.pk))

    text = text_of(response)
    assert "balanced" in text
    assert {part.zone: part.processing for part in response.context["parts"]} == {
        "raw": "validated", "clean": "", "rejected": "",
    }  # fmt: skip
    assert "http-equiv" not in text


def test_a_waiting_runs_page_says_why_and_until_when(
    operator: Client, published: Run, send_file: Callable[..., Run]
) -> None:
    upstream = Pipeline.objects.create(name="upstream", source=published.pipeline.source, stream="rows")
    PipelineDependency.objects.create(pipeline=published.pipeline, upstream=upstream, timeout_s=60)
    run = send_file(b"id,formula\n1,A\n", name="b.csv")

    text = text_of(operator.get(page(Run, "change", run.pk)))

    assert "Waiting for a new publication of upstream." in text
    assert "at the latest" in text
    assert "http-equiv" in text


@pytest.mark.parametrize("number", range(2))
def test_raw_parts_tell_how_far_their_records_have_come(
    operator: Client, send_file: Callable[..., Run], driver: Driver, number: int
) -> None:
    content = (b"nothing,fits\n1,2\n", SAMPLE)[number]
    run = send_file(content)
    while not Part.objects.filter(run=run, zone="raw").exists():
        driver.step()

    assert ">fetched<" in text_of(operator.get(page(Part, "changelist")))
    driver.drain()
    assert (">failed<", ">validated<")[number] in text_of(operator.get(page(Part, "changelist")))


def rejected(run: Run, query: str = "") -> str:
    return reverse("admin:ingestion_run_rejected", args=(run.pk,)) + query


def test_rejected_rows_are_shown_with_rule_column_value_and_record(operator: Client, published: Run) -> None:
    text = text_of(operator.get(rejected(published)))

    for shown in ("formula", "pattern", "nope", "energy", "500", "duplicate", "The value is above the maximum of 100"):
        assert shown in text


@pytest.mark.parametrize(
    ("query", "count"),
    [("?rule=max", 1), ("?column=formula", 1), ("?outcome=duplicate", 1), ("?outcome=rejected", 2), ("?rule=none", 0)],
)
def test_rejected_rows_are_filtered(operator: Client, published: Run, query: str, count: int) -> None:
    assert len(operator.get(rejected(published, query)).context["rows"]) == count


def test_rejected_rows_are_paged_without_counting(
    operator: Client, send_file: Callable[..., Run], driver: Driver
) -> None:
    lines = b"".join(b"%d,x,1\n" % number for number in range(120))
    run = send_file(b"id,formula,energy\n" + lines)
    driver.drain()
    seen: list[int] = []
    query = "?rule=pattern"
    while query:
        response = operator.get(rejected(run, query))
        seen += [row["number"] for row in response.context["rows"]]
        query = response.context["next"]

    assert seen == list(range(120))


@pytest.mark.parametrize("file_format", ["csv", "jsonl", "xlsx"])
def test_rejected_rows_are_downloaded(operator: Client, published: Run, file_format: str) -> None:
    response = operator.get(rejected(published, f"?download={file_format}&rule=pattern"))

    content = b"".join(response.streaming_content)
    assert f'filename="sample-{published.pk}-rejected.{file_format}"' in response["Content-Disposition"]
    assert content.startswith(b"PK") if file_format == "xlsx" else b"nope" in content
    assert b"500" not in content or file_format == "xlsx"


@pytest.mark.parametrize("query", ["", "?download=csv", "?download=pdf", "?after=x", "?after=1.2.3", "?outcome=odd"])
def test_what_cannot_be_shown_is_told_and_is_no_error(operator: Client, published: Run, query: str) -> None:
    for part in Part.objects.filter(run=published, zone="rejected"):
        open_lake().delete(part.key)

    response = operator.get(rejected(published, query))

    assert response.status_code == 200
    assert notices(response)


def test_names_and_values_from_data_are_never_markup(
    operator: Client, send_file: Callable[..., Run], driver: Driver
) -> None:
    evil = "<script>alert(1)</script>"
    contract = {"name": "evil", "key": ["id"], "columns": [
        {"name": "id", "type": "integer"}, {"name": evil, "type": "string", "pattern": "^a"},
    ]}  # fmt: skip
    run = send_file(f"id,{evil}\n1,{evil}\n2,abc\n".encode(), name=f"{evil}.csv", contract=contract)
    driver.drain()
    broken = send_file(f"{evil}\n1\n".encode(), name="b.csv", contract=contract)
    driver.drain()
    broken.refresh_from_db()
    assert evil in broken.message
    assert run.pipeline.contract is not None

    addresses = [reverse("admin:index"), rejected(run), page(Contract, "change", run.pipeline.contract.pk)]
    for model in (Run, Part, Upload, Contract):
        addresses += [page(model, "changelist"), *(page(model, "change", row.pk) for row in model.objects.all())]
    for row in (run, broken):
        for name in ("partitions", "events", "deliveries"):
            addresses += [page(type(piece), "change", piece.pk) for piece in getattr(row, name).all()]
    texts = [text_of(operator.get(address)) for address in addresses]

    assert any("&lt;script&gt;alert(1)" in text for text in texts)
    assert [address for address, text in zip(addresses, texts, strict=True) if evil in text] == []

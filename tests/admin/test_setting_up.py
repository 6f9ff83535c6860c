"""Contracts, pipelines and schedules are set up by forms that say what is wrong where it is."""

import json
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from ingestion.models import Contract, Pipeline, PipelineDependency, Run, RunState, Schedule, Source
from tests.admin.pages import SAMPLE_CONTRACT, WAYS, Act, form_values, notices, page, press, text_of
from tests.runs.driver import Driver

pytestmark = pytest.mark.usefixtures("driver")
PREVIEW = reverse("admin:ingestion_schedule_preview")


def test_a_contract_is_written_as_text_and_changed_by_its_next_version(operator: Client) -> None:
    operator.post(page(Contract, "add"), {"text": json.dumps(SAMPLE_CONTRACT)})
    first = Contract.objects.get()
    text = operator.get(page(Contract, "new_version", first.pk)).context["form"].initial["text"]
    assert "pattern: ^[A-Z].*" in text

    response = operator.post(page(Contract, "new_version", first.pk), {"text": text.replace("max: 100", "max: 99")})

    assert response["Location"] == page(Contract, "change", Contract.objects.get(version=2).pk)
    assert "max: 99" in text_of(operator.get(response["Location"]))


def test_an_unchanged_contract_makes_no_version(operator: Client, pipeline: Pipeline) -> None:
    assert pipeline.contract is not None
    address = page(Contract, "new_version", pipeline.contract.pk)
    text = operator.get(address).context["form"].initial["text"]

    response = operator.post(address, {"text": text}, follow=True)

    assert "no version was made" in notices(response)[0]
    assert Contract.objects.count() == 1


@pytest.mark.parametrize("text", ["", "{", "name: x\ncolumns: [{name: a, type: sausage}]"])
def test_a_contract_that_does_not_validate_is_shown_again_with_the_reason(operator: Client, text: str) -> None:
    response = operator.post(page(Contract, "add"), {"text": text})

    assert response.status_code == 200
    assert response.context["form"].errors["text"]
    assert not Contract.objects.exists()


@WAYS
def test_run_now_creates_a_run_of_the_file_that_was_read_last(
    operator: Client, pipeline: Pipeline, driver: Driver, act: Act
) -> None:
    said = act(operator, pipeline, "run_now")
    driver.drain()

    run = Run.objects.latest("pk")
    assert f"Run {run.pk} was created" in said
    assert (run.trigger, run.state, run.accepted) == ("admin", RunState.SUCCEEDED, 2)


def test_run_now_of_a_pipeline_without_a_file_publishes_nothing_and_says_so(operator: Client, published: Run) -> None:
    empty = Pipeline.objects.create(name="empty", source=published.pipeline.source, stream="rows")

    assert "Upload one" in press(operator, empty, "run_now")
    assert Run.objects.count() == 1


@WAYS
def test_a_pipeline_is_paused_and_resumed(operator: Client, pipeline: Pipeline, act: Act) -> None:
    assert "Paused" in act(operator, pipeline, "pause")
    pipeline.refresh_from_db()
    assert pipeline.is_paused
    assert "is paused. Resume it" in act(operator, pipeline, "run_now")

    assert "Resumed" in act(operator, pipeline, "resume")
    pipeline.refresh_from_db()
    assert not pipeline.is_paused


def pipeline_form(**values: Any) -> dict[str, Any]:
    """Return a filled form without inlines."""
    empty = {"TOTAL_FORMS": 0, "INITIAL_FORMS": 0}
    inlines = {f"{prefix}-{name}": value for prefix in ("dependencies", "schedules") for name, value in empty.items()}
    plain = {"mode": "full_refresh", "priority": "5", "max_active_runs": "1", "run_timeout_s": "60"}
    return {**inlines, **plain, **values}


def test_a_pipeline_is_set_up_with_what_it_runs_after_and_when(operator: Client, published: Run) -> None:
    values = pipeline_form(
        **{
            "name": "later",
            "source": published.pipeline.source_id,
            "destinations": [row.pk for row in published.pipeline.destinations.all()],
            "query_filter": "a > 1",
            "query_fields": "a\nb",
            "query_limit": "7",
            "query_options": '{"sheet": "x"}',
            "dependencies-TOTAL_FORMS": 1,
            "dependencies-0-upstream": published.pipeline_id,
            "dependencies-0-timeout_s": "30",
            "schedules-TOTAL_FORMS": 1,
            "schedules-0-cron": "0 6 * * *",
            "schedules-0-timezone": "Europe/Berlin",
            "schedules-0-jitter_s": "0",
            "schedules-0-missed_policy": "run_once",
            "schedules-0-is_enabled": "on",
        }
    )

    response = operator.post(page(Pipeline, "add"), values)

    assert response.status_code == 302, response.context["errors"]
    made = Pipeline.objects.get(name="later")
    assert (made.stream, made.query) == (
        "rows",
        {"filter": "a > 1", "fields": ["a", "b"], "limit": 7, "options": {"sheet": "x"}},
    )
    assert made.dependencies.get().upstream == published.pipeline
    assert made.schedules.get().cron == "0 6 * * *"
    assert "06:00:00 UTC" not in text_of(operator.get(page(Pipeline, "change", made.pk)))  # Berlin's six is not UTC's


def test_a_saved_page_changes_nothing_and_the_name_stays(operator: Client, pipeline: Pipeline) -> None:
    address = page(Pipeline, "change", pipeline.pk)
    before = Pipeline.objects.values("name", "stream", "query", "contract", "mode", "run_timeout_s").get()

    response = operator.post(address, {**form_values(operator.get(address)), "name": "renamed"})

    assert response.status_code == 302, response.context["errors"]
    assert Pipeline.objects.values("name", "stream", "query", "contract", "mode", "run_timeout_s").get() == before


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"stream": "nothing"}, "stream", "has no stream"),
        ({"source": "vault", "stream": ""}, "stream", "has no stream"),
        ({"source": "vault", "stream": "coins", "mode": "incremental"}, "mode", "offers no cursor"),
        ({"source": "broken"}, "source", "do not validate"),
        ({"query_options": "[1]"}, "query_options", "Write a JSON object."),
        ({"max_active_runs": "0"}, "max_active_runs", "greater than or equal to 1"),
        ({"run_timeout_s": "99999999999"}, "run_timeout_s", "less than or equal to"),
    ],
)
def test_a_pipeline_that_its_source_cannot_serve_is_refused_at_the_field(
    operator: Client, published: Run, changes: dict[str, Any], field: str, said: str
) -> None:
    Source.objects.create(name="vault", kind="vault", config={"address": "n"}, secrets={"password": "p"})
    Source.objects.create(name="broken", kind="vault", config={"depth": 99})
    source = Source.objects.get(name=changes.pop("source", "uploads"))

    response = operator.post(page(Pipeline, "add"), pipeline_form(name="x", source=source.pk, **changes))

    found = response.context["adminform"].form.errors
    assert list(found) == [field]
    assert said in found[field][0]


def test_a_dependency_that_closes_a_circle_is_refused(operator: Client, pipeline: Pipeline) -> None:
    other = Pipeline.objects.create(name="other", source=pipeline.source, stream="rows")
    PipelineDependency.objects.create(pipeline=other, upstream=pipeline)
    address = page(Pipeline, "change", pipeline.pk)
    for upstream, said in ((other, "closes a circle"), (pipeline, "cannot depend on itself")):
        values = {
            **form_values(operator.get(address)),
            "dependencies-TOTAL_FORMS": 1,
            "dependencies-0-pipeline": pipeline.pk,
            "dependencies-0-upstream": upstream.pk,
            "dependencies-0-timeout_s": "30",
        }

        assert said in text_of(operator.post(address, values))

    assert PipelineDependency.objects.count() == 1


def test_the_next_ten_times_are_shown_before_saving(operator: Client) -> None:
    values = {"schedules-0-cron": "30 4 * * *", "schedules-0-timezone": "UTC", "schedules-0-jitter_s": "0"}

    response = operator.post(PREVIEW, {**values, "schedules-__prefix__-cron": ""})

    [rule] = response.context["rules"]
    assert len(rule["times"]) == 10
    assert all((moment.hour, moment.minute) == (4, 30) for moment in rule["times"])
    assert response["X-Frame-Options"] == "SAMEORIGIN"
    assert not Schedule.objects.exists()


def test_a_preview_of_what_is_no_schedule_says_why(operator: Client) -> None:
    response = operator.post(PREVIEW, {"cron": "<script>", "timezone": "UTC", "jitter_s": "0"})

    assert "is no cron expression" in text_of(response)
    assert "<script>" not in text_of(response).split("<body", 1)[1]
    assert "No schedule is filled in" in text_of(operator.get(PREVIEW))


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"cron": "never"}, {"cron"}),
        ({"cron": ""}, {"cron", "interval_s"}),
        ({"interval_s": "60"}, {"cron", "interval_s"}),
        ({"cron": "", "interval_s": "1"}, {"interval_s"}),
        ({"timezone": "Mars/Base"}, {"timezone"}),
        ({"jitter_s": "99999999999"}, {"jitter_s"}),
    ],
)
def test_a_schedule_that_cannot_be_followed_is_refused_at_its_field(
    operator: Client, pipeline: Pipeline, changes: dict[str, str], fields: set[str]
) -> None:
    values = {
        "pipeline": pipeline.pk, "cron": "0 6 * * *", "timezone": "UTC", "jitter_s": "0", "missed_policy": "skip",
        **changes,
    }  # fmt: skip

    response = operator.post(page(Schedule, "add"), values)

    assert set(response.context["adminform"].form.errors) == fields
    assert not Schedule.objects.exists()

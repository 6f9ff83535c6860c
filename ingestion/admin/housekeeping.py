"""Housekeeping of a destination: redelivery, compaction, retention, removal: what would be done is shown first, then it is done."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.defaultfilters import filesizeformat
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from ingestion.admin.display import list_address
from ingestion.models import Delivery, Destination, Pipeline
from ingestion.ports.errors import IngestError
from ingestion.ports.housekeeping import Housekeeping
from ingestion.runs.deliver import redelivery
from ingestion.runs.operate import housekeeping
from ingestion.runs.read.destinations import pipelines_of
from ingestion.toolkit.redact import redact

LINES_SHOWN = 100
_LINES_SAID = 10
_MOST_RUNS = 1_000_000
_MOST_DAYS = 36_500


class OperationForm(forms.Form):
    """Whose rows are meant."""

    pipeline = forms.ModelChoiceField(queryset=Pipeline.objects.none(), empty_label="Choose a pipeline")

    def __init__(self, destination: Destination, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field: Any = self.fields["pipeline"]
        field.queryset = pipelines_of(destination).select_related("contract")


class RetainForm(OperationForm):
    """Publications to keep beside what readers see."""

    keep_runs = forms.IntegerField(
        label="Keep the newest", required=False, min_value=0, max_value=_MOST_RUNS, help_text="publications"
    )
    keep_days = forms.IntegerField(
        label="Keep those of the last", required=False, min_value=0, max_value=_MOST_DAYS, help_text="days"
    )


@dataclass(frozen=True, slots=True)
class Work:
    """Work that would be or was done: a line each, and its sum."""

    lines: tuple[str, ...]
    summary: str = ""


Asked = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that can be done with a destination: how it is shown, planned and done."""

    name: str
    title: str
    about: str
    button: str
    plan: Callable[[Destination, Asked], Work]
    act: Callable[[Destination, Asked, str], Work]
    form: type[OperationForm] = OperationForm
    is_confirmed: bool = False


def operate(
    request: HttpRequest,
    *,
    site: admin.ModelAdmin,
    destination: Destination,
    operation: Operation,
    context: dict[str, Any],
) -> HttpResponse:
    """Return the page that shows what would be done; a POST does it and goes to where that can be seen."""
    form = operation.form(destination, _asked_for(request, destination))
    work: Work | None = None
    if form.is_valid():
        asked = {**form.cleaned_data, "confirm": request.POST.get("confirm", "").strip()}
        try:
            if request.method == "POST":
                done = operation.act(destination, asked, str(request.user.get_username()))
                said = f"{operation.title}, pipeline {asked['pipeline'].name}: {done.summary}"
                site.log_change(request, destination, said)
                notice = _notice(f"destination {destination.name}: {said}", done)
                site.message_user(request, notice, messages.SUCCESS)
                return HttpResponseRedirect(_seen_at(destination, operation, asked["pipeline"]))
        except IngestError as error:
            messages.error(request, redact(str(error)))
        try:
            work = operation.plan(destination, asked)
        except IngestError as error:
            if request.method != "POST":
                messages.error(request, redact(str(error)))
    context |= {
        "title": f"{operation.title}: {destination.name}",
        "operation": operation,
        "form": form,
        "work": work,
        "lines": work.lines[:LINES_SHOWN] if work else (),
        "more": max(0, len(work.lines) - LINES_SHOWN) if work else 0,
        "sent": [(name, value) for name, value in form.data.items() if name in form.fields],
        "pipeline": form.cleaned_data.get("pipeline") if form.is_valid() else None,
    }
    return TemplateResponse(request, "admin/ingestion/destination/operation.html", context)


def _asked_for(request: HttpRequest, destination: Destination) -> Any:
    """Return what the form was sent with, or the destination's only pipeline; None where one has to be chosen."""
    data = request.POST if request.method == "POST" else request.GET
    if "pipeline" in data:
        return data.dict()
    only = list(pipelines_of(destination)[:2])
    return {"pipeline": str(only[0].pk)} if len(only) == 1 else None


def _seen_at(destination: Destination, operation: Operation, pipeline: Pipeline) -> str:
    """Return the address of the page that shows what has become of it."""
    if operation.name == "redeliver":
        filters = {"destination__id__exact": destination.pk, "run__pipeline__id__exact": pipeline.pk}
        return list_address(Delivery, **filters)
    return reverse("admin:ingestion_destination_change", args=(destination.pk,))


def _notice(said: str, done: Work) -> SafeString:
    lines = format_html_join("", "<li>{}</li>", ((line,) for line in done.lines[:_LINES_SAID]))
    return format_html('{}<ul class="hg-findings">{}</ul>', said, lines) if lines else format_html("{}", said)


def _work(found: Housekeeping) -> Work:
    size = filesizeformat(found.size_bytes).replace("\xa0", " ")
    return Work(found.actions, f"{found.object_count} objects, {size}." if found.actions else "Nothing was to be done.")


def _plan_redelivery(destination: Destination, asked: Asked) -> Work:
    runs = redelivery.runs_to_redeliver(asked["pipeline"], destination)
    lines = tuple(f"run {run.pk}, published {run.published_at:%Y-%m-%d %H:%M} UTC, {run.accepted} rows" for run in runs)
    return Work(lines, f"Deliveries: {len(runs)}.")


def _redeliver(destination: Destination, asked: Asked, by: str) -> Work:
    made = redelivery.redeliver_everything(asked["pipeline"], destination, by=by)
    return Work((), f"Deliveries begun: {len(made)}.")


def _compact(destination: Destination, asked: Asked, _by: str) -> Work:
    return _work(housekeeping.compact(destination, asked["pipeline"]))


def _rules(asked: Asked) -> dict[str, Any]:
    return {"keep_runs": asked.get("keep_runs"), "keep_days": asked.get("keep_days")}


def _retain(destination: Destination, asked: Asked, _by: str) -> Work:
    return _work(housekeeping.retain(destination, asked["pipeline"], **_rules(asked)))


def _drop(destination: Destination, asked: Asked, by: str) -> Work:
    return _work(housekeeping.drop(destination, asked["pipeline"], confirm=asked["confirm"], by=by))


OPERATIONS = {
    operation.name: operation
    for operation in (
        Operation(
            "redeliver",
            "Redeliver everything",
            "Brings what a pipeline has published, and the destination lacks, there: from the lake, the oldest run "
            "first. The source is not asked.",
            "Deliver them",
            _plan_redelivery,
            _redeliver,
        ),
        Operation(
            "compact",
            "Compact",
            "Writes the small files of a pipeline's published state together. Readers see the same rows all the time.",
            "Compact now",
            lambda destination, asked: _work(housekeeping.compact(destination, asked["pipeline"], dry_run=True)),
            _compact,
        ),
        Operation(
            "retain",
            "Retain",
            "Removes publications that nothing keeps. What readers see stays; without a rule all publications do, and "
            "only files that no publication names are removed.",
            "Remove them",
            lambda destination, asked: _work(
                housekeeping.retain(destination, asked["pipeline"], **_rules(asked), dry_run=True)
            ),
            _retain,
            form=RetainForm,
        ),
        Operation(
            "drop",
            "Drop",
            "Removes all rows of a pipeline from the destination. The lake keeps them: Redeliver brings them back.",
            "Remove all of it",
            lambda destination, asked: _work(housekeeping.drop(destination, asked["pipeline"], dry_run=True)),
            _drop,
            is_confirmed=True,
        ),
    )
}

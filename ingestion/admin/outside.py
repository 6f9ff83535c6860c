"""Pages of what a destination has made for us: tables whose columns change, and tasks of its own."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from ingestion.admin.housekeeping import OperationForm
from ingestion.models import Destination
from ingestion.ports.errors import IngestError
from ingestion.runs.operate import housekeeping
from ingestion.runs.read.destinations import pipelines_of
from ingestion.runs.read.history import deliveries_of_tasks
from ingestion.toolkit.redact import redact

TASKS_SHOWN = 50
TAILS = (16_384, 131_072, housekeeping.MOST_LOG_BYTES)


class TasksForm(forms.Form):
    """Whose log is shown, and how much of it."""

    log = forms.RegexField(regex=r"\A[A-Za-z0-9._:-]{1,255}\Z", required=False)
    tail = forms.TypedChoiceField(
        choices=[(size, f"{size >> 10} KB") for size in TAILS], coerce=int, required=False, empty_value=TAILS[0]
    )


def show_schema(
    request: HttpRequest, *, site: admin.ModelAdmin, destination: Destination, context: dict[str, Any]
) -> HttpResponse:
    """Return what a pipeline's next delivery would change in its table, and what can be undone; a POST undoes one."""
    data = request.POST if request.method == "POST" else request.GET
    only = list(pipelines_of(destination)[:2])
    asked = data.dict() if "pipeline" in data else {"pipeline": str(only[0].pk)} if len(only) == 1 else None
    form = OperationForm(destination, asked)
    pipeline = form.cleaned_data["pipeline"] if form.is_valid() else None
    planned: Any = ()
    applied: Any = ()
    try:
        if pipeline is not None and request.method == "POST":
            undone = housekeeping.revert_schema(destination, pipeline, request.POST.get("change", ""))
            said = f"Undone in the table of {pipeline.name}, column {undone.column}: {undone.what}"
            site.log_change(request, destination, said)
            site.message_user(request, said, messages.SUCCESS)
            return HttpResponseRedirect(f"{request.path}?pipeline={pipeline.pk}")
        if pipeline is not None:
            planned = housekeeping.plan_schema(destination, pipeline)
            applied = housekeeping.schema_changes(destination, pipeline)
    except IngestError as error:
        messages.error(request, redact(str(error)))
    context |= {
        "title": f"Schema: {destination.name}",
        "form": form,
        "pipeline": pipeline,
        "planned": planned,
        "applied": applied,
    }
    return TemplateResponse(request, "admin/ingestion/destination/schema.html", context)


def show_tasks(
    request: HttpRequest, *, site: admin.ModelAdmin, destination: Destination, context: dict[str, Any]
) -> HttpResponse:
    """Return our tasks at the destination and, where asked for, the end of a log; a POST stops a task."""
    form = TasksForm(request.GET)
    log_of = form.cleaned_data["log"] if form.is_valid() else ""
    tail = form.cleaned_data["tail"] if form.is_valid() else TAILS[0]
    tasks: Any = ()
    log: str | None = None
    try:
        if request.method == "POST":
            return _cancel(request, site=site, destination=destination)
        tasks = housekeeping.outside_tasks(destination, limit=TASKS_SHOWN)
        log = housekeeping.outside_task_log(destination, log_of, tail_bytes=tail) if log_of else None
    except IngestError as error:
        messages.error(request, redact(str(error)))
    deliveries = deliveries_of_tasks(destination, [task.id for task in tasks])
    context |= {
        "title": f"Tasks: {destination.name}",
        "tasks": [(task, deliveries.get(task.id)) for task in tasks],
        "log_of": log_of,
        "log": log,
        "tail": tail,
        "tails": [(size, f"{size >> 10} KB") for size in TAILS],
        "link": housekeeping.outside_task_link(destination, log_of) if log_of else "",
    }
    return TemplateResponse(request, "admin/ingestion/destination/tasks.html", context)


def _cancel(request: HttpRequest, *, site: admin.ModelAdmin, destination: Destination) -> HttpResponse:
    here = reverse("admin:ingestion_destination_tasks", args=(destination.pk,))
    task = request.POST.get("task", "")
    try:
        housekeeping.cancel_outside_task(destination, task)
    except IngestError as error:
        messages.error(request, redact(str(error)))
        return HttpResponseRedirect(here)
    said = f"{destination.name} was told to stop {task}; its delivery finds that out by itself."
    site.log_change(request, destination, said)
    site.message_user(request, said, messages.SUCCESS)
    return HttpResponseRedirect(here)

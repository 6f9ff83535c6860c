"""Runs: the list, a run's page, and what an operator may do with one."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Q
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.urls import path

from ingestion.admin.base import ReadOnly, WithButtons
from ingestion.admin.display import column, link_to, show_duration, show_state, show_totals
from ingestion.admin.rejected import show_rejected
from ingestion.admin.run_page import describe_run
from ingestion.models import PUBLISHED_RUN_STATES, Partition, PartitionState, Run, RunState
from ingestion.runs.deliver.cancellation import cancel_run
from ingestion.runs.operate.approval import approve_run, discard_run
from ingestion.runs.operate.retry import retry_run, roll_back
from ingestion.runs.work.states import CANCELLABLE_RUN_STATES


class RunChangeList(ChangeList):
    """A page of runs; how far each is comes by one query for all of them."""

    def get_results(self, request: HttpRequest) -> None:
        """Read the page, and count its runs' partitions."""
        super().get_results(request)
        self.result_list = list(self.result_list)
        counted = (
            Partition.objects.filter(run__in=[run.pk for run in self.result_list])
            .order_by()
            .values_list("run_id")
            .annotate(done=Count("pk", filter=Q(state=PartitionState.DONE)), total=Count("pk"))
        )
        pieces = {run_id: (done, total) for run_id, done, total in counted}
        for run in self.result_list:
            run.pieces_done, run.pieces_total = pieces.get(run.pk, (0, 0))


@admin.register(Run)
class RunAdmin(ReadOnly, WithButtons):
    """Executions of pipelines; their state is moved by Headgate alone."""

    change_form_template = "admin/ingestion/run/change_form.html"
    list_display = (
        "id", "of_pipeline", "shown_state", "totals", "progress", "priority", "trigger", "created_at", "duration", "code",
    )  # fmt: skip
    list_display_links = ("id",)
    list_filter = ("state", "pipeline", "trigger", "priority")
    list_select_related = ("pipeline",)
    search_fields = ("=id", "pipeline__name", "=code")
    search_help_text = "A run's number, a pipeline's name or a code."
    ordering = ("-id",)
    actions = ("approve", "discard", "retry", "cancel", "roll_back")
    buttons = ("approve", "discard", "retry", "cancel", "roll_back")
    asked_before = frozenset({"approve", "discard", "cancel", "roll_back"})
    fields = (
        "of_pipeline", "contract", "trigger", "priority", "mode", "slot", "query", "since", "manifest_key",
        "idempotency_key", "republishes",
    )  # fmt: skip
    of_pipeline = column("Pipeline", lambda row: link_to(row.pipeline), ordering="pipeline")
    shown_state = column("State", lambda row: show_state(row.state), ordering="state")
    totals = column("Fetched = accepted + rejected + duplicate + filtered", show_totals)
    progress = column("Partitions", lambda row: f"{row.pieces_done} of {row.pieces_total}" if row.pieces_total else "-")
    duration = column("Took", lambda row: show_duration(row.started_at, row.finished_at))

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> Any:
        """Return the list that knows how far each run is."""
        return RunChangeList

    def get_urls(self) -> list[Any]:
        """Return the pages, and the one of the rejected rows."""
        address = path(
            "<path:object_id>/rejected/",
            self.admin_site.admin_view(self.rejected_view),
            name="ingestion_run_rejected",
        )
        return [address, *super().get_urls()]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Return the run's page with everything that belongs to it."""
        run = self.get_object(request, unquote(object_id))
        about = describe_run(run) if run is not None and self.has_view_permission(request, run) else {}
        return super().change_view(request, object_id, form_url, {**about, **(extra_context or {})})

    def rejected_view(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        """Return a page of the run's rejected rows, or all of them as a file."""
        run = self.get_object(request, unquote(object_id))
        if run is None:
            raise Http404
        if not self.has_view_permission(request, run):
            raise PermissionDenied
        context = {**self.admin_site.each_context(request), "opts": self.opts, "original": run, "media": self.media}
        return show_rejected(request, run, context)

    def may_act(self, obj: Any, name: str) -> bool:
        """Return whether the run's state allows it."""
        allowed = {
            "approve": (RunState.HELD,),
            "discard": (RunState.HELD,),
            "retry": (RunState.FAILED, RunState.PARTIAL),
            "cancel": CANCELLABLE_RUN_STATES - {RunState.HELD},
            "roll_back": PUBLISHED_RUN_STATES,
        }
        return obj.state in allowed[name]

    @admin.action(description="Approve held runs", permissions=["operate"])
    def approve(self, request: HttpRequest, rows: Any) -> None:
        """Publish them though a gate holds them."""
        for run in rows:
            self.attempt(request, run, lambda run: f"It goes on as {approve_run(run.pk, by=_name(request)).state}.")

    @admin.action(description="Discard held runs", permissions=["operate"])
    def discard(self, request: HttpRequest, rows: Any) -> None:
        """Give them up; nothing of them is published."""
        for run in rows:
            self.attempt(request, run, lambda run: discard_run(run.pk, by=_name(request)).message)

    @admin.action(description="Retry", permissions=["operate"])
    def retry(self, request: HttpRequest, rows: Any) -> None:
        """Let them go on where they stopped."""
        for run in rows:
            self.attempt(request, run, lambda run: f"It goes on as {retry_run(run.pk, by=_name(request)).state}.")

    @admin.action(description="Cancel", permissions=["operate"])
    def cancel(self, request: HttpRequest, rows: Any) -> None:
        """Stop them; nothing of them is published."""
        for run in rows:
            self.attempt(request, run, lambda run: cancel_run(run.pk, by=_name(request)).message)

    @admin.action(description="Roll back to this run", permissions=["operate"])
    def roll_back(self, request: HttpRequest, rows: Any) -> None:
        """Publish what they had published once more, as new runs."""
        for run in rows:
            self.attempt(request, run, lambda run: f"Run {roll_back(run.pk).pk} publishes its data again.")


def _name(request: HttpRequest) -> str:
    return str(request.user.get_username())

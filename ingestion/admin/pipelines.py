"""Pipelines: set up with what they depend on and when they run; run now, paused, resumed."""

from typing import Any, cast

from django import forms
from django.contrib import admin
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest

from ingestion import registry
from ingestion.admin.base import WithButtons
from ingestion.admin.config_fields import LinesField, ObjectField
from ingestion.admin.contracts import newest_contracts
from ingestion.admin.display import column, link_to, show_state
from ingestion.admin.schedules import ScheduleInline
from ingestion.models import Contract, Pipeline, PipelineDependency, Run
from ingestion.ports.errors import ConfigError
from ingestion.runs.start.contracts import latest_version
from ingestion.runs.start.creation import create_run
from ingestion.runs.start.dependencies import check_dependency
from ingestion.runs.start.pipelines import check_new_name, check_pipeline
from ingestion.runs.start.schedules import pause_pipeline, resume_pipeline

_LARGEST_SMALL = 1000
_LONGEST_S = 366 * 86_400
_QUERY = ("filter", "fields", "limit", "options")


class PipelineForm(forms.ModelForm):
    """A pipeline, with its question to the source as fields of their own."""

    stream = forms.CharField(
        max_length=100, required=False, help_text="Empty: the one stream of the source, where it has only one."
    )
    query_filter = forms.CharField(
        label="Filter",
        required=False,
        max_length=10_000,
        widget=forms.Textarea({"rows": 2, "cols": 80}),
        help_text="In the source's own language; empty: everything.",
    )
    query_fields = LinesField(
        label="Fields",
        required=False,
        widget=forms.Textarea({"rows": 3, "cols": 40}),
        help_text="One a line; empty: all.",
    )
    query_limit = forms.IntegerField(
        label="Limit", required=False, min_value=1, max_value=10**12, help_text="Records at most; empty: no limit."
    )
    query_options = ObjectField(
        label="Options",
        required=False,
        widget=forms.Textarea({"rows": 2, "cols": 80}),
        help_text="A JSON object with settings of the connector for this pipeline alone.",
    )
    max_active_runs = forms.IntegerField(min_value=1, max_value=_LARGEST_SMALL, initial=1, help_text="Runs at once.")
    run_timeout_s = forms.IntegerField(
        label="Time limit (s)",
        min_value=1,
        max_value=_LONGEST_S,
        initial=24 * 3600,
        help_text="A run that takes longer is stopped.",
    )

    class Meta:
        model = Pipeline
        exclude = ("query", "is_paused", "upstreams")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in _QUERY:
            if f"query_{name}" in self.fields:
                self.fields[f"query_{name}"].initial = self.instance.query.get(name)
        if "contract" in self.fields:
            # A pipeline follows the newest version of its contract, so that is the one to choose and to show.
            cast("forms.ModelChoiceField[Contract]", self.fields["contract"]).queryset = newest_contracts()
            if self.instance.contract_id is not None:
                self.initial["contract"] = latest_version(self.instance.contract).pk

    def clean_name(self) -> str:
        """Return the name; ValidationError where a new pipeline may not have it."""
        name: str = self.cleaned_data["name"]
        try:
            return name if self.instance.pk else check_new_name(name)
        except ConfigError as error:
            raise forms.ValidationError(str(error)) from error

    def clean_query_options(self) -> Any:
        """Return the options; ValidationError for anything but a JSON object."""
        value = self.cleaned_data["query_options"]
        if value not in (None, "") and not isinstance(value, dict):
            raise forms.ValidationError("Write a JSON object.")
        return value

    def clean(self) -> dict[str, Any] | None:
        """Return the settings that the source can answer, with the question put into the row."""
        cleaned = super().clean() or {}
        source, mode = cleaned.get("source"), cleaned.get("mode")
        if source is not None and mode:
            try:
                cleaned["stream"] = cleaned.get("stream") or _only_stream(source)
                check_pipeline(source=source, stream=cleaned["stream"], mode=mode)
            except ConfigError as error:
                name = "mode" if error.code == "pipeline.incremental_needs_cursor" else "stream"
                self.add_error(name if error.code != "config.invalid" else "source", str(error))
        asked = {name: cleaned.get(f"query_{name}") for name in _QUERY}
        self.instance.query = {name: value for name, value in asked.items() if value not in (None, "", [], {})}
        return cleaned


def _only_stream(source: Any) -> str:
    streams = registry.build_connector(source).streams()
    return streams[0].name if len(streams) == 1 else ""


class DependencyFormSet(forms.BaseInlineFormSet):
    """The pipelines that are waited for."""

    def clean(self) -> None:
        """Accept them unless one would close a circle, which is said at its field."""
        super().clean()
        for form in self.forms:
            upstream = getattr(form, "cleaned_data", {}).get("upstream")
            if upstream is None or form in self.deleted_forms:
                continue
            try:
                check_dependency(self.instance, upstream)
            except ConfigError as error:
                form.add_error("upstream", str(error))


class DependencyForm(forms.ModelForm):
    """Another pipeline whose publication is waited for."""

    class Meta:
        model = PipelineDependency
        fields = ("upstream", "timeout_s")
        labels = {"timeout_s": "Wait at most (s)"}


class DependencyInline(admin.TabularInline):
    """Pipelines whose publication is waited for."""

    model = PipelineDependency
    form = DependencyForm
    formset = DependencyFormSet
    fk_name = "pipeline"
    extra = 0
    verbose_name = "upstream pipeline"
    verbose_name_plural = "runs after"
    autocomplete_fields = ("upstream",)


@admin.register(Pipeline)
class PipelineAdmin(WithButtons):
    """Source + stream + query -> contract -> destinations."""

    form = PipelineForm
    inlines = (DependencyInline, ScheduleInline)
    change_form_template = "admin/ingestion/schedule/change_form.html"
    list_display = ("name", "source", "stream", "mode", "priority", "contract", "activity", "last_run", "published")
    list_filter = ("is_paused", "mode", "priority", "source")
    list_select_related = ("source", "contract")
    search_fields = ("name", "stream", "source__name")
    autocomplete_fields = ("source",)
    filter_horizontal = ("destinations",)
    readonly_fields = ("activity", "created_at", "updated_at")
    actions = ("run_now", "pause", "resume")
    buttons = ("run_now", "pause", "resume")
    fieldsets = (
        (None, {"fields": ("name", "source", "stream", "contract", "destinations")}),
        ("What is asked for", {"fields": ("mode", "query_filter", "query_fields", "query_limit", "query_options")}),
        ("How it runs", {"fields": ("priority", "allow_partial", "max_active_runs", "run_timeout_s", "activity")}),
        ("Times", {"fields": ("created_at", "updated_at")}),
    )
    activity = column("Activity", lambda row: show_state("paused" if row.is_paused else "ok"), ordering="is_paused")
    published = column("Last publication", lambda row: row.newest_publication_at, ordering="newest_publication_at")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return what cannot be changed: the name stays, for stored objects lie under it."""
        return self.readonly_fields if obj is None else ("name", *self.readonly_fields)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Pipeline]:
        """Return the pipelines with their newest run and publication."""
        newest = Run.objects.filter(pipeline=OuterRef("pk")).order_by("-pk")
        published = newest.filter(published_at__isnull=False).order_by("-published_at")
        return (
            super()
            .get_queryset(request)
            .annotate(
                newest_run_id=Subquery(newest.values("pk")[:1]),
                newest_run_state=Subquery(newest.values("state")[:1]),
                newest_publication_at=Subquery(published.values("published_at")[:1]),
            )
        )

    def may_act(self, obj: Any, name: str) -> bool:
        """Return whether the button makes sense: a paused pipeline is resumed, another one paused or run."""
        return obj.is_paused if name == "resume" else not obj.is_paused

    @admin.display(description="Last run")
    def last_run(self, pipeline: Any) -> Any:
        """Return its newest run and that run's state."""
        if pipeline.newest_run_id is None:
            return "-"
        return link_to(Run(pk=pipeline.newest_run_id), pipeline.newest_run_state)

    @admin.action(description="Run now", permissions=["operate"])
    def run_now(self, request: HttpRequest, rows: Any) -> None:
        """Create a run of each; one that takes uploads reads those of its newest run again."""
        for pipeline in rows:
            self.attempt(request, pipeline, _run_now)

    @admin.action(description="Pause", permissions=["operate"])
    def pause(self, request: HttpRequest, rows: Any) -> None:
        """Let them start no more runs."""
        for pipeline in rows:
            self.attempt(request, pipeline, _pause)

    @admin.action(description="Resume", permissions=["operate"])
    def resume(self, request: HttpRequest, rows: Any) -> None:
        """Let them start runs again."""
        for pipeline in rows:
            self.attempt(request, pipeline, _resume)


def _pause(pipeline: Pipeline) -> str:
    pause_pipeline(pipeline.pk)
    return "Paused; runs under way go on."


def _resume(pipeline: Pipeline) -> str:
    resume_pipeline(pipeline.pk)
    return "Resumed."


def _run_now(pipeline: Pipeline) -> str:
    run, _ = create_run(pipeline, trigger=Run.Trigger.ADMIN)
    return f"Run {run.pk} was created."

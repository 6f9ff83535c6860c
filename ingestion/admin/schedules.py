"""Schedules: checked before they are saved, with their next ten times."""

from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.contrib.admin.widgets import AdminSplitDateTime
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import path
from django.utils.decorators import method_decorator
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.views.decorators.clickjacking import xframe_options_sameorigin

from ingestion.admin.base import Styled
from ingestion.admin.display import column
from ingestion.models import Schedule
from ingestion.ports.errors import ConfigError
from ingestion.runs.start.schedules import check_schedule, next_slots

RULE = ("cron", "interval_s", "timezone", "jitter_s", "starts_at")
_FIELD_OF_CODE = {
    "schedule.invalid_cron": "cron",
    "schedule.cron_or_interval": "cron",
    "schedule.invalid_interval": "interval_s",
    "schedule.invalid_zone": "timezone",
}
_LARGEST = 2**31 - 1


class ScheduleForm(forms.ModelForm):
    """A cron expression or an interval, and how it is followed."""

    class Meta:
        model = Schedule
        fields: ClassVar[Any] = ("pipeline", *RULE, "missed_policy", "max_runs", "is_enabled")
        labels = {"interval_s": "Interval (s)", "jitter_s": "Jitter (s)", "timezone": "Time zone"}
        help_texts = {
            "cron": "Five fields, such as 0 6 * * * for every day at six. Either this or an interval.",
            "interval_s": "Seconds from one run to the next, counted from the start.",
            "timezone": "Whose clocks the cron expression means, such as Europe/Berlin.",
            "missed_policy": "What happens with times that passed while nothing ran.",
            "starts_at": "Nothing runs before; intervals are counted from here.",
        }
        widgets: ClassVar[dict[str, Any]] = {
            name: forms.NumberInput({"class": "vIntegerField"}) for name in ("interval_s", "jitter_s", "max_runs")
        }

    def clean(self) -> dict[str, Any] | None:
        """Return the rule if it can be evaluated; what is wrong stands at its field."""
        cleaned = super().clean() or {}
        for name in ("interval_s", "jitter_s", "max_runs"):
            if (cleaned.get(name) or 0) > _LARGEST:
                self.add_error(name, f"Write at most {_LARGEST}.")
        if not set(RULE) & set(self.errors):
            try:
                check_schedule(_rule(cleaned))
            except ConfigError as error:
                for name in ("cron", "interval_s") if error.code == "schedule.cron_or_interval" else ():
                    self.add_error(name, str(error))
                if error.code != "schedule.cron_or_interval":
                    self.add_error(_FIELD_OF_CODE.get(error.code), str(error))
        return cleaned


class PreviewForm(ScheduleForm):
    """The rule alone, as it stands in a form that is not saved."""

    class Meta(ScheduleForm.Meta):
        fields: ClassVar[Any] = RULE
        field_classes = {"starts_at": forms.SplitDateTimeField}
        widgets = {"starts_at": AdminSplitDateTime}


def show_next_times(schedule: Schedule) -> SafeString | str:
    """Return the schedule's next ten times as a list; a dash where it is off or not saved."""
    if schedule.pk is None:
        return "-"
    times = _times(schedule, count=10)
    items = format_html_join("", "<li>{}</li>", ((f"{moment:%a %Y-%m-%d %H:%M:%S} UTC",) for moment in times))
    return format_html('<ol class="hg-times">{}</ol>', items) if times else "-"


class ScheduleInline(admin.StackedInline):
    """A pipeline's schedules."""

    model = Schedule
    form = ScheduleForm
    extra = 0
    fields = (
        ("cron", "interval_s"),
        ("timezone", "starts_at"),
        ("jitter_s", "missed_policy"),
        ("max_runs", "is_enabled"),
        "next_times",
    )
    readonly_fields = ("next_times",)
    next_times = column("Next times", show_next_times)


@admin.register(Schedule)
class ScheduleAdmin(Styled):
    """Times at which pipelines run by themselves."""

    form = ScheduleForm
    change_form_template = "admin/ingestion/schedule/change_form.html"
    list_display = ("__str__", "timezone", "is_enabled", "missed_policy", "next_time", "last_slot", "runs_created")
    list_filter = ("is_enabled", "missed_policy", "pipeline")
    list_select_related = ("pipeline",)
    search_fields = ("pipeline__name", "cron")
    autocomplete_fields = ("pipeline",)
    readonly_fields = ("next_times", "runs_created", "last_slot", "created_at")
    fieldsets = (
        (None, {"fields": ("pipeline", ("cron", "interval_s"), "timezone", "starts_at", "is_enabled")}),
        ("Details", {"fields": ("jitter_s", "missed_policy", "max_runs")}),
        ("As saved", {"fields": ("next_times", "last_slot", "runs_created", "created_at")}),
    )
    next_times = column("Next ten times", show_next_times)

    def get_urls(self) -> list[Any]:
        """Return the pages, and the preview of a rule that is not saved."""
        preview = path("preview/", self.admin_site.admin_view(self.preview_view), name="ingestion_schedule_preview")
        return [preview, *super().get_urls()]

    @method_decorator(xframe_options_sameorigin)
    def preview_view(self, request: HttpRequest) -> HttpResponse:
        """Return the next ten times of every rule in the form that was sent, saving nothing."""
        if not self.has_view_or_change_permission(request):
            raise PermissionDenied
        suffix = "cron"
        prefixes = [name.removesuffix(suffix) for name in request.POST if name == suffix or name.endswith(f"-{suffix}")]
        rules = [
            _preview(PreviewForm(request.POST, prefix=prefix.rstrip("-") or None))
            for prefix in prefixes
            if "__prefix__" not in prefix
        ]
        context = {"title": "Next ten times", "rules": rules}
        return TemplateResponse(request, "admin/ingestion/schedule/preview.html", context)

    @admin.display(description="Next time")
    def next_time(self, schedule: Schedule) -> Any:
        """Return the next time, without jitter."""
        times = _times(schedule, count=1)
        return times[0] if times else None


def _times(schedule: Schedule, *, count: int) -> list[Any]:
    if not schedule.is_enabled:
        return []
    try:
        return next_slots(schedule, count=count)
    except ConfigError:
        return []


def _rule(cleaned: dict[str, Any]) -> Schedule:
    return Schedule(**{name: cleaned[name] for name in RULE if cleaned.get(name) is not None})


def _preview(form: PreviewForm) -> dict[str, Any]:
    if not form.is_valid():
        return {"errors": [problem for problems in form.errors.values() for problem in problems]}
    schedule = _rule(form.cleaned_data)
    try:
        return {"rule": schedule.cron or f"every {schedule.interval_s} s", "times": next_slots(schedule)}
    except ConfigError as error:
        return {"errors": [str(error)]}

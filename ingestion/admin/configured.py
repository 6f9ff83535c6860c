"""Sources and destinations: forms made of their kind's settings, and a test of their connection."""

from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from ingestion import registry
from ingestion.admin.base import WithButtons, name_row
from ingestion.admin.config_fields import find_errors, make_fields, read_settings
from ingestion.admin.display import column
from ingestion.models import Source
from ingestion.ports.check import CheckReport
from ingestion.ports.errors import ConfigError, Refused
from ingestion.runs.start import probing
from ingestion.runs.start.pipelines import check_destination_config, check_source_config
from ingestion.toolkit.redact import redact


class ConfiguredForm(forms.ModelForm):
    """A named place with a field for each setting of its kind; subclasses carry the kind and these fields."""

    port: ClassVar[str]
    kind: ClassVar[str]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk is None:
            self.instance.kind = self.kind

    def clean(self) -> dict[str, Any] | None:
        """Put the settings and secrets into the row; an error stands at the field it is about."""
        cleaned = super().clean() or {}
        try:
            config_class = registry.plugin_class(self.port, self.kind).Config
            secret_names = registry.secret_fields(self.port, self.kind)
            config, secrets = read_settings(
                config_class, cleaned, secret_names=secret_names, secrets=self.instance.secrets
            )
            for name, problem in find_errors(config_class, {**config, **secrets}):
                # A field that holds no value at all has said so already.
                if name is None or name not in self.errors:
                    self.add_error(name, problem)
            if self.errors:
                return cleaned
            check = check_source_config if self.port == "connector" else check_destination_config
            check(kind=self.kind, config=config, secrets=secrets, name=cleaned["name"], own_id=self.instance.pk)
        except (ConfigError, Refused) as error:
            raise forms.ValidationError(str(error)) from error
        self.instance.config, self.instance.secrets = config, secrets
        return cleaned


class ConfiguredAdmin(WithButtons):
    """A place that is made by choosing its kind first."""

    port: ClassVar[str]
    own_fields: ClassVar[tuple[str, ...]] = ()
    list_display: Any = ("name", "kind", "pipeline_count", "updated_at")
    list_filter = ("kind",)
    search_fields = ("name",)
    readonly_fields = ("kind", "created_at", "updated_at")
    actions = ("test_connection",)
    buttons = ("test_connection",)
    pipeline_count = column("Pipelines", lambda row: int(row.pipelines.count()))

    def probe(self, row: Any) -> CheckReport:
        """Return what a test of the row's connection finds."""
        raise NotImplementedError

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Return the choice of a kind first, then the form of that kind."""
        if self.has_add_permission(request) and request.GET.get("kind") not in registry.known_kinds(self.port):
            return self._choose_kind(request)
        context = {"subtitle": request.GET.get("kind"), **(extra_context or {})}
        return super().add_view(request, form_url, context)

    def _choose_kind(self, request: HttpRequest) -> HttpResponse:
        kinds = []
        for kind in registry.known_kinds(self.port):
            chosen = request.GET.copy()
            chosen["kind"] = kind
            plugin = registry.plugin_class(self.port, kind)
            kinds.append({"kind": kind, "about": _first_line(plugin), "address": f"?{chosen.urlencode()}"})
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": f"Add {self.opts.verbose_name}: choose its kind",
            "kinds": kinds,
            "media": self.media,
            "is_popup": "_popup" in request.GET,
        }
        return TemplateResponse(request, "admin/ingestion/choose_kind.html", context)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Return the form of the row's kind."""
        kind = obj.kind if obj is not None else request.GET.get("kind", "")
        fields = self._config_fields(kind, obj)
        name = f"{kind.title().replace('_', '')}{self.model.__name__}Form"
        kwargs["form"] = type(
            name, (ConfiguredForm,), {**self._own_form_fields(), **fields, "port": self.port, "kind": kind}
        )
        return super().get_form(request, obj, change=change, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return what every place has, then the settings of its kind."""
        kind = obj.kind if obj is not None else request.GET.get("kind", "")
        names = list(self._config_fields(kind, obj))
        times = ("created_at", "updated_at") if obj is not None else ()
        sets: list[tuple[str | None, dict[str, Any]]] = [(None, {"fields": ("name", "kind")})]
        if names:
            sets.append(("Settings", {"fields": names, "description": _first_line(self._config_class(kind))}))
        if self.own_fields:
            sets.append(("Rate limit", {"fields": self.own_fields}))
        if times:
            sets.append(("Times", {"fields": times}))
        return sets

    def _own_form_fields(self) -> dict[str, forms.Field]:
        return {}

    def _config_class(self, kind: str) -> Any:
        return registry.plugin_class(self.port, kind).Config

    def _config_fields(self, kind: str, obj: Any) -> dict[str, forms.Field]:
        try:
            return make_fields(
                self._config_class(kind),
                secret_names=registry.secret_fields(self.port, kind),
                config=obj.config if obj is not None else {},
                secrets=obj.secrets if obj is not None else {},
            )
        except ConfigError:
            # The kind is not installed any more: the row can be looked at and removed, and saving it says so.
            return {}

    @admin.action(description="Test connection", permissions=["view"])
    def test_connection(self, request: HttpRequest, rows: Any) -> None:
        """Show which layer answers, how fast, and what to do where one does not."""
        for row in rows:
            report = self.probe(row)
            level = messages.SUCCESS if report.ok else messages.ERROR
            self.message_user(request, show_report(row, report), level)


def show_report(row: Any, report: CheckReport) -> SafeString:
    """Return what a test of a connection found, a line for each layer."""
    lines = format_html_join(
        "",
        "<li>{} {} ({} ms) {} {}</li>",
        (
            (
                "✓" if finding.ok else "✗",
                finding.layer,
                f"{finding.elapsed_ms:.1f}",
                redact(finding.detail),
                f"→ {redact(finding.fix)}" if finding.fix else "",
            )
            for finding in report.findings
        ),
    )
    verdict = "every layer answers." if report.ok else "the connection does not work."
    return format_html('{}: {}<ul class="hg-findings">{}</ul>', name_row(row), verdict, lines)


def _first_line(documented: Any) -> str:
    return (documented.__doc__ or "").strip().partition("\n")[0]


@admin.register(Source)
class SourceAdmin(ConfiguredAdmin):
    """Places that data come from."""

    port = "connector"
    own_fields = ("rate_per_s", "burst")
    list_display = ("name", "kind", "rate_per_s", "burst", "pipeline_count", "updated_at")

    def probe(self, row: Any) -> CheckReport:
        """Return what a test of the source finds."""
        return probing.check_source(row)

    def _own_form_fields(self) -> dict[str, forms.Field]:
        rate, burst = Source._meta.get_field("rate_per_s"), Source._meta.get_field("burst")
        return {
            "rate_per_s": forms.FloatField(
                label="Requests per second", required=False, min_value=0.001, max_value=1e6, help_text=rate.help_text
            ),
            "burst": forms.IntegerField(min_value=1, max_value=100_000, initial=1, help_text=burst.help_text),
        }

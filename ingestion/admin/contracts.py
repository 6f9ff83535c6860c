"""Contracts: read as YAML, changed by writing the next version."""

from typing import Any

import yaml
from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import Exists, OuterRef, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from ingestion.admin.base import Styled
from ingestion.admin.display import column, link_to
from ingestion.models import Contract
from ingestion.ports.errors import ConfigError
from ingestion.runs.start.contracts import full_refreshes, latest_version, save_contract

EXAMPLE = """\
name: sample
key: [id]
columns:
  - {name: id, type: integer, nullable: false}
  - {name: formula, type: string, pattern: "^[A-Z].*"}
  - {name: energy, type: number, min: -100, max: 100}
extra_columns: keep   # keep | discard | reject
"""


class ContractForm(forms.Form):
    """A contract as a person writes it."""

    text = forms.CharField(
        label="Contract",
        strip=False,
        help_text="YAML or JSON. Every change is saved as a new version; runs that have begun keep theirs.",
        widget=forms.Textarea({"rows": 28, "cols": 100, "class": "hg-editor", "spellcheck": "false"}),
    )


def newest_contracts() -> QuerySet[Contract]:
    """Return the newest version of each contract."""
    newer = Contract.objects.filter(name=OuterRef("name"), version__gt=OuterRef("version"))
    return Contract.objects.filter(~Exists(newer)).order_by("name")


def show_yaml(contract: Contract) -> str:
    """Return the contract's body as YAML, in the order it was written."""
    return yaml.safe_dump(contract.body, sort_keys=False, allow_unicode=True, width=110)


@admin.register(Contract)
class ContractAdmin(Styled):
    """Contracts of data: every version, none of which changes."""

    list_display = ("name", "version", "is_draft", "column_count", "created_at")
    list_filter = ("is_draft",)
    search_fields = ("name",)
    fields = ("name", "version", "is_draft", "yaml_text", "used_by", "sha256", "created_at")
    readonly_fields = fields
    change_form_template = "admin/ingestion/contract/change_form.html"
    column_count = column("Columns", lambda row: len(row.body.get("columns", ())))
    yaml_text = column("Body", lambda row: format_html('<pre class="hg-text">{}</pre>', show_yaml(row)))

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return that a version is never changed."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return that a version is never removed: runs name it."""
        return False

    def get_urls(self) -> list[Any]:
        """Return the pages, and the one that writes the next version."""
        address = path(
            "<path:object_id>/new-version/",
            self.admin_site.admin_view(self.new_version_view),
            name="ingestion_contract_new_version",
        )
        return [address, *super().get_urls()]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Return the version's page, with the way to the next one."""
        context = {"may_write": self.has_add_permission(request), **(extra_context or {})}
        return super().change_view(request, object_id, form_url, context)

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Return the page that writes the first version of a contract."""
        return self._edit(request, text=EXAMPLE, title="Add contract", original=None)

    def new_version_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Return the page that writes the next version of this contract."""
        contract = self.get_object(request, unquote(object_id))
        if contract is None:
            raise Http404
        newest = latest_version(contract)
        return self._edit(request, text=show_yaml(newest), title=f"New version of {newest.name}", original=newest)

    def _edit(self, request: HttpRequest, *, text: str, title: str, original: Contract | None) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = ContractForm(request.POST if request.method == "POST" else None, initial={"text": text})
        if form.is_valid():
            try:
                saved = save_contract(form.cleaned_data["text"])
            except ConfigError as error:
                form.add_error("text", str(error))
            else:
                return self._saved(request, saved, original)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": title,
            "form": form,
            "original": original,
            "media": self.media,
        }
        return TemplateResponse(request, "admin/ingestion/contract/edit.html", context)

    def _saved(self, request: HttpRequest, saved: Contract, original: Contract | None) -> HttpResponse:
        if original is not None and saved.pk == original.pk:
            self.message_user(request, f"Nothing differs from {saved}, so no version was made.", messages.INFO)
        else:
            self.log_addition(request, saved, "Written in the admin.")
            self.message_user(request, f"{saved} was saved; the next runs are checked against it.", messages.SUCCESS)
            for _, reason in full_refreshes(saved):
                self.message_user(request, reason, messages.WARNING)
        return HttpResponseRedirect(reverse("admin:ingestion_contract_change", args=(saved.pk,)))

    @admin.display(description="Used by")
    def used_by(self, contract: Contract) -> SafeString | str:
        """Return the pipelines that follow this contract; they use its newest version."""
        contracts = Contract.objects.filter(name=contract.name).prefetch_related("pipelines")
        found = {pipeline.pk: pipeline for version in contracts for pipeline in version.pipelines.all()}
        return format_html_join(", ", "{}", ((link_to(pipeline),) for pipeline in found.values())) or "-"

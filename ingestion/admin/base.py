"""Bases of the pages: rows that nobody edits, lists that are not counted, and actions that are also buttons."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, cast

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import path, reverse
from django.utils.functional import cached_property

from ingestion.ports.errors import IngestError
from ingestion.toolkit.redact import redact

COUNTED_ROWS = 10_000


class BoundedPaginator(Paginator):
    """Counts at most `COUNTED_ROWS` rows: what lies behind them is reached by a filter, not by page number."""

    @cached_property
    def count(self) -> int:
        """Return the number of rows, or the bound."""
        return int(cast("QuerySet[Any]", self.object_list).order_by()[:COUNTED_ROWS].count())


class Styled(admin.ModelAdmin):
    """A page with our style sheet."""

    class Media:
        css: ClassVar[dict[str, Sequence[str]]] = {"all": ("ingestion/admin.css",)}


class ReadOnly(Styled):
    """Rows that only Headgate writes: they can be looked at, and nothing else."""

    show_full_result_count = False
    paginator = BoundedPaginator
    list_per_page = 50
    show_facets = admin.ShowFacets.NEVER

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return that nobody adds a row by hand."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return that nobody changes a row by hand."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return that nobody removes a row by hand."""
        return False


class WithButtons(Styled):
    """Actions that stand on the list as well as, as buttons, on a row's own page."""

    buttons: ClassVar[tuple[str, ...]] = ()
    asked_before: ClassVar[frozenset[str]] = frozenset()
    """Buttons that ask whether they are meant."""

    def may_act(self, obj: Any, name: str) -> bool:
        """Return whether the button makes sense for the row as it is."""
        return True

    def has_operate_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may act on rows of this kind."""
        return request.user.has_perm(f"{self.opts.app_label}.change_{self.opts.model_name}")

    def get_urls(self) -> list[Any]:
        """Return the pages, and the address that buttons post to."""
        address = path(
            "<path:object_id>/do/<slug:name>/",
            self.admin_site.admin_view(self.press_view),
            name=f"{self.opts.app_label}_{self.opts.model_name}_do",
        )
        return [address, *super().get_urls()]

    def press_view(self, request: HttpRequest, object_id: str, name: str) -> HttpResponse:
        """Do what the button says and go back to the row's page."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        pk = unquote(object_id)
        row = self.get_object(request, pk)
        if row is None or name not in self.buttons:
            raise Http404
        found = self.get_actions(request).get(name)
        if found is None:
            raise PermissionDenied
        act: Callable[..., HttpResponse | None] = found[0]  # type: ignore[assignment]
        answer = act(self, request, self.get_queryset(request).filter(pk=row.pk))
        page = reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_change", args=(object_id,))
        return answer if answer is not None else HttpResponseRedirect(page)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Return the row's page with its buttons."""
        context = {"buttons": self._buttons(request, object_id), **(extra_context or {})}
        return super().change_view(request, object_id, form_url, context)

    def attempt(self, request: HttpRequest, row: Model, act: Callable[[Any], str]) -> None:
        """Do `act` for the row and show the sentence it returns; an expected error is shown in its own words."""
        try:
            done = act(row)
        except IngestError as error:
            self.message_user(request, f"{name_row(row)}: {redact(str(error))}", messages.ERROR)
            return
        self.log_change(request, row, done)
        self.message_user(request, f"{name_row(row)}: {done}", messages.SUCCESS)

    def _buttons(self, request: HttpRequest, object_id: str) -> list[dict[str, Any]]:
        row = self.get_object(request, unquote(object_id)) if self.buttons else None
        if row is None:
            return []
        allowed = {name: found[2] for name, found in self.get_actions(request).items() if found is not None}
        address = f"admin:{self.opts.app_label}_{self.opts.model_name}_do"
        return [
            {
                "label": allowed[name],
                "address": reverse(address, args=(object_id, name)),
                "question": f"{allowed[name]}: {row}?" if name in self.asked_before else "",
            }
            for name in self.buttons
            if name in allowed and self.may_act(row, name)
        ]


def name_row(row: Model) -> str:
    """Return what a message calls the row: its kind and name, as names alone are shown with a capital."""
    kind, name = str(row._meta.verbose_name), str(row)
    return name if name.startswith(kind) else f"{kind} {name}"

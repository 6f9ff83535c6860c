"""Values as the pages show them; everything that comes from data is escaped."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.contrib import admin
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from ingestion.models import Part, Run
from ingestion.runs.read.progress import is_balanced

_MINUTE_S = 60
_HOUR_S = 3600
_DAY_S = 86_400


def column(title: str, show: Callable[[Any], Any], ordering: str | None = None) -> Any:
    """Return a column of a list, or a field of a page, with what `show` makes of the row; `ordering` sorts by it."""

    @admin.display(description=title, ordering=ordering)
    def shown(_admin: Any, row: Any) -> Any:
        return show(row)

    return shown


def show_state(state: str) -> SafeString:
    """Return the state as a label; the style sheet knows its colour."""
    return format_html('<span class="hg-state hg-{}">{}</span>', state, state)


def show_size(size_bytes: int | None) -> str:
    """Return a size in the largest fitting unit, as the templates show it."""
    return "-" if size_bytes is None else filesizeformat(size_bytes)


def show_duration(begun_at: datetime | None, ended_at: datetime | None) -> str:
    """Return how long something took, or has taken so far."""
    if begun_at is None:
        return "-"
    elapsed: timedelta = (ended_at or timezone.now()) - begun_at
    seconds = max(0.0, elapsed.total_seconds())
    if seconds < _MINUTE_S:
        return f"{seconds:.1f} s"
    if seconds < _HOUR_S:
        return f"{seconds // _MINUTE_S:.0f} min {seconds % _MINUTE_S:.0f} s"
    if seconds < _DAY_S:
        return f"{seconds // _HOUR_S:.0f} h {seconds % _HOUR_S // _MINUTE_S:.0f} min"
    return f"{seconds // _DAY_S:.0f} d {seconds % _DAY_S // _HOUR_S:.0f} h"


def show_totals(run: Run) -> SafeString:
    """Return the run's control totals as one line: fetched = accepted + rejected + duplicate + filtered."""
    line = format_html(
        "{} = {} + {} + {} + {}",
        *(f"{value:,}" for value in (run.fetched, run.accepted, run.rejected, run.duplicate, run.filtered)),
    )
    return line if is_balanced(run) else format_html('{} <span class="hg-state hg-failed">open</span>', line)


def show_json(value: Any) -> SafeString:
    """Return a JSON value, indented."""
    text = json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True, default=str)
    return format_html('<pre class="hg-text">{}</pre>', text)


def link_to(row: Any, text: str | None = None) -> SafeString:
    """Return a link to the row's page."""
    address = reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=(row.pk,))
    return format_html('<a href="{}">{}</a>', address, str(row) if text is None else text)


def list_address(model: type[Any], **filters: Any) -> str:
    """Return the address of the model's list, filtered."""
    address = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
    query = "&".join(f"{name}={value}" for name, value in filters.items())
    return f"{address}?{query}" if query else address


def processing_status(part: Part, *, partition_state: str | None) -> str:
    """Return how far a raw part's records have come: fetched, validated or failed; empty for other zones."""
    if part.zone != Part.Zone.RAW:
        return ""
    return {"done": "validated", "failed": "failed"}.get(partition_state or "", "fetched")

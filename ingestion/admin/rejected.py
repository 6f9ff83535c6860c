"""Rows of a run that a contract or a destination rejected, and duplicates: seen page by page, filtered, and downloaded."""

from itertools import chain
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse
from django.template.response import TemplateResponse

from ingestion.models import Run
from ingestion.ports.errors import IngestError
from ingestion.runs.read.quarantine import (
    FORMATS,
    OUTCOMES,
    RENAMED_OUTCOMES,
    count_rules,
    download_rejected,
    page_rejected,
)
from ingestion.toolkit.redact import redact

PAGE_ROWS = 50
_COUNTED_ROWS = 20_000
"""Up to so many rejected rows the page counts which rules they broke; for more it would take too long."""
_LABELS = {"csv": "CSV", "jsonl": "JSON Lines", "xlsx": "Excel"}


class RejectedFilter(forms.Form):
    """Choice of rows."""

    rule = forms.CharField(required=False, max_length=60)
    column = forms.CharField(required=False, max_length=200)
    outcome = forms.ChoiceField(choices=[("", "any"), *((name, name) for name in OUTCOMES)], required=False)


def show_rejected(request: HttpRequest, run: Run, context: dict[str, Any]) -> HttpResponseBase:
    """Return a page of rows with the rules they broke, or all that are asked for as a file."""
    asked = request.GET.dict()
    form = RejectedFilter(
        {**asked, "outcome": RENAMED_OUTCOMES.get(asked.get("outcome", ""), asked.get("outcome", ""))}
    )
    wanted = {name: value or None for name, value in (form.cleaned_data if form.is_valid() else {}).items()}
    rows: list[dict[str, Any]] = []
    rules: dict[str, int] = {}
    refused = dict(run.deliveries.filter(rejected__gt=0).values_list("destination__name", "rejected"))
    try:
        if "download" in request.GET:
            return _download(run, file_format=request.GET["download"], **wanted)
        rows = page_rejected(run, limit=PAGE_ROWS + 1, after=_position(request.GET.get("after", "")), **wanted)
        if run.rejected + run.duplicate + sum(refused.values()) <= _COUNTED_ROWS:
            rules = count_rules(run)
    except IngestError as error:
        messages.error(request, redact(str(error)))
    query = {name: value for name, value in wanted.items() if value}
    following = None
    if len(rows) > PAGE_ROWS:
        rows = rows[:PAGE_ROWS]
        following = "?" + urlencode({**query, "after": "{}.{}".format(*rows[-1]["position"])})
    context |= {
        "title": f"Rejected rows of run {run.pk}",
        "form": form,
        "refused": refused,
        "rows": [{**row, "number": row["_row"], "source_page": row["_page"]} for row in rows],
        "rules": [_rule(name, count) for name, count in rules.items()],
        "next": following,
        "is_first": "after" not in request.GET,
        "first": f"?{urlencode(query)}",
        "downloads": [(_LABELS.get(name, name), "?" + urlencode({**query, "download": name})) for name in FORMATS],
    }
    return TemplateResponse(request, "admin/ingestion/run/rejected.html", context)


def _rule(name: str, count: int) -> dict[str, Any]:
    """Return a rule with the address of the rows that broke it; only a column's name may have blanks."""
    column, _, rule = name.rpartition(" ")
    address = "?" + urlencode({name: value for name, value in (("rule", rule), ("column", column)) if value})
    return {"name": name, "count": count, "address": address}


def _download(run: Run, *, file_format: str, **wanted: Any) -> StreamingHttpResponse:
    blocks = iter(download_rejected(run, file_format=file_format, **wanted))
    # The first block is made here: an object that is missing becomes a message and not half a file.
    first = next(blocks, b"")
    response = StreamingHttpResponse(chain((first,), blocks), content_type=FORMATS[file_format])
    name = f"{run.pipeline.name}-{run.pk}-rejected.{file_format}"
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def _position(after: str) -> tuple[int, int] | None:
    part, _, position = after.partition(".")
    return (int(part), int(position)) if part.isdecimal() and position.isdecimal() else None

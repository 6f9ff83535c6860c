"""Rows of a run that were rejected, by us or a destination, or are duplicates: seen page by page, or downloaded as a file."""

from typing import Any

from django.http import HttpResponseBase, StreamingHttpResponse
from django.shortcuts import get_object_or_404
from drf_spectacular.types import OpenApiTypes
from rest_framework import serializers
from rest_framework.request import Request

from ingestion.api.base import RenamedChoiceField, View, operation
from ingestion.api.pagination import PageQuery, bad_cursor, next_address, page_answer, page_of, read_cursor
from ingestion.models import Run
from ingestion.runs.read.quarantine import FORMATS, OUTCOMES, RENAMED_OUTCOMES, download_rejected, page_rejected


class RuleErrorSerializer(serializers.Serializer[Any]):
    """One broken rule."""

    column = serializers.CharField(allow_null=True)
    rule = serializers.CharField()
    value = serializers.CharField(allow_null=True)
    message = serializers.CharField()


class RejectedSerializer(serializers.Serializer[Any]):
    """One row that was not accepted."""

    part = serializers.CharField(help_text="Partition it came from: lane-link.")
    row = serializers.IntegerField(help_text="Row in the file or page, from 0.")
    page = serializers.IntegerField(allow_null=True)
    outcome = serializers.CharField(help_text="rejected, duplicate, or rejected_by_destination.")
    destination = serializers.CharField(allow_null=True, help_text="Which one rejected it; else null.")
    errors = RuleErrorSerializer(many=True)  # type: ignore[assignment]
    raw = serializers.CharField(help_text="The record as it arrived.")


class RejectedQuery(PageQuery):
    """Choice of rows."""

    rule = serializers.CharField(required=False, max_length=60)
    column = serializers.CharField(required=False, max_length=200)
    outcome = RenamedChoiceField(choices=OUTCOMES, renamed=RENAMED_OUTCOMES, required=False)
    download = serializers.ChoiceField(choices=sorted(FORMATS), required=False, help_text="All of them, as a file.")


class RejectedView(View):
    """The rejected rows of a run."""

    query_class = RejectedQuery

    @operation(
        "runs_rejected",
        "Show or download a run's rejected rows",
        parameters=[RejectedQuery],
        responses={
            (200, "application/json"): page_of(RejectedSerializer),
            **{(200, media_type): OpenApiTypes.BINARY for media_type in FORMATS.values()},
        },
    )
    def get(self, request: Request, id: int) -> HttpResponseBase:
        """Return a page of rows with the rules they broke, or all of them as a file."""
        run = get_object_or_404(Run, pk=id)
        wanted = {name: self.query.get(name) for name in ("rule", "column", "outcome")}
        if "download" in self.query:
            return _download(run, file_format=self.query["download"], **wanted)
        limit = self.query["limit"]
        after = _position(read_cursor(request, self.query))
        rows = page_rejected(run, limit=limit + 1, after=after, **wanted)
        following = next_address(request, "{}.{}".format(*rows[limit - 1]["position"])) if len(rows) > limit else None
        return page_answer([_shown(row) for row in rows[:limit]], following)


def _download(run: Run, *, file_format: str, **wanted: Any) -> StreamingHttpResponse:
    response = StreamingHttpResponse(
        download_rejected(run, file_format=file_format, **wanted), content_type=FORMATS[file_format]
    )
    name = f"{run.pipeline.name}-{run.pk}-rejected.{file_format}"
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def _position(after: str | None) -> tuple[int, int] | None:
    if after is None:
        return None
    part, _, position = after.partition(".")
    if not (part.isdecimal() and position.isdecimal()):
        raise bad_cursor()
    return int(part), int(position)


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("_"): value for name, value in row.items() if name != "position"}

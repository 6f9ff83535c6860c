"""Published rows: seen page by page, or downloaded as a file that can be gone on with where it broke off."""

import csv
from collections.abc import Iterator
from typing import Any

from django.http import HttpResponseBase, StreamingHttpResponse
from django.shortcuts import get_object_or_404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, inline_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from ingestion.api.base import Moment, NameOrId, Strict, View, operation
from ingestion.api.pagination import DEFAULT_SIZE, MAX_SIZE
from ingestion.models import Pipeline, Run
from ingestion.runs.read.exports import Published, download, page, rows_of_pipeline, rows_of_run
from ingestion.toolkit.rows.formats import MEDIA_TYPES

_FORMATS = ("json", *MEDIA_TYPES)
_PAGES = inline_serializer(
    "RecordsPage",
    {
        "publication": serializers.IntegerField(help_text="The run whose publication these rows belong to."),
        "first_row": serializers.IntegerField(help_text="Number of the first row of the page, from 1."),
        "total": serializers.IntegerField(),
        "results": serializers.ListField(child=serializers.DictField()),
        "next": serializers.URLField(allow_null=True),
    },
)
_HEADERS = [
    OpenApiParameter(
        name, int, OpenApiParameter.HEADER, response=[200], description=description
    )
    for name, description in (
        ("Headgate-Publication", "The run whose publication these rows belong to."),
        ("Headgate-First-Row", "Number of the first row, from 1: `after` + 1."),
        ("Headgate-Total-Rows", "How many rows there are in all, the earlier ones included."),
    )
]  # fmt: skip
_RESUMING = (
    "Rows have numbers, from 1, that never change. A file that broke off after N rows is gone on with by `after=N`; "
    "what lies before is not read again. The header line of CSV comes with row 1 alone. Texts in CSV and Excel that a "
    "spreadsheet would take for formulas begin with an apostrophe."
)


class ColumnsField(serializers.CharField):
    """Names with commas between them; a name that holds a comma stands in double quotes."""

    def to_internal_value(self, data: Any) -> Any:
        """Return the names; ValidationError where there are none."""
        try:
            names = next(csv.reader([super().to_internal_value(data)], skipinitialspace=True), [])
        except csv.Error:
            names = []
        if not names or not all(name.strip() for name in names):
            raise serializers.ValidationError("Write names with commas between them.")
        return [name.strip() for name in names]


class RecordsQuery(Strict):
    """Choice of rows, and their form."""

    format = serializers.ChoiceField(
        choices=_FORMATS, default="json", help_text="json is a page, the others are files."
    )
    after = serializers.IntegerField(min_value=0, max_value=1 << 53, default=0, help_text="Go on behind that row.")
    limit = serializers.IntegerField(
        min_value=1,
        max_value=1 << 53,
        required=False,
        help_text=f"At most so many rows; a page has {DEFAULT_SIZE} unless told, and {MAX_SIZE} at most.",
    )
    columns = ColumnsField(required=False, max_length=10_000, help_text='Only these, in this order: `a,b,"c,d"`.')
    lineage = serializers.BooleanField(
        default=False, help_text="With the columns _run, _part, _row and _page: where each row came from."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Return the values; ValidationError for a page that is too long."""
        if attrs["format"] == "json" and attrs.setdefault("limit", DEFAULT_SIZE) > MAX_SIZE:
            raise serializers.ValidationError({"limit": [f"A page has at most {MAX_SIZE} rows."]})
        return attrs


class ExportQuery(RecordsQuery):
    """Choice of rows of a pipeline's published state."""

    pipeline = NameOrId(Pipeline.objects.select_related("source", "contract"))
    since = Moment(required=False, help_text="Event time at or after it.")
    until = Moment(required=False, help_text="Event time before it.")
    publication = serializers.IntegerField(
        min_value=1,
        max_value=1 << 53,
        required=False,
        help_text="The state as that run's publication left it, from the header Headgate-Publication; else the newest.",
    )


def _answers() -> dict[Any, Any]:
    files = {(200, media_type.partition(";")[0]): OpenApiTypes.BINARY for media_type in MEDIA_TYPES.values()}
    return {(200, "application/json"): _PAGES, **files}


class RecordsView(View):
    """The accepted rows of a run."""

    query_class = RecordsQuery

    @operation(
        "runs_records",
        "Read or download the rows a run published",
        description=f"In (lane, link, row) order, from the run's clean parts. {_RESUMING}",
        parameters=[RecordsQuery, *_HEADERS],
        responses=_answers(),
    )
    def get(self, request: Request, id: int) -> HttpResponseBase:
        """Return a page of rows, or a file of them."""
        run = get_object_or_404(Run.objects.select_related("pipeline", "contract"), pk=id)
        query = self.query
        published = rows_of_run(run, columns=query.get("columns", ()), with_lineage=query["lineage"])
        return _answer(request, query, published)


class ExportView(View):
    """The published state of a pipeline."""

    query_class = ExportQuery

    @operation(
        "data_export",
        "Read or download what a pipeline has published",
        description=(
            "The state since the last full refresh, oldest run first; where the pipeline merges by key, the latest row "
            f"of each. With `publication` the same state again, whatever was published since. {_RESUMING}"
        ),
        parameters=[ExportQuery, *_HEADERS],
        responses=_answers(),
    )
    def get(self, request: Request) -> HttpResponseBase:
        """Return a page of rows, or a file of them."""
        query = self.query
        published = rows_of_pipeline(
            query["pipeline"],
            publication=query.get("publication"),
            since=query.get("since"),
            until=query.get("until"),
            columns=query.get("columns", ()),
            with_lineage=query["lineage"],
        )
        return _answer(request, query, published)


def _answer(request: Request, query: dict[str, Any], published: Published) -> HttpResponseBase:
    after, limit = query["after"], query.get("limit")
    response: HttpResponseBase
    if query["format"] == "json":
        response = _page(request, published, after=after, limit=limit or DEFAULT_SIZE)
    else:
        response = _file(published, file_format=query["format"], after=after, limit=limit)
    response["Headgate-Publication"] = str(published.publication)
    response["Headgate-First-Row"] = str(after + 1)
    response["Headgate-Total-Rows"] = str(published.rows.total)
    return response


def _page(request: Request, published: Published, *, after: int, limit: int) -> Response:
    results = page(published, after=after, limit=limit)
    following = None
    if after + len(results) < published.rows.total and results:
        parameters = request.query_params.copy()
        parameters["after"] = str(after + len(results))
        if "pipeline" in parameters:
            parameters["publication"] = str(published.publication)
        following = request.build_absolute_uri(f"{request.path}?{parameters.urlencode()}")
    return Response(
        {
            "publication": published.publication,
            "first_row": after + 1,
            "total": published.rows.total,
            "results": results,
            "next": following,
        }
    )


def _file(published: Published, *, file_format: str, after: int, limit: int | None) -> StreamingHttpResponse:
    blocks = _begun(download(published, file_format=file_format, after=after, limit=limit))
    response = StreamingHttpResponse(blocks, content_type=MEDIA_TYPES[file_format])
    name = f"{published.pipeline}-{published.publication}.{file_format}"
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def _begun(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Return the blocks after the first was made, so that what can go wrong at once is still told as a problem."""
    first = next(blocks, b"")

    def rest() -> Iterator[bytes]:
        # A generator, so that a client who leaves closes the files behind it.
        yield first
        yield from blocks

    return rest()

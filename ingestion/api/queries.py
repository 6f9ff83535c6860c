"""SQL over what a pipeline has published."""

from dataclasses import asdict
from typing import Any

from drf_spectacular.utils import OpenApiExample
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from ingestion.api.base import NameOrId, Strict, View, operation, validated
from ingestion.models import Pipeline
from ingestion.runs.read.queries import DEFAULT_ROWS, MAX_ROWS, query_published


class QueryRequestSerializer(Strict):
    """A question in SQL."""

    pipeline = NameOrId(Pipeline.objects.select_related("source", "contract"))
    sql = serializers.CharField(
        max_length=20_000, trim_whitespace=False, help_text="One SELECT over the table `rows`, in DuckDB's SQL."
    )
    limit = serializers.IntegerField(
        min_value=1, max_value=MAX_ROWS, default=DEFAULT_ROWS, help_text="Rows of the answer."
    )


class QueryAnswerSerializer(serializers.Serializer[Any]):
    """The first rows of the result."""

    pipeline = serializers.CharField()
    publication = serializers.IntegerField(help_text="The run whose publication made the state that was asked.")
    columns = serializers.ListField(child=serializers.CharField())
    types = serializers.ListField(child=serializers.CharField())
    rows = serializers.ListField(child=serializers.ListField())
    truncated = serializers.BooleanField(help_text="There are more rows than these.")
    elapsed_ms = serializers.FloatField()


class QueryView(View):
    """Answers questions in SQL; whoever may read the data may ask."""

    @operation(
        "data_query",
        "Ask what a pipeline has published, in SQL",
        description=(
            "`rows` is the published state: of each key the latest row, with the columns of the data and _run, _part, "
            "_row, _page. One SELECT, which reads nothing else, within limits of time, memory and rows."
        ),
        request=QueryRequestSerializer,
        responses=QueryAnswerSerializer,
        examples=[
            OpenApiExample(
                "Count by formula",
                value={
                    "pipeline": "sample",
                    "sql": "SELECT formula, count(*) AS n FROM rows GROUP BY ALL",
                    "limit": 10,
                },
                request_only=True,
            )
        ],
    )
    def post(self, request: Request) -> Response:
        """Return the first rows of the result; times are ISO 8601, bytes base64, NaN and infinities text."""
        asked = validated(QueryRequestSerializer, request)
        return Response(asdict(query_published(asked["pipeline"], asked["sql"], limit=asked["limit"])))

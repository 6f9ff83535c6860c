"""The accepted records of the latest published state."""

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from ingestion.api.base import Moment, NameOrId, View, operation
from ingestion.api.pagination import PageQuery, next_address, page_answer, page_of, read_cursor
from ingestion.catalog import query_records
from ingestion.models import Pipeline, Source


class RecordSerializer(serializers.Serializer[Any]):
    """One accepted record."""

    id = serializers.IntegerField()
    pipeline = serializers.CharField()
    source = serializers.CharField()  # type: ignore[assignment]
    run = serializers.IntegerField(help_text="The run that brought this version of it.")
    event_time = serializers.DateTimeField(allow_null=True)
    record = serializers.DictField()


class DataQuery(PageQuery):
    """Choice of records."""

    pipeline = NameOrId(Pipeline.objects.all(), required=False)
    source = NameOrId(Source.objects.all(), required=False)  # type: ignore[assignment]
    since = Moment(required=False, help_text="Event time at or after it; orders by event time.")
    until = Moment(required=False, help_text="Event time before it; orders by event time.")


class DataView(View):
    """The records of all pipelines that deliver to the catalog."""

    query_class = DataQuery

    @operation("data_list", "Read the accepted records", parameters=[DataQuery], responses=page_of(RecordSerializer))
    def get(self, request: Request) -> Response:
        """Return a page of records; a publication is seen as a whole or not at all."""
        query, limit = self.query, self.query["limit"]
        source: Source | None = query.get("source")
        pipeline: Pipeline | None = query.get("pipeline")
        rows = query_records(
            limit=limit + 1,
            pipeline_id=pipeline.pk if pipeline else None,
            source=source.name if source else None,
            since=query.get("since"),
            until=query.get("until"),
            after=read_cursor(request, query),
        )
        following = next_address(request, rows[limit - 1]["cursor"]) if len(rows) > limit else None
        return page_answer(
            [
                {
                    "id": row["id"],
                    "pipeline": row["pipeline"],
                    "source": row["source"],
                    "run": row["run_id"],
                    "event_time": row["event_time"],
                    "record": row["record"],
                }
                for row in rows[:limit]
            ],
            following,
        )

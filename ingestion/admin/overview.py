"""Contents of the first page: health, freshness, failures and throughput, by a fixed number of queries."""

from typing import Any

from django.db.models import Count, F, OuterRef, QuerySet, Subquery

from ingestion.models import PUBLISHED_RUN_STATES, Pipeline, Run, RunState
from ingestion.runs.operate.health import check_readiness
from ingestion.runs.read.statistics import collect_statistics

PIPELINES_SHOWN = 25
FAILURES_SHOWN = 10
DAYS = 7


def describe_installation() -> dict[str, Any]:
    """Return what the overview shows."""
    is_ready, parts = check_readiness()
    return {
        "is_ready": is_ready,
        "health": parts,
        "freshness": _pipelines_by_age()[:PIPELINES_SHOWN],
        "pipelines_shown": PIPELINES_SHOWN,
        "run_states": _count_states(),
        "failures": _recent_failures(),
        "statistics": collect_statistics(days=DAYS),
    }


def _pipelines_by_age() -> QuerySet[Pipeline]:
    """Return the pipelines, those that have not published for longest first."""
    own = Run.objects.filter(pipeline=OuterRef("pk"))
    published = own.filter(state__in=PUBLISHED_RUN_STATES, published_at__isnull=False).order_by("-published_at")
    newest = own.order_by("-pk")
    return Pipeline.objects.annotate(
        fresh_at=Subquery(published.values("published_at")[:1]),
        last_run_id=Subquery(newest.values("pk")[:1]),
        last_run_state=Subquery(newest.values("state")[:1]),
    ).order_by(F("fresh_at").asc(nulls_first=True), "name")


def _count_states() -> list[tuple[str, int]]:
    counted = dict(Run.objects.order_by().values_list("state").annotate(count=Count("pk")))
    return [(state, counted[state]) for state in RunState.values if state in counted]


def _recent_failures() -> QuerySet[Run]:
    # A held run has not failed; but nobody else tells that a person is waited for.
    to_look_at = Run.objects.filter(state__in=(RunState.HELD, RunState.FAILED, RunState.PARTIAL))
    return to_look_at.select_related("pipeline").order_by("-pk")[:FAILURES_SHOWN]

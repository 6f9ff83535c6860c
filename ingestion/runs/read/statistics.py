"""Numbers over all runs; each equals what the run pages show."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django.db.models import Count, F, Q, QuerySet, Sum
from django.db.models.functions import TruncDate
from django.utils import timezone

from ingestion.models import GIVEN_UP_STATES, PUBLISHED_RUN_STATES, Delivery, Run, RunState
from ingestion.runs.read.progress import CONTROL_TOTALS

_TAKEN = ("inserted", "updated", "unchanged", "rejected")


def collect_statistics(*, days: int = 30) -> dict[str, Any]:
    """Return runs and deliveries by state, the success rate of ended runs, and rows by day, source and destination.

    Rows are those of published runs, on the day of their publication.
    """
    since = timezone.now() - timedelta(days=days)
    runs = Run.objects.filter(created_at__gte=since)
    by_state = dict(runs.order_by().values_list("state").annotate(count=Count("pk")))
    ended = sum(by_state.get(state, 0) for state in (*PUBLISHED_RUN_STATES, RunState.FAILED))
    # An annotation may not have a field's name, so the sums carry their own until they are read.
    sums = {f"sum_{name}": Sum(name, default=0) for name in CONTROL_TOTALS}
    published = runs.filter(state__in=PUBLISHED_RUN_STATES)
    deliveries = Delivery.objects.filter(run__in=published).order_by()
    taken = {f"sum_{name}": Sum(name, default=0) for name in _TAKEN}
    return {
        "days": days,
        "runs": {"total": sum(by_state.values()), "by_state": by_state},
        "success_rate": by_state.get(RunState.SUCCEEDED, 0) / ended if ended else None,
        "rows": _plain([published.aggregate(**sums)])[0],
        "by_day": _plain(
            published.order_by()
            .annotate(day=TruncDate("published_at"))
            .values("day")
            .annotate(runs=Count("pk"), **sums)
            .order_by("day")
        ),
        "by_source": _plain(
            published.order_by()
            .values(source=F("pipeline__source__name"))
            .annotate(runs=Count("pk"), **sums)
            .order_by("source")
        ),
        "by_destination": _plain(
            deliveries.values(name=F("destination__name"))
            .annotate(
                deliveries=Count("pk"),
                failed=Count("pk", filter=Q(state__in=GIVEN_UP_STATES)),
                **taken,
            )
            .order_by("name")
        ),
        "by_day_and_destination": _plain(
            deliveries.annotate(day=TruncDate("run__published_at"))
            .values("day", name=F("destination__name"))
            .annotate(deliveries=Count("pk"), **taken)
            .order_by("day", "name")
        ),
        "deliveries": _by_state(Delivery.objects.filter(run__in=runs)),
        "recent_runs": list(
            runs.order_by("-pk").values("id", "pipeline__name", "state", "code", "accepted", "finished_at")[:10]
        ),
    }


def _by_state(deliveries: QuerySet[Delivery]) -> dict[str, Any]:
    """Return how many deliveries are in which state, in all and at each destination."""
    counted = (
        deliveries.order_by()
        .values_list("destination__name", "state")
        .annotate(count=Count("pk"))
        .order_by("destination__name", "state")
    )
    by_state: dict[str, int] = {}
    by_destination: dict[str, dict[str, int]] = {}
    for name, state, count in counted:
        by_state[state] = by_state.get(state, 0) + count
        by_destination.setdefault(name, {})[state] = count
    return {"total": sum(by_state.values()), "by_state": by_state, "by_destination": by_destination}


def _plain(rows: Iterable[Any]) -> list[dict[str, Any]]:
    return [{name.removeprefix("sum_"): value for name, value in row.items()} for row in rows]

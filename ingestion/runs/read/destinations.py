"""Destinations by their deliveries: verified, under way and given up ones; and where each destination is."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Count, F, Max, OuterRef, Q, QuerySet, Subquery, Sum

from ingestion.models import GIVEN_UP_STATES, OPEN_DELIVERY_STATES, Delivery, Destination, Pipeline
from ingestion.ports.publication import DeliveryState
from ingestion.toolkit.redact import redact, redact_url

_ENDED = frozenset({DeliveryState.VERIFIED}) | GIVEN_UP_STATES
_ROWS = F("inserted") + F("updated") + F("unchanged")


@dataclass(frozen=True, slots=True)
class PipelineDeliveries:
    """The outcome of one pipeline's deliveries into one destination.

    `rows` were taken by the verified ones. `state`, `code` and `message` are those of the newest one that has ended;
    they are empty where none has.
    """

    pipeline: str
    pipeline_id: int
    open: int
    failed: int
    verified: int
    rows: int
    last_verified_at: datetime | None
    run_id: int | None = None
    state: str = ""
    code: str = ""
    message: str = ""

    @property
    def is_failing(self) -> bool:
        """Return whether the newest delivery that ended was given up."""
        return self.state in GIVEN_UP_STATES


@dataclass(frozen=True, slots=True)
class DestinationHealth:
    """The outcome of deliveries into a destination, over all pipelines that have delivered there."""

    pipelines: tuple[PipelineDeliveries, ...] = ()
    last_verified_run: int | None = None

    @property
    def open(self) -> int:
        """Return how many deliveries are under way."""
        return sum(each.open for each in self.pipelines)

    @property
    def failed(self) -> int:
        """Return how many deliveries were given up and not made again."""
        return sum(each.failed for each in self.pipelines)

    @property
    def verified(self) -> int:
        """Return how many deliveries came through."""
        return sum(each.verified for each in self.pipelines)

    @property
    def rows(self) -> int:
        """Return how many rows the verified deliveries brought."""
        return sum(each.rows for each in self.pipelines)

    @property
    def last_verified_at(self) -> datetime | None:
        """Return when a delivery last came through."""
        return max((each.last_verified_at for each in self.pipelines if each.last_verified_at), default=None)

    @property
    def failing(self) -> tuple[PipelineDeliveries, ...]:
        """Return the pipelines whose newest delivery was given up."""
        return tuple(each for each in self.pipelines if each.is_failing)

    @property
    def state(self) -> str:
        """Return `failing`, `ok`, or `unused` where no delivery has ended yet."""
        if self.failing:
            return "failing"
        return "ok" if any(each.state for each in self.pipelines) else "unused"


def health_of(destinations: Iterable[Destination]) -> dict[int, DestinationHealth]:
    """Return how each of the destinations fares by its number, with three questions for all of them."""
    ids = [destination.pk for destination in destinations]
    counted = list(_counted(ids))
    newest = Delivery.objects.in_bulk([row["newest"] for row in counted if row["newest"] is not None])
    last_verified = dict(_last_verified(ids))
    found: dict[int, list[PipelineDeliveries]] = {number: [] for number in ids}
    for row in counted:
        found[row["destination_id"]].append(_deliveries(row, newest.get(row["newest"])))
    return {number: DestinationHealth(tuple(rows), last_verified.get(number)) for number, rows in found.items()}


def pipelines_of(destination: Destination) -> QuerySet[Pipeline]:
    """Return the pipelines that deliver there, or have done so, by name."""
    delivered = Delivery.objects.filter(destination=destination).values("run__pipeline")
    return Pipeline.objects.filter(Q(destinations=destination) | Q(pk__in=delivered)).distinct().order_by("name")


def address_of(config: Mapping[str, Any]) -> str:
    """Return where a source or destination is, as its settings say, without secrets; empty where they do not."""
    address = config.get("base_url") or config.get("url") or config.get("path") or ""
    if not address and config.get("host"):
        port = f":{config['port']}" if config.get("port") else ""
        address = f"{config['host']}{port}/{config.get('database') or ''}".rstrip("/")
    return redact_url(str(address))


def _counted(ids: Collection[int]) -> Any:
    verified = Q(state=DeliveryState.VERIFIED)
    return (
        Delivery.objects.filter(destination__in=ids)
        .order_by()
        .values("destination_id", "run__pipeline_id", "run__pipeline__name")
        .annotate(
            open=Count("pk", filter=Q(state__in=OPEN_DELIVERY_STATES)),
            failed=Count("pk", filter=Q(state__in=GIVEN_UP_STATES)),
            verified=Count("pk", filter=verified),
            rows=Sum(_ROWS, filter=verified, default=0),
            last_verified_at=Max("finished_at", filter=verified),
            newest=Max("pk", filter=Q(state__in=_ENDED)),
        )
        .order_by("destination_id", "run__pipeline__name")
    )


def _last_verified(ids: Collection[int]) -> QuerySet[Destination, tuple[int, int | None]]:
    verified = Delivery.objects.filter(destination=OuterRef("pk"), state=DeliveryState.VERIFIED)
    last = Subquery(verified.order_by("-finished_at", "-pk").values("run_id")[:1])
    return Destination.objects.filter(pk__in=ids).annotate(last=last).values_list("pk", "last")


def _deliveries(row: Mapping[str, Any], newest: Delivery | None) -> PipelineDeliveries:
    return PipelineDeliveries(
        pipeline=row["run__pipeline__name"],
        pipeline_id=row["run__pipeline_id"],
        **{name: row[name] for name in ("open", "failed", "verified", "rows", "last_verified_at")},
        run_id=newest.run_id if newest else None,
        state=newest.state if newest else "",
        code=newest.code if newest else "",
        message=redact(newest.message) if newest else "",
    )

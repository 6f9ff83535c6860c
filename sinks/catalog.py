"""Publishes the accepted records into Headgate's own catalog, from where `/api/v1/data` serves them."""

from functools import partial
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from ingestion.ports.check import CheckReport, Finding
from ingestion.ports.context import CatalogStore, Context
from ingestion.ports.errors import ConfigError
from ingestion.ports.publication import DeliveryState, DeliveryView, Manifest, PartView, Receipt, WriteMode
from ingestion.ports.sink import Capabilities, CommitStep


class CatalogConfig(BaseModel):
    """Nothing to set: the catalog is Headgate's own database."""

    model_config = ConfigDict(extra="forbid")


class CatalogSink:
    """Merges a run's rows by key and shows them at once; a thin cover of `ctx.catalog`."""

    kind: ClassVar[str] = "catalog"
    Config: ClassVar[type[BaseModel]] = CatalogConfig
    capabilities: ClassVar[Capabilities] = Capabilities(
        write_modes=frozenset(WriteMode), is_transactional=True, orders_runs=True
    )

    def __init__(self, config: CatalogConfig | None = None) -> None:
        self.config = config or CatalogConfig()

    def check(self, ctx: Context) -> CheckReport:
        """Return whether this process has the catalog at hand."""
        has_catalog = ctx.catalog is not None
        fix = "" if has_catalog else "Run the delivery in a worker of this installation."
        return CheckReport((Finding("catalog", ok=has_catalog, elapsed_ms=0.0, fix=fix),))

    def stage(self, part: PartView, delivery: DeliveryView, ctx: Context) -> Receipt:
        """Load the part's rows where no reader sees them yet."""
        return _catalog(ctx).stage(part, delivery, open_part=partial(ctx.lake.open, part.key))

    def commit(self, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> CommitStep:
        """Merge what was staged and show it; the rows can be read when this returns."""
        return CommitStep(state=DeliveryState.AVAILABLE, receipt=_catalog(ctx).commit(delivery))

    def count(self, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> int:
        """Return how many of this run's rows became visible."""
        return _catalog(ctx).count(delivery)

    def abort(self, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> None:
        """Remove what was staged and is not visible."""
        _catalog(ctx).abort(delivery)


def _catalog(ctx: Context) -> CatalogStore:
    if ctx.catalog is None:
        raise ConfigError("config.invalid", where="destination catalog", detail="this process has no catalog")
    return ctx.catalog

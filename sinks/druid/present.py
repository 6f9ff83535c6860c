"""What a datasource holds before a load, and whether that can be told at all.

The Coordinator says what is published, the Broker whose rows are seen. Between the two lies the time in which segments
are loaded: as long as it lasts nobody can say whose rows lie where, and nothing is planned that would replace them.
"""

from dataclasses import dataclass

from ingestion.ports.batch import RUN
from ingestion.ports.context import Context
from ingestion.ports.errors import ConfigError, SinkRejected
from ingestion.ports.publication import DeliveryView, Manifest
from sinks.druid.client import DruidClient
from sinks.druid.intervals import Interval
from sinks.druid.questions import runs_held


class Unsettled(Exception):  # noqa: N818 (a reason to look again, not an error)
    """What is there cannot be told yet; the text says why."""


@dataclass(frozen=True, slots=True)
class Present:
    """What a datasource holds: its chunks, whose rows are seen, and how many segments are published but not served."""

    chunks: tuple[Interval, ...]
    runs: frozenset[int]
    unloaded: int = 0


@dataclass(frozen=True, slots=True)
class Others:
    """The other runs of a pipeline at a destination: what is to be seen of them, and those that may not be seen."""

    manifests: tuple[Manifest, ...]
    withdrawn: frozenset[int]


def look_at(client: DruidClient, datasource: str, *, is_late: bool, destination: str) -> Present:
    """Return what the datasource holds; Unsettled while Coordinator and Broker contradict each other.

    `is_late` says that they have had their time: then what the Coordinator knows is what counts. SinkRejected where
    rows lie there that no pipeline brought.
    """
    unloaded = client.unloaded_count(datasource)
    chunks = client.chunks(datasource) if unloaded is not None else ()
    if unloaded is not None and not chunks:
        raise Unsettled("the Coordinator has just learned of its segments")
    if not client.has_table(datasource):
        if chunks:
            raise Unsettled(f"{unloaded} of its segments are not served, and the Broker does not know it yet")
        return Present((), frozenset())
    if not chunks:
        # Emptied a moment ago; or the Coordinator does not know what it will know soon.
        if not is_late:
            raise Unsettled("the Broker still answers for segments that the Coordinator does not list")
        return Present((), frozenset())
    if RUN not in client.table_columns(datasource):
        raise SinkRejected("sink.foreign_rows", destination=destination, where=datasource)
    return Present(chunks, runs_held(client, datasource), unloaded or 0)


def known_runs(present: Present, datasource: str, *, delivery: DeliveryView, ctx: Context) -> frozenset[int]:
    """Return the runs with rows there; SinkRejected where one of them is none of this pipeline's."""
    if ctx.published is None:
        known = present.runs - {0}
    else:
        known = frozenset(ctx.published.manifests(sorted(present.runs - {0}), pipeline_id=delivery.pipeline_id))
    if present.runs - known:
        raise SinkRejected("sink.foreign_rows", destination=delivery.destination, where=datasource)
    return known


def other_runs(present: Present, *, delivery: DeliveryView, ctx: Context) -> Others:
    """Return what other runs have brought, and the runs whose rows may not be there."""
    unseen = present.runs - {delivery.run_id}
    if ctx.published is None:
        if unseen:
            raise ConfigError("config.invalid", where="the delivery", detail="this process knows no other runs")
        return Others((), frozenset())
    delivered = {found.run_id: found for found in ctx.published.delivered(delivery)}
    unknown = sorted(unseen - set(delivered))
    resolved = ctx.published.manifests(unknown, pipeline_id=delivery.pipeline_id) if unknown else {}
    # Rows of a delivery that was never verified are the run's all the same; rows of a withdrawn run must go.
    delivered |= {run_id: found for run_id, found in resolved.items() if found is not None}
    withdrawn = frozenset(run_id for run_id, found in resolved.items() if found is None)
    delivered.pop(delivery.run_id, None)
    return Others(tuple(delivered[run_id] for run_id in sorted(delivered)), withdrawn)

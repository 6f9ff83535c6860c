"""The tables."""

from ingestion.models.catalog import CatalogPart, CatalogPublication, CatalogRecord, CatalogState
from ingestion.models.configuration import (
    Contract,
    Destination,
    Pipeline,
    PipelineDependency,
    Priority,
    Schedule,
    Source,
    Upload,
)
from ingestion.models.deliveries import (
    GIVEN_UP_STATES,
    OPEN_DELIVERY_STATES,
    UNDELIVERED_STATES,
    Delivery,
    DeliveryPart,
)
from ingestion.models.runs import (
    ACTIVE_RUN_STATES,
    PUBLISHED_RUN_STATES,
    TERMINAL_RUN_STATES,
    UNFINISHED_PARTITION_STATES,
    Checkpoint,
    Part,
    Partition,
    PartitionState,
    Run,
    RunEvent,
    RunState,
)

__all__ = [
    "ACTIVE_RUN_STATES",
    "GIVEN_UP_STATES",
    "OPEN_DELIVERY_STATES",
    "PUBLISHED_RUN_STATES",
    "TERMINAL_RUN_STATES",
    "UNDELIVERED_STATES",
    "UNFINISHED_PARTITION_STATES",
    "CatalogPart",
    "CatalogPublication",
    "CatalogRecord",
    "CatalogState",
    "Checkpoint",
    "Contract",
    "Delivery",
    "DeliveryPart",
    "Destination",
    "Part",
    "Partition",
    "PartitionState",
    "Pipeline",
    "PipelineDependency",
    "Priority",
    "Run",
    "RunEvent",
    "RunState",
    "Schedule",
    "Source",
    "Upload",
]

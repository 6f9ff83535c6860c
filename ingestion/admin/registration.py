"""The operators' pages; importing this registers every model.

It is not the package itself: the site stands in the package, too, and must be there before anything registers.
"""

from ingestion.admin import (
    access,
    catalog,
    configured,
    contracts,
    deliveries,
    destinations,
    pieces,
    pipelines,
    runs,
    schedules,
    uploads,
)

__all__ = [
    "access",
    "catalog",
    "configured",
    "contracts",
    "deliveries",
    "destinations",
    "pieces",
    "pipelines",
    "runs",
    "schedules",
    "uploads",
]

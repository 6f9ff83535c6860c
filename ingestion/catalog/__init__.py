"""The catalog: the accepted records of every pipeline, staged unseen, merged by key, shown at once."""

from ingestion.catalog.garbage import collect_garbage
from ingestion.catalog.reading import query_records
from ingestion.catalog.store import DatabaseCatalog

__all__ = ["DatabaseCatalog", "collect_garbage", "query_records"]

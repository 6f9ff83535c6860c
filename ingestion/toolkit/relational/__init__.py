"""Rows in relational databases: written fast, merged by key, refused one by one, in tables whose columns follow."""

from ingestion.toolkit.relational.writing import Pace, copy_rows, insert_rows

__all__ = ["Pace", "copy_rows", "insert_rows"]

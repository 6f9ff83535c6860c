"""What must come of the old installation's runs, computed from the files it had received and from nothing of ours."""

import csv
import io
from collections.abc import Iterable
from typing import Any

Row = tuple[int, str, float, str]
COUNTS = ("fetched", "accepted", "rejected", "duplicate")


def read_file(content: bytes) -> tuple[list[Row], int]:
    """Return the rows of a file that its contract takes, and how many it does not."""
    good: list[Row] = []
    bad = 0
    for row in csv.DictReader(io.StringIO(content.decode())):
        try:
            good.append((int(row["id"]), row["formula"], float(row["energy"]), row["at"][:10]))
        except ValueError:
            bad += 1
    return good, bad


def without_duplicates(rows: Iterable[Row]) -> list[Row]:
    """Return the rows of which each id is the first: so a file is read."""
    first: dict[int, Row] = {}
    for row in rows:
        first.setdefault(row[0], row)
    return list(first.values())


def totals_of(content: bytes, *, is_keyed: bool) -> tuple[int, ...]:
    """Return fetched, accepted, rejected and duplicate rows of a file."""
    good, bad = read_file(content)
    kept = without_duplicates(good) if is_keyed else good
    return len(good) + bad, len(kept), bad, len(good) - len(kept)


def published(files: Iterable[bytes], *, is_keyed: bool, replaces: bool) -> list[Row]:
    """Return the rows that readers see after the files were published one after the other, by id."""
    rows: list[Row] = []
    for content in files:
        good, _ = read_file(content)
        new = without_duplicates(good) if is_keyed else good
        changed = {row[0] for row in new} if is_keyed else set()
        rows = new if replaces else [row for row in rows if row[0] not in changed] + new
    return sorted(rows)


def plain(row: dict[str, Any]) -> Row:
    """Return a row as a destination shows it, in the form of this module."""
    at = row["at"]
    return (
        int(row["id"]),
        str(row["formula"]),
        float(row["energy"]),
        (at if isinstance(at, str) else at.isoformat())[:10],
    )

"""Rejected rows: seen, filtered and downloaded, straight from the parts that hold them."""

import csv
import io
import json
from collections.abc import Iterator
from itertools import dropwhile, islice
from typing import Any

from ingestion.models import Part, Run
from ingestion.ports.errors import ConfigError
from ingestion.quality.parts import read_rejected
from ingestion.runs.record.lake import open_lake
from ingestion.toolkit.rows.spreadsheets import defuse

FORMATS = {
    "csv": "text/csv",
    "jsonl": "application/x-ndjson",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
OUTCOMES = ("rejected", "duplicate", "rejected_by_destination")
RENAMED_OUTCOMES = {"refused": "rejected_by_destination"}
"""Outcomes as they are stored, and were shown before."""
_CSV_COLUMNS = ("part", "row", "page", "outcome", "destination", "column", "rule", "value", "message", "raw")
_XLSX_ROWS = 1_000_000


def iterate_rejected(
    run: Run, *, rule: str | None = None, column: str | None = None, outcome: str | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the run's rows in quarantine in (lane, link, row) order: part, row, page, outcome, errors, raw.

    Rows were rejected by the contract, are duplicates, or were rejected by a destination, which is named then.
    """
    for row in _walk(run, after=None, rule=rule, column=column, outcome=outcome):
        del row["position"]
        yield row


def page_rejected(
    run: Run,
    *,
    limit: int,
    after: tuple[int, int] | None = None,
    rule: str | None = None,
    column: str | None = None,
    outcome: str | None = None,
) -> list[dict[str, Any]]:
    """Return at most `limit` rows that follow the one whose `position` is `after`; what lies before is not read."""
    rows = _walk(run, after=after, rule=rule, column=column, outcome=outcome)
    return list(islice(rows, limit))


def _walk(
    run: Run,
    *,
    after: tuple[int, int] | None,
    rule: str | None,
    column: str | None,
    outcome: str | None,
) -> Iterator[dict[str, Any]]:
    """Yield the rows as `iterate_rejected` does, each with its position: the part's number, the row's in the part."""
    held = Part.objects.filter(run=run, zone__in=(Part.Zone.REJECTED, Part.Zone.REFUSED))
    parts = list(held.select_related("delivery__destination").order_by("lane", "link", "zone", "seq", "pk"))
    if after is not None:
        parts = list(dropwhile(lambda part: part.pk != after[0], parts))
    for part in parts:
        last = after[1] if after is not None and part.pk == after[0] else None
        with open_lake().open(part.key) as stored:
            for row in read_rejected(stored, key=part.key, rule=rule, column=column, after=last):
                position = row.pop("position")
                row["outcome"] = RENAMED_OUTCOMES.get(row["outcome"], row["outcome"])
                if outcome is None or row["outcome"] == outcome:
                    destination = part.delivery.destination.name if part.delivery else None
                    where = {"part": f"{part.lane}-{part.link}", "destination": destination}
                    yield {**where, "position": (part.pk, position), **row}


def download_rejected(
    run: Run, *, file_format: str, rule: str | None = None, column: str | None = None, outcome: str | None = None
) -> Iterator[bytes]:
    """Yield the rejected rows as a file: one line per row and broken rule; ConfigError for an unknown format.

    In CSV and Excel a cell that a spreadsheet would take for a formula begins with an apostrophe.
    """
    if file_format not in FORMATS:
        detail = f"the format {file_format!r} is none of {', '.join(FORMATS)}"
        raise ConfigError("request.invalid", detail=detail)
    rows = iterate_rejected(run, rule=rule, column=column, outcome=outcome)
    if file_format == "jsonl":
        return (json.dumps(row, ensure_ascii=False, default=str).encode() + b"\n" for row in rows)
    if file_format == "csv":
        return _as_csv(rows)
    return iter((_as_xlsx(rows),))


def count_rules(run: Run) -> dict[str, int]:
    """Return how many rows broke each "column rule", most first; for the filters of a page."""
    counts: dict[str, int] = {}
    for row in iterate_rejected(run):
        for error in row["errors"]:
            name = f"{error['column'] or ''} {error['rule']}".strip()
            counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _flat(rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        base = {name: row[name] for name in ("part", "outcome", "destination")}
        base |= {"row": row["_row"], "page": row["_page"]}
        for error in row["errors"]:
            yield {**base, **error, "raw": row["raw"]}


def _as_csv(rows: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, _CSV_COLUMNS, extrasaction="ignore", lineterminator="\r\n")
    writer.writeheader()
    for line in _flat(rows):
        writer.writerow({name: defuse(value) for name, value in line.items()})
        if buffer.tell() > 1 << 16:
            yield buffer.getvalue().encode()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue().encode()


def _as_xlsx(rows: Iterator[dict[str, Any]]) -> bytes:
    import pandas as pd  # noqa: PLC0415 (heavy, and few ask for Excel)

    frame = pd.DataFrame(
        [{name: defuse(value) for name, value in line.items()} for line in islice(_flat(rows), _XLSX_ROWS)],
        columns=list(_CSV_COLUMNS),
    )
    buffer = io.BytesIO()
    options = {"options": {"strings_to_formulas": False, "strings_to_urls": False}}
    with pd.ExcelWriter(buffer, engine="xlsxwriter", engine_kwargs=options) as book:
        frame.to_excel(book, index=False, sheet_name="rejected")
    return buffer.getvalue()

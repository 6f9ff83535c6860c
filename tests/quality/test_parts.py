"""Clean and rejected parts as Parquet."""

import io
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingestion.quality.checking import Verdict
from ingestion.quality.parts import read_rejected, write_clean, write_rejected
from ingestion.quality.rejects import REJECTED_SCHEMA
from tests.quality.tables import check, contract


def verdict_of(rows: int) -> Verdict:
    body = contract({"name": "id", "type": "integer"}, {"name": "v", "type": "integer", "max": 50}, key=["id"])
    identities = [str(number if number % 10 else 0) for number in range(rows)]
    return check(body, {"id": identities, "v": [str(number % 100) for number in range(rows)]})


def test_the_same_table_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = io.BytesIO(), io.BytesIO()
    verdict, again = verdict_of(5_000), verdict_of(5_000)

    write_clean(verdict.clean, first)
    write_clean(again.clean, second)
    write_clean(again.clean, tmp_path / "clean.parquet")

    assert first.getvalue() == second.getvalue() == (tmp_path / "clean.parquet").read_bytes()


def test_rejected_rows_are_written_the_same_twice() -> None:
    first, second = io.BytesIO(), io.BytesIO()

    write_rejected(verdict_of(5_000).rejected, first)
    write_rejected(verdict_of(5_000).rejected, second)

    assert first.getvalue() == second.getvalue()


def test_a_clean_part_is_read_back_as_it_was_written() -> None:
    verdict = verdict_of(1_000)
    file = io.BytesIO()

    write_clean(verdict.clean, file)

    assert pq.read_table(file).equals(verdict.clean)


def test_a_clean_part_has_zstd_statistics_and_microseconds() -> None:
    verdict = check(contract({"name": "at", "type": "datetime"}), {"at": ["2024-01-01T00:00:00.000001Z"]})
    file = io.BytesIO()

    write_clean(verdict.clean, file)

    metadata = pq.read_metadata(file)
    column = metadata.row_group(0).column(0)
    assert column.compression == "ZSTD"
    assert column.statistics.has_min_max
    assert "microseconds" in str(metadata.schema.column(0).logical_type)


@pytest.mark.parametrize(("rows", "groups"), [(0, 1), (1, 1), (999_999, 1), (1_000_000, 2), (1_600_000, 3)])
def test_row_groups_of_clean_parts_are_large(rows: int, groups: int) -> None:
    file = io.BytesIO()

    write_clean(pa.table({"v": pa.repeat(1, rows)}), file)

    metadata = pq.read_metadata(file)
    sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    assert len(sizes) <= groups
    assert sum(sizes) == rows
    assert len(sizes) <= 1 or min(sizes) >= 500_000


def written(rows: int) -> tuple[io.BytesIO, pa.Table]:
    rejected, file = verdict_of(rows).rejected, io.BytesIO()
    write_rejected(rejected, file)
    return file, rejected


def page_of(file: io.BytesIO, *, limit: int, **chosen: Any) -> list[dict[str, Any]]:
    return list(islice(read_rejected(file, key="rejected/p", **chosen), limit))


def test_rejected_rows_are_paged_by_position() -> None:
    file, rejected = written(60_000)
    expected = [{"position": number, **row} for number, row in enumerate(rejected.to_pylist())]
    read: list[dict[str, object]] = []

    while page := page_of(file, after=read[-1]["position"] if read else None, limit=7_001):
        read += page

    assert read == expected
    assert len(expected) > 20_000


def test_rejected_rows_are_chosen_by_rule_and_column() -> None:
    file, rejected = written(3_000)
    rows = rejected.to_pylist()

    by_rule = page_of(file, rule="key.duplicate", limit=10**6)
    both = page_of(file, rule="max", column="id", limit=10)
    by_column = page_of(file, column="v", limit=3, after=100)

    assert [row["_row"] for row in by_rule] == [
        row["_row"] for row in rows if any(error["rule"] == "key.duplicate" for error in row["errors"])
    ]
    assert both == []
    assert [row["position"] for row in by_column] == [
        number
        for number, row in enumerate(rows)
        if number > 100 and any(error["column"] == "v" for error in row["errors"])
    ][:3]


def test_row_groups_before_the_wanted_page_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    file, rejected = written(60_000)
    asked: list[list[int]] = []
    iterate = pq.ParquetFile.iter_batches

    def watched(self: pq.ParquetFile, *args: object, **rest: object) -> object:
        asked.append(list(rest["row_groups"]))  # type: ignore[call-overload]
        return iterate(self, *args, **rest)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", watched)
    page = page_of(file, after=20_000, limit=2)

    assert [row["position"] for row in page] == [20_001, 20_002]
    assert 0 not in asked[0]
    assert page_of(file, after=rejected.num_rows - 1, limit=2) == []


def test_a_part_without_rows_is_written_and_read() -> None:
    file = io.BytesIO()

    write_rejected(REJECTED_SCHEMA.empty_table(), file)

    assert page_of(file, limit=5) == []

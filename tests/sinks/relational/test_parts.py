"""Clean parts on their way into tables: contents from the footer, rows in bounded blocks."""

import io

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingestion.ports.errors import StoreCorrupt
from ingestion.ports.publication import PartView
from ingestion.toolkit.clean.kinds import Kind
from sinks.relational.parts import Fitting, fit, read_blocks, read_contents
from sinks.relational.table_kinds import Content
from tests.conformance.context import RecordingContext


def stored(table: pa.Table, **options: int) -> io.BytesIO:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file


def part_of(row_count: int) -> PartView:
    return PartView("clean/p", 0, 0, 0, rows=row_count, size_bytes=1, sha256="0")


def test_contents_come_from_the_footer_without_the_columns_of_ours() -> None:
    table = pa.table(
        {
            "small": [1, None, -(2**53)],
            "large": [1, 2**53 + 1, None],
            "empty": pa.array([None] * 3, pa.string()),
            "text": ["a", None, ""],
            "_run": [1, 1, 1],
            "_page": pa.array([None] * 3, pa.int32()),
        }
    )

    contents = read_contents(stored(table, row_group_size=1), part_of(3))

    assert contents == {
        "small": Content(Kind.INTEGER, is_exact_as_number=True),
        "large": Content(Kind.INTEGER),
        "empty": Content(None),
        "text": Content(Kind.TEXT),
    }


def test_a_part_without_statistics_promises_nothing() -> None:
    file = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), file, write_statistics=False)

    assert read_contents(file, part_of(1)) == {"a": Content(Kind.INTEGER)}


def test_a_column_that_no_clean_part_has_is_named() -> None:
    with pytest.raises(StoreCorrupt, match="nested"):
        read_contents(stored(pa.table({"nested": [[1]]})), part_of(1))


def test_bytes_that_are_no_parquet_are_a_corrupt_part() -> None:
    with pytest.raises(StoreCorrupt) as caught:
        read_contents(io.BytesIO(b"PAR1 no more"), part_of(1))

    assert caught.value.code == "store.corrupt"


def test_blocks_keep_to_their_rows() -> None:
    blocks = list(read_blocks(stored(pa.table({"a": range(1000)})), part_of(1000), longest=250))

    assert [block.height for block in blocks] == [250] * 4
    assert pl.concat(blocks)["a"].to_list() == list(range(1000))


def test_fewer_rows_than_were_recorded_are_noticed() -> None:
    with pytest.raises(StoreCorrupt, match="2 rows instead of 3"):
        list(read_blocks(stored(pa.table({"a": [1, 2]})), part_of(3), longest=10))


def test_values_are_fitted_to_what_their_column_holds() -> None:
    frame = pl.DataFrame({"n": [1, None], "f": [2.0, 2.5], "b": [True, None]}).with_columns(
        at=pl.Series(["2026-01-02T03:04:05.678901"] * 2).str.to_datetime(time_unit="us").dt.replace_time_zone("UTC")
    )
    fittings = [
        *(Fitting(f"{name}_text", name, Kind.TEXT) for name in ("n", "f", "b", "at")),
        Fitting("n_number", "n", Kind.NUMBER),
        Fitting("gone", "not there", Kind.INTEGER),
        Fitting("none", None, Kind.TEXT),
    ]

    fitted = fit(frame, fittings, ctx=RecordingContext().context)

    assert fitted.columns == [item.column for item in fittings]
    assert fitted.row(0) == ("1", "2", "true", "2026-01-02T03:04:05.678901Z", 1.0, None, None)
    assert fitted.row(1)[:3] == (None, "2.5", None)

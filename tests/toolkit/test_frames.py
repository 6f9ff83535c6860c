"""Columns between Arrow and polars, whose names may hold a NUL."""

import polars as pl
import pyarrow as pa
import pytest

from ingestion.toolkit.frames import array_of, frame_of

BATCH = pa.record_batch([pa.array([1, 2]), pa.array(["x", None])], names=["a\0b", "a"])


@pytest.mark.parametrize("rows", [BATCH, pa.Table.from_batches([BATCH, BATCH])])
def test_names_are_whole_and_stay_apart(rows: pa.RecordBatch | pa.Table) -> None:
    assert frame_of(rows).to_dict(as_series=False) == rows.to_pydict()


def test_rows_without_a_column_and_columns_without_a_row_are_frames_too() -> None:
    assert frame_of(pa.table({})).shape == (0, 0)
    assert frame_of(BATCH.slice(2)).schema == {"a\0b": pl.Int64, "a": pl.String}


def test_values_under_any_name_come_back() -> None:
    assert array_of(pl.Series("a\0b", [1, None])).to_pylist() == [1, None]

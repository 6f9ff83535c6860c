"""The one reader of parts: bounded batches, columns, positions, rows at positions, and what it cannot read."""

import io
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingestion.ports.errors import StoreCorrupt
from ingestion.toolkit.clean.kinds import Kind
from ingestion.toolkit.clean.reader import PartFile, open_part
from ingestion.toolkit.lake.opening import open_lake
from tests.toolkit.rows.material import numbered, put_part

ROWS = 5_000


def stored(table: pa.Table, **options: Any) -> io.BytesIO:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file


def part(columns: dict[str, Any] | None = None, *, group_rows: int = 1_500) -> PartFile:
    table = pa.table(columns or {"id": range(ROWS), "text": ["x" * 100] * ROWS})
    return PartFile(stored(table, row_group_size=group_rows), key="clean/p")


@pytest.mark.parametrize("bounds", [{}, {"rows": 700}, {"rows": 5}, {"size_bytes": 40_000}, {"size_bytes": 1}])
@pytest.mark.parametrize("first", [0, 1, 1_499, 1_500, 4_999])
def test_every_row_comes_once_with_its_position_in_batches_that_keep_to_their_bounds(
    bounds: dict[str, int], first: int
) -> None:
    batches = list(part().batches(**bounds, first=first))

    assert [row for _, batch in batches for row in batch["id"].to_pylist()] == list(range(first, ROWS))
    assert all(batch["id"][0].as_py() == begin for begin, batch in batches)
    assert max(batch.num_rows for _, batch in batches) <= bounds.get("rows", 10_000)
    # One step of the reader is the least that a batch can hold.
    assert max(batch.nbytes for _, batch in batches) <= max(bounds.get("size_bytes", 8 << 20), 1_024 * 128)


def test_nothing_comes_from_behind_the_last_row_nor_from_a_part_without_rows() -> None:
    empty = pa.table({"id": pa.array([], pa.int64())})

    assert list(part().batches(first=ROWS)) == []
    assert list(PartFile(stored(empty), key="p").batches()) == []


def test_columns_come_as_chosen_and_rows_even_where_there_is_none_of_them() -> None:
    assert [batch.schema.names for _, batch in part().batches(["text", "gone"])] == [["text"]]
    assert sum(batch.num_rows for _, batch in part().batches(["gone"])) == ROWS


def test_a_column_whose_name_has_a_nul_keeps_it_in_a_frame() -> None:
    frames = list(part({"nul\0": [1, 2, 3]}, group_rows=2).frames(rows=2))

    assert [frame.columns for frame in frames] == [["nul\0"], ["nul\0"]]
    assert [row for frame in frames for row in frame["nul\0"]] == [1, 2, 3]


def test_row_groups_before_the_first_row_are_not_read() -> None:
    class Watched(io.BytesIO):
        read_bytes = 0

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            self.read_bytes += len(data)
            return data

    content = stored(pa.table({"v": np.random.default_rng(7).random(40_000)}), row_group_size=10_000).getvalue()
    whole, tail = Watched(content), Watched(content)

    for source, first in ((whole, 0), (tail, 35_000)):
        list(PartFile(source, key="p").batches(first=first))

    assert tail.read_bytes < whole.read_bytes / 2


@pytest.mark.parametrize("positions", [[], [0], [1_498, 1_500, 4_999], list(range(0, ROWS, 7))])
def test_rows_are_taken_at_their_positions(positions: list[int]) -> None:
    table = part().take(np.array(positions, dtype=np.int64), {"id": Kind.TEXT, "gone": Kind.DATE})

    assert table.schema == pa.schema({"id": pa.string(), "gone": pa.date32()})
    assert table["id"].to_pylist() == [str(position) for position in positions]


def test_a_file_of_this_machine_reads_the_same(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    pq.write_table(pa.table({"id": range(ROWS)}), path)

    assert [row for _, batch in PartFile(path, key="p").batches() for row in batch["id"].to_pylist()] == list(
        range(ROWS)
    )


def damaged() -> BinaryIO:
    content = bytearray(stored(pa.table({"id": range(ROWS)}), compression="zstd").getvalue())
    content[4:400] = b"\xff" * 396
    return io.BytesIO(bytes(content))


def test_bytes_that_are_no_parquet_and_pages_that_are_damaged_are_a_corrupt_store() -> None:
    with pytest.raises(StoreCorrupt, match="no readable Parquet"):
        PartFile(io.BytesIO(b"PAR1 no more"), key="p")

    file = PartFile(damaged(), key="p")
    with pytest.raises(StoreCorrupt, match="no readable Parquet"):
        list(file.batches())


def test_other_rows_than_were_recorded_are_a_corrupt_store(tmp_path: Path) -> None:
    lake = open_lake(str(tmp_path))
    found = put_part(lake, numbered(3))
    other = type(found)(found.key, 0, 0, 0, rows=4, size_bytes=found.size_bytes, sha256=found.sha256)

    with pytest.raises(StoreCorrupt, match="3 rows instead of 4"), open_part(lake, other):
        pass


def test_what_the_consumer_raises_is_not_taken_for_a_damage() -> None:
    def consume() -> None:
        for _ in part().batches():
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        consume()


def test_columns_with_a_dictionary_are_named() -> None:
    table = pa.table({"id": range(ROWS), "text": pl.Series(["a", "b"] * (ROWS // 2)).to_arrow()})

    assert PartFile(stored(table, use_dictionary=["text"]), key="p").repeating_columns() == ["text"]

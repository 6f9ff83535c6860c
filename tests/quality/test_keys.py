"""Duplicates by key over the partitions of a run."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestion.quality.keys import drop_rows, resolve_duplicates
from ingestion.quality.rejects import REJECTED_SCHEMA, reject_duplicates
from ingestion.toolkit.clean import keys
from ingestion.toolkit.clean.current import find_duplicates
from ingestion.toolkit.clean.keys import HashedPart, hash_keys
from tests.quality.tables import check, contract


def hashed(tables: Sequence[pa.Table], key: Sequence[str] = ("id",)) -> list[HashedPart]:
    stored = [hash_keys(table, key) for table in tables]
    return [HashedPart(lane, 0, lambda data=data: io.BytesIO(data)) for lane, data in enumerate(stored)]  # type: ignore[misc]


def dropped(
    tables: Sequence[pa.Table],
    *,
    keep: Any = "first",
    key: Sequence[str] = ("id",),
    cursor_field: str | None = None,
    chunk_rows: int = 2_000_000,
) -> dict[int, list[int]]:
    columns = [*key, *([cursor_field] if cursor_field else [])]
    found = resolve_duplicates(
        find_duplicates(hashed(tables, key), chunk_rows=chunk_rows),
        lambda part, positions: tables[part].select(columns).take(positions),
        key=key,
        keep=keep,
        cursor_field=cursor_field,
    )
    return {part: positions.tolist() for part, positions in found.items()}


def ids(*values: int | str) -> pa.Table:
    return pa.table({"id": list(values)})


def test_the_first_row_of_a_key_stays_in_order_of_the_parts() -> None:
    tables = [ids(1, 2, 3), ids(4, 2, 5), ids(2, 4, 6)]

    assert dropped(tables) == {1: [1], 2: [0, 1]}


def test_nothing_is_dropped_where_all_keys_differ() -> None:
    assert dropped([ids(1, 2), ids(3), ids()]) == {}
    assert dropped([]) == {}


def test_the_latest_version_stays_then_the_last_part() -> None:
    tables = [
        pa.table({"id": [1, 2, 3], "at": pa.array([5, 1, None], pa.timestamp("us"))}),
        pa.table({"id": [1, 2, 3], "at": pa.array([4, 1, None], pa.timestamp("us"))}),
    ]

    assert dropped(tables, keep="latest", cursor_field="at") == {0: [1, 2], 1: [0]}
    assert dropped(tables, keep="latest") == {0: [0, 1, 2]}


def test_cursors_of_different_types_are_compared_as_text() -> None:
    tables = [
        pa.table({"id": [1], "at": ["2024-01-02"]}),
        pa.table({"id": [1], "at": pa.array([0], pa.timestamp("us"))}),
        pa.table({"id": [1], "at": pa.nulls(1)}),
    ]

    assert dropped(tables, keep="latest", cursor_field="at") == {1: [0], 2: [0]}


def test_keys_of_several_columns_and_types_are_found() -> None:
    def table(*rows: tuple[str, int]) -> pa.Table:
        return pa.table({"a": [row[0] for row in rows], "b": [row[1] for row in rows]})

    assert dropped([table(("x", 1), ("x", 2)), table(("x", 2), ("y", 1))], key=("a", "b")) == {1: [0]}


def test_equal_hashes_alone_drop_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = keys.hash_keys

    def colliding(clean: pa.Table, key: Sequence[str]) -> bytes:
        few = pa.table({"id": [value % 3 for value in clean["id"].to_pylist()]})
        return real(few, key)

    monkeypatch.setitem(globals(), "hash_keys", colliding)

    assert dropped([ids(0, 1, 2, 3, 4), ids(5, 6, 3), ids(9, 0)]) == {1: [2], 2: [1]}
    assert dropped([ids(0, 3), ids(3, 6)], keep="latest") == {0: [1]}


@settings(max_examples=40, deadline=None)
@given(
    parts=st.lists(st.lists(st.integers(0, 60), unique=True, max_size=40), max_size=6),
    chunk_rows=st.sampled_from([1, 3, 17, 1_000]),
    keep=st.sampled_from(["first", "latest"]),
)
def test_every_key_stays_once_whatever_the_ranges(parts: list[list[int]], chunk_rows: int, keep: str) -> None:
    tables = [pa.table({"id": pa.array(part, pa.int64())}) for part in parts]

    lost = dropped(tables, keep=keep, chunk_rows=chunk_rows)

    kept = [
        (part, position)
        for part, values in enumerate(parts)
        for position in range(len(values))
        if position not in lost.get(part, [])
    ]
    survivors: dict[int, tuple[int, int]] = {}
    for part, values in enumerate(parts):
        for position, value in enumerate(values):
            if keep == "latest" or value not in survivors:
                survivors[value] = (part, position)
    assert sorted(kept) == sorted(survivors.values())


def test_the_same_part_gives_the_same_bytes_however_it_lies_in_memory() -> None:
    table = ids("a", "b", "a longer key than fits a view", "c")
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    typed = table.cast(pa.schema([("id", pa.large_string())]))

    assert hash_keys(table, ["id"]) == hash_keys(chunked, ["id"]) == hash_keys(typed, ["id"])


def test_hashes_take_28_bytes_a_row() -> None:
    assert len(hash_keys(pa.table({"id": range(10_000)}), ["id"])) < 28 * 10_000 + 200


def test_the_same_key_twice_in_one_part_is_told_in_order_of_its_rows() -> None:
    (found,) = find_duplicates(hashed([ids(*[7] * 40, 1)]))

    assert found.positions.tolist() == list(range(40))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.replace(b'"key": ["id"]', b'"key": ["di"]'), "keys"),
        (lambda data: data[:-20], "cut off"),
        (lambda data: b"PAR1" + data, "no key hashes"),
        (lambda data: b"", "no key hashes"),
    ],
)
def test_hashes_that_cannot_be_compared_are_refused(change: Any, message: str) -> None:
    good = hash_keys(ids(1, 2), ["id"])
    stored = [good, change(good)]
    parts = [HashedPart(lane, 0, lambda data=data: io.BytesIO(data)) for lane, data in enumerate(stored)]  # type: ignore[misc]

    with pytest.raises(ValueError, match=message):
        list(find_duplicates(parts))


def test_parts_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="order"):
        list(find_duplicates(list(reversed(hashed([ids(1), ids(2)])))))


def test_every_stored_hash_is_read_once_in_small_pieces() -> None:
    reads: list[int] = []

    class Watched(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            reads.append(len(data))
            return data

    tables = [pa.table({"id": np.arange(start, start + 30_000)}) for start in (0, 29_999)]
    stored = [hash_keys(table, ["id"]) for table in tables]
    parts = [HashedPart(lane, 0, lambda data=data: Watched(data)) for lane, data in enumerate(stored)]  # type: ignore[misc]

    found = list(find_duplicates(parts, chunk_rows=5_000))

    assert [(item.parts.tolist(), item.positions.tolist()) for item in found] == [([0, 1], [29_999, 0])]
    assert sum(reads) <= sum(len(data) for data in stored)
    assert max(reads) < 6_000 * 20


def test_dropped_rows_leave_the_clean_part_and_go_to_quarantine() -> None:
    verdict = check(contract({"name": "id", "type": "integer"}, key=["id"]), {"id": ["5", "6", "7"], "v": list("abc")})

    kept, lost = drop_rows(verdict.clean, np.array([1]))
    rejected = reject_duplicates(lost, key=["id"])

    assert kept["id"].to_pylist() == [5, 7]
    assert kept.schema == verdict.clean.schema
    assert rejected.schema == REJECTED_SCHEMA
    (row,) = rejected.to_pylist()
    assert (row["_row"], row["outcome"], row["raw"]) == (1, "duplicate", '{"id":6,"v":"b"}')
    assert [(error["rule"], error["column"], error["value"]) for error in row["errors"]] == [
        ("key.duplicate", "id", "6")
    ]

"""Keys in one canonical form, their stable hashes, and the rows that are current by them."""

import io
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from ingestion.toolkit.clean.current import merged_records
from ingestion.toolkit.clean.keys import NO_MOMENT, HashedPart, canonical_keys, hash_contents, hash_keys, hash_texts

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
FOX = "The quick brown fox jumps over the lazy dog"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (pa.array([1], pa.int64()), "1"),
        (pa.array([1], pa.uint8()), "1"),
        (pa.array([1.0]), "1"),
        (pa.array([-0.0]), "0"),
        (pa.array(["1"]), "1"),
        (pa.array(["01"]), "01"),
        (pa.array([0.1]), "0.1"),
        (pa.array([1e300]), "1e+300"),
        (pa.array([2**53], pa.int64()), "9007199254740992"),
        (pa.array([2.0**53]), "9007199254740992"),
        (pa.array([True]), "true"),
        (pa.array([date(2026, 1, 2)]), "2026-01-02"),
        (pa.array(["2026-01-02"]), "2026-01-02"),
        (pa.array([datetime(2026, 1, 2, tzinfo=UTC)], pa.timestamp("ms")), "2026-01-02"),
        (pa.array([datetime(2026, 1, 2, tzinfo=UTC)], pa.timestamp("us", tz="UTC")), "2026-01-02"),
        (pa.array([AT], pa.timestamp("ns", tz="Europe/Berlin")), "2026-01-02T03:04:05+00:00"),
        (pa.array([AT.replace(microsecond=60)], pa.timestamp("us", tz="UTC")), "2026-01-02T03:04:05.000060+00:00"),
        (pa.array([None], pa.int64()), None),
    ],
)
def test_a_key_has_one_form_whatever_its_type(values: Any, text: str | None) -> None:
    series = pl.Series(values)

    assert canonical_keys([series]).to_list() == [text]
    assert canonical_keys([series, series]).to_list() == [None if text is None else f"{len(text)}:{text}" * 2]


def test_columns_of_a_key_do_not_run_into_each_other() -> None:
    first = [pl.Series(["a", "a1:"]), pl.Series(["1:b", "b"])]

    assert canonical_keys(first).n_unique() == 2


def test_hashes_are_those_of_murmur3_and_never_change() -> None:
    texts = ["", "a", FOX, "é" * 8, FOX * 30]

    found = [f"{int(high):016x}{int(low):016x}" for high, low in hash_texts(pl.Series(texts))]

    # The third is in every description of MurmurHash3_x64_128; the lengths cross the ends of its blocks.
    assert found[:3] == [
        "00000000000000000000000000000000",
        "85555565f6597889e6b53a48510e895a",
        "e34bbc7bbc071b6c7a433ca9c49a9347",
    ]
    assert found == [
        f"{int(high):016x}{int(low):016x}" for text in texts for high, low in hash_texts(pl.Series([text]))
    ]


def test_contents_are_equal_whatever_the_order_of_columns_and_with_columns_of_nulls() -> None:
    one = pl.DataFrame({"a": [1, 2], "b": ["x", None]})
    same = pl.DataFrame({"c": [None, None], "b": ["x", None], "a": [1, 2]})
    swapped = pl.DataFrame({"a": ["x", None], "b": [1, 2]})

    assert hash_contents(one).tolist() == hash_contents(same).tolist()
    assert not set(hash_contents(one).tolist()) & set(hash_contents(swapped).tolist())


@pytest.mark.parametrize("chunk_rows", [1, 3, 1_000])
def test_records_of_many_parts_come_by_key_with_their_facts(chunk_rows: int) -> None:
    timed = {"id": [3, 1], "v": ["a", "b"], "at": pa.array([AT, None], pa.timestamp("us", tz="UTC")), "_run": [1, 1]}
    tables = [pa.table(timed), pa.table({"id": ["1", None, "4"], "v": ["b", "c", "d"]}), pa.table({"v": ["e"]})]
    stored = [hash_keys(table, ["id"], time="at") for table in tables]
    parts = [HashedPart(number, 0, lambda data=data: io.BytesIO(data)) for number, data in enumerate(stored)]  # type: ignore[misc]

    chunks = list(merged_records(parts, chunk_rows=chunk_rows, with_facts=True))
    rows = [row for chunk in chunks for row in chunk[["part", "row", "same", "moment"]].tolist()]
    contents = {
        row[:2]: content
        for chunk in chunks
        for row, content in zip(chunk[["part", "row"]].tolist(), chunk["content"], strict=True)
    }

    assert sorted(rows) == [
        (0, 0, False, int(AT.timestamp() * 1000)), (0, 1, False, NO_MOMENT), (1, 0, True, NO_MOMENT), (1, 2, False, NO_MOMENT),
    ]  # fmt: skip
    assert [row[:3] for row in rows if row[:2] in ((0, 1), (1, 0))] == [(0, 1, False), (1, 0, True)]
    assert contents[0, 1] != contents[1, 0], "a number is no text"

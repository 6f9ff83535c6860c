"""Positions of rows: the same for ever, and reached without reading what lies before."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ingestion.ports.errors import StoreCorrupt
from ingestion.toolkit.clean.reader import read_shape
from ingestion.toolkit.clean.sequence import Piece, RowSequence, Window
from ingestion.toolkit.lake.opening import ObjectStore, open_lake
from tests.toolkit.rows.material import ids_of, numbered, put_part, sequence

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def lake(tmp_path: Path) -> ObjectStore:
    return open_lake(str(tmp_path))


@pytest.fixture
def three(lake: ObjectStore) -> RowSequence:
    """Ids 0 to 24 in parts of 10, 10 and 5 rows, in row groups of 4."""
    return sequence(
        lake,
        [put_part(lake, numbered(count, first=first), link=first) for first, count in ((0, 10), (10, 10), (20, 5))],
    )


def test_any_position_is_gone_on_from(three: RowSequence) -> None:
    assert three.total == 25
    for after in range(27):
        assert ids_of(three, after=after) == list(range(after, 25))
        assert ids_of(three, after=after, limit=6) == list(range(after, min(25, after + 6)))


def test_what_lies_before_a_position_is_not_opened(
    lake: ObjectStore, three: RowSequence, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    take = type(lake).open
    monkeypatch.setattr(type(lake), "open", lambda self, key: (opened.append(key), take(self, key))[1])

    assert ids_of(three, after=21, limit=2) == [21, 22]
    assert len(opened) == 1


def test_rows_that_are_replaced_have_no_position(lake: ObjectStore) -> None:
    parts = [put_part(lake, numbered(10)), put_part(lake, numbered(10, first=10), link=1)]
    dropped = np.array([0, 3, 4, 9], dtype=np.uint32)
    rows = sequence(lake, parts, dropped=dropped)
    left = [number for number in range(20) if number % 10 not in dropped]

    assert rows.total == 12
    for after in range(13):
        assert ids_of(rows, after=after) == left[after:]


def days(*numbers: int | None) -> Any:
    return pa.array(
        [None if number is None else START + timedelta(days=number) for number in numbers], pa.timestamp("us", tz="UTC")
    )


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        (None, None, [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]),
        (2, None, [2, 3, 4, 6, 7, 8, 9, 10]),
        (None, 2, [0, 1]),
        (2, 7, [2, 3, 4, 6]),
        (20, None, []),
        (0, 5, [0, 1, 2, 3, 4]),
    ],
)
def test_a_window_chooses_by_time_and_keeps_positions(
    lake: ObjectStore, since: int | None, until: int | None, expected: list[int]
) -> None:
    parts = [
        put_part(lake, numbered(5, at=days(0, 1, 2, 3, 4))),
        put_part(lake, numbered(6, first=5, at=days(None, 6, 7, 8, 9, 10)), link=1),
        put_part(lake, numbered(2, first=11, at=days(None, None)), link=2),
        put_part(lake, numbered(2, first=13), link=3),
    ]
    moments = [None if number is None else START + timedelta(days=number) for number in (since, until)]
    rows = sequence(lake, parts, window=Window("at", *moments))

    assert rows.total == len(expected)
    for after in range(len(expected) + 1):
        assert ids_of(rows, after=after) == expected[after:]


def test_a_footer_alone_decides_where_it_can(lake: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [put_part(lake, numbered(2, at=days(first, first + 1)), link=first) for first in (0, 10, 20)]
    rows = sequence(lake, parts, window=Window("at", START + timedelta(days=10), START + timedelta(days=15)))
    monkeypatch.setattr(RowSequence, "_times_within", None)

    assert rows.counts == [0, 2, 0]


def test_a_window_over_dates_begins_at_midnight(lake: ObjectStore) -> None:
    part = put_part(lake, numbered(3, at=days(0, 1, 2).cast(pa.date32())))

    rows = sequence(lake, [part], window=Window("at", START + timedelta(hours=1), START + timedelta(days=2)))

    assert ids_of(rows) == [1]


@pytest.mark.parametrize("rows", [11, 9])
def test_a_part_with_another_number_of_rows_is_not_the_one_that_was_recorded(lake: ObjectStore, rows: int) -> None:
    part = put_part(lake, numbered(10))
    other = type(part)(part.key, 0, 0, 0, rows=rows, size_bytes=part.size_bytes, sha256=part.sha256)

    with pytest.raises(StoreCorrupt, match="10 rows instead of"):
        read_shape(lake, other)


def test_a_damaged_part_is_said_to_be_damaged(lake: ObjectStore, tmp_path: Path) -> None:
    part = put_part(lake, numbered(10))
    piece = Piece(part, read_shape(lake, part))
    path = tmp_path / part.key
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:50] + b"x" * 40 + path.read_bytes()[90:])

    with pytest.raises(StoreCorrupt):
        list(RowSequence(lake, [piece], kinds={"id": sequence(lake, [part]).kinds["id"]}).batches())

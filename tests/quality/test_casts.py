"""Values under a declared type: what is taken, as what, and what is refused."""

import datetime as dt
from decimal import Decimal
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from ingestion.quality.casts import publish_undeclared
from tests.quality.tables import broken, check_column

UTC = dt.UTC


def at(*parts: int) -> dt.datetime:
    return dt.datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type,misc]


TAKEN = [
    ("integer", "1", 1),
    ("integer", " 1\t", 1),
    ("integer", "+1", 1),
    ("integer", "-0", 0),
    ("integer", "007", 7),
    ("integer", "9223372036854775807", 2**63 - 1),
    ("integer", "-9223372036854775808", -(2**63)),
    ("integer", "  ", None),
    ("integer", "1.0", 1),
    ("integer", " -12.000 ", -12),
    ("integer", "9223372036854775807.0", 2**63 - 1),
    ("number", "1", 1.0),
    ("number", " 1.5 ", 1.5),
    ("number", "-1e-3", -0.001),
    ("number", ".5", 0.5),
    ("number", "", None),
    ("boolean", "true", True),
    ("boolean", "FALSE", False),
    ("boolean", " True ", True),
    ("boolean", "1", True),
    ("boolean", "0", False),
    ("date", "2024-02-29", dt.date(2024, 2, 29)),
    ("date", "9999-12-31", dt.date(9999, 12, 31)),
    ("date", " 2024-01-05 ", dt.date(2024, 1, 5)),
    ("date", "2024-01-05T00:00:00", dt.date(2024, 1, 5)),
    ("datetime", "2024-02-29T12:34:56Z", at(2024, 2, 29, 12, 34, 56)),
    ("datetime", "2024-02-29 12:34:56", at(2024, 2, 29, 12, 34, 56)),
    ("datetime", "2024-02-29t12:34:56z", at(2024, 2, 29, 12, 34, 56)),
    ("datetime", "2024-02-29T12:34:56.123456Z", at(2024, 2, 29, 12, 34, 56, 123456)),
    ("datetime", "2024-02-29T12:34:56.123456789Z", at(2024, 2, 29, 12, 34, 56, 123456)),
    ("datetime", "2024-02-29T12:34:56.5", at(2024, 2, 29, 12, 34, 56, 500000)),
    ("datetime", "2024-02-29T12:34:56,5Z", at(2024, 2, 29, 12, 34, 56, 500000)),
    ("datetime", "2024-02-29T12:34:56+02:00", at(2024, 2, 29, 10, 34, 56)),
    ("datetime", "2024-02-29T12:34:56-0530", at(2024, 2, 29, 18, 4, 56)),
    ("datetime", "2024-02-29T12:34:56+02", at(2024, 2, 29, 10, 34, 56)),
    ("datetime", "2024-02-29 12:34", at(2024, 2, 29, 12, 34)),
    ("datetime", "2024-02-29", at(2024, 2, 29)),
    ("datetime", "9999-12-31T23:59:59.999999Z", dt.datetime.max.replace(tzinfo=UTC)),
    ("datetime", "0001-01-01T00:00:00Z", at(1, 1, 1)),
    ("string", "", ""),
    ("string", " ", " "),
    ("string", "n/a", "n/a"),
    ("string", "NULL", "NULL"),
    ("object", ' {"a": 1} ', '{"a": 1}'),
    ("array", "[1]", "[1]"),
    ("any", "x", "x"),
]
REFUSED = [
    *(
        ("integer", text)
        for text in ("1.5", "1.", ".0", "1e3", "0x10", "1_000", "n/a", "NaN", "--1", "9223372036854775808")
    ),
    ("integer", "123456789012345678901234"),
    *(("number", text) for text in ("NaN", "nan", "Infinity", "-inf", "1e999", "1,5", "n/a", "0x1p3", "1_0")),
    *(("boolean", text) for text in ("yes", "2", "t", "1.0")),
    *(("date", text) for text in ("0000-00-00", "2024-02-30", "2023-02-29", "10000-01-01", "2024-1-5", "05.01.2024")),
    *(("date", text) for text in ("2024-01-05T01:00:00", "-024-01-01", "20240105")),
    *(("datetime", text) for text in ("0000-00-00", "2024-02-30T00:00:00Z", "2023-02-29", "10000-01-01T00:00:00Z")),
    *(("datetime", text) for text in ("2024-02-29T24:00:00Z", "2024-02-29T23:59:60Z", "2024-02-29T99:99:00Z")),
    *(("datetime", text) for text in ("2024-02-29T1:2:3Z", "2024-02-29T12:34:56+25:00", "0000-01-01T00:00:00Z")),
    *(("datetime", text) for text in ("0001-01-01T00:00:00+02:00", "9999-12-31T23:59:59-02:00", "now", "1700000000")),
    *(("object", text) for text in ("[1]", "x", '{"a":NaN}', '{"a":1', "1")),
    *(("array", text) for text in ("{}", "1,2")),
]


@pytest.mark.parametrize(("kind", "text", "value"), TAKEN)
def test_a_text_that_fits_is_taken_exactly(kind: str, text: str, value: Any) -> None:
    verdict = check_column([text], type=kind)

    assert verdict.clean["v"].to_pylist() == [value]


@pytest.mark.parametrize(("kind", "text"), REFUSED)
def test_a_text_that_does_not_fit_is_rejected_with_its_value(kind: str, text: str) -> None:
    verdict = check_column([text], type=kind)

    (row,) = verdict.rejected.to_pylist()
    assert [(error["rule"], error["value"]) for error in row["errors"]] == [("type", text)]


@pytest.mark.parametrize("regular", ["2024-01-01T00:00:00Z", "2024-01-01 00:00:00", "2024-01-01T00:00:00.000001"])
@pytest.mark.parametrize("kind", ["datetime", "date"])
def test_what_the_other_values_look_like_does_not_change_a_value(kind: str, regular: str) -> None:
    cases = [text for type_, text, _ in TAKEN if type_ == kind] + [text for type_, text in REFUSED if type_ == kind]

    alone = {text: check_column([text], type=kind).clean["v"].to_pylist() for text in cases}
    among = check_column([regular] * 600 + cases, type=kind)
    found = dict(zip(among.clean["n"].to_pylist(), among.clean["v"].to_pylist(), strict=True))

    for number, text in enumerate(cases, start=600):
        assert ([found[number]] if number in found else []) == alone[text], text


TYPED_TAKEN = [
    ("integer", pa.array([1.0, None, 2.0**53]), [1, None, 2**53]),
    ("integer", pa.array([1, 255], pa.uint8()), [1, 255]),
    ("integer", pa.array([Decimal("3.00")]), [3]),
    ("number", pa.array([1, 2]), [1.0, 2.0]),
    ("number", pa.array([1.5], pa.float32()), [1.5]),
    ("number", pa.array([Decimal("1.25")]), [1.25]),
    ("boolean", pa.array([True, None]), [True, None]),
    ("boolean", pa.array([1, 0]), [True, False]),
    ("date", pa.array([dt.date(2024, 1, 1)]), [dt.date(2024, 1, 1)]),
    ("date", pa.array([dt.datetime(2024, 1, 1)]), [dt.date(2024, 1, 1)]),  # noqa: DTZ001
    ("datetime", pa.array([1], pa.timestamp("ns")), [at(1970, 1, 1)]),
    ("datetime", pa.array([3_600_000], pa.timestamp("ms", "Europe/Berlin")), [at(1970, 1, 1, 1)]),
    ("datetime", pa.array([dt.date(2024, 1, 1)]), [at(2024, 1, 1)]),
    ("string", pa.array([1.0, 1.5]), ["1", "1.5"]),
    ("string", pa.array([True]), ["true"]),
    ("string", pa.array([7]), ["7"]),
    ("string", pa.array([3_723_000_000], pa.timestamp("us")), ["1970-01-01T01:02:03Z"]),
    ("string", pa.array(["a", None]).dictionary_encode(), ["a", None]),
    ("string", pa.array([b"text"]), ["text"]),
    ("string", pa.array([b"\xff"]), ["/w=="]),
    ("string", pa.array(["x"], pa.string_view()), ["x"]),
    ("object", pa.array([{"a": 1, "b": [None]}, None]), ['{"a":1,"b":[null]}', None]),
    ("array", pa.array([[1, 2], []]), ["[1,2]", "[]"]),
    ("any", pa.array([{"a": "x"}]), ['{"a":"x"}']),
    ("any", pa.array([1.5]), ["1.5"]),
    ("integer", pa.nulls(2), [None, None]),
    ("object", pa.array([[("k", b"v")]], pa.map_(pa.string(), pa.binary())), None),
]
TYPED_REFUSED = [
    ("integer", pa.array([1.5])),
    ("integer", pa.array([float("nan")])),
    ("integer", pa.array([2.0**53 + 2])),
    ("integer", pa.array([2**63], pa.uint64())),
    ("integer", pa.array([True])),
    ("integer", pa.array([dt.date(2024, 1, 1)])),
    ("number", pa.array([float("inf")])),
    ("number", pa.array([True])),
    ("boolean", pa.array([2])),
    ("date", pa.array([dt.datetime(2024, 1, 1, 1)])),  # noqa: DTZ001
    ("date", pa.array([1])),
    ("datetime", pa.array([2**62], pa.timestamp("ms"))),
    ("datetime", pa.array([1])),
    ("object", pa.array([[1]])),
    ("object", pa.array([1])),
    ("array", pa.array([{"a": 1}])),
]


@pytest.mark.parametrize(("kind", "values", "expected"), TYPED_TAKEN)
def test_typed_values_that_fit_are_taken(kind: str, values: pa.Array, expected: list[Any] | None) -> None:
    verdict = check_column(values, type=kind)

    assert verdict.counts.accepted == len(values)
    assert expected is None or verdict.clean["v"].to_pylist() == expected


@pytest.mark.parametrize(("kind", "values"), TYPED_REFUSED)
def test_typed_values_that_would_lose_something_are_rejected(kind: str, values: pa.Array) -> None:
    assert broken(check_column(values, type=kind)) == {0: [("v", "type")]}


def test_dates_are_read_in_the_format_of_the_column() -> None:
    verdict = check_column(
        ["01.02.2024 10:30", " 01.02.2024 10:30 ", "30.02.2024 10:30", "2024-02-01T10:30:00Z", ""],
        type="datetime",
        format="%d.%m.%Y %H:%M",
    )

    assert verdict.clean["v"].to_pylist() == [at(2024, 2, 1, 10, 30)] * 2 + [None]
    assert broken(verdict) == {2: [("v", "type")], 3: [("v", "type")]}


@pytest.mark.parametrize(
    ("pattern", "text", "value"),
    [
        ("%d/%m/%Y", "03/04/2024", dt.date(2024, 4, 3)),
        ("%d/%m/%Y", "03/04/24", None),
        ("%d/%m/%Y", " 03/04/24", None),
        ("%d/%m/%Y", "03/04/124", None),
        ("%Y%m%d", "240403", None),
        ("%d/%m/%Y", "03/04/0024", dt.date(24, 4, 3)),
        ("%d/%m/%y", "03/04/24", dt.date(2024, 4, 3)),
        ("%d/%m/%y", "03/04/70", dt.date(1970, 4, 3)),
    ],
)
@pytest.mark.parametrize("kind", ["date", "datetime"])
def test_a_year_of_two_digits_is_read_only_by_a_format_that_says_so(
    kind: str, pattern: str, text: str, value: dt.date | None
) -> None:
    hour = "" if kind == "date" else " 00:00"
    verdict = check_column([text + hour], type=kind, format=pattern + (hour and " %H:%M"))

    read = [item.date() if isinstance(item, dt.datetime) else item for item in verdict.clean["v"].to_pylist()]
    assert read == ([] if value is None else [value])
    assert broken(verdict) == ({0: [("v", "type")]} if value is None else {})


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["12345678901234567.89"], "number"),
        (["0.1", "1e-400"], "number"),
        (pa.array([2**53 + 1]), "number"),
        (pa.array([Decimal("0.12345678901234567891")]), "number"),
        (["2024-01-01T00:00:00.1234567Z"], "datetime"),
        (pa.array([1], pa.timestamp("ns")), "datetime"),
    ],
)
def test_digits_that_a_type_does_not_keep_are_told(values: Any, kind: str) -> None:
    assert any("'v' have digits" in warning for warning in check_column(values, type=kind).warnings)
    assert check_column(values, type="string").warnings == ()


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (pa.array([253_402_300_800], pa.timestamp("s")), "10000-01-01T00:00:00Z"),
        (pa.array([-62_135_596_800_001], pa.timestamp("ms")), "0000-12-31T23:59:59.999Z"),
        (pa.array([2**62], pa.timestamp("ms")), "146140482-04-24T15:36:27.904Z"),
        (pa.array([2**62], pa.timestamp("us", "Europe/Berlin")), "148108-07-06T14:00:27.387904Z"),
        (pa.array([2**31 - 1], pa.date32()), "5881580-07-11"),
        (pa.array([1], pa.timestamp("ns")), "1970-01-01T00:00:00.000000001Z"),
        (pa.array([86_399_999_999], pa.time64("us")), "23:59:59.999999"),
        (pa.array([1], pa.time64("ns")), "00:00:00.000000001"),
        (pa.array([{"t": 253_402_300_800}], pa.struct([("t", pa.timestamp("s"))])), '{"t":"10000-01-01T00:00:00"}'),
        (pa.array([[1, 2_000]], pa.list_(pa.timestamp("ns", "UTC"))),
         '["1970-01-01T00:00:00.000000001Z","1970-01-01T00:00:00.000002Z"]'),
        (pa.array([[1]], pa.list_(pa.time64("ns"))), '["00:00:00.000000001"]'),
        (pa.array([[2**31 - 1, 0]], pa.list_(pa.date32())), '["5881580-07-11","1970-01-01"]'),
        (pa.array([{"d": Decimal("12345678901234567.89")}]), '{"d":12345678901234567.89}'),
        (pa.array([[(Decimal("1.50"), Decimal("2.0"))]], pa.map_(pa.decimal128(9, 2), pa.decimal128(9, 1))), '{"1.50":2.0}'),
        (pa.array([[2**62, 1500]], pa.list_(pa.duration("ms"))), '["PT4611686018427387.904S","PT1.5S"]'),
        (pa.array([[("k", 2), ("k", 3)]], pa.map_(pa.string(), pa.int8())), '[["k",2],["k",3]]'),
        (pa.array([[("k", 2), ("l", 3)]], pa.map_(pa.string(), pa.int8())), '{"k":2,"l":3}'),
    ],
)  # fmt: skip
def test_nothing_wraps_or_vanishes_as_text(values: pa.Array, text: str) -> None:
    verdict = check_column(values, type="string")

    assert verdict.clean["v"].to_pylist() == [text]
    # Undeclared columns are published the same way where no type of a destination takes them.
    assert publish_undeclared(pl.Series("v", values)).cast(pl.String).to_list()[0].startswith(text[:10])


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
@pytest.mark.parametrize("seconds", [253_402_300_800, -62_135_596_801, 2**40])
def test_a_moment_outside_the_years_1_to_9999_is_refused_by_its_column(unit: str, seconds: int) -> None:
    ticks = seconds * {"s": 1, "ms": 10**3, "us": 10**6}[unit]

    assert broken(check_column(pa.array([ticks], pa.timestamp(unit)), type="datetime")) == {0: [("v", "type")]}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ('{"d":[12345678901234567.89,1e400]}', True),
        ('{"d":1e400,"e":NaN}', False),
        ('{"d":1e400', False),
        ("1e400", False),
    ],
)
def test_an_object_may_hold_numbers_of_any_size(text: str, fits: bool) -> None:
    verdict = check_column([text], type="object")

    assert (verdict.counts.accepted == 1) is fits


@pytest.mark.parametrize(
    ("type_", "format_", "good", "bad"),
    [
        ("number", "1.234,5", {"1,5": 1.5, " -1.234.567,25 ": -1234567.25, "1234,5": 1234.5, "1e3": 1000.0}, "1.5"),
        ("number", "1.234,5", {"12.345": 12345.0, "": None}, "1.23,4"),
        ("number", "1,234.5", {"1,234.5": 1234.5, "0.5": 0.5}, "1,5"),
        ("number", "1 234,5", {"1 234 567,5": 1234567.5}, "1.234,5"),
        ("number", "1'234.5", {"1'234.5": 1234.5}, "1,234"),
        ("integer", "1.234,5", {"1.234": 1234, "-12": -12, "3,0": 3}, "3,5"),
    ],
)
def test_numbers_are_read_as_their_format_writes_them(
    type_: str, format_: str, good: dict[str, float | None], bad: str
) -> None:
    verdict = check_column([*good, bad], type=type_, format=format_)

    assert verdict.clean["v"].to_pylist() == list(good.values())
    assert broken(verdict) == {len(good): [("v", "type")]}


def test_a_map_with_a_doubled_key_is_no_object() -> None:
    values = pa.array([[("k", 2), ("k", 3)], [("k", 2)]], pa.map_(pa.string(), pa.int8()))

    assert broken(check_column(values, type="object")) == {0: [("v", "type")]}


def test_a_format_with_a_zone_gives_utc() -> None:
    verdict = check_column(["2024-01-01 00:00 +0100"], type="datetime", format="%Y-%m-%d %H:%M %z")

    assert verdict.clean["v"].to_pylist() == [at(2023, 12, 31, 23)]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("integer", pa.int64()),
        ("number", pa.float64()),
        ("boolean", pa.bool_()),
        ("date", pa.date32()),
        ("datetime", pa.timestamp("us", "UTC")),
        ("string", pa.large_string()),
        ("object", pa.large_string()),
    ],
)
def test_the_published_type_is_the_declared_one_even_without_rows(kind: str, expected: pa.DataType) -> None:
    assert check_column([], type=kind).clean.schema.field("v").type == expected
    assert check_column([None], type=kind).clean.schema.field("v").type == expected

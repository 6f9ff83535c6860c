"""What holds for every table: the books balance, nothing is lost, nothing depends on chance."""

import io
from collections import Counter
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestion.quality.checking import Verdict
from ingestion.quality.parts import write_clean, write_rejected
from tests.quality.tables import check, contract

TEXT = st.one_of(
    st.none(),
    st.sampled_from(["", " ", "1", "2", " 1", "01", "1.0", "x", "n/a", "NaN", "1e999", "true", "2024-02-30", "[1]"]),
    st.sampled_from(["2024-01-01", "2024-01-01T00:00:00Z", "2024-01-01 00:00:00.5", '{"a": 1}', "9" * 24]),
    st.text(max_size=6),
)
KINDS = st.sampled_from(["string", "integer", "number", "boolean", "date", "datetime", "object", "array", "any"])


@st.composite
def cases(draw: st.DrawFn) -> tuple[dict[str, Any], pa.Table, bool]:
    rows = draw(st.integers(0, 25))
    columns = {name: draw(st.lists(TEXT, min_size=rows, max_size=rows)) for name in "abc"}
    declared = [
        {"name": name, "type": draw(KINDS), "nullable": draw(st.booleans())}
        for name in draw(st.lists(st.sampled_from("abc"), unique=True))
    ]
    keyable = [column["name"] for column in declared if column["type"] not in ("object", "array", "any")]
    key = draw(st.lists(st.sampled_from(keyable), unique=True)) if keyable else []
    table = {name: pa.array(values, pa.string()) for name, values in columns.items()}
    if draw(st.booleans()):
        table["_filtered"] = pa.array(draw(st.lists(st.booleans(), min_size=rows, max_size=rows)), pa.bool_())
    if draw(st.booleans()):
        codes = st.sampled_from([None, None, "row.malformed"])
        table["_error_code"] = pa.array(draw(st.lists(codes, min_size=rows, max_size=rows)), pa.string())
    body = contract(*declared, key=key, extra_columns=draw(st.sampled_from(["keep", "discard"])))
    return body, pa.table(table), draw(st.booleans())


def stored(verdict: Verdict) -> tuple[bytes, bytes]:
    clean, rejected = io.BytesIO(), io.BytesIO()
    write_clean(verdict.clean, clean)
    write_rejected(verdict.rejected, rejected)
    return clean.getvalue(), rejected.getvalue()


@settings(max_examples=100, deadline=None)
@given(cases())
def test_every_row_is_accepted_rejected_duplicate_or_filtered(case: tuple[dict[str, Any], pa.Table, bool]) -> None:
    body, table, is_file = case

    verdict = check(body, table, is_file=is_file)

    filtered = [
        number
        for number, flag in enumerate(table["_filtered"].to_pylist() if "_filtered" in table.column_names else [])
        if flag
    ]
    seen = [*verdict.clean["_row"].to_pylist(), *verdict.rejected["_row"].to_pylist(), *filtered]
    assert sorted(seen) == list(range(table.num_rows))
    assert verdict.counts.fetched == table.num_rows
    assert verdict.counts.filtered == len(filtered)
    outcomes = Counter(verdict.rejected["outcome"].to_pylist())
    assert (verdict.counts.rejected, verdict.counts.duplicate) == (outcomes["rejected"], outcomes["duplicate"])
    assert all(row["errors"] and row["raw"] for row in verdict.rejected.to_pylist())


@settings(max_examples=50, deadline=None)
@given(cases())
def test_the_same_input_gives_the_same_bytes(case: tuple[dict[str, Any], pa.Table, bool]) -> None:
    body, table, is_file = case
    chunked = pa.concat_tables([table.slice(0, 3), table.slice(3)])

    assert stored(check(body, table, is_file=is_file)) == stored(check(body, chunked, is_file=is_file))


@settings(max_examples=50, deadline=None)
@given(cases())
def test_what_is_clean_stays_clean(case: tuple[dict[str, Any], pa.Table, bool]) -> None:
    body, table, is_file = case
    clean = check(body, table, is_file=is_file).clean.drop_columns(["_run", "_part", "_row", "_page"])

    again = check(body, clean, is_file=is_file)

    assert again.counts.accepted == clean.num_rows
    assert again.clean.drop_columns(["_run", "_part", "_row", "_page"]).equals(clean)


SEEDED = contract(
    {"name": "id", "type": "integer", "nullable": False},
    {"name": "ts", "type": "datetime", "nullable": False},
    {"name": "category", "nullable": False},
    {"name": "site"},
    {"name": "qty", "type": "integer", "min": 0, "max": 1000},
    {"name": "price", "type": "number", "min": 1e-9, "nullable": False},
    {"name": "score", "type": "number", "min": 0, "max": 1},
    {"name": "code", "nullable": False, "pattern": "^[A-Z]{3}-[0-9]{4}$"},
    {"name": "active", "type": "boolean"},
    key=["id"],
)


def seeded_table(rows: int, *, seed: int) -> tuple[pa.Table, dict[str, np.ndarray[Any, Any]]]:
    """Return a table of texts with known faults, and where they are."""
    random = np.random.default_rng(seed)
    moments = np.datetime64("2023-01-01T00:00:00", "us") + random.integers(0, 63_000_000, rows).astype("timedelta64[s]")
    frame = pl.DataFrame(
        {
            "id": np.arange(1, rows + 1),
            "ts": pl.Series(moments).dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "category": np.array(["metal", "oxide", "glass"])[random.integers(0, 3, rows)],
            "site": np.array([f"site-{number:03d}" for number in range(200)])[random.integers(0, 200, rows)],
            "qty": random.integers(0, 1001, rows),
            "price": np.round(random.lognormal(3, 1, rows) + 0.01, 4),
            "score": np.round(random.random(rows), 6),
            "code": [f"ABC-{number:04d}" for number in random.integers(0, 10_000, rows)],
            "active": random.random(rows) < 0.5,
        }
    ).with_columns(pl.all().cast(pl.String))
    names = ("dup", "category", "range", "qty", "price", "code", "ts")
    faults = {name: np.flatnonzero(random.random(rows) < 0.01) for name in names}
    faults["dup"] = faults["dup"][faults["dup"] > 0]

    def put(column: str, name: str, value: Any) -> pl.Expr:
        mask = np.zeros(rows, bool)
        mask[faults[name]] = True
        return pl.when(pl.Series(mask)).then(value).otherwise(pl.col(column)).alias(column)

    frame = frame.with_columns(
        put("id", "dup", pl.col("id").shift(1)),
        put("category", "category", None),
        put("qty", "range", pl.lit("-5")),
        put("price", "price", pl.lit("-1.0")),
        put("code", "code", pl.lit("bad code")),
        put("ts", "ts", pl.lit("not-a-date")),
    ).with_columns(put("qty", "qty", pl.lit("n/a")))
    faults["dup"] = np.flatnonzero(~frame["id"].is_first_distinct().to_numpy())
    return frame.to_arrow(), faults


@pytest.mark.parametrize("seed", [7, 8])
def test_seeded_faults_are_found_exactly(seed: int) -> None:
    table, faults = seeded_table(20_000, seed=seed)

    verdict = check(SEEDED, table)

    bad = set(np.concatenate(list(faults.values())).tolist())
    assert set(verdict.rejected["_row"].to_pylist()) == bad
    assert verdict.counts.accepted == 20_000 - len(bad)
    found = Counter(error["rule"] for errors in verdict.rejected["errors"].to_pylist() for error in errors)
    only_range = set(faults["range"].tolist()) - set(faults["qty"].tolist())
    assert found == Counter(
        {
            "key.duplicate": len(faults["dup"]),
            "nullable": len(faults["category"]),
            "min": len(only_range) + len(faults["price"]),
            "type": len(faults["qty"]) + len(faults["ts"]),
            "pattern": len(faults["code"]),
        }
    )

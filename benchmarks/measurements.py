"""Seeded measurements with about 1 % faulty rows of seven kinds, and how many of them are right."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

SEED = 7
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
CODE = r"^[A-Z]{3}-[0-9]{4}$"
COLUMNS = ("id", "ts", "category", "site", "qty", "price", "score", "code", "active", "note")
CATEGORIES = "metal oxide halide polymer glass alloy ceramic perovskite mof 2d zeolite other".split()  # noqa: SIM905
WORDS = "band gap energy relaxed cell phase stable sample batch run annealed film powder see below".split()  # noqa: SIM905
FAULTS = ("dup", "nullcat", "qtyrange", "qtytype", "price", "code", "ts")
CONTRACT: dict[str, Any] = {
    "name": "measured",
    "key": ["id"],
    "columns": [
        {"name": "id", "type": "integer", "nullable": False},
        {"name": "ts", "type": "datetime", "nullable": False},
        {"name": "category", "type": "string", "nullable": False},
        {"name": "site", "type": "string"},
        {"name": "qty", "type": "integer", "min": 0, "max": 1000},
        {"name": "price", "type": "number", "nullable": False, "min": 0.0},
        {"name": "score", "type": "number", "min": 0, "max": 1},
        {"name": "code", "type": "string", "nullable": False, "pattern": CODE},
        {"name": "active", "type": "boolean"},
        {"name": "note", "type": "string"},
    ],
    "time": "ts",
}
"""The rules of the yardstick as a contract; no price is 0 exactly, so that its open bound makes no difference."""


def make_frame(row_count: int) -> "pl.DataFrame":
    """Return clean rows: 10 columns of mixed types, a tenth of the notes with quotes or a line break."""
    return _make(row_count)[0]


def write_measurements(folder: Path, *, row_count: int) -> int:
    """Write `dirty.csv` and return how many of its rows are right."""
    import numpy as np
    import polars as pl

    frame, random = _make(row_count)
    at = {fault: np.flatnonzero(random.random(row_count) < 0.0015) for fault in FAULTS}

    def put(fault: str, value: Any, column: str) -> pl.Expr:
        mask = np.zeros(row_count, bool)
        mask[at[fault]] = True
        mask[0] &= fault != "dup"
        return pl.when(pl.Series(mask)).then(value).otherwise(pl.col(column)).alias(column)

    dirty = frame.with_columns(pl.col("ts").dt.strftime(TIME_FORMAT), pl.col("qty").cast(pl.String))
    dirty = dirty.with_columns(
        put("dup", pl.col("id").shift(1), "id"),
        put("nullcat", pl.lit(None), "category"),
        put("qtyrange", pl.lit("-5"), "qty"),
        put("price", pl.lit(-1.0), "price"),
        put("code", pl.lit("bad code"), "code"),
        put("ts", pl.lit("not-a-date"), "ts"),
    ).with_columns(put("qtytype", pl.lit("n/a"), "qty"))
    dirty.write_csv(folder / "dirty.csv")
    is_bad = (~dirty["id"].is_first_distinct()).to_numpy()
    for fault in FAULTS:
        if fault != "dup":
            is_bad[at[fault]] = True
    return int(row_count - is_bad.sum())


def sink_with_polars(path: Path, *, into: Path) -> tuple[int, int]:
    """Return how many good and bad rows one lazy pass of polars writes into two Parquet files, with these rules."""
    import polars as pl
    import pyarrow.parquet as pq

    column = pl.col
    frame = pl.scan_csv(path, schema_overrides=dict.fromkeys(COLUMNS, pl.String)).with_columns(
        column("id").cast(pl.Int64, strict=False).alias("_id"),
        column("ts").str.to_datetime(TIME_FORMAT, strict=False).alias("_ts"),
        column("qty").cast(pl.Int64, strict=False).alias("_qty"),
        column("price").cast(pl.Float64, strict=False).alias("_price"),
        column("score").cast(pl.Float64, strict=False).alias("_score"),
    )
    score_is_wrong = column("_score").is_null() & column("score").is_not_null()
    frame = frame.with_columns(
        pl.any_horizontal(
            column("_id").is_null(),
            column("_ts").is_null(),
            column("category").is_null(),
            column("_qty").is_null() & column("qty").is_not_null(),
            column("_qty").is_between(0, 1000).not_().fill_null(value=False),
            (column("_price") > 0).not_().fill_null(value=True),
            score_is_wrong | column("_score").is_between(0, 1).not_().fill_null(value=False),
            column("code").str.contains(CODE).not_().fill_null(value=True),
            column("_id").is_first_distinct().not_(),
        ).alias("_bad")
    )
    good = frame.filter(~column("_bad")).select(
        column("_id").alias("id"),
        column("_ts").alias("ts"),
        "category",
        "site",
        column("_qty").alias("qty"),
        column("_price").alias("price"),
        column("_score").alias("score"),
        "code",
        (column("active") == "true").alias("active"),
        "note",
    )
    bad = frame.filter("_bad").select(*COLUMNS, pl.lit("see checks").alias("reason"))
    places = into / "good.parquet", into / "bad.parquet"
    sinks = [
        part.sink_parquet(place, compression="zstd", lazy=True) for part, place in zip((good, bad), places, strict=True)
    ]
    pl.collect_all(sinks, engine="streaming")
    good_count, bad_count = (pq.read_metadata(place).num_rows for place in places)
    return good_count, bad_count


def _make(row_count: int) -> "tuple[pl.DataFrame, np.random.Generator]":
    import numpy as np
    import polars as pl

    random = np.random.default_rng(SEED)
    categories = np.array(CATEGORIES, dtype=object)
    sites = np.array([f"site-{number:03d}" for number in range(200)], dtype=object)
    letters = np.array([f"{a}{b}{c}" for a in "ABCDEFGHIJ" for b in "KLMNO" for c in "PQRST"])
    notes = np.array([_note(number, random) for number in range(5000)], dtype=object)
    frame = pl.DataFrame(
        {
            "id": np.arange(1, row_count + 1, dtype=np.int64),
            "ts": np.datetime64("2023-01-01T00:00:00", "us")
            + random.integers(0, 63_000_000, row_count).astype("timedelta64[s]"),
            "category": categories[random.integers(0, len(categories), row_count)],
            "site": sites[random.integers(0, len(sites), row_count)],
            "qty": random.integers(0, 1001, row_count),
            "price": np.round(random.lognormal(3, 1, row_count) + 0.01, 4),
            "score": np.round(random.random(row_count), 6),
            "code": np.char.add(
                np.char.add(letters[random.integers(0, len(letters), row_count)], "-"),
                np.char.zfill(random.integers(0, 10000, row_count).astype("U4"), 4),
            ),
            "active": random.random(row_count) < 0.5,
            "note": notes[random.integers(0, len(notes), row_count)],
        }
    )
    return frame.with_columns(
        qty=pl.when(pl.Series(random.random(row_count) < 0.02)).then(None).otherwise(pl.col("qty")),
        score=pl.when(pl.Series(random.random(row_count) < 0.05)).then(None).otherwise(pl.col("score")),
    ), random


def _note(number: int, random: "np.random.Generator") -> str:
    text = " ".join(random.choice(WORDS, random.integers(1, 6)))
    match number % 20:
        case 0:
            return f'{text}, "{text[:6]}" x'
        case 1:
            return f"{text}\nline two"
        case 2:
            return f"{text}, etc"
        case _:
            return text


def main(csv: str, folder: str) -> None:
    """Print, as JSON, what one pass of polars over the file took; the import is not timed."""
    import os
    import time

    import polars as pl

    from benchmarks.measuring import peak_bytes_of

    pl.DataFrame()
    began, own_began = time.perf_counter(), time.process_time()
    good, bad = sink_with_polars(Path(csv), into=Path(folder))
    wall_s, cpu_s = time.perf_counter() - began, time.process_time() - own_began
    print(
        json.dumps(
            {"wall_s": wall_s, "cpu_s": cpu_s, "good": good, "bad": bad, "peak_bytes": peak_bytes_of(os.getpid())}
        )
    )


if __name__ == "__main__":
    import sys

    main(*sys.argv[1:])

"""The forms that rows can have at the destination: text, packed, and in folders by their values."""

import csv
import datetime as dt
import gzip
import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingestion.ports.batch import CLEAN_COLUMNS
from ingestion.ports.context import Context
from ingestion.ports.errors import Cancelled, ConfigError, SinkRejected, StoreCorrupt
from ingestion.ports.publication import Manifest, PartView
from ingestion.ports.schema import Column, ColumnType, ContractBody
from ingestion.toolkit.lake.keys import MAX_SEGMENT_BYTES
from sinks.objects.sink import ObjectsSink
from sinks.objects.splitting import Splitter
from tests.conformance.context import MemoryLake, RecordingContext
from tests.conformance.parts import CONTRACT, delivery_of, manifest_of, rows_of, store_part
from tests.sinks.objects.support import deliver, files, publish, read_manifest, sink_at, store_of


def store_table(lake: MemoryLake, columns: dict[str, Any], *, run_id: int = 7, seq: int = 0) -> PartView:
    """Put a table into the lake as a clean part, with the columns that every clean row carries."""
    table = pa.table(columns)
    count = table.num_rows
    for name, values in {"_run": [run_id] * count, "_part": ["0-0"] * count, "_row": range(count)}.items():
        table = table.append_column(name, pa.array(values))
    table = table.append_column("_page", pa.nulls(count, pa.int64()))
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    content = buffer.getvalue()
    sha256 = hashlib.sha256(content).hexdigest()
    key = f"clean/samples/{run_id}/0-0/{seq:06d}-{sha256[:16]}.parquet"
    lake.put_if_absent(key, content)
    return PartView(key, 0, 0, seq, rows=count, size_bytes=len(content), sha256=sha256)


def document_of(sink: ObjectsSink, *, run_id: int = 7) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(store_of(sink).read(f"samples/manifests/{run_id:08d}.json"))
    return found


def paths_of(sink: ObjectsSink) -> list[str]:
    return [part["path"] for part in document_of(sink)["parts"]]


def test_json_lines_hold_nested_values_and_moments_as_such(tmp_path: Path, ctx: Context, lake: MemoryLake) -> None:
    at = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    part = store_table(
        lake, {"id": [1], "sites": ['[{"x": 0.5}]'], "note": ["[1]"], "at": pa.array([at], pa.timestamp("us", "UTC"))}
    )
    contract = ContractBody(name="samples", columns=(Column(name="sites", type=ColumnType.ARRAY),))
    manifest = replace(manifest_of([part]), contract=contract)
    sink = sink_at(tmp_path / "there", format="jsonl")

    sink.stage(part, replace(delivery_of(manifest), contract=contract), ctx)
    sink.commit(manifest, replace(delivery_of(manifest), contract=contract), ctx)

    (row,) = read_manifest(store_of(sink), document_of(sink))
    assert (row["id"], row["sites"], row["note"], row["at"]) == (1, [{"x": 0.5}], "[1]", "2026-01-02T03:04:05Z")
    assert set(CLEAN_COLUMNS) <= set(row)


@pytest.mark.parametrize("is_defused", [True, False])
def test_csv_cells_are_harmless_unless_told_otherwise(
    tmp_path: Path, ctx: Context, lake: MemoryLake, is_defused: bool
) -> None:
    part = store_table(lake, {"id": [-1], "formula": ["=cmd()"]})
    sink = sink_at(tmp_path / "there", format="csv", defuse_formulas=is_defused)

    deliver(sink, manifest_of([part]), ctx)

    text = store_of(sink).read(paths_of(sink)[0]).decode()
    assert next(csv.DictReader(io.StringIO(text)))["formula"] == ("'=cmd()" if is_defused else "=cmd()")
    assert text.startswith("id,formula,_run,_part,_row,_page\r\n-1,")


@pytest.mark.parametrize(
    "settings",
    [
        {"format": "jsonl"},
        {"format": "jsonl", "gzip": True},
        {"format": "csv"},
        {"format": "csv", "gzip": True, "partition_by": ["formula"]},
        {"partition_by": ["formula"]},
    ],
    ids=["jsonl", "jsonl.gz", "csv", "csv.gz by partition", "parquet by partition"],
)
def test_the_same_part_gives_the_same_bytes_under_the_same_keys(
    tmp_path: Path, ctx: Context, settings: dict[str, Any]
) -> None:
    contents = []
    for name in ("one", "two"):
        sink = sink_at(tmp_path / name, **settings)
        manifest = publish(sink, ctx, run_id=7, rows=rows_of(0, 40))
        contents.append({path: store_of(sink).read(path) for path in files(sink)})
        assert sink.count(manifest, delivery_of(manifest), ctx) == 40

    assert contents[0] == contents[1]
    assert not any(path.endswith(".staged.json") for path in contents[0])
    for part in document_of(sink)["parts"]:
        assert part["sha256"][:16] in part["path"]
        assert part["path"].endswith({"jsonl": ".jsonl", "csv": ".csv"}.get(settings.get("format", ""), ".parquet") + (
            ".gz" if settings.get("gzip") else ""
        ))  # fmt: skip


def test_packed_text_carries_no_clock_and_no_name(tmp_path: Path, ctx: Context) -> None:
    sink = sink_at(tmp_path / "there", format="csv", gzip=True)

    publish(sink, ctx, run_id=7, rows=rows_of(0, 3))

    content = store_of(sink).read(paths_of(sink)[0])
    assert content[3:8] == bytes(5)
    assert gzip.decompress(content).startswith(b"id,formula")


def test_values_become_folders_that_other_tools_read_back(tmp_path: Path, ctx: Context, lake: MemoryLake) -> None:
    values = ["Größe", "a/b=c", "..", "", None, "__HIVE_DEFAULT_PARTITION__", "a b", "100%"]
    part = store_table(lake, {"id": range(len(values)), "formula": values})
    sink = sink_at(tmp_path / "there", partition_by=["formula"])

    deliver(sink, manifest_of([part]), ctx)

    folders = {path.split("/")[2] for path in paths_of(sink)}
    assert folders == {
        "formula=Gr%C3%B6%C3%9Fe",
        "formula=a%2Fb%3Dc",
        "formula=..",
        "formula=",
        "formula=__HIVE_DEFAULT_PARTITION__",
        "formula=%5F_HIVE_DEFAULT_PARTITION__",
        "formula=a%20b",
        "formula=100%25",
    }
    rows = read_manifest(store_of(sink), document_of(sink))
    assert {row["id"]: row["formula"] for row in rows} == dict(enumerate(values))
    assert all("formula" not in pq.read_schema(tmp_path / "there" / path).names for path in paths_of(sink))
    scanned = pl.scan_parquet(tmp_path / "there/samples/7", hive_partitioning=True).select("id", "formula").collect()
    # Readers of folders know neither an empty text nor the word that stands for null; the manifest does.
    assert {row["id"]: row["formula"] or "" for row in scanned.to_dicts()} == {
        number: value if value and "HIVE" not in value else "" for number, value in enumerate(values)
    }


def test_numbers_days_and_moments_make_folders_and_a_moment_keeps_its_time(
    tmp_path: Path, ctx: Context, lake: MemoryLake
) -> None:
    moments = [dt.datetime(2026, 1, day, 23, 59, tzinfo=dt.UTC) for day in (1, 1, 2)]
    part = store_table(
        lake,
        {
            "id": [1, 2, 3],
            "batch": [7, 7, None],
            "is_good": [True, True, False],
            "day": pa.array([dt.date(2026, 1, 1)] * 3),
            "at": pa.array(moments, pa.timestamp("us", "UTC")),
        },
    )
    sink = sink_at(tmp_path / "there", partition_by=["batch", "is_good", "day", "at"])

    deliver(sink, manifest_of([part]), ctx)

    assert sorted(path.rpartition("/")[0] for path in paths_of(sink)) == [
        "samples/7/batch=7/is_good=true/day=2026-01-01/at_day=2026-01-01",
        "samples/7/batch=__HIVE_DEFAULT_PARTITION__/is_good=false/day=2026-01-01/at_day=2026-01-02",
    ]
    rows = sorted(read_manifest(store_of(sink), document_of(sink)), key=lambda row: row["id"])
    assert [row["at"] for row in rows] == moments
    assert [(row["batch"], row["is_good"], row["day"], row["at_day"]) for row in rows] == [
        (7, True, "2026-01-01", "2026-01-01"),
        (7, True, "2026-01-01", "2026-01-01"),
        (None, False, "2026-01-01", "2026-01-02"),
    ]


@pytest.mark.parametrize(
    ("columns", "names", "said"),
    [
        ({"id": [1]}, ["category"], "no column category"),
        ({"id": [1], "x": [0.5]}, ["x"], "x are double"),
        ({"id": range(1001)}, ["id"], "more than 1000"),
        ({"id": ["x" * MAX_SEGMENT_BYTES]}, ["id"], "too long"),
        (
            {"at_day": [1], "at": pa.array([0], pa.timestamp("us", "UTC"))},
            ["at"],
            "at_day has the name of a column",
        ),
    ],
)
def test_columns_that_make_no_folders_are_named(
    tmp_path: Path, recording: RecordingContext, columns: dict[str, Any], names: list[str], said: str
) -> None:
    part, ctx = store_table(recording.lake, columns), recording.context
    sink = sink_at(tmp_path / "there", partition_by=names)

    with pytest.raises(ConfigError) as caught:
        sink.stage(part, delivery_of(manifest_of([part])), ctx)

    assert said in str(caught.value)
    assert "partition_by" in str(caught.value)


def test_what_was_staged_in_another_form_is_staged_anew(tmp_path: Path, ctx: Context, lake: MemoryLake) -> None:
    part = store_part(lake, rows_of(0, 8))
    manifest = manifest_of([part])
    sink_at(tmp_path / "there", format="csv").stage(part, delivery_of(manifest), ctx)
    sink = sink_at(tmp_path / "there", format="csv", gzip=True)

    sink.commit(manifest, delivery_of(manifest), ctx)

    assert [path.rpartition(".")[2] for path in paths_of(sink)] == ["gz"]
    assert sorted(files(sink)) == sorted([*paths_of(sink), "samples/latest.json", "samples/manifests/00000007.json"])


def test_what_was_published_is_not_written_again_unless_its_part_changed(
    tmp_path: Path, ctx: Context, lake: MemoryLake
) -> None:
    part = store_part(lake, rows_of(0, 8))
    sink = sink_at(tmp_path / "there", format="jsonl", partition_by=["formula"])
    manifest = manifest_of([part])
    deliver(sink, manifest, ctx)
    before = files(sink)
    lake.delete(part.key)

    sink.commit(manifest, delivery_of(manifest), ctx)
    again = files(sink)
    settled = manifest_of([store_part(lake, rows_of(0, 5))])
    deliver(sink, settled, ctx)

    assert again == before
    assert sink.count(settled, delivery_of(settled), ctx) == 5


def test_what_was_staged_whole_is_not_written_again(tmp_path: Path, ctx: Context, lake: MemoryLake) -> None:
    part = store_part(lake, rows_of(0, 8))
    manifest = manifest_of([part])
    sink = sink_at(tmp_path / "there", format="jsonl")
    sink.stage(part, delivery_of(manifest), ctx)
    lake.delete(part.key)

    sink.stage(part, delivery_of(manifest), ctx)
    sink.commit(manifest, delivery_of(manifest), ctx)

    assert sink.count(manifest, delivery_of(manifest), ctx) == 8


def spoilt(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2] + b"?\n")


def shortened(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


@pytest.mark.parametrize("harm", [spoilt, shortened])
def test_text_that_was_changed_at_the_destination_is_not_counted_but_named(
    tmp_path: Path, ctx: Context, harm: Callable[[Path], None]
) -> None:
    sink = sink_at(tmp_path / "there", format="jsonl")
    manifest = publish(sink, ctx, run_id=7, rows=rows_of(0, 8))
    harm(tmp_path / "there" / paths_of(sink)[0])

    with pytest.raises(SinkRejected) as caught:
        sink.count(manifest, delivery_of(manifest), ctx)

    assert paths_of(sink)[0] in str(caught.value)


def test_text_that_vanished_counts_for_nothing(tmp_path: Path, ctx: Context) -> None:
    sink = sink_at(tmp_path / "there", format="jsonl")
    manifest = publish(sink, ctx, run_id=7, rows=rows_of(0, 8))
    (tmp_path / "there" / paths_of(sink)[0]).unlink()

    assert sink.count(manifest, delivery_of(manifest), ctx) == 0


@pytest.mark.parametrize("settings", [{}, {"format": "csv"}], ids=["copied", "written anew"])
def test_a_part_that_rotted_in_the_lake_never_leaves_it(
    tmp_path: Path, ctx: Context, lake: MemoryLake, settings: dict[str, Any]
) -> None:
    part = store_part(lake, rows_of(0, 4))
    lake.put(part.key, b"rotten")
    sink = sink_at(tmp_path / "there", **settings)

    with pytest.raises(StoreCorrupt) as caught:
        sink.stage(part, delivery_of(manifest_of([part])), ctx)

    assert (caught.value.code, caught.value.values["key"]) == ("store.corrupt", part.key)
    assert files(sink) == []


def test_a_cancelled_stage_leaves_no_file_behind_on_this_machine(
    tmp_path: Path, recording: RecordingContext, lake: MemoryLake
) -> None:
    part = store_part(lake, rows_of(0, 4))
    recording.stop()

    with pytest.raises(Cancelled):
        sink_at(tmp_path / "there", format="csv").stage(part, delivery_of(manifest_of([part])), recording.context)

    assert list((tmp_path / "scratch").iterdir()) == []


def test_files_of_a_run_that_the_present_contract_describes_otherwise_can_be_published_again(
    tmp_path: Path, ctx: Context, lake: MemoryLake
) -> None:
    part = store_part(lake, rows_of(0, 4))
    sink = sink_at(tmp_path / "there", format="csv")
    first: Manifest = manifest_of([part])
    deliver(sink, first, ctx)

    deliver(sink, replace(first, contract=CONTRACT.model_copy(update={"name": "renamed"}), contract_version=2), ctx)

    assert document_of(sink)["contract"]["name"] == "renamed"
    assert sink.count(first, delivery_of(first), ctx) == 4


def test_rows_go_into_folders_by_a_column_whose_name_has_a_nul(tmp_path: Path) -> None:
    batch = pa.record_batch([pa.array(["x", "y", "x"]), pa.array([1, 2, 3])], names=["a\0b", "a"])
    splitter = Splitter(batch.schema, ("a\0b", "a"), tmp_path)

    splitter.add(batch)

    assert splitter.partitions() == [(("a\0b", value), ("a", n)) for value, n in (("x", 1), ("x", 3), ("y", 2))]

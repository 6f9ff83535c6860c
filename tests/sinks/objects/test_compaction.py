"""Compaction: fewer and larger files, the same rows for every reader at every moment."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ingestion.ports.context import Context
from ingestion.ports.errors import SinkRejected, SinkUnavailable
from ingestion.ports.housekeeping import StoringSink
from ingestion.ports.publication import WriteMode
from ingestion.ports.schema import ContractBody
from ingestion.toolkit import failpoints
from sinks.objects import compaction, merging
from sinks.objects.sink import ObjectsSink
from tests.conformance.context import RecordingContext
from tests.conformance.parts import CONTRACT, manifest_of, rows_of, store_part
from tests.conformance.sink import Killed
from tests.sinks.objects.support import (
    deliver,
    files,
    is_compacted,
    pointed,
    publish,
    read_pointed,
    records,
    sink_at,
    store_of,
)

REPLACE, APPEND, MERGE = WriteMode.REPLACE, WriteMode.APPEND, WriteMode.MERGE
FORMS: list[dict[str, Any]] = [
    {},
    {"partition_by": ["formula"]},
    {"format": "jsonl"},
    {"format": "jsonl", "gzip": True, "partition_by": ["formula"]},
    {"format": "csv", "gzip": True},
    {"format": "csv", "partition_by": ["formula"]},
]
FORM_NAMES = ["parquet", "parquet by partition", "jsonl", "jsonl.gz by partition", "csv.gz", "csv by partition"]


def state_of(sink: ObjectsSink) -> list[dict[str, Any]]:
    pointer = json.loads(store_of(sink).read("samples/latest.json"))
    return [json.loads(store_of(sink).read(key)) for key in pointer["manifests"]]


def seen(sink: ObjectsSink) -> list[dict[str, Any]]:
    """Return what a reader sees, every column of it, in an order of its own."""
    return sorted(read_pointed(store_of(sink)), key=lambda row: (int(row["id"]), int(row["_run"]), int(row["_row"])))


def published(
    folder: Path, ctx: Context, *, mode: WriteMode, run_count: int = 4, shared: int = 3, **settings: Any
) -> ObjectsSink:
    """Return a sink with runs of which each shares three ids with the one before, and has as many of its own."""
    sink = sink_at(folder, **settings)
    for run_id in range(1, run_count + 1):
        rows = [{**row, "energy": run_id / 2} for row in rows_of(shared * run_id, 2 * shared)]
        publish(sink, ctx, run_id=run_id, rows=rows, mode=mode)
    return sink


@pytest.mark.parametrize("settings", FORMS, ids=FORM_NAMES)
@pytest.mark.parametrize("mode", [APPEND, MERGE])
def test_a_state_of_many_small_files_becomes_one_of_a_file_a_folder(
    tmp_path: Path, ctx: Context, settings: dict[str, Any], mode: WriteMode
) -> None:
    sink = published(tmp_path / "there", ctx, mode=mode, **settings)
    before = seen(sink)
    assert isinstance(sink, StoringSink)

    done = sink.compact("samples", ctx)

    (document,) = state_of(sink)
    assert seen(sink) == before
    assert (document["mode"], document["run"], sorted(document["covers"])) == ("replace", 4, ["1", "2", "3", "4"])
    folders = [part["path"].rpartition("/")[0] for part in document["parts"]]
    assert len(folders) == len(set(folders))
    assert len(before) == document["rows"] == (24 if mode is APPEND else 15)
    assert done.object_count >= 4
    assert done.actions


@pytest.mark.parametrize("mode", [APPEND, MERGE])
def test_a_compacted_state_is_added_to_and_compacted_again(tmp_path: Path, ctx: Context, mode: WriteMode) -> None:
    sink = published(tmp_path / "there", ctx, mode=mode)
    sink.compact("samples", ctx)

    publish(sink, ctx, run_id=5, rows=[{"id": 4, "formula": "new", "energy": 9.0}], mode=mode)
    before = seen(sink)
    between = pointed(sink)
    sink.compact("samples", ctx)

    assert between == [4, 5]
    assert pointed(sink) == [5]
    assert sorted(state_of(sink)[0]["covers"]) == ["1", "2", "3", "4", "5"]
    assert seen(sink) == before
    assert [row["formula"] for row in before if row["id"] == 4].count("new") == 1


def test_a_replacing_run_of_many_parts_is_compacted_by_itself(tmp_path: Path, ctx: Context) -> None:
    sink = sink_at(tmp_path / "there")
    parts = [store_part(ctx.lake, rows_of(10 * lane, 10), lane=lane) for lane in range(5)]
    deliver(sink, manifest_of(parts, mode=REPLACE), ctx)
    before = seen(sink)

    sink.compact("samples", ctx)
    publish(sink, ctx, run_id=8, rows=rows_of(0, 2), mode=REPLACE)

    assert pointed(sink) == [8]
    assert len(before) == 50
    assert records(read_pointed(store_of(sink))) == rows_of(0, 2)


def test_nothing_is_done_where_nothing_would_be_won(tmp_path: Path, ctx: Context) -> None:
    sink = sink_at(tmp_path / "there")
    nothing = sink.compact("samples", ctx)
    publish(sink, ctx, run_id=1, rows=rows_of(0, 3), mode=REPLACE)
    before = files(sink)

    one_file = sink.compact("samples", ctx)

    assert nothing == one_file
    assert (one_file.actions, one_file.object_count) == ((), 0)
    assert files(sink) == before


def test_what_is_compacted_already_stays_as_it_is(tmp_path: Path, ctx: Context) -> None:
    sink = published(tmp_path / "there", ctx, mode=MERGE)
    sink.compact("samples", ctx)
    before = files(sink)

    assert sink.compact("samples", ctx).actions == ()
    assert files(sink) == before


def test_a_dry_run_says_what_would_be_done_and_does_nothing(tmp_path: Path, ctx: Context) -> None:
    sink = published(tmp_path / "there", ctx, mode=MERGE)
    before = files(sink)

    said = sink.compact("samples", ctx, dry_run=True)

    assert said.is_dry_run
    assert said.object_count == 4
    assert said.size_bytes > 0
    assert said.actions == ("write 4 small files together", "merge 4 manifests, with one row a key of id")
    assert files(sink) == before


def test_large_files_stay_where_they_are_and_are_named(
    tmp_path: Path, ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = published(tmp_path / "there", ctx, mode=APPEND)
    sizes = [part["bytes"] for document in state_of(sink) for part in document["parts"]]
    monkeypatch.setattr("sinks.objects.sink.MEGABYTE", max(sizes) * 3)
    publish(
        sink, ctx, run_id=5, rows=[{"id": n, "formula": str(n) * 50, "energy": n / 7} for n in range(900)], mode=APPEND
    )
    before = seen(sink)
    small = sink_at(tmp_path / "there", compact_to_mb=1)

    small.compact("samples", ctx)

    paths = [part["path"] for part in state_of(small)[0]["parts"]]
    assert [path.split("/")[1] for path in paths] == ["5", "compacted"]
    assert seen(small) == before


def test_files_get_no_larger_than_the_target(tmp_path: Path, ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = published(tmp_path / "there", ctx, mode=APPEND, run_count=9, format="jsonl")
    size_bytes = max(part["bytes"] for document in state_of(sink) for part in document["parts"])
    monkeypatch.setattr("sinks.objects.sink.MEGABYTE", 3 * size_bytes)
    before = seen(sink)

    sink_at(tmp_path / "there", format="jsonl", compact_to_mb=1).compact("samples", ctx)

    written = [part["bytes"] for part in state_of(sink)[0]["parts"]]
    assert len(written) > 1
    assert max(written) <= 4 * size_bytes
    assert seen(sink) == before


def test_files_of_different_columns_are_not_written_together(tmp_path: Path, ctx: Context) -> None:
    for form in ("parquet", "csv"):
        sink = sink_at(tmp_path / form, format=form)
        for run_id in (1, 2, 3, 4):
            rows = rows_of(10 * run_id, 3)
            publish(sink, ctx, run_id=run_id, rows=rows, mode=APPEND)
            if run_id in (1, 2):
                widen(sink, run_id)
        before = records(read_pointed(store_of(sink)))

        sink.compact("samples", ctx)

        assert len(state_of(sink)[0]["parts"]) == 2
        assert records(read_pointed(store_of(sink))) == before
        assert sink.compact("samples", ctx).actions == ()


def widen(sink: ObjectsSink, run_id: int) -> None:
    """Give the file of a run one column more, as a run under another contract would have written it."""
    import hashlib

    import pyarrow as pa

    store, key = store_of(sink), f"samples/manifests/{run_id:08d}.json"
    document = json.loads(store.read(key))
    (part,) = document["parts"]
    path = store.root / part["path"]
    if document["format"] == "csv":
        lines = path.read_bytes().split(b"\r\n")
        path.write_bytes(b"\r\n".join([lines[0] + b",more", *(line and line + b",x" for line in lines[1:])]))
    else:
        table = pq.read_table(path)
        pq.write_table(table.append_column("more", pa.array(["x"] * table.num_rows)), path)
    content = path.read_bytes()
    part |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    store.put(key, json.dumps(document).encode())


def test_files_of_several_forms_are_left_with_the_reason(tmp_path: Path, ctx: Context) -> None:
    published(tmp_path / "there", ctx, mode=APPEND)
    sink = sink_at(tmp_path / "there", format="csv")
    publish(sink, ctx, run_id=9, rows=rows_of(90, 2), mode=APPEND)
    before = files(sink)

    said = sink.compact("samples", ctx)

    assert "more than one form" in said.actions[0]
    assert files(sink) == before
    assert len(read_pointed(store_of(sink))) == 26


def test_runs_under_several_keys_are_left_with_the_reason(tmp_path: Path, ctx: Context) -> None:
    sink = published(tmp_path / "there", ctx, mode=MERGE)
    other = ContractBody(name="samples", key=("formula",), columns=CONTRACT.columns)
    publish(sink, ctx, run_id=9, rows=rows_of(90, 2), contract=other)

    assert "more than one key" in sink.compact("samples", ctx).actions[0]


@pytest.mark.parametrize("settings", [{}, {"format": "jsonl"}, {"format": "csv"}], ids=["parquet", "jsonl", "csv"])
@pytest.mark.parametrize("partition_by", [[], ["formula"]], ids=["flat", "by partition"])
def test_a_row_that_moved_to_another_folder_leaves_none_behind(
    tmp_path: Path, ctx: Context, settings: dict[str, Any], partition_by: list[str]
) -> None:
    sink = sink_at(tmp_path / "there", partition_by=partition_by, **settings)
    awkward = [{"id": n, "formula": text, "energy": None} for n, text in enumerate(['a\r\nb"', "=c", "", "d"])]
    publish(sink, ctx, run_id=1, rows=awkward)
    publish(sink, ctx, run_id=2, rows=[{"id": 3, "formula": "=c", "energy": 0.5}])
    before = seen(sink)

    sink.compact("samples", ctx)

    assert seen(sink) == before
    assert len(before) == 4
    assert len(state_of(sink)) == 1


def test_a_key_of_several_columns_one_of_them_a_folder(tmp_path: Path, ctx: Context) -> None:
    contract = ContractBody(name="samples", key=("formula", "id"), columns=CONTRACT.columns)
    for form in ("parquet", "jsonl", "csv"):
        sink = sink_at(tmp_path / form, format=form, partition_by=["formula"])
        for run_id, formula in ((1, "Si"), (2, "Fe"), (3, "Si")):
            rows = [{"id": 1, "formula": formula, "energy": float(run_id)}]
            publish(sink, ctx, run_id=run_id, rows=rows, contract=contract)

        sink.compact("samples", ctx)

        found = read_pointed(store_of(sink))
        assert sorted((row["formula"], float(row["energy"])) for row in found) == [("Fe", 2.0), ("Si", 3.0)]


def test_keys_in_many_buckets_come_out_as_in_one(tmp_path: Path, ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "BUCKET_ROWS", 10)
    sink = sink_at(tmp_path / "there")
    publish(sink, ctx, run_id=1, rows=rows_of(0, 3000))
    for run_id in (2, 3):
        publish(sink, ctx, run_id=run_id, rows=[{**row, "energy": 9.0} for row in rows_of(1000 * run_id - 500, 1000)])
    before = seen(sink)

    sink.compact("samples", ctx)

    assert seen(sink) == before
    assert state_of(sink)[0]["rows"] == 3000 + 500


def test_a_row_group_of_a_run_that_lost_all_rows_is_no_file_any_more(tmp_path: Path, ctx: Context) -> None:
    sink = sink_at(tmp_path / "there", partition_by=["formula"])
    publish(sink, ctx, run_id=1, rows=[{"id": 1, "formula": "Si", "energy": None}])
    publish(sink, ctx, run_id=2, rows=[{"id": 1, "formula": "Fe", "energy": None}])

    sink.compact("samples", ctx)

    assert [part["partition"] for part in state_of(sink)[0]["parts"]] == [{"formula": "Fe"}]


def test_a_file_that_is_gone_is_named_and_the_state_stays(tmp_path: Path, ctx: Context) -> None:
    for mode in (APPEND, MERGE):
        sink = published(tmp_path / mode, ctx, mode=mode)
        path = state_of(sink)[2]["parts"][0]["path"]
        (tmp_path / mode / path).unlink()

        with pytest.raises(SinkRejected) as caught:
            sink.compact("samples", ctx)

        assert path in str(caught.value)
        assert "it was removed since" in str(caught.value)
        assert not is_compacted(sink)


def test_a_file_with_other_bytes_is_never_compacted(tmp_path: Path, ctx: Context) -> None:
    sink = published(tmp_path / "there", ctx, mode=APPEND, format="jsonl")
    path = tmp_path / "there" / state_of(sink)[0]["parts"][0]["path"]
    path.write_bytes(path.read_bytes().replace(b"0.5", b"9.5"))

    with pytest.raises(SinkRejected, match="other bytes"):
        sink.compact("samples", ctx)


def test_a_run_that_commits_during_a_compaction_is_added_to_it(
    tmp_path: Path, ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = published(tmp_path / "there", ctx, mode=APPEND)

    other = sink_at(tmp_path / "there")
    meanwhile(monkeypatch, lambda: publish(other, ctx, run_id=5, rows=rows_of(100, 2), mode=APPEND))

    sink.compact("samples", ctx)

    assert pointed(sink) == [4, 5]
    assert len(seen(sink)) == 26


def test_a_run_that_is_changed_during_a_compaction_makes_it_begin_anew(
    tmp_path: Path, ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = published(tmp_path / "there", ctx, mode=APPEND)
    parts = [store_part(ctx.lake, rows_of(12 + 6 * seq, 6), run_id=4, seq=seq) for seq in range(2)]
    changed = replace(manifest_of(parts, run_id=4), mode=APPEND)
    meanwhile(monkeypatch, lambda: deliver(sink_at(tmp_path / "there"), changed, ctx))

    with pytest.raises(SinkUnavailable):
        sink.compact("samples", ctx)
    between = seen(sink)
    sink.compact("samples", ctx)

    assert seen(sink) == between
    assert len(between) == 30
    assert is_compacted(sink)


def meanwhile(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Do something once, while a compaction has stored its first file and not its manifest."""
    send = compaction.send

    def sending(*args: Any, **kwargs: Any) -> None:
        send(*args, **kwargs)
        monkeypatch.setattr(compaction, "send", send)
        action()

    monkeypatch.setattr(compaction, "send", sending)


@pytest.mark.parametrize("mode", [APPEND, MERGE])
def test_killed_anywhere_a_reader_sees_the_same_rows_and_a_repetition_ends_it(
    tmp_path: Path, recording: RecordingContext, mode: WriteMode
) -> None:
    ctx = recording.context
    with recorded(tmp_path / "points") as hits:
        published(tmp_path / "dry", ctx, mode=mode, run_count=2, shared=1, partition_by=["formula"])
        begun = len(hits())
        sink_at(tmp_path / "dry", partition_by=["formula"]).compact("samples", ctx)
    points = numbered(hits()[begun:])
    assert {"objects.before_joined", "objects.before_compacted", "objects.before_pointer"} <= {
        point.partition("#")[0] for point in points
    }

    for number, at in enumerate(points):
        sink = published(tmp_path / f"there-{number}", ctx, mode=mode, run_count=2, shared=1, partition_by=["formula"])
        before = seen(sink)
        with armed(tmp_path / f"armed-{number}", at), pytest.raises(Killed):
            sink.compact("samples", ctx)
        between = seen(sink)
        sink.compact("samples", ctx)

        assert between == before, at
        assert seen(sink) == before, at
        assert is_compacted(sink), at


@contextmanager
def recorded(folder: Path) -> Iterator[Any]:
    """Note the failpoints passed; the function given back returns their names in order."""
    failpoints.arm(json.dumps({"dir": str(folder), "record": True}))
    try:
        yield lambda: (folder / "hits").read_text().split()
    finally:
        failpoints.arm("")


@contextmanager
def armed(folder: Path, at: str) -> Iterator[None]:
    """Die at a failpoint."""
    rule = {"at": at, "do": f"raise:{Killed.__module__}.{Killed.__qualname__}"}
    failpoints.arm(json.dumps({"dir": str(folder), "rules": [rule]}))
    try:
        yield
    finally:
        failpoints.arm("")


def numbered(names: list[str]) -> list[str]:
    """Return each as `<point>#<n>`."""
    return [f"{name}#{names[: place + 1].count(name)}" for place, name in enumerate(names)]

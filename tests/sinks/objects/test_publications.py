"""Which manifests are the published state, whoever published them, in whatever order, and wherever it was killed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ingestion.ports.context import Context
from ingestion.ports.errors import SinkRejected
from ingestion.ports.publication import WriteMode
from sinks.objects.publications import Publications
from sinks.objects.sink import ObjectsSink
from tests.conformance.context import MemoryLake
from tests.conformance.parts import delivery_of, manifest_of, rows_of, store_part
from tests.sinks.objects.support import deliver, files, is_compacted, pointed, publish, read_pointed, records, store_of

REPLACE, APPEND, MERGE = WriteMode.REPLACE, WriteMode.APPEND, WriteMode.MERGE


def publish_all(sink: ObjectsSink, ctx: Context, runs: list[tuple[int, WriteMode]]) -> None:
    for run_id, mode in runs:
        publish(sink, ctx, run_id=run_id, rows=rows_of(10 * run_id, 3), mode=mode)


def pointer_of(sink: ObjectsSink) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(store_of(sink).read("samples/latest.json"))
    return found


@pytest.mark.parametrize(
    ("runs", "state"),
    [
        ([(1, REPLACE)], [1]),
        ([(1, REPLACE), (2, REPLACE)], [2]),
        ([(1, APPEND), (2, APPEND), (3, APPEND)], [1, 2, 3]),
        ([(1, MERGE), (2, MERGE)], [1, 2]),
        ([(1, MERGE), (2, REPLACE), (3, MERGE), (4, MERGE)], [2, 3, 4]),
        ([(1, MERGE), (2, MERGE), (3, REPLACE)], [3]),
        # Late ones find their place by themselves.
        ([(2, REPLACE), (1, REPLACE)], [2]),
        ([(1, MERGE), (3, MERGE), (2, REPLACE)], [2, 3]),
        ([(3, REPLACE), (1, MERGE), (2, MERGE)], [3]),
        ([(1, APPEND), (3, APPEND), (2, APPEND)], [1, 2, 3]),
        ([(99_999_999, APPEND), (100_000_000, APPEND)], [99_999_999, 100_000_000]),
    ],
)
def test_the_state_begins_with_the_newest_run_that_replaces_and_goes_on_with_those_that_add(
    sink: ObjectsSink, ctx: Context, runs: list[tuple[int, WriteMode]], state: list[int]
) -> None:
    publish_all(sink, ctx, runs)

    assert pointed(sink) == state
    pointer = pointer_of(sink)
    assert (pointer["run"], pointer["manifest"]) == (state[-1], pointer["manifests"][-1])
    assert records(read_pointed(store_of(sink))) == [row for run_id in state for row in rows_of(10 * run_id, 3)]


def test_of_a_key_the_row_of_the_later_run_counts(sink: ObjectsSink, ctx: Context) -> None:
    publish(sink, ctx, run_id=1, rows=rows_of(0, 5))
    publish(sink, ctx, run_id=2, rows=[{"id": 3, "formula": "new", "energy": None}])

    found = records(read_pointed(store_of(sink)))

    assert [row["formula"] for row in found if row["id"] == 3] == ["new"]
    assert len(found) == 5


def test_a_pointer_of_the_version_before_is_understood(sink: ObjectsSink, ctx: Context) -> None:
    publish_all(sink, ctx, [(1, REPLACE), (2, MERGE)])
    old = {"manifest": "samples/manifests/00000002.json", "run": 2}
    store_of(sink).put("samples/latest.json", json.dumps(old).encode())

    publish_all(sink, ctx, [(3, MERGE)])

    assert pointed(sink) == [1, 2, 3]


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b'{"manifests": null}', b"null", b"\xff"])
def test_a_pointer_that_holds_anything_else_is_written_anew(sink: ObjectsSink, ctx: Context, text: bytes) -> None:
    publish_all(sink, ctx, [(1, MERGE)])
    store_of(sink).put("samples/latest.json", text)

    publish_all(sink, ctx, [(2, MERGE)])

    assert pointed(sink) == [1, 2]


def test_a_manifest_of_the_version_before_is_read(sink: ObjectsSink, ctx: Context) -> None:
    manifest = publish(sink, ctx, run_id=1, rows=rows_of(0, 3))
    key = "samples/manifests/00000001.json"
    document = json.loads(store_of(sink).read(key))
    del document["format"]
    store_of(sink).put(key, json.dumps({**document, "version": 1}).encode())

    assert sink.count(manifest, delivery_of(manifest), ctx) == 3
    sink.commit(manifest, delivery_of(manifest), ctx)
    assert json.loads(store_of(sink).read(key))["version"] == 2


def test_a_commit_reads_the_manifests_it_knows_not_again(
    sink: ObjectsSink, ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_all(sink, ctx, [(run_id, APPEND) for run_id in range(1, 12)])
    publications = Publications(store_of(sink), "samples", destination="x")
    read: list[str] = []
    monkeypatch.setattr(Publications, "read", reading(read))

    assert len(publications.state()) == 11

    assert len([key for key in read if "/manifests/" in key]) == 1


def reading(read: list[str]) -> Any:
    original = Publications.read

    def noted(self: Publications, key: str) -> bytes | None:
        read.append(key)
        return original(self, key)

    return noted


def complete(ctx: Context, run_id: int) -> Any:
    """Return the manifest of a run that was published in part before, now with a second part."""
    parts = [store_part(ctx.lake, rows_of(10 * run_id + 3 * seq, 3), run_id=run_id, seq=seq) for seq in range(2)]
    return replace(manifest_of(parts, run_id=run_id), mode=APPEND)


@pytest.mark.parametrize("late", [2, 3, 4], ids=["in between", "the newest, completed", "newer"])
def test_a_run_that_comes_after_a_compaction_finds_its_place_while_the_files_of_before_are_there(
    sink: ObjectsSink, ctx: Context, late: int
) -> None:
    publish_all(sink, ctx, [(1, APPEND), (3, APPEND)])
    sink.compact("samples", ctx)
    assert is_compacted(sink)
    manifest = complete(ctx, late)

    deliver(sink, manifest, ctx)
    deliver(sink, manifest, ctx)

    expected = {run_id: rows_of(10 * run_id, 3) for run_id in (1, 3)} | {late: rows_of(10 * late, 6)}
    assert records(read_pointed(store_of(sink))) == [row for run_id in sorted(expected) for row in expected[run_id]]
    assert sink.count(manifest, delivery_of(manifest), ctx) == 6
    assert is_compacted(sink) == (late == 4)


@pytest.mark.parametrize("late", [2, 3])
def test_a_run_that_comes_too_late_to_be_told_apart_is_refused_and_changes_nothing(
    sink: ObjectsSink, ctx: Context, late: int
) -> None:
    publish_all(sink, ctx, [(1, APPEND), (3, APPEND)])
    sink.compact("samples", ctx)
    forget_runs(sink)
    before = read_pointed(store_of(sink))

    with pytest.raises(SinkRejected) as caught:
        deliver(sink, complete(ctx, late), ctx)

    assert "start a new run" in str(caught.value)
    assert read_pointed(store_of(sink)) == before


def test_a_run_that_is_compacted_and_gone_can_be_committed_again(
    sink: ObjectsSink, ctx: Context, lake: MemoryLake
) -> None:
    publish_all(sink, ctx, [(1, APPEND)])
    manifest = publish(sink, ctx, run_id=3, rows=rows_of(30, 3), mode=APPEND)
    sink.compact("samples", ctx)
    forget_runs(sink)
    before = read_pointed(store_of(sink))

    deliver(sink, manifest, ctx)

    assert sink.count(manifest, delivery_of(manifest), ctx) == 3
    assert is_compacted(sink)
    assert read_pointed(store_of(sink)) == before


def test_aborting_the_newest_run_takes_its_rows_out_of_a_compaction(sink: ObjectsSink, ctx: Context) -> None:
    publish_all(sink, ctx, [(1, APPEND), (2, APPEND)])
    newest = publish(sink, ctx, run_id=3, rows=rows_of(30, 3), mode=APPEND)
    sink.compact("samples", ctx)

    sink.abort(newest, delivery_of(newest), ctx)

    assert pointed(sink) == [1, 2]
    assert records(read_pointed(store_of(sink))) == [*rows_of(10, 3), *rows_of(20, 3)]


def test_a_run_whose_files_are_gone_stays_in_its_compaction(sink: ObjectsSink, ctx: Context) -> None:
    publish_all(sink, ctx, [(1, APPEND)])
    newest = publish(sink, ctx, run_id=3, rows=rows_of(30, 3), mode=APPEND)
    sink.compact("samples", ctx)
    (Path(sink.config.url) / "samples/manifests/00000001.json").unlink()
    before = read_pointed(store_of(sink))

    sink.abort(newest, delivery_of(newest), ctx)

    assert read_pointed(store_of(sink)) == before


def forget_runs(sink: ObjectsSink) -> None:
    """Remove the manifests and files of runs, as retention does some time after a compaction."""
    for path in files(sink):
        if not path.startswith(("samples/compacted/", "samples/manifests/compacted-", "samples/latest.json")):
            (Path(sink.config.url) / path).unlink()

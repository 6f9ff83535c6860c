"""Which manifests are the published state, whoever published them, in whatever order, and wherever it was killed."""

import json
from typing import Any

import pytest

from ingestion.ports.context import Context
from ingestion.ports.sink import WriteMode
from sinks.objects.publications import Publications
from sinks.objects.sink import ObjectsSink
from tests.conformance.parts import delivery_of, rows_of
from tests.sinks.objects.support import pointed, publish, read_pointed, records, store_of

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

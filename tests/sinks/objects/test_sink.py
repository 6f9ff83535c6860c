"""Files in a folder or a bucket: complete, verified, and named by a manifest that is written last."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from ingestion.ports.context import Context
from ingestion.ports.errors import ConfigError, SinkRejected, SinkUnavailable, StoreCorrupt
from ingestion.ports.publication import Manifest
from sinks.objects.config import ObjectsConfig
from sinks.objects.documents import manifest_bytes
from sinks.objects.layout import Layout, StoredFile
from sinks.objects.sink import ObjectsSink
from tests.conformance.context import MemoryLake
from tests.conformance.parts import delivery_of, manifest_of, parquet_bytes, rows_of, store_part
from tests.servers import VersityGateway
from tests.sinks.objects.support import files, pointed, publish


def five_rows(sink: ObjectsSink, ctx: Context, *, run_id: int) -> Manifest:
    return publish(sink, ctx, run_id=run_id, rows=rows_of(run_id, 5))


def file_of(sink: ObjectsSink, manifest: Manifest) -> Path:
    """Return where the only file of the run lies."""
    part = manifest.parts[0]
    return Path(sink.config.url, f"samples/{manifest.run_id}/{part.name}-{part.sha256[:16]}.parquet")


def described(manifest: Manifest) -> bytes:
    files = [StoredFile(f"x/{part.name}", part.name, part.rows, 1, part.sha256) for part in manifest.parts]
    return manifest_bytes(manifest, files, layout=Layout())


def test_files_lie_where_the_documentation_says(sink: ObjectsSink, ctx: Context) -> None:
    manifest = five_rows(sink, ctx, run_id=7)

    sha16 = manifest.parts[0].sha256[:16]
    assert files(sink) == [
        f"samples/7/0-0-000000-{sha16}.parquet",
        "samples/latest.json",
        "samples/manifests/00000007.json",
    ]
    written = json.loads(Path(sink.config.url, "samples/manifests/00000007.json").read_text())
    assert (written["run"], written["mode"], written["rows"]) == (7, "merge", 5)
    assert written["contract"] == {"name": "samples", "version": 1, "key": ["id"], "time": None}
    assert [column["name"] for column in written["columns"]] == ["id", "formula", "energy"]
    assert written["parts"][0]["sha256"] == manifest.parts[0].sha256


def test_the_manifest_is_the_same_whatever_the_order_of_its_parts(lake: MemoryLake) -> None:
    parts = [store_part(lake, rows_of(lane, 2), lane=lane) for lane in range(12)]

    assert described(manifest_of(parts)) == described(manifest_of(parts[::-1]))
    assert [part["name"] for part in json.loads(described(manifest_of(parts[::-1])))["parts"]] == [
        f"{lane}-0-000000" for lane in range(12)
    ]


def test_an_older_run_never_moves_the_pointer_back(sink: ObjectsSink, ctx: Context) -> None:
    five_rows(sink, ctx, run_id=9)
    older = five_rows(sink, ctx, run_id=8)

    assert pointed(sink) == [8, 9]
    assert sink.count(older, delivery_of(older), ctx) == 5


def test_a_pointer_that_another_commit_moved_back_is_mended(sink: ObjectsSink, ctx: Context) -> None:
    old = five_rows(sink, ctx, run_id=8)
    pointer = Path(sink.config.url, "samples/latest.json")
    before = pointer.read_bytes()
    five_rows(sink, ctx, run_id=9)
    pointer.write_bytes(before)

    sink.commit(old, delivery_of(old), ctx)

    assert pointed(sink) == [8, 9]


def test_aborting_the_newest_publication_points_to_the_one_before(sink: ObjectsSink, ctx: Context) -> None:
    five_rows(sink, ctx, run_id=8)
    newest = five_rows(sink, ctx, run_id=9)

    sink.abort(newest, delivery_of(newest), ctx)

    assert pointed(sink) == [8]
    assert sink.count(newest, delivery_of(newest), ctx) == 0
    assert not [name for name in files(sink) if name.startswith("samples/9/")]


def test_aborting_the_only_publication_leaves_no_file(sink: ObjectsSink, ctx: Context) -> None:
    only = five_rows(sink, ctx, run_id=8)

    sink.abort(only, delivery_of(only), ctx)

    assert files(sink) == []


def test_a_superseded_publication_is_not_aborted(sink: ObjectsSink, ctx: Context) -> None:
    old = five_rows(sink, ctx, run_id=8)
    five_rows(sink, ctx, run_id=9)

    sink.abort(old, delivery_of(old), ctx)

    assert sink.count(old, delivery_of(old), ctx) == 5


def test_a_run_completed_by_a_retry_replaces_what_it_published_before(
    sink: ObjectsSink, ctx: Context, lake: MemoryLake
) -> None:
    five_rows(sink, ctx, run_id=7)
    parts = [store_part(lake, rows_of(100 * lane, 4), lane=lane) for lane in range(3)]
    manifest = manifest_of(parts)
    for part in parts:
        sink.stage(part, delivery_of(manifest), ctx)

    sink.commit(manifest, delivery_of(manifest), ctx)

    assert sink.count(manifest, delivery_of(manifest), ctx) == 12
    assert len([name for name in files(sink) if name.startswith("samples/7/")]) == 3


def test_a_commit_copies_what_a_killed_stage_left_out(sink: ObjectsSink, ctx: Context, lake: MemoryLake) -> None:
    manifest = manifest_of([store_part(lake, rows_of(0, 4)), store_part(lake, rows_of(4, 4), seq=1)])
    sink.stage(manifest.parts[0], delivery_of(manifest), ctx)

    sink.commit(manifest, delivery_of(manifest), ctx)

    assert sink.count(manifest, delivery_of(manifest), ctx) == 8


def test_a_file_that_vanished_at_the_destination_is_not_counted(sink: ObjectsSink, ctx: Context) -> None:
    manifest = five_rows(sink, ctx, run_id=7)
    file_of(sink, manifest).unlink()

    assert sink.count(manifest, delivery_of(manifest), ctx) == 0


def test_the_count_believes_the_files_and_not_the_manifest(sink: ObjectsSink, ctx: Context) -> None:
    manifest = five_rows(sink, ctx, run_id=7)
    fewer = parquet_bytes(rows_of(7, 3), run_id=7, lane=0, link=0)
    file_of(sink, manifest).write_bytes(fewer)

    assert sink.count(manifest, delivery_of(manifest), ctx) == 3


def test_a_file_that_was_damaged_at_the_destination_is_named(sink: ObjectsSink, ctx: Context) -> None:
    manifest = five_rows(sink, ctx, run_id=7)
    file_of(sink, manifest).write_bytes(b"PAR1 no more")

    with pytest.raises(SinkRejected) as caught:
        sink.count(manifest, delivery_of(manifest), ctx)

    assert file_of(sink, manifest).name in str(caught.value)


def test_a_part_that_rotted_in_the_lake_never_leaves_it(sink: ObjectsSink, ctx: Context, lake: MemoryLake) -> None:
    part = store_part(lake, rows_of(0, 4))
    lake.put(part.key, b"rotten")

    with pytest.raises(StoreCorrupt) as caught:
        sink.stage(part, delivery_of(manifest_of([part])), ctx)

    assert caught.value.values["key"] == part.key
    assert files(sink) == []


def test_a_full_disk_there_is_the_destinations_matter(
    sink: ObjectsSink, ctx: Context, lake: MemoryLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    part = store_part(lake, rows_of(0, 4))
    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(SinkUnavailable) as caught:
        sink.stage(part, delivery_of(manifest_of([part])), ctx)

    assert "under-test" in str(caught.value)
    assert "space" in str(caught.value)


def test_a_folder_that_cannot_be_written_fails_its_check_with_a_fix(tmp_path: Path, ctx: Context) -> None:
    (tmp_path / "file").write_text("in the way")

    report = ObjectsSink(ObjectsConfig(url=str(tmp_path / "file"))).check(ctx)

    assert [(finding.layer, finding.ok) for finding in report.findings] == [("write", False)]
    assert report.findings[0].code == "store.config"
    assert report.findings[0].fix


@pytest.mark.parametrize(
    ("bucket", "endpoint", "layer"),
    [
        ("no-such-bucket", None, "bucket"),
        ("bucket", "http://127.0.0.1:9", "tcp"),
        ("bucket", "http://h.invalid", "dns"),
    ],
)
def test_a_check_names_the_layer_that_fails(
    versitygw: VersityGateway, ctx: Context, bucket: str, endpoint: str | None, layer: str
) -> None:
    url = f"s3://{bucket}?endpoint={endpoint or versitygw.endpoint}"
    keys = {"access_key": SecretStr(versitygw.access_key), "secret_key": SecretStr(versitygw.secret_key)}

    report = ObjectsSink(ObjectsConfig(url=url, **keys)).check(ctx)

    assert (report.findings[-1].layer, report.findings[-1].ok) == (layer, False)
    assert report.findings[-1].fix
    assert "?" not in report.findings[-1].detail


def test_a_bucket_that_is_gone_is_a_setting_to_correct(versitygw: VersityGateway, ctx: Context) -> None:
    url = f"s3://gone-bucket?endpoint={versitygw.endpoint}"
    sink = ObjectsSink(
        ObjectsConfig(url=url, access_key=SecretStr(versitygw.access_key), secret_key=SecretStr(versitygw.secret_key))
    )
    part = store_part(ctx.lake, rows_of(0, 3))
    manifest = manifest_of([part])

    for call in (
        lambda: sink.stage(part, delivery_of(manifest), ctx),
        lambda: sink.count(manifest, delivery_of(manifest), ctx),
    ):
        with pytest.raises(ConfigError) as caught:
            call()
        assert "under-test" in str(caught.value)


def test_the_same_run_in_another_mode_is_another_manifest(lake: MemoryLake) -> None:
    manifest = manifest_of([store_part(lake, rows_of(0, 1))])

    assert described(manifest) != described(replace(manifest, contract_version=2))

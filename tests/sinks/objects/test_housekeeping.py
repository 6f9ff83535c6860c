"""Retention and dropping: what is published and what is to be kept stays, and every removal can be repeated."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from ingestion.ports.housekeeping import DroppingSink, StoringSink
from ingestion.ports.publication import WriteMode
from ingestion.toolkit.lake.opening import open_lake
from ingestion.toolkit.lake.s3 import S3Lake
from sinks.objects.config import ObjectsConfig
from sinks.objects.sink import ObjectsSink
from tests.conformance.context import RecordingContext
from tests.conformance.parts import delivery_of, manifest_of, rows_of, store_part
from tests.conformance.sink import Killed
from tests.servers import VersityGateway
from tests.sinks.objects.support import files, pointed, publish, read_pointed, records, store_of
from tests.sinks.objects.test_compaction import armed, numbered, recorded

REPLACE, APPEND, MERGE = WriteMode.REPLACE, WriteMode.APPEND, WriteMode.MERGE
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def recording(recording: RecordingContext) -> RecordingContext:
    """A context whose clock stands ten days after the first run."""
    recording.now = START + timedelta(days=10)
    return recording


def day_by_day(
    sink: ObjectsSink, recording: RecordingContext, modes: list[WriteMode], *, first_run: int = 1, first_day: int = 0
) -> None:
    """Publish a run a day, of three rows of its own."""
    for number, mode in enumerate(modes):
        before = set(files(sink))
        publish(
            sink, recording.context, run_id=first_run + number, rows=rows_of(10 * (first_run + number), 3), mode=mode
        )
        date_files(sink, set(files(sink)) - before, day=first_day + number)


def date_files(sink: ObjectsSink, paths: set[str], *, day: int) -> None:
    at = (START + timedelta(days=day)).timestamp()
    for path in paths:
        os.utime(Path(sink.config.url) / path, (at, at))


def compact(sink: ObjectsSink, recording: RecordingContext, *, day: int) -> None:
    before = set(files(sink))
    sink.compact("samples", recording.context)
    date_files(sink, set(files(sink)) - before, day=day)


def runs_there(sink: ObjectsSink) -> list[int]:
    """Return the runs whose manifests are there, each with all its files and no other of theirs."""
    root = Path(sink.config.url)
    found = [path for path in files(sink) if path.startswith("samples/manifests/0")]
    runs = [int(Path(path).stem) for path in found]
    for path in found:
        for part in json.loads((root / path).read_text())["parts"]:
            assert (root / part["path"]).is_file()
    folders = {path.split("/")[1] for path in files(sink) if path.endswith(".parquet")} - {"compacted"}
    assert folders == {str(run) for run in runs}
    return runs


def retain(sink: ObjectsSink, recording: RecordingContext, **rules: Any) -> Any:
    assert isinstance(sink, StoringSink)
    return sink.retain("samples", recording.context, **{"keep_runs": None, "keep_days": None, **rules})


@pytest.mark.parametrize(
    ("modes", "rules", "left"),
    [
        ([REPLACE] * 5, {"keep_runs": 2}, [4, 5]),
        ([REPLACE] * 5, {"keep_runs": 0}, [5]),
        ([REPLACE] * 5, {"keep_runs": 99}, [1, 2, 3, 4, 5]),
        ([REPLACE] * 5, {}, [1, 2, 3, 4, 5]),
        # Day 0 to 4, looked at on day 10.
        ([REPLACE] * 5, {"keep_days": 8}, [3, 4, 5]),
        ([REPLACE] * 5, {"keep_days": 0}, [5]),
        ([REPLACE] * 5, {"keep_runs": 4, "keep_days": 1}, [2, 3, 4, 5]),
        ([APPEND] * 5, {"keep_runs": 1}, [1, 2, 3, 4, 5]),
        ([MERGE, REPLACE, MERGE, MERGE], {"keep_runs": 1}, [2, 3, 4]),
        ([MERGE, MERGE, REPLACE], {"keep_runs": 1}, [3]),
    ],
)
def test_what_is_published_or_to_be_kept_stays(
    sink: ObjectsSink, recording: RecordingContext, modes: list[WriteMode], rules: dict[str, int], left: list[int]
) -> None:
    day_by_day(sink, recording, modes)
    before = records(read_pointed(store_of(sink)))

    planned = retain(sink, recording, **rules, dry_run=True)
    untouched = runs_there(sink)
    done = retain(sink, recording, **rules)

    assert untouched == list(range(1, len(modes) + 1))
    assert runs_there(sink) == left
    assert records(read_pointed(store_of(sink))) == before
    # A manifest and a file a run.
    assert done.object_count == planned.object_count == 2 * (len(modes) - len(left))
    assert done.size_bytes == planned.size_bytes
    assert (planned.is_dry_run, done.is_dry_run) == (True, False)
    assert len(done.actions) == len(planned.actions) == len(modes) - len(left)
    assert all(action.startswith("removed run ") for action in done.actions)
    assert all(action.startswith("remove run ") for action in planned.actions)


def test_what_was_replaced_a_moment_ago_may_still_be_read(sink: ObjectsSink, recording: RecordingContext) -> None:
    day_by_day(sink, recording, [REPLACE, REPLACE])
    day_by_day(sink, recording, [REPLACE], first_run=3, first_day=10)
    recording.now = START + timedelta(days=10, hours=23)

    retain(sink, recording, keep_runs=1)
    within = runs_there(sink)
    recording.now += timedelta(hours=2)
    retain(sink, recording, keep_runs=1)

    assert within == [2, 3]
    assert runs_there(sink) == [3]


def test_what_a_pointer_names_that_a_killed_commit_did_not_move_stays(
    sink: ObjectsSink, recording: RecordingContext
) -> None:
    day_by_day(sink, recording, [REPLACE])
    pointer = store_of(sink).read("samples/latest.json")
    day_by_day(sink, recording, [REPLACE], first_run=2, first_day=1)
    store_of(sink).put("samples/latest.json", pointer)

    retain(sink, recording, keep_runs=0)

    assert records(read_pointed(store_of(sink))) == rows_of(10, 3)


@pytest.mark.parametrize("mode", [APPEND, MERGE])
def test_the_files_of_before_a_compaction_go_after_the_grace(
    sink: ObjectsSink, recording: RecordingContext, mode: WriteMode
) -> None:
    day_by_day(sink, recording, [mode] * 4)
    before = records(read_pointed(store_of(sink)))
    compact(sink, recording, day=5)
    recording.now = START + timedelta(days=5, hours=12)
    retain(sink, recording, keep_runs=1)
    within = runs_there(sink)
    recording.now = START + timedelta(days=6, hours=12)

    retain(sink, recording, keep_runs=1)

    assert within == [1, 2, 3, 4]
    assert runs_there(sink) == [4]
    assert records(read_pointed(store_of(sink))) == before


def test_an_earlier_compaction_goes_when_a_later_one_stands_for_it(
    sink: ObjectsSink, recording: RecordingContext
) -> None:
    day_by_day(sink, recording, [APPEND] * 2)
    compact(sink, recording, day=2)
    day_by_day(sink, recording, [APPEND] * 2, first_run=3, first_day=3)
    compact(sink, recording, day=5)
    before = records(read_pointed(store_of(sink)))

    done = retain(sink, recording, keep_runs=0)

    assert [path for path in files(sink) if "/manifests/" in path] == ["samples/manifests/compacted-00000004-0001.json"]
    assert len([path for path in files(sink) if path.endswith(".parquet")]) == 1
    assert any(action.startswith("removed the compaction up to run 2") for action in done.actions)
    assert records(read_pointed(store_of(sink))) == before


def test_a_large_file_that_a_compaction_names_stays_with_it(
    sink: ObjectsSink, recording: RecordingContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    day_by_day(sink, recording, [APPEND] * 3)
    publish(
        sink,
        recording.context,
        run_id=4,
        rows=[{"id": n, "formula": str(n) * 9, "energy": n / 7} for n in range(999)],
        mode=APPEND,
    )
    monkeypatch.setattr("sinks.objects.sink.MEGABYTE", 50)
    compact(sink, recording, day=5)
    before = records(read_pointed(store_of(sink)))

    retain(sink, recording, keep_runs=0)

    assert records(read_pointed(store_of(sink))) == before
    assert [path for path in files(sink) if path.startswith("samples/4/")]


def test_leftovers_that_no_manifest_names_go_and_what_is_not_ours_stays(
    sink: ObjectsSink, recording: RecordingContext
) -> None:
    day_by_day(sink, recording, [REPLACE])
    left = store_part(recording.lake, rows_of(0, 2), run_id=9)
    sink.stage(left, delivery_of(manifest_of([left], run_id=9)), recording.context)
    store_of(sink).put("samples/README.md", b"ours")
    store_of(sink).put("other/1/0-0-000000-0123456789abcdef.parquet", b"another pipeline's")
    store_of(sink).put("samples2/1/0-0-000000-0123456789abcdef.parquet", b"another pipeline's")
    before = set(files(sink))
    (orphan,) = [path for path in before if path.startswith("samples/9/")]
    date_files(sink, {orphan}, day=9)
    recording.now = START + timedelta(days=9, hours=12)
    retain(sink, recording)
    young = set(files(sink))
    recording.now += timedelta(days=1)

    done = retain(sink, recording)

    assert young == before
    assert before - set(files(sink)) == {orphan}
    assert done.actions == (f"removed {orphan}, which no manifest names",)


def test_a_killed_retention_is_ended_by_the_next(
    sink: ObjectsSink, recording: RecordingContext, tmp_path: Path
) -> None:
    day_by_day(sink, recording, [REPLACE] * 3)
    with recorded(tmp_path / "points") as hits:
        retain(sink, recording, keep_runs=1)
        points = numbered(hits())

    for number, at in enumerate(points):
        retained = ObjectsSink(ObjectsConfig(url=str(tmp_path / f"there-{number}")))
        day_by_day(retained, recording, [REPLACE] * 3)
        before = records(read_pointed(store_of(retained)))
        with armed(tmp_path / f"armed-{number}", at), pytest.raises(Killed):
            retain(retained, recording, keep_runs=1)
        between = records(read_pointed(store_of(retained)))
        retain(retained, recording, keep_runs=1)

        assert between == before == records(read_pointed(store_of(retained))), at
        assert runs_there(retained) == [3], at


def test_dropping_removes_all_of_the_pipeline_and_nothing_else(sink: ObjectsSink, recording: RecordingContext) -> None:
    day_by_day(sink, recording, [APPEND] * 2)
    compact(sink, recording, day=3)
    store_of(sink).put("samples/README.md", b"ours")
    store_of(sink).put("samples2/latest.json", b"{}")
    before = files(sink)
    assert isinstance(sink, DroppingSink)

    planned = sink.drop("samples", recording.context, dry_run=True)
    untouched = files(sink)
    done = sink.drop("samples", recording.context)
    again = sink.drop("samples", recording.context)

    assert untouched == before
    assert files(sink) == ["samples/README.md", "samples2/latest.json"]
    assert done.object_count == planned.object_count == len(before) - 2
    assert done.actions[0].startswith("removed 3 manifests and 3 files")
    assert (again.actions, again.object_count) == ((), 0)


def test_a_drop_begins_with_the_pointer_and_can_be_killed_anywhere(
    sink: ObjectsSink, recording: RecordingContext, tmp_path: Path
) -> None:
    day_by_day(sink, recording, [APPEND] * 2)
    with recorded(tmp_path / "points") as hits:
        sink.drop("samples", recording.context)
        points = numbered(hits())

    for number, at in enumerate(points):
        dropped = ObjectsSink(ObjectsConfig(url=str(tmp_path / f"there-{number}")))
        day_by_day(dropped, recording, [APPEND] * 2)
        with armed(tmp_path / f"armed-{number}", at), pytest.raises(Killed):
            dropped.drop("samples", recording.context)
        has_pointer = (Path(dropped.config.url) / "samples/latest.json").exists()
        dropped.drop("samples", recording.context)

        assert not has_pointer, at
        assert files(dropped) == [], at


def test_a_pipeline_that_was_dropped_begins_anew(sink: ObjectsSink, recording: RecordingContext) -> None:
    day_by_day(sink, recording, [APPEND] * 2)
    sink.drop("samples", recording.context)

    day_by_day(sink, recording, [APPEND], first_run=3)

    assert pointed(sink) == [3]


def test_nothing_there_is_nothing_to_do(sink: ObjectsSink, recording: RecordingContext) -> None:
    for done in (retain(sink, recording, keep_runs=1), sink.drop("samples", recording.context)):
        assert (done.actions, done.object_count, done.size_bytes) == ((), 0, 0)


def test_uploads_that_were_abandoned_a_day_ago_are_removed_from_a_bucket(
    versitygw: VersityGateway, recording: RecordingContext
) -> None:
    bucket = f"housekeeping-{os.getpid()}"
    versitygw.create_bucket(bucket)
    url = f"s3://{bucket}/p?endpoint={versitygw.endpoint}&region={versitygw.region}"
    keys = {"access_key": versitygw.access_key, "secret_key": versitygw.secret_key}
    sink = ObjectsSink(ObjectsConfig(url=url, **{name: SecretStr(value) for name, value in keys.items()}))
    store = open_lake(url, **keys)
    assert isinstance(store, S3Lake)
    for pipeline in ("samples", "samples2"):
        store.start_upload(f"{pipeline}/7/0-0-000000-0123456789abcdef.parquet", sha256=None).add(b"half")

    recording.now = datetime.now(UTC)
    fresh = retain(sink, recording)
    recording.now += timedelta(days=1, minutes=1)
    planned = retain(sink, recording, dry_run=True)
    done = retain(sink, recording)

    assert fresh.actions == ()
    assert planned.actions == ("abort 1 unfinished uploads",)
    assert done.actions == ("aborted 1 unfinished uploads",)
    assert store.abort_stale_uploads(recording.now) == 1


def test_a_bucket_is_compacted_retained_and_dropped_like_a_folder(
    versitygw: VersityGateway, recording: RecordingContext
) -> None:
    bucket = f"housekeeping-all-{os.getpid()}"
    versitygw.create_bucket(bucket)
    url = f"s3://{bucket}/p?endpoint={versitygw.endpoint}&region={versitygw.region}"
    keys = {"access_key": versitygw.access_key, "secret_key": versitygw.secret_key}
    sink = ObjectsSink(ObjectsConfig(url=url, **{name: SecretStr(value) for name, value in keys.items()}))
    store = open_lake(url, **keys)
    for run_id in (1, 2, 3):
        publish(sink, recording.context, run_id=run_id, rows=rows_of(2 * run_id, 4))
    before = records(read_pointed(store))

    sink.compact("samples", recording.context)
    compacted = records(read_pointed(store))
    recording.now = datetime.now(UTC) + timedelta(days=2)
    retain(sink, recording, keep_runs=0)
    retained = records(read_pointed(store))
    keys_left = [info.key for info in store.list("samples/")]
    sink.drop("samples", recording.context)

    assert before == compacted == retained == rows_of(2, 8)
    assert len(keys_left) == 3
    assert list(store.list("")) == []

"""Rows that are written for Druid to read: once, found again after a kill, written anew where it was lost, removed at the end."""

import gzip
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from ingestion.ports.context import ObjectInfo
from ingestion.ports.errors import AuthError, ConfigError, SinkRejected, SinkUnavailable, StoreCorrupt
from ingestion.ports.publication import WriteMode
from ingestion.ports.schema import Column, ColumnType, ContractBody
from ingestion.toolkit import failpoints
from ingestion.toolkit.lake.destination import as_destination
from sinks.druid.config import DruidConfig, InputKind
from sinks.druid.input_source import Input
from sinks.druid.staging import INLINE_BYTES, Staging, StagingStore
from tests.conformance.context import MemoryLake
from tests.fakes.druid import FakeDruid
from tests.servers import Moto, VersityGateway
from tests.sinks.druid.support import KEYLESS, PIPELINE, Bench, day

ROWS = [{"id": number, "name": "Si", "at": day(1 + number % 3)} for number in range(9)]
APPEND, MERGE, REPLACE = WriteMode.APPEND, WriteMode.MERGE, WriteMode.REPLACE
JSON_BY_FILE = Input(InputKind.LOCAL, "json", "")


class Killed(BaseException):
    """The process ends here."""


def staging_of(bench: Bench, *, found: Input = JSON_BY_FILE, **settings: Any) -> Staging:
    manifest = bench.manifest(1, mode=REPLACE)
    config = DruidConfig(**{**bench.settings, **settings})
    return Staging(config, bench.ctx, delivery=bench.view(manifest), find_input=lambda: found)


def kill_at(folder: Path, point: str) -> None:
    rule = {"at": f"{point}#1", "do": f"raise:{Killed.__module__}.{Killed.__qualname__}"}
    failpoints.arm(json.dumps({"dir": str(folder), "rules": [rule]}))


@pytest.fixture(autouse=True)
def disarm() -> Any:
    yield
    failpoints.arm("")


# writing once


def test_rows_are_written_once_and_noted(local: Bench) -> None:
    part = local.part(1, ROWS, contract=KEYLESS)
    staging = staging_of(local)
    for _ in range(2):
        staging_of(local).prepare(part, with_rows=True)

    stats = staging.stats(part)
    found = staging.staged_rows(part, stats, staging.columns([stats]))

    lines = gzip.decompress(local.lake.read(found.key)).splitlines()
    assert [json.loads(line)["id"] for line in lines] == list(range(9))
    assert (found.rows, found.size_bytes) == (9, local.lake.head(found.key).size_bytes)
    assert len(local.staged()) == 2


@pytest.mark.parametrize("point", ["druid.rows_written", "druid.rows_noted"])
@pytest.mark.parametrize("mode", [APPEND, REPLACE])
def test_killed_between_any_two_writes_a_repetition_brings_the_same(
    local: Bench, tmp_path: Path, point: str, mode: WriteMode
) -> None:
    manifest = local.manifest(1, ROWS, mode=mode)
    kill_at(tmp_path / "points", point)
    with pytest.raises(Killed):
        local.stage(manifest, local.view(manifest))

    outcome = local.deliver(manifest)

    assert outcome.receipt == (9, 0, 0)
    assert local.staged() == []


@pytest.mark.parametrize("point", ["druid.staged_rows", "druid.planned", "druid.before_post", "druid.after_post"])
def test_a_merge_that_is_killed_brings_the_same(local: Bench, tmp_path: Path, point: str) -> None:
    local.publish(1, ROWS)
    manifest = local.manifest(2, [{**ROWS[0], "name": "Ge"}])
    kill_at(tmp_path / "points", point)
    with pytest.raises(Killed):
        local.deliver(manifest)

    outcome = local.deliver(manifest)

    assert outcome.receipt == (0, 1, 0)
    assert len(local.ids()) == 9
    assert len({task["id"] for task in local.tasks()}) == 2


def test_what_was_written_and_not_noted_is_written_anew_whatever_it_holds(local: Bench) -> None:
    part = local.part(1, ROWS, contract=KEYLESS)
    staging = staging_of(local)
    staging.prepare(part, with_rows=True)
    stats = staging.stats(part)
    found = staging.staged_rows(part, stats, staging.columns([stats]))
    local.lake.delete(found.key.replace(".json.gz", ".object.json"))
    local.lake.put(found.key, b"torn")

    again = staging_of(local).staged_rows(part, stats, staging.columns([stats]))

    assert again == found
    assert local.lake.head(found.key).size_bytes == found.size_bytes


@pytest.mark.parametrize("is_torn", [True, False])
def test_what_was_noted_and_is_lost_is_written_anew(local: Bench, is_torn: bool) -> None:
    manifest = local.manifest(1, ROWS, mode=REPLACE)
    local.stage(manifest, local.view(manifest))
    key = next(key for key in local.staged() if key.endswith(".json.gz"))
    local.lake.delete(key)
    if is_torn:
        local.lake.put(key, b"torn")

    outcome = local.deliver(manifest, goes_on=True)

    assert outcome.receipt == (9, 0, 0)


def test_rows_of_a_merge_that_were_lost_are_decided_anew(local: Bench) -> None:
    local.publish(1, ROWS)
    manifest = local.manifest(2, [{**ROWS[0], "name": "Ge"}])
    view = local.deliver(manifest, until=lambda found: "task" in found.refs).delivery
    for key in local.staged():
        local.lake.delete(key)

    outcome = local.deliver(manifest, view, goes_on=True)

    assert outcome.receipt == (0, 1, 0)
    assert local.tasks()[-1]["id"] == "hg.samples.2.102.a2"
    assert [task["id"] for task in local.tasks("noop")] == ["hg.samples.2.102.a1"]


def test_a_part_that_makes_a_column_text_makes_it_text_in_all_parts(local: Bench) -> None:
    parts = [
        local.part(1, [{"id": 1, "mixed": True}], lane=0, contract=KEYLESS),
        local.part(1, [{"id": 2, "mixed": "maybe"}], lane=1, contract=KEYLESS),
    ]

    local.deliver(local.manifest(1, *parts, mode=REPLACE))

    assert local.rows("id", "mixed") == [(1, "true"), (2, "maybe")]


# looking up


def test_an_object_that_is_not_there_is_found_out_before_the_task_is_made(local: Bench) -> None:
    staging = staging_of(local)
    found = staging.staged_blocks("rows", [b"x"], rows=1)
    local.lake.delete(found.key)

    with pytest.raises(StoreCorrupt) as raised:
        staging.look_up([found], is_clean=False)

    assert raised.value.code == "store.missing"


@pytest.mark.parametrize("change", [{"size_bytes": 7}, {"sha256": "0" * 64}])
def test_an_object_of_other_bytes_is_found_out(bench: Bench, change: dict[str, Any]) -> None:
    staging = staging_of(bench)
    found = staging.staged_blocks("rows", [b"x"], rows=1)

    with pytest.raises(StoreCorrupt) as raised:
        staging.look_up([replace(found, **change)], is_clean=False)

    assert raised.value.code == "store.corrupt"


def test_a_store_that_knows_no_hash_is_believed_by_size(druid: FakeDruid, tmp_path: Path) -> None:
    class Plain(MemoryLake):
        def head(self, key: str) -> ObjectInfo | None:
            found = super().head(key)
            return None if found is None else replace(found, sha256=None)

    staging = staging_of(Bench(druid, tmp_path, lake=Plain()))

    staging.look_up([staging.staged_blocks("rows", [b"x"], rows=1)], is_clean=False)


# inside the task


def test_rows_beyond_a_megabyte_cannot_travel_inside_a_task(bench: Bench) -> None:
    rows = [{"id": number, "name": "x" * 1000} for number in range(INLINE_BYTES // 1000)]

    for mode in WriteMode:
        outcome = bench.publish(1, rows, mode=mode)
        assert outcome.code == "sink.too_large_inline"
        assert "staging" in str(outcome.error)
    assert bench.tasks() == []


def test_rows_below_it_can(bench: Bench) -> None:
    rows = [{"id": number, "name": "x" * 1000} for number in range(INLINE_BYTES // 2000)]

    assert bench.publish(1, rows, mode=REPLACE).receipt == (len(rows), 0, 0)


# in a bucket of its own


@pytest.fixture
def bucket(versitygw: VersityGateway, tmp_path: Path) -> dict[str, Any]:
    """Settings of a staging bucket."""
    name = f"druid-{os.getpid()}-{abs(hash(str(tmp_path))) % 10**9}"
    return {
        "staging": f"{versitygw.create_bucket(name)}".replace("s3://" + name, f"s3://{name}/rows"),
        "staging_access_key": versitygw.access_key,
        "staging_secret_key": versitygw.secret_key,
    }


@pytest.fixture
def signed(druid: FakeDruid, tmp_path: Path, bucket: dict[str, Any]) -> Bench:
    """A bench whose rows go by signed addresses."""
    return Bench(druid, tmp_path, lake=MemoryLake(), **bucket)


@pytest.mark.parametrize("mode", list(WriteMode))
def test_rows_go_by_signed_addresses(signed: Bench, mode: WriteMode) -> None:
    outcome = signed.publish(1, ROWS[:4], ROWS[4:], mode=mode)

    assert outcome.receipt == (9, 0, 0)
    source = signed.tasks()[0]["spec"]["ioConfig"]["inputSource"]
    assert source["type"] == "http"
    assert all(".json.gz?" in uri and "X-Amz-Signature" in uri for uri in source["uris"])
    assert f"X-Amz-Expires={3600 + 900}" in source["uris"][0]


def test_nothing_stays_in_the_bucket(signed: Bench) -> None:
    signed.publish(1, ROWS, mode=REPLACE)

    assert list(staging_of(signed).store.list("")) == []
    assert signed.staged() == []


def test_another_key_signs_and_looks_up(signed: Bench, versitygw: VersityGateway) -> None:
    signed.settings |= {"read_access_key": versitygw.access_key, "read_secret_key": versitygw.secret_key}

    assert signed.publish(1, ROWS, mode=REPLACE).receipt == (9, 0, 0)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"staging_secret_key": "wrong"}, "sink.auth"),
        ({"read_access_key": "nobody", "read_secret_key": "wrong"}, "sink.auth"),
    ],
)
def test_wrong_keys_of_the_bucket_are_the_destination_s_and_found_before_the_task(
    signed: Bench, changes: dict[str, Any], code: str
) -> None:
    signed.settings |= changes

    outcome_code = ""
    try:
        outcome_code = signed.publish(1, ROWS, mode=REPLACE).code
    except AuthError as error:
        outcome_code = error.code

    assert outcome_code == code
    assert signed.tasks() == []


def test_a_missing_bucket_is_a_setting_of_the_destination(signed: Bench, versitygw: VersityGateway) -> None:
    signed.settings["staging"] = f"s3://nowhere-at-all?endpoint={versitygw.endpoint}"

    with pytest.raises(ConfigError) as raised:
        signed.publish(1, ROWS, mode=REPLACE)

    assert raised.value.code == "config.invalid"
    assert "staging store" in str(raised.value)


# Parquet by the S3 extension


@pytest.fixture
def s3(moto: Moto) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=moto.endpoint,
        region_name=moto.region,
        aws_access_key_id=moto.access_key,
        aws_secret_access_key=moto.secret_key,
        config=Config(s3={"addressing_style": "path"}),
    )


def in_a_bucket(druid: FakeDruid, moto: Moto, tmp_path: Path, name: str, **settings: Any) -> Bench:
    from ingestion.toolkit.lake.opening import open_lake

    url = moto.create_bucket(name).replace("s3://" + name, f"s3://{name}/lake")
    lake = open_lake(url, access_key=moto.access_key, secret_key=moto.secret_key)
    return Bench(druid, tmp_path, lake=lake, **settings)


@pytest.mark.parametrize(("extensions", "form"), [(["s3", "parquet"], "parquet"), (["s3"], "json")])
def test_druid_reads_the_bucket_itself_where_it_has_the_extensions(
    moto: Moto, s3: Any, tmp_path: Path, extensions: list[str], form: str
) -> None:
    with FakeDruid(extensions=extensions, s3=s3) as druid:
        bench = in_a_bucket(druid, moto, tmp_path, f"druid-{form}")
        first = bench.publish(1, ROWS[:4], ROWS[4:], mode=REPLACE)
        added = bench.publish(2, [{"id": 50, "at": None}], mode=APPEND)
        merged = bench.publish(3, [{**ROWS[0], "name": "Ge"}, {"id": 51, "at": day(9)}])

        assert (first.receipt, added.receipt) == ((9, 0, 0), (1, 0, 0))
        assert merged.receipt == (1, 1, 0)
        spec = bench.tasks()[0]["spec"]["ioConfig"]
        assert (spec["inputSource"]["type"], spec["inputFormat"]["type"]) == ("s3", form)
        paths = [item["path"] for item in spec["inputSource"]["objects"]]
        assert all(path.startswith("lake/staged/") is (form == "json") for path in paths)
        assert bench.tasks()[2]["spec"]["ioConfig"]["inputFormat"] == {"type": "json"}
        assert len(druid.rows(PIPELINE)) == 11


def test_parts_that_parquet_would_change_go_as_json_lines(moto: Moto, s3: Any, tmp_path: Path) -> None:
    import pyarrow as pa

    from ingestion.ports.batch import RUN
    from tests.sinks.druid.support import put_part, table_of

    with FakeDruid(extensions=["s3", "parquet"], s3=s3) as druid:
        bench = in_a_bucket(druid, moto, tmp_path, "druid-uint64")
        table = table_of([{"id": 1}], KEYLESS, run_id=1, part="0-0").append_column(
            "big", pa.array([2**64 - 1], pa.uint64())
        )
        part = put_part(bench.lake, table, run_id=1)

        outcome = bench.deliver(bench.manifest(1, part, mode=REPLACE))

        assert RUN in table.column_names
        assert outcome.receipt == (1, 0, 0)
        assert bench.rows("big") == [("18446744073709551615",)]
        assert bench.tasks()[0]["spec"]["ioConfig"]["inputFormat"] == {"type": "json"}


def test_parquet_on_a_shared_disk_is_read_as_it_is(tmp_path: Path) -> None:
    columns = (
        *KEYLESS.columns,
        Column(name="cell", type=ColumnType.OBJECT),
        Column(name="ok", type=ColumnType.BOOLEAN),
    )
    contract = ContractBody(name="samples", columns=columns, time="at")
    rows = [{**row, "cell": '{"a":[1]}', "ok": bool(row["id"] % 2)} for row in ROWS]
    with FakeDruid(extensions=["parquet"]) as druid:
        bench = Bench(druid, tmp_path, shares_disk=True)

        outcome = bench.publish(1, rows, mode=REPLACE, contract=contract)

        assert outcome.receipt == (9, 0, 0)
        assert bench.tasks()[0]["spec"]["ioConfig"]["inputFormat"] == {"type": "parquet"}
        assert bench.rows("id", "cell", "ok")[1] == (1, {"a": [1]}, 1)


def test_keys_that_druid_s_machines_hold_are_named_and_never_sent(moto: Moto, s3: Any, tmp_path: Path) -> None:
    with FakeDruid(extensions=["s3", "parquet"], s3=s3) as druid:
        bench = in_a_bucket(
            druid, moto, tmp_path, "druid-variables", s3_key_variable="LAKE_KEY", s3_secret_variable="LAKE_SECRET"
        )

        bench.publish(1, ROWS, mode=REPLACE)

        source = bench.tasks()[0]["spec"]["ioConfig"]["inputSource"]
        assert source["properties"]["accessKeyId"] == {"type": "environment", "variable": "LAKE_KEY"}
        assert source["endpointConfig"] == {"url": moto.endpoint, "signingRegion": moto.region}
        assert source["clientConfig"] == {
            "enablePathStyleAccess": True,
            "disableChunkedEncoding": True,
            "protocol": "http",
        }
        assert moto.secret_key not in json.dumps(bench.tasks())


# the store's errors


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (AuthError("store.auth", detail="403"), AuthError, "sink.auth"),
        (SinkUnavailable("store.unavailable", detail="503"), SinkUnavailable, "sink.unavailable"),
        (SinkUnavailable("store.no_space"), SinkUnavailable, "sink.unavailable"),
        (ConfigError("store.config", detail="NoSuchBucket"), ConfigError, "config.invalid"),
        (StoreCorrupt("store.conflict", key="k"), SinkRejected, "sink.rejected"),
        (SinkRejected("sink.rejected", destination="d", detail="x"), SinkRejected, "sink.rejected"),
    ],
)
def test_the_staging_store_s_errors_are_the_destination_s(error: Any, kind: type[Exception], code: str) -> None:
    with pytest.raises(kind) as raised, as_destination("druid", part="staging store"):
        raise error

    assert raised.value.code == code  # type: ignore[attr-defined]
    assert "staging store" in str(raised.value) or error.code == code
    assert "{" not in str(raised.value)


def test_every_call_of_the_staging_store_gives_them() -> None:
    class Refusing:
        def __getattr__(self, name: str) -> Any:
            def refuse(*_: Any, **__: Any) -> Any:
                raise AuthError("store.auth", detail="403")

            return refuse

    store = StagingStore(Refusing(), destination="druid")  # type: ignore[arg-type]
    calls = [
        lambda: store.put("k", b""),
        lambda: store.put_if_absent("k", b""),
        lambda: store.writer("k"),
        lambda: store.open("k"),
        lambda: store.read("k"),
        lambda: store.head("k"),
        lambda: list(store.list("k")),
        lambda: store.delete("k"),
        lambda: store.presign("k", expires_s=1),
    ]

    for call in calls:
        with pytest.raises(AuthError) as raised:
            call()
        assert raised.value.code == "sink.auth"

"""The fake Druid with the extensions that could not be recorded: S3, Parquet, loading by SQL."""

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import boto3
import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.config import Config

from tests.fakes.druid import FakeDruid
from tests.fakes.druid_specs import inline, lines, task
from tests.servers import Moto

CLIENT = httpx.Client()
TASK = "/druid/indexer/v1/task"
DAY = ["2001-01-01/2001-01-02"]
TIMESTAMP = datetime(2001, 1, 1, 6, tzinfo=UTC)
MILLIS = 978328800000


@pytest.fixture(scope="module")
def s3(moto: Moto) -> Any:
    client = boto3.client(
        "s3",
        endpoint_url=moto.endpoint,
        region_name=moto.region,
        aws_access_key_id=moto.access_key,
        aws_secret_access_key=moto.secret_key,
        config=Config(s3={"addressing_style": "path"}),
    )
    client.create_bucket(Bucket="fake-druid")
    return client


@pytest.fixture
def druid(s3: Any) -> Iterator[FakeDruid]:
    with FakeDruid(extensions=["s3", "parquet", "msq"], s3=s3) as running:
        yield running


def put(s3: Any, key: str, content: bytes) -> dict[str, Any]:
    s3.put_object(Bucket="fake-druid", Key=key, Body=content)
    return {"type": "s3", "objects": [{"bucket": "fake-druid", "path": key}]}


def parquet(**columns: Any) -> bytes:
    target = io.BytesIO()
    pq.write_table(pa.table(dict(columns)), target)
    return target.getvalue()


def load(druid: FakeDruid, spec: dict[str, Any]) -> str:
    CLIENT.post(f"{druid.url}{TASK}", json=spec).raise_for_status()
    return druid.await_task(spec["id"])


def sql(druid: FakeDruid, query: str) -> Any:
    return CLIENT.post(f"{druid.url}/druid/v2/sql", json={"query": query}).json()


def run(druid: FakeDruid, query: str, source: str, name: str = "s1", **context: Any) -> str:
    """Run a statement to its end; `$rows` in it stands for the source."""
    body = {"query": query.replace("$rows", source), "context": {"sqlQueryId": name, **context}}
    reply = CLIENT.post(f"{druid.url}/druid/v2/sql/task", json=body)
    assert (reply.status_code, reply.json()) == (202, {"taskId": f"query-{name}", "state": "RUNNING"})
    return druid.await_task(f"query-{name}")


def report(druid: FakeDruid, name: str = "s1") -> dict[str, Any]:
    found: dict[str, Any] = CLIENT.get(f"{druid.url}{TASK}/query-{name}/reports").json()["multiStageQuery"]["payload"]
    return found


def extern(source: dict[str, Any], columns: str, form: str = "json") -> str:
    return f"TABLE(EXTERN('{json.dumps(source)}', '{json.dumps({'type': form})}')) EXTEND ({columns})"


def test_the_status_lists_the_modules_of_the_extensions(druid: FakeDruid) -> None:
    modules = CLIENT.get(f"{druid.url}/status").json()["modules"]

    artifacts = {each["artifact"] for each in modules}
    assert {"druid-s3-extensions", "druid-parquet-extensions", "druid-multi-stage-query"} <= artifacts


def test_parquet_objects_are_loaded_with_their_types(druid: FakeDruid, s3: Any) -> None:
    content = parquet(
        at=pa.array([TIMESTAMP], pa.timestamp("ms", tz="UTC")),
        name=pa.array(["a"]),
        flag=pa.array([True]),
        sizes=pa.array([[1.5, 2.0]]),
        cell=pa.array([{"a": 1}]),
    )
    dimensions = [
        "name",
        {"type": "long", "name": "flag"},
        {"type": "auto", "name": "sizes"},
        {"type": "json", "name": "cell"},
    ]
    spec = task(
        *("typed", "p1", put(s3, "typed.parquet", content)),
        dimensions=dimensions,
        timestamp={"column": "at", "format": "millis"},
        input_format={"type": "parquet"},
        intervals=DAY,
    )

    assert load(druid, spec) == "SUCCESS"

    stored = {"__time": MILLIS, "name": "a", "flag": 1, "sizes": [1.5, 2.0], "cell": {"a": 1}}
    assert druid.rows("typed") == [stored]


def test_nanoseconds_come_through_as_a_number_a_million_times_too_large(druid: FakeDruid, s3: Any) -> None:
    content = parquet(at=pa.array([TIMESTAMP], pa.timestamp("ns", tz="UTC")), t=pa.array([MILLIS]))
    spec = task(
        *("nanos", "p2", put(s3, "nanos.parquet", content)),
        dimensions=[{"type": "long", "name": "at"}],
        timestamp={"column": "t", "format": "millis"},
        input_format={"type": "parquet"},
        intervals=DAY,
    )

    load(druid, spec)

    assert druid.rows("nanos") == [{"__time": MILLIS, "at": MILLIS * 1_000_000}]


def test_a_prefix_lists_its_objects(druid: FakeDruid, s3: Any) -> None:
    for name in ("x", "y"):
        put(s3, f"many/{name}.json", lines({"t": MILLIS, "name": name}).encode())
    source = {"type": "s3", "prefixes": ["s3://fake-druid/many/"]}

    load(druid, task("many", "p3", source, dimensions=["name"], timestamp={"column": "t", "format": "millis"}))

    assert [row["name"] for row in druid.rows("many")] == ["x", "y"]


def test_replace_reads_files_and_overwrites_the_days_it_names(druid: FakeDruid) -> None:
    load(druid, task("sql", "n1", inline([{"t": f"2001-01-0{n}", "name": "old"} for n in (1, 2)]), dimensions=["name"]))
    new = inline([{"ms": MILLIS, "name": "new", "tags": ["x"], "extra": '{"a":1}'}])
    source = extern(new, '"ms" BIGINT, "name" VARCHAR, "tags" VARCHAR ARRAY, "extra" VARCHAR')
    query = (
        "REPLACE INTO \"sql\" OVERWRITE WHERE __time >= TIMESTAMP '2001-01-01 00:00:00'"
        " AND __time < TIMESTAMP '2001-01-02 00:00:00'"
        ' SELECT MILLIS_TO_TIMESTAMP("ms") AS __time, "name", "tags", TRY_PARSE_JSON("extra") AS "extra"'
        ' FROM $rows PARTITIONED BY DAY CLUSTERED BY "name"'
    )

    assert run(druid, query, source) == "SUCCESS"

    first, second = druid.rows("sql")
    assert first == {"__time": MILLIS, "name": "new", "tags": ["x"], "extra": {"a": 1}}
    assert second["name"] == "old"
    types = "SELECT COLUMN_NAME AS n, DATA_TYPE AS t FROM INFORMATION_SCHEMA.COLUMNS WHERE TABLE_NAME = 'sql'"
    assert {row["n"]: row["t"] for row in sql(druid, types)}["extra"] == "COMPLEX<json>"
    assert report(druid)["counters"]["1"]["0"]["segmentGenerationProgress"]["rowsPushed"] == 1


def test_insert_appends(druid: FakeDruid) -> None:
    source = extern(inline([{"ms": MILLIS, "n": 1}]), '"ms" BIGINT, "n" BIGINT')
    query = 'INSERT INTO "more" SELECT MILLIS_TO_TIMESTAMP("ms") AS __time, "n" FROM $rows PARTITIONED BY DAY'

    assert [run(druid, query, source, "i1"), run(druid, query, source, "i2")] == ["SUCCESS", "SUCCESS"]

    assert sql(druid, 'SELECT COUNT(*) AS "c", SUM("n") AS "s" FROM "more"') == [{"c": 2, "s": 2}]


@pytest.mark.parametrize(
    ("row", "context", "code"),
    [
        ({"ms": None}, {}, "InsertTimeNull"),
        ({"ms": MILLIS + 86_400_000}, {}, "InsertTimeOutOfBounds"),
        ("broken{", {}, "CannotParseExternalData"),
        ("broken{", {"maxParseExceptions": -1, "failOnEmptyInsert": True}, "InsertCannotBeEmpty"),
    ],
)
def test_a_statement_fails_with_its_code(druid: FakeDruid, row: Any, context: dict[str, Any], code: str) -> None:
    query = (
        "REPLACE INTO \"bad\" OVERWRITE WHERE __time >= TIMESTAMP '2001-01-01' AND __time < TIMESTAMP '2001-01-02'"
        ' SELECT MILLIS_TO_TIMESTAMP("ms") AS __time FROM $rows PARTITIONED BY DAY'
    )

    assert run(druid, query, extern(inline([row]), '"ms" BIGINT'), **context) == "FAILED"

    assert report(druid)["status"]["errorReport"]["error"]["errorCode"] == code
    assert druid.rows("bad") == []


def test_overwriting_all_with_nothing_empties_the_table(druid: FakeDruid) -> None:
    load(druid, task("gone", "g1", inline([{"t": "2001-01-01", "name": "old"}]), dimensions=["name"]))
    query = 'REPLACE INTO "gone" OVERWRITE ALL SELECT MILLIS_TO_TIMESTAMP("ms") AS __time FROM $rows PARTITIONED BY ALL'

    assert run(druid, query, extern(inline("\n"), '"ms" BIGINT'), maxParseExceptions=-1) == "SUCCESS"

    assert sql(druid, 'SELECT COUNT(*) AS "c" FROM "gone"') == [{"c": 0}]


def test_what_is_not_aligned_is_refused(druid: FakeDruid) -> None:
    query = (
        "REPLACE INTO \"x\" OVERWRITE WHERE __time >= TIMESTAMP '2001-01-01 06:00:00'"
        " AND __time < TIMESTAMP '2001-01-02 00:00:00' SELECT * FROM x PARTITIONED BY DAY"
    )

    reply = CLIENT.post(f"{druid.url}/druid/v2/sql/task", json={"query": query})

    assert reply.status_code == 400
    assert "not aligned with PARTITIONED BY" in reply.json()["errorMessage"]

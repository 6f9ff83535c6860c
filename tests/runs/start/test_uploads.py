"""Bad input of every kind: a stable code, a sentence that says what to do, and nothing lost."""

import io
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingestion.catalog import query_records
from ingestion.models import Part, Pipeline, Run, RunState, Source, Upload
from ingestion.ports.errors import ConfigError, IngestError, Refused
from ingestion.runs.record.lake import open_lake
from ingestion.runs.start import contracts, pipelines, uploads
from ingestion.runs.start.creation import create_run
from tests.fakes.paged_provider import PagedProvider
from tests.runs.driver import Driver
from tests.servers import Valkey

CONTRACT = {"name": "items", "key": ["id"], "columns": [{"name": "id", "type": "integer", "nullable": False}]}


def ingest(driver: Driver, content: bytes, name: str, contract: dict[str, Any] | None = None) -> Run:
    upload, _ = uploads.receive(io.BytesIO(content).read, name=name)
    run, _ = uploads.ingest_upload(upload, trigger="upload", contract=contract, datasource_name="bad")
    driver.drain()
    run.refresh_from_db()
    return run


def parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"id": list(range(100))}), out)
    return out.getvalue()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("content", "name", "code"),
    [
        (b"number,name\n1,a\n", "a.csv", "contract.missing_key_column"),
        (parquet()[:200], "cut.parquet", "file.truncated"),
        (parquet(), "table.csv", "file.wrong_type"),
        (b"id,name\n1,a\n", "table.parquet", "file.wrong_type"),
        (b"id,id\n1,2\n", "a.csv", "file.duplicate_column"),
        ("id,näme\n1,ü\n".encode("latin-1"), "a.csv", "file.encoding"),
    ],
)
def test_a_bad_file_fails_its_run_with_a_code_and_stays_stored(
    driver: Driver, content: bytes, name: str, code: str
) -> None:
    run = ingest(driver, content, name, CONTRACT)

    assert (run.state, run.code) == (RunState.FAILED, code)
    assert len(run.message) > 40
    upload = Upload.objects.get()
    assert open_lake().read(upload.key) == content


@pytest.mark.both
@pytest.mark.django_db(transaction=True)
def test_a_mended_contract_runs_the_same_file_again(driver: Driver) -> None:
    failed = ingest(driver, b"number,name\n1,a\n", "a.csv", CONTRACT)
    mended = {"name": "items", "key": ["number"], "columns": [{"name": "number", "type": "integer"}]}

    run = ingest(driver, b"number,name\n1,a\n", "a.csv", mended)
    again = ingest(driver, b"number,name\n1,a\n", "b.csv", mended)

    assert run.pk != failed.pk
    assert (run.state, run.accepted) == (RunState.SUCCEEDED, 1)
    assert again.pk == run.pk
    assert Upload.objects.count() == 1


@pytest.mark.both
@pytest.mark.django_db(transaction=True)
def test_an_empty_file_is_refused_and_leaves_nothing(driver: Driver) -> None:
    with pytest.raises(ConfigError) as refusal:
        uploads.receive(io.BytesIO(b"").read, name="empty.csv")

    assert refusal.value.code == "file.empty"
    assert not Upload.objects.exists()
    assert list(open_lake().list("uploads/")) == []


@pytest.mark.django_db(transaction=True)
def test_an_upload_over_the_limit_is_refused_and_leaves_nothing(driver: Driver, settings: Any) -> None:
    settings.HEADGATE_UPLOAD_MAX_BYTES = 10

    with pytest.raises(Refused) as refusal:
        uploads.receive(io.BytesIO(b"id\n" * 10).read, name="large.csv")

    assert refusal.value.code == "file.too_large"
    assert not Upload.objects.exists()
    assert list(open_lake().list("uploads/")) == []


@pytest.mark.django_db(transaction=True)
def test_a_file_with_a_header_alone_succeeds_with_no_rows(driver: Driver) -> None:
    run = ingest(driver, b"id,name\n", "a.csv", CONTRACT)

    assert (run.state, run.fetched) == (RunState.SUCCEEDED, 0)
    assert run.events.filter(message__contains="no rows").exists() or run.events.filter(kind="file.no_rows").exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("fault", "code", "kept"), [("html", "source.bad_content", 2), ("repeat", "source.pagination_loop", 2)]
)
def test_a_bad_answer_of_an_api_fails_the_run_and_keeps_what_came(  # noqa: PLR0917 (fixtures and cases)
    driver: Driver, settings: Any, valkey: Valkey, fault: str, code: str, kept: int
) -> None:
    settings.HEADGATE_REDIS_URL = valkey.url(7)
    with PagedProvider(pages=4, per_page=3) as provider:
        provider.fault(2, fault)
        settings.HEADGATE_EGRESS_ALLOW = [urlsplit(provider.url).netloc]
        config = {"base_url": provider.url, "page_limit": 3}
        source = Source.objects.create(name="api", kind="optimade", config=config)
        pipeline = Pipeline.objects.create(name="api", source=source, stream="structures")
        run, _ = create_run(pipeline, trigger="api")
        driver.drain()

    run.refresh_from_db()
    assert (run.state, run.code) == (RunState.FAILED, code)
    assert Part.objects.filter(run=run, zone="raw").count() >= kept


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("attempt", "code"),
    [
        (lambda: pipelines.check_source_config(kind="ftp", config={}, secrets={}, name="x"), "config.unknown_kind"),
        (
            lambda: pipelines.check_source_config(kind="optimade", config={"page_limit": "x"}, secrets={}, name="x"),
            "config.invalid",
        ),
        (lambda: contracts.save_contract({"name": "x", "key": ["nope"]}), "contract.invalid"),
    ],
)
def test_settings_that_do_not_hold_are_named(attempt: Callable[[], None], code: str) -> None:
    with pytest.raises(IngestError) as refusal:
        attempt()

    assert refusal.value.code == code
    assert len(str(refusal.value)) > 30


@pytest.mark.django_db(transaction=True)
def test_a_run_without_a_file_takes_the_last_ones_or_is_refused(driver: Driver) -> None:
    pipeline = pipelines.upload_pipeline("bad")
    with pytest.raises(ConfigError) as refusal:
        create_run(pipeline, trigger="api")
    first = ingest(driver, b"id,name\n1,a\n", "a.csv")

    run, _ = create_run(Pipeline.objects.get(pk=pipeline.pk), trigger="api")
    driver.drain()

    run.refresh_from_db()
    assert refusal.value.code == "upload.awaited"
    assert list(run.uploads.all()) == list(first.uploads.all())
    assert (run.state, run.accepted) == (RunState.SUCCEEDED, 1)


@pytest.mark.both
@pytest.mark.django_db(transaction=True)
def test_rows_that_were_published_without_a_key_do_not_stay_beside_keyed_ones(driver: Driver) -> None:
    ingest(driver, b"number,name\n1,a\n1,b\n", "a.csv")
    keyed = {"name": "bad", "key": ["number"], "columns": [{"name": "number", "type": "integer"}]}

    replaced = ingest(driver, b"number,name\n1,a\n2,b\n", "b.csv", keyed)
    merged = ingest(driver, b"number,name\n3,c\n", "c.csv", keyed)

    visible = query_records(pipeline_id=merged.pipeline_id, limit=10)
    assert (replaced.mode, merged.mode) == ("full_refresh", "incremental")
    assert sorted(row["record"]["number"] for row in visible) == [1, 2, 3]

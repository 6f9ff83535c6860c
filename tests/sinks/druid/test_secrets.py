"""No secret and no signed address is kept or told: notes, events, errors, texts of any object."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ingestion.ports.errors import IngestError
from ingestion.ports.publication import WriteMode
from tests.conformance.context import MemoryLake
from tests.fakes.druid import FakeDruid
from tests.servers import VersityGateway
from tests.sinks.druid.support import Bench, Outcome, day

USER, PASSWORD = "ingest", "canary-password-3f9a"
ROWS = [{"id": number, "name": "Si", "at": day(1 + number % 3)} for number in range(9)]
SIGNATURE_WORDS = ("X-Amz-Signature=", "X-Amz-Credential=")


@pytest.fixture
def bench(versitygw: VersityGateway, tmp_path: Path) -> Any:
    bucket = versitygw.create_bucket(f"secrets-{os.getpid()}-{abs(hash(str(tmp_path))) % 10**9}")
    with FakeDruid(users={USER: PASSWORD}) as druid:
        yield Bench(
            druid,
            tmp_path,
            lake=MemoryLake(),
            username=USER,
            password=PASSWORD,
            staging=bucket,
            staging_access_key=versitygw.access_key,
            staging_secret_key=versitygw.secret_key,
            read_access_key=versitygw.access_key,
            read_secret_key=versitygw.secret_key,
        )


def told(bench: Bench, outcome: Outcome) -> str:
    """Return all that a delivery has left behind in texts."""
    error = outcome.error
    causes = [repr(error), str(error), repr(error.values) if error else "", repr(error.__cause__) if error else ""]
    texts = [repr(outcome), json.dumps(dict(outcome.delivery.refs)), *outcome.notes, *causes]
    return " ".join([*texts, repr(bench.events), repr(bench.sink), repr(bench.sink.config)])


def assert_nothing_told(text: str, bench: Bench) -> None:
    for secret in (PASSWORD, bench.settings["staging_secret_key"]):
        assert secret not in text
    for words in SIGNATURE_WORDS:
        # The name alone may stand there, hidden values after it.
        assert all(rest.startswith("***") for rest in text.split(words)[1:]), text[:2000]


@pytest.mark.parametrize("mode", list(WriteMode))
def test_a_delivery_that_succeeds_keeps_none(bench: Bench, mode: WriteMode) -> None:
    outcome = bench.publish(1, ROWS, mode=mode)

    assert outcome.receipt == (9, 0, 0)
    assert_nothing_told(told(bench, outcome), bench)


def test_nor_one_whose_task_names_the_address_it_could_not_read(bench: Bench) -> None:
    manifest = bench.manifest(1, ROWS, mode=WriteMode.REPLACE)
    planned = bench.deliver(manifest, until=lambda view: "task" in view.refs).delivery
    address = "http://127.0.0.1/rows/x.json.gz?X-Amz-Credential=canary-key&X-Amz-Signature=canary-signature"
    for _ in range(3):
        bench.druid.fail_next_task(f"java.lang.RuntimeException: Error occurred while trying to read uri: {address}")

    outcome = bench.deliver(manifest, planned, goes_on=True)

    text = told(bench, outcome)
    assert outcome.code == "sink.task_failed"
    assert "Error occurred while trying to read uri" in text
    assert "canary-signature" not in text
    assert_nothing_told(text, bench)


def test_nor_one_that_druid_refuses_in_the_words_of_the_spec(bench: Bench) -> None:
    body = {"error": "Cannot construct: uris=[http://s/x?X-Amz-Signature=canary-signature&X-Amz-Credential=canary-key]"}
    bench.druid.fail_next("POST /druid/indexer/v1/task", "json", status=400, body=body)

    outcome = bench.publish(1, ROWS, mode=WriteMode.REPLACE)

    assert outcome.code == "sink.rejected"
    assert_nothing_told(told(bench, outcome), bench)


@pytest.mark.parametrize("how", ["unavailable", "html", "reset", "hang"])
def test_nor_one_that_gets_no_answer(bench: Bench, how: str) -> None:
    bench.druid.fail_next("*", how, times=None, seconds=0.01)

    try:
        outcome = bench.publish(1, ROWS, mode=WriteMode.REPLACE)
    except IngestError as error:
        outcome = Outcome(bench.view(bench.manifest(1, ROWS, mode=WriteMode.REPLACE)), error=error)

    assert outcome.error is not None
    assert_nothing_told(told(bench, outcome), bench)


def test_the_tasks_and_their_logs_show_none(bench: Bench) -> None:
    bench.publish(1, ROWS, mode=WriteMode.REPLACE)
    bench.druid.write_log("hg.samples.1.101.a1", "GET http://s/x?X-Amz-Signature=canary-signature HTTP/1.1")

    shown = [
        repr(bench.sink.tasks(bench.ctx, limit=5)),
        bench.sink.task_log("hg.samples.1.101.a1", bench.ctx, tail_bytes=1000),
        repr(bench.sink.check(bench.ctx)),
    ]

    assert_nothing_told(" ".join(shown), bench)


def test_notes_stay_small_whatever_a_run_has(bench: Bench) -> None:
    rows = [
        {"id": number, "at": day(1 + number), **{f"column_{place}": place for place in range(200)}}
        for number in range(20)
    ]

    outcome = bench.publish(1, rows)

    assert outcome.receipt == (20, 0, 0)
    assert len(json.dumps(dict(outcome.delivery.refs))) < 40_000

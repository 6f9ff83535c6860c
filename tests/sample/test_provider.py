"""The demo provider answers an OPTIMADE client."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from connectors.materials.optimade import OptimadeConfig, OptimadeConnector
from ingestion.ports.batch import Query
from sample.provider import BASE_PATH, COPIES, DemoProvider, load_structures, serve
from tests.fakes.loopback import loopback_context

ROOT = Path(__file__).parents[2]
COUNT = 17 * COPIES


@pytest.fixture
def address() -> Iterator[str]:
    server = serve(request_delay_s=0.0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"{server.address}/optimade"
    server.shutdown()
    server.server_close()


def test_every_structure_has_its_own_id() -> None:
    ids = [entry["id"] for entry in load_structures()]

    assert len(set(ids)) == len(ids) == COUNT


def test_the_connector_reads_all_of_it(address: str) -> None:
    connector = OptimadeConnector(OptimadeConfig(base_url=address))
    with loopback_context(address) as ctx:
        spec = next(iter(connector.plan(Query(stream="structures"), None, ctx)))
        pages = list(connector.fetch(spec, None, ctx))

        assert connector.check(ctx).ok
    assert sum(page.record_count or 0 for page in pages) == COUNT
    assert len(pages) > 3  # noqa: PLR2004


def test_an_incremental_read_gets_the_newer_copies(address: str) -> None:
    connector = OptimadeConnector(OptimadeConfig(base_url=address, lookback_s=0))
    with loopback_context(address) as ctx:
        since = {"last_modified": "2019-09-15T00:00:00Z"}
        spec = next(iter(connector.plan(Query(stream="structures", filter="nsites > 0"), since, ctx)))
        ids = [entry["id"] for page in connector.fetch(spec, None, ctx) for entry in json.loads(page.body)["data"]]

    assert ids
    assert {identifier[-2:] for identifier in ids} == {"-4"}


@pytest.mark.parametrize(
    ("query", "status"),
    [({"page_limit": "many"}, 400), ({"page_limit": "1000"}, 403), ({"filter": "elements LENGTH 3"}, 501)],
)
def test_what_it_cannot_do_it_refuses_with_a_reason(query: dict[str, str], status: int) -> None:
    reply = DemoProvider().respond(f"{BASE_PATH}/structures", query)

    assert reply.status == status
    assert json.loads(reply.body)["errors"][0]["detail"]


def test_it_runs_as_a_command_without_django_and_ends_on_sigterm() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "sample.provider", "--port", "0"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        ready = process.stdout.readline()
        with urlopen(f"{ready.split()[-1]}/v1/info") as response:  # noqa: S310 - our own loopback address
            document = json.load(response)
        process.terminate()

        assert process.wait(timeout=10) == 0
        assert document["data"]["type"] == "info"
    finally:
        process.kill()
        process.wait(timeout=10)
        process.stdout.close()


def test_it_imports_no_django() -> None:
    code = "import sys, sample.provider; sys.exit('django' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0

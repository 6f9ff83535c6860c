import subprocess
import sys
from collections.abc import Iterator

import pytest

from ingestion.ports.errors import (
    IngestError,
)
from tests.fakes.http_client import client_of
from tests.fakes.http_server import FakeSite
from tests.servers import ROOT

RECORDS = {"data": list(range(100))}


@pytest.fixture
def site() -> Iterator[FakeSite]:
    with FakeSite({"/records": RECORDS}) as running:
        yield running


def test_another_process_asks_for_faults_and_reads_the_count(site: FakeSite) -> None:
    script = (
        "import json, sys, urllib.request as r\n"
        "url = sys.argv[1]\n"
        "fault = {'kind': 'status', 'status': 503, 'path': '/records', 'skip': 1}\n"
        "r.urlopen(r.Request(url + '/__fault', data=json.dumps(fault).encode(), method='POST')).read()\n"
        "r.urlopen(url + '/records').read()\n"
        "print(len(json.load(r.urlopen(url + '/__requests'))))\n"
    )

    finished = subprocess.run(
        [sys.executable, "-c", script, site.url], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
    )

    assert finished.stdout == "1\n"
    with client_of(site, attempts=1) as http, pytest.raises(IngestError) as caught:
        http.get(f"{site.url}/records")
    assert caught.value.code == "source.server_error"


def test_an_unknown_fault_is_refused(site: FakeSite) -> None:
    with pytest.raises(ValueError, match="there are: "):
        site.fault("earthquake")

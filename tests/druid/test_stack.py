"""`manage.py druid up` with the real thing: ready, loading, asked, stopped, killed, started again."""

import json
from typing import Any

import httpx
import pytest
from django.core.management import CommandError, call_command

from tests.druid_server import Druid
from tests.servers import wait_until
from tests.stacks import processes_of

pytestmark = [pytest.mark.druid, pytest.mark.timeout(300)]

ROWS = 10


@pytest.fixture(autouse=True)
def running(druid: Druid) -> None:
    """Begin with a running Druid, whatever the test before did to it."""
    druid.ensure_running()


def inline_task(task_id: str, *, datasource: str) -> dict[str, Any]:
    """Return a task that loads ten rows which it carries with it."""
    rows = "\n".join(json.dumps({"t": f"2026-01-{day:02d}", "x": f"row {day}"}) for day in range(1, ROWS + 1))
    return {
        "type": "index_parallel",
        "id": task_id,
        "spec": {
            "dataSchema": {
                "dataSource": datasource,
                "timestampSpec": {"column": "t", "format": "auto"},
                "dimensionsSpec": {"dimensions": ["x"]},
                "granularitySpec": {"segmentGranularity": "MONTH", "rollup": False},
            },
            "ioConfig": {
                "type": "index_parallel",
                "inputSource": {"type": "inline", "data": rows},
                "inputFormat": {"type": "json"},
            },
            "tuningConfig": {"type": "index_parallel"},
        },
    }


def load(druid: Druid, *, datasource: str) -> None:
    """Load ten rows and wait until they can be read."""
    task = druid.submit(inline_task(f"by-hand-{datasource}", datasource=datasource))
    assert druid.wait_for(task) == "SUCCESS"
    wait_until(lambda: druid.count(datasource) == ROWS, what="the rows at the Broker")


def test_rows_of_a_task_are_counted_at_the_broker(druid: Druid) -> None:
    load(druid, datasource="counted")

    assert druid.query("SELECT COUNT(DISTINCT x) AS n FROM counted") == [{"n": ROWS}]


def test_a_single_node_is_fully_loaded(druid: Druid) -> None:
    load(druid, datasource="single")

    def missing_replicas() -> int:
        answer = httpx.get(f"{druid.coordinator_url}/druid/coordinator/v1/loadstatus?full").json()
        return sum(count for tier in answer.values() for count in tier.values())

    wait_until(lambda: missing_replicas() == 0, what="the loading of every replica that the rules ask for")


def test_status_shows_every_service_with_its_port_and_memory(
    druid: Druid, settings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.HEADGATE_DATA_DIR = druid.data

    call_command("druid", "status")

    lines = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()[1:]}
    ports = druid.state.druid_ports
    for service in ("zookeeper", "coordinator", "indexer", "historical", "broker"):
        port, ready, megabytes, unit, pid = lines[service]
        assert (int(port), ready, unit, int(pid)) == (ports[service], "yes", "MB", druid.state.pids[service])
        assert int(megabytes) > 20


def test_a_stop_leaves_nothing_and_a_second_start_has_the_data(druid: Druid, settings: Any) -> None:
    load(druid, datasource="stopped")
    ports = druid.state.druid_ports
    settings.HEADGATE_DATA_DIR = druid.data

    call_command("druid", "down")
    assert druid.process is not None
    druid.process.wait(10)

    assert druid.traces() == []
    with pytest.raises(CommandError, match="No Druid runs"):
        call_command("druid", "status")
    druid.start()
    assert druid.state.druid_ports == ports
    wait_until(lambda: druid.count("stopped") == ROWS, what="the rows of before")


def test_sigkill_of_the_supervisor_leaves_nothing_and_the_data(druid: Druid) -> None:
    load(druid, datasource="killed")
    assert druid.process is not None
    assert len(processes_of(druid.data)) == 6

    druid.process.kill()
    druid.process.wait(10)

    wait_until(lambda: druid.traces() == [], what="the end of every service", patience_s=10)
    druid.start()
    wait_until(lambda: druid.count("killed") == ROWS, what="the rows of before")


def test_a_service_that_was_killed_comes_back(druid: Druid) -> None:
    load(druid, datasource="interrupted")
    before = druid.state.pids["historical"]

    druid.kill_service("historical")

    wait_until(lambda: druid.state.pids["historical"] != before, what="the second start")
    wait_until(lambda: druid.count("interrupted") == ROWS, what="the rows after the second start")

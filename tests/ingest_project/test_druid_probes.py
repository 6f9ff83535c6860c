"""Probes of a Druid's services, and the load rule of a single machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import pytest

from ingest_project.stack.druid.probes import is_ready, patient_probe, want_one_replica
from tests.fakes.java import BUILT_IN, RULES, FakeService
from tests.servers import free_port

OWN_RULE = [{"type": "dropByPeriod", "period": "P1M"}]


@contextmanager
def service(rules: object = BUILT_IN) -> Iterator[FakeService]:
    """A service that is ready."""
    with FakeService(rules=rules) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("name", ["zookeeper", "coordinator", "indexer", "historical", "broker"])
def test_a_service_is_ready_when_it_says_so(name: str) -> None:
    with service() as server:
        ports = dict.fromkeys(("zookeeper", "coordinator", "indexer", "historical", "broker"), server.port)

        assert is_ready(name, ports=ports)
    assert not is_ready(name, ports=ports)


@pytest.mark.parametrize(
    ("name", "path", "answer"),
    [
        ("coordinator", "/status/health", False),
        ("coordinator", "/druid/indexer/v1/isLeader", {"leader": False}),
        ("indexer", "/druid/indexer/v1/workers", []),
    ],
)
def test_a_service_that_is_not_ready_yet_is_seen(name: str, path: str, answer: object) -> None:
    with service() as server:
        server.answers[path] = answer

        assert not is_ready(name, ports={"coordinator": server.port, "indexer": server.port})


def test_a_patient_probe_asks_only_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with service() as server:
        probe = patient_probe("broker", ports={"broker": server.port})

        answers = [probe(), probe(), probe()]

    assert answers == [True, False, False]
    assert capsys.readouterr().out.count("GET /druid/broker/v1/readiness") == 1


def test_the_built_in_rule_is_replaced_by_one_replica() -> None:
    with service() as server:
        assert want_one_replica({"coordinator": server.port})

        assert server.answers[RULES] == [{"type": "loadForever", "tieredReplicants": {"_default_tier": 1}}]


def test_a_rule_of_somebodys_own_stays() -> None:
    with service(rules=OWN_RULE) as server:
        assert want_one_replica({"coordinator": server.port})

        assert server.answers[RULES] == OWN_RULE


def test_a_coordinator_that_does_not_answer_has_no_rule_yet() -> None:
    assert not want_one_replica({"coordinator": free_port()})

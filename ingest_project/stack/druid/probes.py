"""Probes of a Druid's services, and the one rule that a single machine needs."""

import http.client
import json
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

from ingest_project.stack.services import accepts

Ports = Mapping[str, int]
_TIMEOUT_S = 2.0
_PAUSE_S = 0.3
_RULES = "/druid/coordinator/v1/rules/_default"
_BUILT_IN_REPLICAS = {"_default_tier": 2}
_RULE = {"type": "loadForever", "tieredReplicants": {"_default_tier": 1}}


def ask(port: int, path: str, *, body: Any = None) -> Any:
    """Return what a service answers to a GET, or to a POST where there is a body; None unless that is a success."""
    method, content = ("GET", None) if body is None else ("POST", json.dumps(body))
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)) as connection:
        try:
            connection.request(method, path, body=content, headers={"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            return None
    if answer.status != http.client.OK:
        return None
    try:
        return json.loads(text) if text else True
    except ValueError:
        return True


def is_ready(service: str, *, ports: Ports) -> bool:
    """Return whether a service takes work."""
    return _CHECKS[service](ports)


def patient_probe(service: str, *, ports: Ports) -> Callable[[], bool]:
    """Return a question that really asks a few times a second at most, however often it is put.

    A service that is starting takes its time to refuse, and whoever asks has others to look after.
    """
    asked_at = 0.0

    def probe() -> bool:
        nonlocal asked_at
        if time.monotonic() - asked_at < _PAUSE_S:
            return False
        answer = is_ready(service, ports=ports)
        asked_at = time.monotonic()
        return answer

    return probe


def want_one_replica(ports: Ports) -> bool:
    """Return whether Druid's default rule suits one machine now.

    The built-in rule wants every segment on two Historicals, so nothing would ever count as loaded. A rule of
    somebody's own stays as it is.
    """
    rules = ask(ports["coordinator"], _RULES)
    if not isinstance(rules, list):
        return False
    if rules and not any(rule.get("tieredReplicants") == _BUILT_IN_REPLICAS for rule in rules):
        return True
    return ask(ports["coordinator"], _RULES, body=[_RULE]) is not None


def _coordinator(ports: Ports) -> bool:
    port = ports["coordinator"]
    leads = (f"/druid/{name}/v1/isLeader" for name in ("coordinator", "indexer"))
    return ask(port, "/status/health") is True and all(ask(port, path) == {"leader": True} for path in leads)


def _indexer(ports: Ports) -> bool:
    if ask(ports["indexer"], "/status/health") is not True:
        return False
    workers = ask(ports["coordinator"], "/druid/indexer/v1/workers")
    return isinstance(workers, list) and any(worker["worker"]["capacity"] > 0 for worker in workers)


_CHECKS: dict[str, Callable[[Ports], bool]] = {
    "zookeeper": lambda ports: accepts(ports["zookeeper"]),
    "coordinator": _coordinator,
    "indexer": _indexer,
    "historical": lambda ports: ask(ports["historical"], "/druid/historical/v1/readiness") is not None,
    "broker": lambda ports: ask(ports["broker"], "/druid/broker/v1/readiness") is not None,
}

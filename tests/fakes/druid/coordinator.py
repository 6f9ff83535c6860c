"""The Coordinator's calls: datasources, what is loaded, rules."""

from re import Match
from typing import Any
from urllib.parse import unquote

from tests.fakes.druid.http import Reply, Routes, json_reply, nothing, page, parsed, text_reply
from tests.fakes.druid.state import State
from tests.fakes.druid.times import Interval, iso, now_ms
from tests.fakes.requests import Request

_TWO_WEEKS_MS = 14 * 86_400_000
_NO_SEGMENT = "No used segment found for the given datasource and interval"


class Coordinator:
    """Answers below /druid/coordinator/v1."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._store = state.store
        self._rules: dict[str, Any] = {
            "_default": [
                {"tieredReplicants": {"_default_tier": 2}, "useDefaultTierForNull": True, "type": "loadForever"}
            ]
        }

    def routes(self) -> Routes:
        """Return the calls."""
        base = "/druid/coordinator/v1"
        datasource = f"{base}/datasources/(?P<datasource>[^/]+)"
        return {
            ("GET", f"{base}/datasources"): lambda *_: json_reply(self._store.names()),
            ("GET", f"{base}/metadata/datasources"): lambda *_: json_reply(self._store.names()),
            ("GET", f"{base}/metadata/datasources/(?P<datasource>[^/]+)/segments"): self.segment_ids,
            ("GET", datasource): self.datasource,
            ("DELETE", datasource): self.delete,
            ("GET", f"{datasource}/intervals"): self.intervals,
            ("GET", f"{datasource}/loadstatus"): self.load_status,
            ("GET", f"{base}/rules"): lambda *_: json_reply(self._rules),
            ("GET", f"{base}/rules/(?P<name>[^/]+)"): lambda _, match: json_reply(self._rules.get(match["name"], [])),
            ("POST", f"{base}/rules/(?P<name>[^/]+)"): self.set_rules,
        }

    def datasource(self, _: Request, match: Match[str]) -> Reply:
        """Describe a datasource."""
        segments = self._store.used(match["datasource"])
        if not segments:
            return nothing(204, content_type="application/json")
        size = sum(each.size for each in segments)
        tier = {"size": size, "replicatedSize": size, "segmentCount": len(segments)}
        whole = {
            "maxTime": iso(max(each.interval.end for each in segments)),
            "size": size,
            "minTime": iso(min(each.interval.start for each in segments)),
            "count": len(segments),
            "replicatedSize": size,
        }
        return json_reply({"tiers": {"_default_tier": tier}, "segments": whole})

    def delete(self, _: Request, match: Match[str]) -> Reply:
        """Take a datasource out of use."""
        count = self._store.mark_unused(match["datasource"], lambda _: True)
        return json_reply({"numChangedSegments": count, "segmentStateChanged": count > 0})

    def segment_ids(self, _: Request, match: Match[str]) -> Reply:
        """List the ids of a datasource's segments, those included that newer ones cover (measured)."""
        segments = self._store.listed(match["datasource"])
        if not segments:
            return nothing(404, content_type="application/json")
        return json_reply(sorted(each.segment_id for each in segments))

    def intervals(self, _: Request, match: Match[str]) -> Reply:
        """List a datasource's intervals, the latest first."""
        segments = self._store.used(match["datasource"])
        if not segments:
            return nothing(204, content_type="application/json")
        return json_reply([str(each) for each in sorted({each.interval for each in segments}, reverse=True)])

    def load_status(self, request: Request, match: Match[str]) -> Reply:
        """Say how much of an interval is still to be loaded."""
        name = match["datasource"]
        if "forceMetadataRefresh" not in request.query:
            text = "Invalid request. forceMetadataRefresh must be specified"
            return text_reply(text, status=400, content_type="application/json")
        try:
            interval = _interval(request.query.get("interval"))
        except ValueError as error:
            message = f"org.apache.druid.error.DruidException: Invalid interval[{request.query['interval']}]: [{error}]"
            return page(500, message, path=request.path)
        if self._store.is_hidden() or not self._store.used(name):
            return nothing(204, content_type="application/json")
        return self._loaded(name, interval, request)

    def _loaded(self, name: str, interval: Interval, request: Request) -> Reply:
        missing = self._store.look_for_loading(name, interval)
        if missing is None:
            return text_reply(_NO_SEGMENT, status=200, content_type="application/json")
        if "simple" in request.query:
            return json_reply({name: missing})
        if "full" in request.query:
            return json_reply({"_default_tier": {name: missing}})
        inside = [each for each in self._store.used(name) if each.interval.overlaps(interval)]
        return json_reply({name: 100.0 * (len(inside) - missing) / len(inside)})

    def set_rules(self, request: Request, match: Match[str]) -> Reply:
        """Keep rules."""
        rules = parsed(request)
        if isinstance(rules, Reply):
            return rules
        order = ("tieredReplicants", "useDefaultTierForNull", "type")
        self._rules[match["name"]] = [
            {name: {"useDefaultTierForNull": True, **rule}[name] for name in order}
            if "tieredReplicants" in rule
            else rule
            for rule in rules
        ]
        return nothing(200)


def _interval(text: str | None) -> Interval:
    if text is None:
        return Interval(now_ms() - _TWO_WEEKS_MS, now_ms())
    return Interval.parse(unquote(text))

"""A demo OPTIMADE provider on the loopback interface, so that a first run needs no internet.

    python -m sample.provider --port 8099

Its data are recorded answers of the reference server `optimade[server]` 1.5.0 with that package's 17 test structures
(MIT licence, Materials-Consortia/optimade-python-tools), in `sample/pages`. To have several pages, each structure
appears five times: the copies 1 to 4 have ids such as `mpf_1-2`, cells stretched by 0.2 % a copy, and a last_modified
30 days later a copy. They are no materials science, only something to read.
"""

import argparse
import copy
import json
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from sample.serving import LoopbackServer, Reply, json_reply

PAGES = Path(__file__).parent / "pages"
BASE_PATH = "/optimade/v1"
COPIES = 5
PAGE_LIMIT_DEFAULT = 20
PAGE_LIMIT_MAX = 100
REQUEST_DELAY_S = 0.05
STRETCH = 0.002

_TIMES = re.compile(r'last_modified\s*(>=|>|<=|<)\s*"([^"]*)"')
_COUNTS = re.compile(r"(nelements|nsites)\s*(>=|<=|!=|=|>|<)\s*(\d+)")
_HAS = re.compile(r'elements\s+HAS\s+"(\w+)"')
_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}

Entry = dict[str, Any]
Test = Callable[[Entry], bool]


class UnsupportedFilterError(Exception):
    """The filter is beyond the few comparisons that this provider understands."""


def load_structures(*, copies: int = COPIES) -> list[Entry]:
    """Return the recorded structures and their copies, ordered by copy, then as recorded."""
    recorded = [entry for path in sorted(PAGES.glob("structures_*.json")) for entry in _read(path)["data"]]
    return [_variant(entry, number) for number in range(copies) for entry in recorded]


def _variant(entry: Entry, number: int) -> Entry:
    if number == 0:
        return entry
    made = copy.deepcopy(entry)
    attributes = made["attributes"]
    made["id"] = f"{entry['id']}-{number}"
    later = datetime.fromisoformat(attributes["last_modified"]) + timedelta(days=30 * number)
    attributes["last_modified"] = later.isoformat()
    for name in ("lattice_vectors", "cartesian_site_positions"):
        attributes[name] = [[round(x * (1 + STRETCH * number), 12) for x in row] for row in attributes[name]]
    return made


def compile_filter(text: str) -> Test:
    """Return the test of a filter: comparisons of last_modified, nelements, nsites and `elements HAS`, with AND."""
    tests: list[Test] = []
    for part in re.split(r"\s+AND\s+", text.strip()):
        bare = part.strip().strip("()").strip()
        if not bare:
            continue
        if found := _TIMES.fullmatch(bare):
            tests.append(_time_test(found[1], found[2]))
        elif found := _COUNTS.fullmatch(bare):
            tests.append(_count_test(found[1], found[2], int(found[3])))
        elif found := _HAS.fullmatch(bare):
            tests.append(_has_test(found[1]))
        else:
            raise UnsupportedFilterError(bare)
    return lambda entry: all(test(entry) for test in tests)


def _time_test(operator: str, text: str) -> Test:
    try:
        bound = _utc(text)
    except ValueError as error:
        raise UnsupportedFilterError(text) from error
    compare = _COMPARE[operator]

    def test(entry: Entry) -> bool:
        found = entry["attributes"].get("last_modified")
        return found is not None and compare(_utc(found), bound)

    return test


def _count_test(name: str, operator: str, bound: int) -> Test:
    return lambda entry: _COMPARE[operator](entry["attributes"][name], bound)


def _has_test(element: str) -> Test:
    return lambda entry: element in entry["attributes"]["elements"]


def _utc(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class DemoProvider:
    """Answers the requests of an OPTIMADE client from the recorded pages."""

    def __init__(self, *, address: str = "", request_delay_s: float = REQUEST_DELAY_S) -> None:
        self.address = address
        self.request_delay_s = request_delay_s
        self.structures = load_structures()
        self._info = {name: _read(PAGES / f"{name}.json") for name in ("info", "info_structures")}

    def respond(self, path: str, query: Mapping[str, str]) -> Reply:
        """Return the answer to a GET."""
        place = path.rstrip("/").removeprefix(BASE_PATH)
        if path.startswith(BASE_PATH) and place in ("/info", "/info/structures"):
            return json_reply(self._described(place.strip("/").replace("/", "_")))
        if path.startswith(BASE_PATH) and place == "/structures":
            return self._listing(query)
        return self._refuse(404, "Not Found", f"There is nothing under {path}; try {BASE_PATH}/structures.")

    def _described(self, name: str) -> dict[str, Any]:
        document = dict(self._info[name])
        if name == "info":
            versions = [{"url": f"{self.address}{BASE_PATH}", "version": "1.2.0"}]
            data = document["data"]
            attributes = {**data["attributes"], "available_api_versions": versions}
            document["data"] = {**data, "attributes": attributes}
        return document

    def _listing(self, query: Mapping[str, str]) -> Reply:
        given = {name: query.get(name) or "0" for name in ("page_limit", "page_offset")}
        for name, text in given.items():
            if not text.isdecimal():
                return self._refuse(400, "Bad Request", f"{name} must be a number, not {text!r}")
        limit, offset = int(given["page_limit"]) or PAGE_LIMIT_DEFAULT, int(given["page_offset"])
        if limit > PAGE_LIMIT_MAX:
            return self._refuse(403, "Forbidden", f"Max allowed page_limit is {PAGE_LIMIT_MAX}, you requested {limit}")
        try:
            test = compile_filter(query.get("filter", ""))
        except UnsupportedFilterError as error:
            return self._refuse(501, "NotImplemented", f"This demo provider does not understand the filter {error}")
        found = [entry for entry in self.structures if test(entry)]
        after = offset + limit
        has_more = after < len(found)
        following = urlencode({**query, "page_offset": after})
        next_link = f"{self.address}{BASE_PATH}/structures?{following}" if has_more else None
        data = [_chosen(entry, query.get("response_fields", "")) for entry in found[offset:after]]
        meta = self._meta(data_returned=len(found), more_data_available=has_more)
        return json_reply({"data": data, "meta": meta, "links": {"next": next_link}})

    def _refuse(self, status: int, title: str, detail: str) -> Reply:
        error = {"status": str(status), "title": title, "detail": detail}
        meta = self._meta(data_returned=0, more_data_available=False)
        return json_reply({"errors": [error], "meta": meta}, status=status)

    def _meta(self, **values: Any) -> dict[str, Any]:
        return {
            "query": {"representation": "/structures"},
            "api_version": "1.2.0",
            "data_available": len(self.structures),
            "request_delay": self.request_delay_s,
            "provider": {"name": "Demo provider", "description": "Recorded pages on loopback", "prefix": "exmpl"},
            **values,
        }


def _chosen(entry: Entry, fields: str) -> Entry:
    if not fields:
        return entry
    names = fields.split(",")
    attributes = {name: value for name, value in entry["attributes"].items() if name in names}
    return {"id": entry["id"], "type": entry["type"], "attributes": attributes}


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def serve(*, port: int = 0, request_delay_s: float = REQUEST_DELAY_S) -> LoopbackServer:
    """Return the provider as a bound server; `serve_forever` makes it answer."""
    provider = DemoProvider(request_delay_s=request_delay_s)
    server = LoopbackServer(provider.respond, port=port)
    provider.address = server.address
    return server


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m sample.provider", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one")
    chosen = parser.parse_args(arguments)
    server = serve(port=chosen.port)
    # raised in the main thread, so that serve_forever ends; a call of shutdown() from here would wait for itself
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.stdout.write(f"demo provider ready on {server.address}/optimade\n")
    sys.stdout.flush()
    try:
        server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        return 0
    finally:
        server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

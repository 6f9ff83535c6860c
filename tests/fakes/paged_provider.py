"""A fast OPTIMADE provider of N pages x M records on loopback, made of numbers, with faults on request.

    with PagedProvider(pages=1000, per_page=20) as provider:
        provider.fault(3, "html", times=1)
        OptimadeConfig(base_url=provider.url)
        assert provider.requests[3] == 2

    python -m tests.fakes.paged_provider --port 8099 --pages 1000 --per-page 20

From another process: `GET /__requests` gives the requests per page as {"total": 3, "pages": {"0": 1, ...}},
`GET /__fault?page=3&kind=html&times=1` asks for a fault (times missing: for ever), `GET /__reset` forgets both.
"""

import argparse
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from urllib.parse import urlencode

from sample.provider import UnsupportedFilterError, compile_filter
from sample.serving import LoopbackServer, Reply, json_reply

BASE_PATH = "/optimade/v1"
BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
ELEMENTS = ("Al", "C", "Fe", "Ga", "Na", "O", "Si", "Ti", "Zn")
HTML = b"<!doctype html><html><head><title>Please sign in</title></head><body>Sign in</body></html>"


def record_id(number: int) -> str:
    """Return the id of a record, counted from 0."""
    return f"pp-{number:07d}"


def make_record(number: int) -> dict[str, Any]:
    """Return a record, counted from 0; the same every time."""
    element = ELEMENTS[number % len(ELEMENTS)]
    size = 2.0 + number % 97 / 10
    return {
        "id": record_id(number),
        "type": "structures",
        "attributes": {
            "last_modified": (BEGIN + timedelta(minutes=number)).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "elements": [element],
            "nelements": 1,
            "chemical_formula_reduced": element,
            "chemical_formula_anonymous": "A",
            "nsites": 1 + number % 4,
            "lattice_vectors": [[size, 0.0, 0.0], [0.0, size, 0.0], [0.0, 0.0, size]],
            "species_at_sites": [element] * (1 + number % 4),
            "_pp_band_gap": number % 50 / 10 + 0.05,
            "_pp_number": number,
        },
    }


@dataclass
class _Fault:
    kind: str
    times: int | None


class PagedProvider:
    """The provider; start and stop it by `with`. `requests` counts the requests of every page, from 0."""

    def __init__(self, *, pages: int = 10, per_page: int = 20, port: int = 0, delay_s: float = 0.0) -> None:
        self.pages = pages
        self.per_page = per_page
        self.delay_s = delay_s
        self.requests: Counter[int] = Counter()
        self._faults: dict[int, _Fault] = {}
        self._lock = threading.Lock()
        self.server = LoopbackServer(self._respond, port=port)
        self._thread: threading.Thread | None = None

    @property
    def record_count(self) -> int:
        """Return how many records there are."""
        return self.pages * self.per_page

    @property
    def ids(self) -> list[str]:
        """Return the ids of all records, in order."""
        return [record_id(number) for number in range(self.record_count)]

    @property
    def url(self) -> str:
        """Return the base address, without a version."""
        return f"{self.server.address}/optimade"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def fault(self, page: int, kind: str, *, times: int | None = None) -> None:
        """Let requests of a page fail that often (None: for ever).

        Kinds: status_429 (Retry-After 1), status_500, status_503, request_error (500 RequestValidationError), html,
        errors (200 with an errors body), cut (half of the body under the full length), short (half of the body,
        length to match), repeat (next names this page), back (next names the first page), same_page (this page's
        records with the next page's address), foreign (next on another host), lies (more_data_available true at the
        end), no_next (more_data_available true and no next), shrink (a smaller data_returned), nulls (no
        last_modified), bad_record (one record without id), warnings (a warning and a response_message).
        """
        if kind not in _BEFORE and kind not in _AFTER:
            msg = f"no fault {kind!r}; there are: {', '.join(sorted({*_BEFORE, *_AFTER}))}"
            raise ValueError(msg)
        with self._lock:
            self._faults[page] = _Fault(kind, times)

    def reset(self) -> None:
        """Forget all faults and counts."""
        with self._lock:
            self._faults.clear()
            self.requests.clear()

    def listing(self, page: int, query: Mapping[str, str]) -> dict[str, Any]:
        """Return a page as it should be."""
        size = min(int(query.get("page_limit") or self.per_page), self.per_page)
        offset = int(query.get("page_offset") or 0)
        if text := query.get("filter"):
            test = compile_filter(text)
            found = [record for record in map(make_record, range(self.record_count)) if test(record)]
            count, data = len(found), found[offset : offset + size]
        else:
            count = self.record_count
            data = [make_record(number) for number in range(offset, min(offset + size, count))]
        has_more = offset + size < count
        meta = {"api_version": "1.2.0", "data_returned": count, "data_available": self.record_count}
        return {
            "data": data,
            "meta": {**meta, "more_data_available": has_more},
            "links": {"next": self.address_of(offset + size, query) if has_more else None},
        }

    def address_of(self, offset: int, query: Mapping[str, str]) -> str:
        """Return the address of the page that begins at a record."""
        return f"{self.server.address}{BASE_PATH}/structures?{urlencode({**query, 'page_offset': offset})}"

    def _respond(self, path: str, query: Mapping[str, str]) -> Reply:
        if path == f"{BASE_PATH}/structures":
            return self._page(query)
        if path == f"{BASE_PATH}/info":
            return json_reply({"data": {"id": "/", "type": "info", "attributes": {"api_version": "1.2.0"}}, "meta": {}})
        if path == "/__requests":
            with self._lock:
                pages = {str(page): count for page, count in sorted(self.requests.items())}
            return json_reply({"total": sum(pages.values()), "pages": pages})
        if path == "/__fault":
            times = query.get("times")
            self.fault(int(query["page"]), query["kind"], times=None if times is None else int(times))
            return json_reply({"ok": True})
        if path == "/__reset":
            self.reset()
            return json_reply({"ok": True})
        return json_reply({"errors": [{"detail": f"nothing under {path}"}]}, status=404)

    def _page(self, query: Mapping[str, str]) -> Reply:
        page = int(query.get("page_offset") or 0) // self.per_page
        if self.delay_s:
            time.sleep(self.delay_s)
        kind = self._count(page)
        if kind in _BEFORE:
            return _BEFORE[kind]
        try:
            document = self.listing(page, query)
        except UnsupportedFilterError as error:
            return json_reply({"errors": [{"detail": f"cannot filter by {error}"}]}, status=501)
        if kind in _AFTER:
            _AFTER[kind](self, document, query)
        reply = json_reply(document)
        if kind == "cut":
            return Reply(reply.body[: len(reply.body) // 2], announced_bytes=len(reply.body))
        return Reply(reply.body[: len(reply.body) // 2]) if kind == "short" else reply

    def _count(self, page: int) -> str:
        with self._lock:
            self.requests[page] += 1
            fault = self._faults.get(page)
            if fault is None or fault.times == 0:
                return ""
            if fault.times is not None:
                fault.times -= 1
            return fault.kind


def _error(status: int, title: str = "", **headers: str) -> Reply:
    return json_reply(
        {"errors": [{"status": str(status), "title": title, "detail": title}]}, status=status, headers=headers
    )


def _unchanged(_: PagedProvider, __: dict[str, Any], ___: Mapping[str, str]) -> None:
    """Leave the page as it is: the fault lies in how it is sent."""


def _repeat(provider: PagedProvider, document: dict[str, Any], query: Mapping[str, str]) -> None:
    document["links"]["next"] = provider.address_of(int(query.get("page_offset") or 0), query)


def _back(provider: PagedProvider, document: dict[str, Any], query: Mapping[str, str]) -> None:
    document["links"]["next"] = provider.address_of(0, query)


def _same_page(provider: PagedProvider, document: dict[str, Any], query: Mapping[str, str]) -> None:
    before = max(0, int(query.get("page_offset") or 0) - provider.per_page)
    document["data"] = provider.listing(0, {**query, "page_offset": str(before)})["data"]


def _foreign(_: PagedProvider, document: dict[str, Any], __: Mapping[str, str]) -> None:
    document["links"]["next"] = "http://elsewhere.example/optimade/v1/structures?page_offset=40"


def _lies(_: PagedProvider, document: dict[str, Any], __: Mapping[str, str]) -> None:
    document["meta"]["more_data_available"] = True


def _no_next(provider: PagedProvider, document: dict[str, Any], query: Mapping[str, str]) -> None:
    _lies(provider, document, query)
    document["links"] = {}


def _shrink(_: PagedProvider, document: dict[str, Any], __: Mapping[str, str]) -> None:
    document["meta"]["data_returned"] -= 1


def _nulls(_: PagedProvider, document: dict[str, Any], __: Mapping[str, str]) -> None:
    for record in document["data"]:
        record["attributes"]["last_modified"] = None


def _bad_record(_: PagedProvider, document: dict[str, Any], __: Mapping[str, str]) -> None:
    del document["data"][0]["id"]


def _warnings(_: PagedProvider, document: dict[str, Any], __: Mapping[str, str]) -> None:
    document["meta"]["warnings"] = [{"type": "warning", "title": "Slow", "detail": "use the bulk download"}]
    document["meta"]["response_message"] = "maintenance on Sunday"


_BEFORE: dict[str, Reply] = {
    "status_429": _error(429, "Too Many Requests", **{"Retry-After": "1"}),
    "status_500": _error(500, "Internal Server Error"),
    "status_503": _error(503, "Service Unavailable"),
    "request_error": _error(500, "RequestValidationError"),
    "html": Reply(HTML, content_type="text/html; charset=utf-8"),
    "errors": json_reply({"errors": [{"detail": "the database is being rebuilt"}], "meta": {}}),
}
_AFTER: dict[str, Callable[[PagedProvider, dict[str, Any], Mapping[str, str]], None]] = {
    "cut": _unchanged,
    "short": _unchanged,
    "repeat": _repeat,
    "back": _back,
    "same_page": _same_page,
    "foreign": _foreign,
    "lies": _lies,
    "no_next": _no_next,
    "shrink": _shrink,
    "nulls": _nulls,
    "bad_record": _bad_record,
    "warnings": _warnings,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.paged_provider")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--pages", type=int, default=1000)
    parser.add_argument("--per-page", type=int, default=20)
    parser.add_argument("--delay-ms", type=float, default=0.0, help="wait before every page")
    chosen = parser.parse_args(arguments)
    provider = PagedProvider(
        pages=chosen.pages, per_page=chosen.per_page, port=chosen.port, delay_s=chosen.delay_ms / 1000
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.stdout.write(f"{provider.url}\n")
    sys.stdout.flush()
    try:
        provider.server.serve_forever(0.2)
    except KeyboardInterrupt:
        return 0
    finally:
        provider.server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

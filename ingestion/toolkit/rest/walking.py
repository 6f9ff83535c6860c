"""The walk through a listing: answers, the ways of naming the next page, and when to stop with an error. Pure.

A paginator says which address follows; whether the walk may go there, runs in a circle or is complete is decided by
`take_step` for all of them alike.
"""

import re
from base64 import urlsafe_b64encode
from collections.abc import Collection, Sequence
from dataclasses import astuple, dataclass, field, replace
from hashlib import blake2b
from typing import Any, Protocol, Self
from urllib.parse import parse_qs, quote, urljoin, urlsplit, urlunsplit

from ingestion.ports.batch import Cursor
from ingestion.ports.context import HttpResponse
from ingestion.ports.errors import IngestError, SourceChanged, SourceRejected
from ingestion.toolkit.http.errors import bad_content, expect_json
from ingestion.toolkit.redact import redact_url
from ingestion.toolkit.rest.records import as_json, read_json, value_at

MARK_CHARS = 8
RECENT_MARKS = 16
KEPT_IDS = 500
KEPT_WARNINGS = 20
EMPTY_PAGES_ALLOWED = 1

_UNSAFE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_LINK = re.compile(r'<([^<>]*)>((?:[^<"]|"[^"]*")*)')
_PARAMETER = re.compile(r';\s*([^\s=;,"]+)\s*=\s*(?:"([^"]*)"|([^\s;,"]*))')


@dataclass(frozen=True, slots=True)
class Listing:
    """One answer of a listing, as far as walking needs it; `ids` tell its records from those of other pages."""

    response: HttpResponse
    document: Any
    record_count: int
    ids: tuple[str, ...]
    total: int | None = None
    has_more: bool | None = None
    messages: tuple[str, ...] = ()


def read_listing(
    response: HttpResponse, *, records: Sequence[str] = (), key: str = "id", total: Sequence[str] | None = None
) -> Listing:
    """Return the listing in an answer whose records stand as a list under the names `records`, one inside the other.

    SourceChanged where no list stands there. A total of the wrong type counts as not given; a record without `key` is
    told from others by its content.
    """
    document = read_document(response)
    found = value_at(document, records)
    if not isinstance(found, list):
        raise bad_content(response, found="JSON without a list of records", expected=f"a list {'.'.join(records)}")
    ids = (record.get(key) if isinstance(record, dict) else None for record in found)
    named = tuple(as_json(record) if name is None else str(name) for name, record in zip(ids, found, strict=True))
    counted = None if total is None else as_count(value_at(document, total))
    return Listing(response, document, len(found), named, counted)


def read_document(response: HttpResponse) -> Any:
    """Return the JSON value of an answer; SourceChanged or SourceUnavailable where it is none."""
    try:
        return read_json(response.body)
    except ValueError:
        return expect_json(response)


def as_count(value: Any) -> int | None:
    """Return a number of records, or None where the value is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


class Paginator(Protocol):
    """One way of naming the next page."""

    def next_link(self, url: str, listing: Listing, *, read: int) -> str | None:
        """Return the address after `url` as the answer gives or implies it, or None where the listing ends.

        `read` is how many different records the walk has read, this page included. The address may be relative.
        """
        ...


@dataclass(frozen=True, slots=True)
class NextLink:
    """The next address in the body, as text or as JSON:API's object with `href`; null or missing at the end."""

    path: tuple[str, ...] = ("links", "next")

    def next_link(self, url: str, listing: Listing, *, read: int) -> str | None:
        link = value_at(listing.document, self.path)
        if isinstance(link, dict):
            link = link.get("href")
        return link.strip() or None if isinstance(link, str) else None


@dataclass(frozen=True, slots=True)
class LinkHeader:
    """The next address in the header `Link` with rel="next"; missing at the end. Source: RFC 8288 section 3."""

    def next_link(self, url: str, listing: Listing, *, read: int) -> str | None:
        header = next((text for name, text in listing.response.headers.items() if name.lower() == "link"), "")
        for target, parameters in _LINK.findall(header):
            relations = (
                quoted or bare for name, quoted, bare in _PARAMETER.findall(parameters) if name.lower() == "rel"
            )
            if "next" in next(relations, "").lower().split():
                return str(target)
        return None


@dataclass(frozen=True, slots=True)
class NextToken:
    """The token of the next page in the body, sent as a parameter; null, empty or missing at the end."""

    path: tuple[str, ...] = ("next_cursor",)
    parameter: str = "cursor"

    def next_link(self, url: str, listing: Listing, *, read: int) -> str | None:
        token = value_at(listing.document, self.path)
        is_token = isinstance(token, str | int) and not isinstance(token, bool) and token != ""
        return with_parameter(url, self.parameter, str(token)) if is_token else None


@dataclass(frozen=True, slots=True)
class Offset:
    """The number of records before a page, sent as a parameter.

    The listing ends with the announced total or with an empty page: a page may be short because the server allows
    fewer records than were asked for.
    """

    parameter: str = "offset"

    def next_link(self, url: str, listing: Listing, *, read: int) -> str | None:
        begin = _number(url, self.parameter, default=0)
        return _next_number(url, self.parameter, begin + listing.record_count, listing=listing, read=read)


@dataclass(frozen=True, slots=True)
class PageNumber:
    """The number of the page, sent as a parameter; the listing ends as that of `Offset`."""

    parameter: str = "page"
    first: int = 1

    def next_link(self, url: str, listing: Listing, *, read: int) -> str | None:
        page = _number(url, self.parameter, default=self.first)
        return _next_number(url, self.parameter, page + 1, listing=listing, read=read)


def _number(url: str, parameter: str, *, default: int) -> int:
    text = parse_qs(urlsplit(url).query).get(parameter, [""])[-1]
    return int(text) if text.isdecimal() else default


def _next_number(url: str, parameter: str, number: int, *, listing: Listing, read: int) -> str | None:
    is_over = not listing.record_count or (listing.total is not None and read >= listing.total)
    return None if is_over else with_parameter(url, parameter, str(number))


def with_parameter(url: str, name: str, value: str) -> str:
    """Return the address with a parameter set; everything else in it stays as it is written."""
    parts = urlsplit(url)
    pairs = [pair for pair in parts.query.split("&") if pair and pair.partition("=")[0] != quote(name)]
    return parts._replace(query="&".join((*pairs, f"{quote(name)}={quote(value, safe='')}"))).geturl()


def resolve_next(link: str, *, current: str, allowed_hosts: Collection[str] = ()) -> str:
    """Return the absolute, percent-encoded address of a next link; SourceRejected where it leaves the source's host.

    On the same host (with or without "www.") our own scheme, host and port are kept: behind a proxy many providers
    write http for https, or an inner port. A host of `allowed_hosts` is taken as the link gives it.
    """
    ours = urlsplit(current)
    try:
        found = urlsplit(urljoin(current, link))
        port = found.port
    except ValueError as error:
        raise SourceRejected("source.foreign_next", host=ours.hostname, found="no address") from error
    host = found.hostname or ""
    if found.scheme not in ("http", "https"):
        raise SourceRejected("source.foreign_next", host=ours.hostname, found=f"{found.scheme}:")
    if _site(host) == _site(ours.hostname or ""):
        scheme, place = ours.scheme, ours.netloc
    elif host in allowed_hosts:
        scheme, place = found.scheme, host if port is None else f"{host}:{port}"
    else:
        raise SourceRejected("source.foreign_next", host=ours.hostname, found=host)
    path = ours.path if _tail(found.path) == _tail(ours.path) else _encode(found.path, safe="/:@!$&'()*+,;=~")
    return urlunsplit((scheme, place, path, _encode(found.query), ""))


def _tail(path: str) -> str:
    """Return the version and the stream of a listing's path; what is before it may be unknown behind a proxy."""
    return "/".join(path.rstrip("/").rsplit("/", 2)[-2:])


def _site(host: str) -> str:
    return host.lower().rstrip(".").removeprefix("www.")


def _encode(text: str, *, safe: str = "/:@!$&'()*+,;=?~") -> str:
    """Percent-encode what may not stand in an address and leave alone what is encoded already."""
    return quote(_UNSAFE_PERCENT.sub("%25", text), safe=f"{safe}%")


def _mark(text: str) -> str:
    return urlsafe_b64encode(blake2b(text.encode("utf-8", "replace"), digest_size=6).digest()).decode()


@dataclass(frozen=True, slots=True)
class Trail:
    """Remembers a walk of any length in a bounded number of marks, so that walking in a circle is noticed.

    A circle of up to 16 steps, or one through the first step, is noticed when it closes; a longer one at the latest
    in its third round. Source: R. P. Brent, "An improved Monte Carlo factorization algorithm" (1980), section 3:
    one mark that is renewed at every power of two.
    """

    count: int = 0
    first: str = ""
    anchor: str = ""
    recent: str = ""

    def has(self, text: str) -> bool:
        """Return whether that step was walked, as far as it is remembered."""
        mark = _mark(text)
        marks = [self.recent[at : at + MARK_CHARS] for at in range(0, len(self.recent), MARK_CHARS)]
        return self.count > 0 and mark in (self.first, self.anchor, *marks)

    def step(self, text: str) -> "Trail":
        """Return the trail with one more step."""
        mark, count = _mark(text), self.count + 1
        return Trail(
            count=count,
            first=self.first or mark,
            anchor=mark if count & (count - 1) == 0 else self.anchor,
            recent=(self.recent + mark)[-MARK_CHARS * RECENT_MARKS :],
        )


@dataclass(frozen=True, slots=True)
class Walk:
    """The place where a listing is read on, and what is kept of the pages before. Its JSON is the cursor."""

    url: str
    seen_count: int = 0
    again_count: int = 0
    total: int | None = None
    empty_count: int = 0
    is_recheck: bool = False
    urls: Trail = field(default_factory=Trail)
    pages: Trail = field(default_factory=Trail)
    last_ids: str = ""
    warned: tuple[str, ...] = ()

    @classmethod
    def from_cursor(cls, cursor: Cursor) -> Self:
        """Return the walk that `to_cursor` wrote."""
        return cls(
            url=cursor["next"],
            seen_count=cursor["seen"],
            again_count=cursor["again"],
            total=cursor["total"],
            empty_count=cursor["empty"],
            is_recheck=cursor["recheck"],
            urls=Trail(*cursor["urls"]),
            pages=Trail(*cursor["pages"]),
            last_ids=cursor["ids"],
            warned=tuple(cursor["warned"]),
        )

    def to_cursor(self) -> Cursor:
        """Return the walk as JSON values."""
        return {
            "next": self.url,
            "seen": self.seen_count,
            "again": self.again_count,
            "total": self.total,
            "empty": self.empty_count,
            "recheck": self.is_recheck,
            "urls": list(astuple(self.urls)),
            "pages": list(astuple(self.pages)),
            "ids": self.last_ids,
            "warned": list(self.warned),
        }

    @property
    def read_count(self) -> int:
        """Return how many records were read, those that came a second time not counted."""
        return self.seen_count - self.again_count

    def new_messages(self, messages: Sequence[str]) -> tuple[str, ...]:
        """Return the messages that no earlier page brought."""
        return tuple(text for text in messages if _mark(text) not in self.warned)


@dataclass(frozen=True, slots=True)
class Step:
    """The consequence of a page: the walk after it (None: it was the last), or the fault that ends the walk.

    With a fault the walk leads to the same page again, so that a later attempt sees whether it was repaired.
    """

    walk: Walk | None
    fault: IngestError | None = None
    note: str = ""


def take_step(
    walk: Walk, answer: Listing, paginator: Paginator, *, limit: int | None, allowed_hosts: Collection[str] = ()
) -> Step:
    """Return the step after the page that `walk.url` gave."""
    marks = [_mark(identifier) for identifier in answer.ids][-KEPT_IDS:]
    known = {walk.last_ids[at : at + MARK_CHARS] for at in range(0, len(walk.last_ids), MARK_CHARS)}
    after = replace(
        walk,
        seen_count=walk.seen_count + answer.record_count,
        again_count=walk.again_count + sum(1 for mark in marks if mark in known),
        total=answer.total if walk.total is None else walk.total,
        empty_count=0 if answer.record_count else walk.empty_count + 1,
        is_recheck=False,
        urls=walk.urls.step(walk.url),
        pages=walk.pages.step(_page_mark(answer)) if answer.ids else walk.pages,
        last_ids="".join(marks) or walk.last_ids,
        warned=(*walk.warned, *(_mark(text) for text in walk.new_messages(answer.messages)))[-KEPT_WARNINGS:],
    )
    if limit is not None and after.seen_count >= limit:
        return Step(None)
    try:
        _check_total(walk, answer)
        link = paginator.next_link(walk.url, answer, read=after.read_count)
        if link is None:
            return Step(None, note=_end(after, answer))
        url = resolve_next(link, current=walk.url, allowed_hosts=allowed_hosts)
        repeats = bool(marks) and not walk.is_recheck and (set(marks) <= known or walk.pages.has(_page_mark(answer)))
        if after.urls.has(url) or repeats or after.empty_count > EMPTY_PAGES_ALLOWED:
            raise SourceChanged("source.pagination_loop", url=redact_url(url))
    except IngestError as fault:
        return Step(replace(after, url=walk.url, is_recheck=True), fault)
    return Step(replace(after, url=url))


def _page_mark(answer: Listing) -> str:
    return "\n".join(sorted(answer.ids))


def _check_total(walk: Walk, answer: Listing) -> None:
    if walk.total is not None and answer.total is not None and answer.total < walk.total:
        raise SourceChanged("source.total_shrank", total=walk.total, found=answer.total)


def _end(after: Walk, answer: Listing) -> str:
    """Return the warning for the end of the pages; SourceChanged where the source itself says that more follow.

    Some providers (OQMD) say so on every page, the last included: the number of records decides then.
    """
    is_short = answer.total is not None and after.read_count < answer.total
    if answer.has_more and (answer.total is None or is_short):
        raise SourceChanged("source.incomplete", records=after.seen_count)
    if is_short:
        return f"The source counts {answer.total} matching records but gave {after.read_count} of them before its pages ended."
    return ""

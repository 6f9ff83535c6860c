"""The ways in which listings name their next page. Pure.

A paginator says which address follows; whether the walk may go there, runs in a circle or is complete is decided by
`walking` for all of them alike.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import parse_qs, quote, urljoin, urlsplit, urlunsplit

from ingestion.ports.errors import SourceRejected
from ingestion.toolkit.rest.listing import Listing
from ingestion.toolkit.rest.values import value_at

_UNSAFE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_LINK = re.compile(r'<([^<>]*)>((?:[^<"]|"[^"]*")*)')
_PARAMETER = re.compile(r';\s*([^\s=;,"]+)\s*=\s*(?:"([^"]*)"|([^\s;,"]*))')


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

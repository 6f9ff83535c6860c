"""A REST API as its connector reads it: its address, its headers, its listings page by page."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Annotated
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, SecretStr

from ingestion.ports.batch import Cursor, Page, PartitionSpec, Query
from ingestion.ports.check import CheckReport
from ingestion.ports.context import Context, HttpResponse
from ingestion.ports.errors import ConfigError
from ingestion.toolkit.http.egress import is_same_origin
from ingestion.toolkit.http.probe import Steps
from ingestion.toolkit.redact import redact_url, register_secret
from ingestion.toolkit.rest.records import FIRST_RECORD, read_time, time_text
from ingestion.toolkit.rest.walking import Listing, Paginator, Walk, take_step

KEPT_HEADERS = ("content-type", "date", "etag", "last-modified")
_FIELD = re.compile(r"\A[A-Za-z_][A-Za-z0-9_.-]*\Z")
_HEADER_NAME = re.compile(r"\A[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")


def _plain_address(base_url: str) -> str:
    parts = urlsplit(base_url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        msg = "write an address that begins with http:// or https://"
        raise ValueError(msg)
    if parts.username is not None or parts.query or parts.fragment:
        msg = "write the address without user, query and fragment; a key belongs into the secrets"
        raise ValueError(msg)
    return base_url.strip().rstrip("/")


def _one_line_each(headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for name, value in headers.items():
        if not _HEADER_NAME.match(name) or name.lower() in ("host", "content-length", "accept"):
            msg = "a header's name is not allowed"
            raise ValueError(msg)
        if not value.get_secret_value().isprintable() or not value.get_secret_value().isascii():
            msg = f"the value of header {name} is not one line of ASCII text"
            raise ValueError(msg)
    return headers


BaseUrl = Annotated[str, AfterValidator(_plain_address)]
"""The address of an API in a connector's Config: http or https, nothing secret in it, no slash at its end."""
SecretHeaders = Annotated[dict[str, SecretStr], AfterValidator(_one_line_each)]
"""Request headers in a connector's Config."""


class Api:
    """The API behind one base address.

    `secret_headers` go to the origin of the base address alone (scheme, host and port), wherever an answer leads;
    `allowed_hosts` are the other hosts that a next link may lead to.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        secret_headers: Mapping[str, SecretStr] | None = None,
        allowed_hosts: Collection[str] = (),
    ) -> None:
        self._base_url = base_url
        self._headers = dict(headers or {})
        self._secret_headers = dict(secret_headers or {})
        self._allowed_hosts = allowed_hosts
        for value in self._secret_headers.values():
            register_secret(value.get_secret_value())

    def url(self, path: str, parameters: Mapping[str, str | int | None] | None = None) -> str:
        """Return an address below the base; parameters that are None are left out."""
        pairs = [
            f"{quote(name)}={quote(str(value), safe=',')}"
            for name, value in (parameters or {}).items()
            if value is not None
        ]
        return f"{self._base_url}/{path}{'?' if pairs else ''}{'&'.join(pairs)}"

    def headers_for(self, url: str) -> dict[str, str]:
        """Return the headers of a request to the address: with the secret ones at the API's own origin."""
        secret = self._secret_headers if is_same_origin(url, self._base_url) else {}
        return self._headers | {name: value.get_secret_value() for name, value in secret.items()}

    def get(self, url: str, ctx: Context, *, accept_status: Sequence[int] = ()) -> HttpResponse:
        """Return the answer to a GET; statuses as in `HttpClient.get`."""
        return ctx.http.get(url, headers=self.headers_for(url), accept_status=accept_status)

    def check(self, url: str, ctx: Context, *, describe: Callable[[], str]) -> CheckReport:
        """Return which layer before an answer from `url` fails, and whether `describe` understands the API."""
        reached = ctx.http.probe(url, headers=self.headers_for(url))
        if not reached.ok:
            return reached
        with Steps(reached.findings) as steps:
            steps.take("schema", describe, detail=str)
        return steps.report

    def pages(
        self,
        spec: PartitionSpec,
        cursor: Cursor | None,
        ctx: Context,
        *,
        paginator: Paginator,
        read: Callable[[HttpResponse], Listing],
        ask: Callable[[str], tuple[HttpResponse, str]] | None = None,
    ) -> Iterator[Page]:
        """Yield the pages of a partition that `plan_listing` made, from `cursor` on.

        `read` understands an answer, `ask` makes the request where it is more than `get`: it returns the answer and
        the address that gave it. A fault of the paging comes after the page that shows it was yielded; a resumed walk
        asks for that page again and goes on where the source has repaired it.
        """
        walk = Walk(url=spec.data["url"]) if cursor is None else Walk.from_cursor(cursor)
        limit = spec.data.get("limit")
        while True:
            ctx.beat()
            response, url = ask(walk.url) if ask else (self.get(walk.url, ctx), walk.url)
            listing = read(response)
            step = take_step(walk, listing, paginator, limit=limit, allowed_hosts=self._allowed_hosts)
            if step.fault is not None and walk.is_recheck:
                raise step.fault
            yield Page(
                body=response.body,
                next_cursor=None if step.walk is None else step.walk.to_cursor(),
                # the fragment says how many records came before: a lane's later link must know where a limit falls
                url=f"{redact_url(url)}#{FIRST_RECORD}{walk.seen_count}",
                status=response.status,
                headers={name: text for name, text in response.headers.items() if name.lower() in KEPT_HEADERS},
                record_count=listing.record_count,
                total=listing.total if limit is None or listing.total is None else min(listing.total, limit),
                warnings=tuple(text for text in (*walk.new_messages(listing.messages), step.note) if text),
            )
            if step.fault is not None:
                raise step.fault
            if step.walk is None:
                return
            walk = step.walk


def bearer(token: SecretStr) -> SecretStr:
    """Return the value of the header Authorization that carries the token."""
    return SecretStr(f"Bearer {token.get_secret_value()}")


def plan_listing(query: Query, url: str) -> Iterator[PartitionSpec]:
    """Yield the one partition of a listing that begins at `url`: its pages are a chain; none for a limit below 1."""
    if query.limit is not None and query.limit < 1:
        return
    limited = {} if query.limit is None else {"limit": query.limit}
    yield PartitionSpec(lane=0, data={"stream": query.stream, "url": url, **limited}, label=query.stream)


def check_query(query: Query, *, streams: Collection[str], kind: str) -> None:
    """Raise ConfigError where the query names a stream the connector has not, or fields that are no names."""
    if query.stream not in streams:
        known = ", ".join(sorted(streams))
        raise ConfigError("config.unknown_stream", source=kind, stream=query.stream, known=known)
    if wrong := wrong_fields(query.fields):
        raise ConfigError("config.invalid", where="the query", detail=f"not names of fields: {', '.join(wrong)}")


def wrong_fields(fields: Sequence[str]) -> list[str]:
    """Return those that cannot be the name of a field."""
    return [name for name in fields if not _FIELD.match(name)]


def later_cursor(field: str, since: Cursor | None, high_water: str | None) -> Cursor | None:
    """Return the cursor of the greater time, that of `since` or the `high_water` just read; `since` without one."""
    before, now = read_time((since or {}).get(field)), read_time(high_water)
    if now is None or (before is not None and before >= now):
        return since
    return {field: time_text(now)}

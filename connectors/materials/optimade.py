"""Reads structures and references of any OPTIMADE provider, page by page."""

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from connectors.materials.messages import MESSAGES
from connectors.materials.record import REFERENCES, STRUCTURES, read_entries, read_json, read_time, schema_of, tabulate
from ingestion.ports.batch import Cursor, Page, PartitionSpec, Query, Records
from ingestion.ports.check import CheckReport, Finding
from ingestion.ports.connector import Stream
from ingestion.ports.context import Context, HttpResponse
from ingestion.ports.errors import Cancelled, ConfigError, IngestError, SourceRejected
from ingestion.toolkit.http.errors import bad_content, error_detail, expect_json, from_status
from ingestion.toolkit.http.probe import probe_http
from ingestion.toolkit.http.retry import TransientError
from ingestion.toolkit.redact import redact_url, register_secret
from ingestion.toolkit.rest.walking import Answer, Walk, read_answer, take_step

if TYPE_CHECKING:
    import pyarrow as pa

LAYOUTS = {"structures": STRUCTURES, "references": REFERENCES}
VERSION_NOT_SUPPORTED = 553
READ_STATUS = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.NOT_IMPLEMENTED,
    VERSION_NOT_SUPPORTED,
)
"""Statuses whose body says what is wrong with the request; the others are the HTTP client's."""
DELAY_MAX_S = 3600.0
PAGE_LIMIT_TRIES = 4
FIRST_RECORD = "record="
KEPT_HEADERS = ("content-type", "date", "etag", "last-modified")
ACCEPT = "application/vnd.api+json, application/json"

_VERSION = re.compile(r"/v\d+(\.\d+){0,2}\Z")
_FIELD = re.compile(r"\A[A-Za-z_][A-Za-z0-9_.-]*\Z")
_HEADER_NAME = re.compile(r"\A[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")
_PAGE_LIMIT = re.compile(r"(?<=[?&]page_limit=)\d+")


class OptimadeConfig(BaseModel):
    """How to reach one OPTIMADE provider."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = Field(
        description="Address of the database, with or without /v1, e.g. https://example.org/optimade."
    )
    page_limit: int = Field(
        default=20, ge=1, le=10_000, description="Records a page; lowered by itself where the provider allows fewer."
    )
    response_fields: tuple[str, ...] = Field(
        default=(), description="Fields to ask for where the pipeline names none; empty: what the provider sends."
    )
    headers: dict[str, SecretStr] = Field(default_factory=dict, description="Further request headers, such as a key.")
    lookback_s: int = Field(
        default=300, ge=0, le=366 * 86_400, description="How far an incremental run reads back before the last one."
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(), description="Other hosts that next links may lead to; request headers are not sent there."
    )

    @field_validator("base_url")
    @classmethod
    def _address_is_plain(cls, base_url: str) -> str:
        parts = urlsplit(base_url.strip())
        if parts.scheme not in ("http", "https") or not parts.hostname:
            msg = "write an address that begins with http:// or https://"
            raise ValueError(msg)
        if parts.username is not None or parts.query or parts.fragment:
            msg = "write the address without user, query and fragment; a key belongs into headers"
            raise ValueError(msg)
        return base_url.strip().rstrip("/")

    @field_validator("response_fields")
    @classmethod
    def _fields_are_names(cls, fields: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [name for name in fields if not _FIELD.match(name)]
        if wrong:
            msg = f"not names of fields: {', '.join(wrong)}"
            raise ValueError(msg)
        return fields

    @field_validator("headers")
    @classmethod
    def _headers_are_one_line(cls, headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, value in headers.items():
            if not _HEADER_NAME.match(name) or name.lower() in ("host", "content-length", "accept"):
                msg = "a header's name is not allowed"
                raise ValueError(msg)
            if not value.get_secret_value().isprintable() or not value.get_secret_value().isascii():
                msg = f"the value of header {name} is not one line of ASCII text"
                raise ValueError(msg)
        return headers

    @property
    def versioned_url(self) -> str:
        """Return the base address with its version segment."""
        return self.base_url if _VERSION.search(self.base_url) else f"{self.base_url}/v1"


class OptimadeConnector:
    """Reads one OPTIMADE database. One lane: its pages are a chain of next links."""

    kind: ClassVar[str] = "optimade"
    messages: ClassVar[Mapping[str, str]] = MESSAGES
    Config: ClassVar[type[BaseModel]] = OptimadeConfig

    def __init__(self, config: OptimadeConfig) -> None:
        self._config = config
        for value in config.headers.values():
            register_secret(value.get_secret_value())

    def streams(self) -> Sequence[Stream]:
        """Return structures and references, read incrementally by `last_modified`."""
        return tuple(
            Stream(
                name=name,
                key=("id",),
                cursor_field="last_modified",
                schema=schema_of(name, layout),
                description=f"The {name} of the database, with the provider's own fields.",
            )
            for name, layout in LAYOUTS.items()
        )

    def check(self, ctx: Context) -> CheckReport:
        """Return whether the provider answers and speaks OPTIMADE."""
        base = self._config.versioned_url
        findings = list(self._reach(f"{base}/info", ctx).findings)
        if all(finding.ok for finding in findings):
            findings.append(self._look_at_schema(base, ctx))
        return CheckReport(tuple(findings))

    def _reach(self, url: str, ctx: Context) -> CheckReport:
        """Return how far a connection gets; layer by layer where the client can look below HTTP."""
        probe = getattr(ctx.http, "probe", None)
        if probe is not None:
            report: CheckReport = probe(url, headers=self._headers(url))
            return report
        return probe_http(url, ask=lambda target: self._get(target, ctx)[0])

    def _look_at_schema(self, base: str, ctx: Context) -> Finding:
        started_at = time.monotonic()
        detail, code = "", ""
        try:
            version = _api_version(self._get(f"{base}/info", ctx)[0])
            answer = read_answer(_listing(self._get(f"{base}/structures?page_limit=1&include=", ctx)[0]))
            count = "an unknown number of" if answer.total is None else answer.total
            detail = f"OPTIMADE {version}, {count} structures"
        except IngestError as error:
            detail, code = str(error), error.code
        elapsed_ms = (time.monotonic() - started_at) * 1000
        return Finding("schema", ok=not code, elapsed_ms=elapsed_ms, detail=detail, code=code)

    def plan(self, query: Query, since: Cursor | None, ctx: Context) -> Iterable[PartitionSpec]:
        """Yield the one partition: the address of the first page."""
        if query.stream not in LAYOUTS:
            raise ConfigError(
                "config.unknown_stream", source=self.kind, stream=query.stream, known=", ".join(sorted(LAYOUTS))
            )
        if query.limit is not None and query.limit < 1:
            return
        data: dict[str, Any] = {"stream": query.stream, "url": self._first_url(query, since)}
        if query.limit is not None:
            data["limit"] = query.limit
        yield PartitionSpec(lane=0, data=data, label=query.stream)

    def _first_url(self, query: Query, since: Cursor | None) -> str:
        limit = self._config.page_limit if query.limit is None else min(self._config.page_limit, query.limit)
        # page_limit is always sent: the reference server's own default may exceed what it allows
        parameters = {"filter": self._filter(query, since), "page_limit": str(limit), "include": ""}
        fields = query.fields or self._config.response_fields
        wrong = [name for name in fields if not _FIELD.match(name)]
        if wrong:
            raise ConfigError("config.invalid", where="the query", detail=f"not names of fields: {', '.join(wrong)}")
        if fields:
            parameters["response_fields"] = ",".join(dict.fromkeys((*fields, "last_modified")))
        pairs = [f"{name}={quote(value, safe=',')}" for name, value in parameters.items() if value or name == "include"]
        return f"{self._config.versioned_url}/{query.stream}?{'&'.join(pairs)}"

    def _filter(self, query: Query, since: Cursor | None) -> str:
        own = (query.filter or "").strip()
        after = read_time((since or {}).get("last_modified"))
        if after is None:
            return own
        # whole seconds: the reference server finds nothing for a time with a fraction
        begin = (after - timedelta(seconds=self._config.lookback_s)).replace(microsecond=0)
        newer = f'last_modified > "{begin:%Y-%m-%dT%H:%M:%SZ}"'
        return f"({own}) AND {newer}" if own else newer

    def fetch(self, spec: PartitionSpec, cursor: Cursor | None, ctx: Context) -> Iterator[Page]:
        """Yield the pages from `cursor` on, following next links only.

        A fault of the paging comes after the page that shows it was yielded; a resumed walk asks for that page again
        and goes on where the provider has mended it.
        """
        walk = Walk(url=spec.data["url"]) if cursor is None else Walk.from_cursor(cursor)
        limit = spec.data.get("limit")
        while True:
            if ctx.should_stop():
                # raised, so that a stop never looks like the end of the pages
                raise Cancelled
            response, url = self._get(walk.url, ctx)
            ctx.progress()
            answer = read_answer(_listing(response))
            self._keep_delay(answer, ctx)
            step = take_step(walk, answer, limit=limit, allowed_hosts=self._config.allowed_hosts)
            if step.fault is not None and walk.is_recheck:
                raise step.fault
            warnings = _warnings(walk, answer, note=step.note)
            # the fragment says how many records came before: a lane's later link must know where a limit falls
            place = f"{redact_url(url)}#{FIRST_RECORD}{walk.seen_count}"
            yield _page(response, place, answer=answer, next_walk=step.walk, warnings=warnings)
            if step.fault is not None:
                raise step.fault
            if step.walk is None:
                return
            walk = step.walk

    def _get(self, url: str, ctx: Context) -> tuple[HttpResponse, str]:
        """Return a 200 answer and the address that gave it; the page limit may have been lowered on the way."""
        for _ in range(PAGE_LIMIT_TRIES):
            headers = self._headers(url)
            response = ctx.http.get(
                url, headers=headers, accept_status=(*READ_STATUS, HTTPStatus.INTERNAL_SERVER_ERROR)
            )
            if response.status == HTTPStatus.INTERNAL_SERVER_ERROR and not _is_request_error(response):
                # a server error after all: now with the client's own retries
                response = ctx.http.get(url, headers=headers, accept_status=READ_STATUS)
            if response.status < HTTPStatus.BAD_REQUEST:
                return response, url
            lowered = _lower_page_limit(url, response)
            if lowered is None:
                break
            message = "The provider allows fewer records a page than page_limit asks for; the read goes on with fewer."
            ctx.log("source.page_limit_lowered", level="warning", message=message, url=redact_url(lowered))
            url = lowered
        raise _refusal(response)

    def _headers(self, url: str) -> dict[str, str]:
        headers = {"Accept": ACCEPT}
        if urlsplit(url).netloc == urlsplit(self._config.base_url).netloc:
            headers |= {name: value.get_secret_value() for name, value in self._config.headers.items()}
        return headers

    def _keep_delay(self, answer: Answer, ctx: Context) -> None:
        if answer.request_delay_s is not None and answer.request_delay_s > 0:
            key = getattr(ctx.http, "limit_key", None) or f"source:{urlsplit(self._config.base_url).netloc}"
            ctx.limiter.slow_down(key, seconds=min(answer.request_delay_s, DELAY_MAX_S))

    def standardize(self, records: Records, stream: Stream) -> "pa.Table":
        """Return standard columns, the provider's fields without their leading "_", and the reader columns."""
        entries = (entry for page in records.pages for entry in read_entries(page.seq, page.read()))
        limit = records.query.limit
        if limit is not None and records.pages:
            limit -= _first_record(records.pages[0].url)
        return tabulate(entries, LAYOUTS[stream.name], limit=limit)

    def checkpoint(self, spec: PartitionSpec, since: Cursor | None, high_water: str | None) -> Cursor | None:
        """Return the greatest `last_modified` read; where the provider gives none, what was known before."""
        before, now = read_time((since or {}).get("last_modified")), read_time(high_water)
        if now is None or (before is not None and before >= now):
            return since
        return {"last_modified": now.isoformat(timespec="microseconds").replace("+00:00", "Z")}


def _page(response: HttpResponse, url: str, *, answer: Answer, next_walk: Walk | None, warnings: Sequence[str]) -> Page:
    return Page(
        body=response.body,
        next_cursor=None if next_walk is None else next_walk.to_cursor(),
        url=url,
        status=response.status,
        headers={name.lower(): value for name, value in response.headers.items() if name.lower() in KEPT_HEADERS},
        record_count=answer.record_count,
        total=answer.total,
        warnings=tuple(warnings),
    )


def _first_record(url: str) -> int:
    number = urlsplit(url).fragment.removeprefix(FIRST_RECORD)
    return int(number) if number.isdecimal() else 0


def _warnings(walk: Walk, answer: Answer, *, note: str) -> list[str]:
    found = [*walk.new_messages(answer.messages), note]
    if walk.seen_count == 0 and answer.undated_count:
        found.append(
            f"{answer.undated_count} of {answer.record_count} records on the first page carry no last_modified; "
            "what the provider leaves undated is found by a full read only."
        )
    return [text for text in found if text]


def _document(response: HttpResponse) -> Mapping[str, Any]:
    """Return the JSON object of a body; SourceChanged where it is none, SourceRejected where it is a list of errors."""
    try:
        document = read_json(response.body)
    except ValueError:
        document = expect_json(response)
    if not isinstance(document, dict):
        raise bad_content(response, found="JSON without an object", expected="an OPTIMADE answer")
    if document.get("errors") and "data" not in document:
        raise _rejected(response)
    return document


def _listing(response: HttpResponse) -> Mapping[str, Any]:
    document = _document(response)
    if not isinstance(document.get("data"), list):
        raise bad_content(response, found="JSON without a list of data", expected="an OPTIMADE listing")
    return document


def _refusal(response: HttpResponse) -> IngestError:
    """Return the error of a status that was read for its explanation."""
    if response.status in (HTTPStatus.FORBIDDEN, HTTPStatus.UNAUTHORIZED):
        error = from_status(response, host=urlsplit(response.url).hostname or "")
        return error.error if isinstance(error, TransientError) else error
    return _rejected(response)


def _rejected(response: HttpResponse) -> SourceRejected:
    host, detail = urlsplit(response.url).hostname, error_detail(response).rstrip(". ")
    return SourceRejected("source.rejected", host=host, status=response.status, detail=detail)


def _is_request_error(response: HttpResponse) -> bool:
    """Return whether a 500 is in truth our fault: the reference server reports invalid parameters so."""
    try:
        document = read_json(response.body)
    except ValueError:
        return False
    errors = document.get("errors") if isinstance(document, dict) else None
    titles = [error.get("title") for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []
    return any("ValidationError" in str(title) for title in titles)


def _lower_page_limit(url: str, response: HttpResponse) -> str | None:
    """Return the address with a page limit that the provider allows, or None where that was not its complaint."""
    used = _PAGE_LIMIT.search(url)
    detail = error_detail(response)
    refused = response.status == HTTPStatus.FORBIDDEN and "page_limit" in detail
    if not refused or used is None or int(used[0]) <= 1:
        return None
    smaller = [int(number) for number in re.findall(r"\d+", detail) if 0 < int(number) < int(used[0])]
    return _PAGE_LIMIT.sub(str(max(smaller, default=int(used[0]) // 2)), url, count=1)


def _api_version(response: HttpResponse) -> str:
    document = _document(response)
    data, meta = document.get("data"), document.get("meta")
    attributes = data.get("attributes") if isinstance(data, dict) else None
    for place in (attributes, meta):
        if isinstance(place, dict) and isinstance(place.get("api_version"), str):
            return str(place["api_version"])
    raise bad_content(response, found="JSON without an api_version", expected="an OPTIMADE answer")

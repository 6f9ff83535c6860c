"""Reads structures and references of any OPTIMADE provider, page by page."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ingestion.ports.batch import Cursor, Page, PartitionSpec, Query, Records
from ingestion.ports.check import CheckReport
from ingestion.ports.connector import Stream
from ingestion.ports.context import Context, HttpResponse
from ingestion.ports.errors import IngestError, SourceRejected
from ingestion.ports.schema import Column, ColumnType, ContractBody
from ingestion.toolkit.http.errors import bad_content, error_detail, from_status
from ingestion.toolkit.http.retry import TransientError
from ingestion.toolkit.redact import redact_url
from ingestion.toolkit.rest.api import (
    Api,
    BaseUrl,
    SecretHeaders,
    check_query,
    later_cursor,
    plan_listing,
    wrong_fields,
)
from ingestion.toolkit.rest.records import UnreadableError, read_json, read_object, read_time, standardize, value_at
from ingestion.toolkit.rest.walking import Listing, NextLink, as_count, read_document

if TYPE_CHECKING:
    import pyarrow as pa

_TEXT, _TIME, _INT, _LIST = ColumnType.STRING, ColumnType.DATETIME, ColumnType.INTEGER, ColumnType.ARRAY

PARTIAL_FIELDS = "partial_data_fields"
"""Names of the fields that are null only because they were too large to be sent inline (JSON text)."""

STRUCTURES: dict[str, ColumnType] = {
    "id": _TEXT,
    "type": _TEXT,
    "immutable_id": _TEXT,
    "last_modified": _TIME,
    "elements": _LIST,
    "nelements": _INT,
    "elements_ratios": _LIST,
    "chemical_formula_descriptive": _TEXT,
    "chemical_formula_reduced": _TEXT,
    "chemical_formula_hill": _TEXT,
    "chemical_formula_anonymous": _TEXT,
    "dimension_types": _LIST,
    "nperiodic_dimensions": _INT,
    "lattice_vectors": _LIST,
    "cartesian_site_positions": _LIST,
    "fractional_site_positions": _LIST,
    "nsites": _INT,
    "species": _LIST,
    "species_at_sites": _LIST,
    "assemblies": _LIST,
    "structure_features": _LIST,
    "space_group_it_number": _INT,
    "space_group_symbol_hall": _TEXT,
    "space_group_symbol_hermann_mauguin": _TEXT,
    "space_group_symbol_hermann_mauguin_extended": _TEXT,
    "space_group_symmetry_operations_xyz": _LIST,
    PARTIAL_FIELDS: _LIST,
}
"""Standard columns of structures; lengths in Å, matrices as rows."""

REFERENCES: dict[str, ColumnType] = {
    "id": _TEXT,
    "type": _TEXT,
    "immutable_id": _TEXT,
    "last_modified": _TIME,
    "authors": _LIST,
    "editors": _LIST,
    "title": _TEXT,
    "journal": _TEXT,
    "publisher": _TEXT,
    "volume": _TEXT,
    "pages": _TEXT,
    "year": _TEXT,
    "doi": _TEXT,
    "url": _TEXT,
    "bib_type": _TEXT,
    PARTIAL_FIELDS: _LIST,
}
"""Standard columns of references."""

LAYOUTS = {"structures": STRUCTURES, "references": REFERENCES}
_UNITS = {"lattice_vectors": "Å", "cartesian_site_positions": "Å"}

CURSOR_FIELD = "last_modified"
VERSION_NOT_SUPPORTED = 553
READ_STATUS = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.NOT_IMPLEMENTED,
    VERSION_NOT_SUPPORTED,
)
"""Statuses whose body says what is wrong with the request; the others are the HTTP client's."""
PAGE_LIMIT_TRIES = 4
ACCEPT = "application/vnd.api+json, application/json"

_VERSION = re.compile(r"/v\d+(\.\d+){0,2}\Z")
_PAGE_LIMIT = re.compile(r"(?<=[?&]page_limit=)\d+")


def schema_of(name: str) -> ContractBody:
    """Return the contract that the standard columns keep: the key is `id`, everything else may be unknown."""
    columns = tuple(
        Column(name=column, type=column_type, nullable=column != "id", unit=_UNITS.get(column))
        for column, column_type in LAYOUTS[name].items()
    )
    return ContractBody(name=name, key=("id",), columns=columns)


def read_entry(entry: Any) -> Mapping[str, Any]:
    """Return the attributes of an entry with its id, its type and the names of its partial fields."""
    value = read_object(entry)
    attributes = value.get("attributes", {})
    if not isinstance(attributes, dict):
        raise UnreadableError("row.no_attributes")
    meta = value.get("meta")
    partial = meta.get("partial_data_links") if isinstance(meta, dict) else None
    return {
        **attributes,
        "id": value["id"],
        "type": value.get("type"),
        PARTIAL_FIELDS: sorted(partial) if isinstance(partial, dict) and partial else None,
    }


class OptimadeConfig(BaseModel):
    """The way to one OPTIMADE provider."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: BaseUrl = Field(
        description="Address of the database, with or without /v1, e.g. https://example.org/optimade."
    )
    page_limit: int = Field(
        default=20, ge=1, le=10_000, description="Records a page; lowered by itself where the provider allows fewer."
    )
    response_fields: tuple[str, ...] = Field(
        default=(), description="Fields to ask for where the pipeline names none; empty: what the provider sends."
    )
    headers: SecretHeaders = Field(default_factory=dict, description="Further request headers, such as a key.")
    lookback_s: int = Field(
        default=300, ge=0, le=366 * 86_400, description="How far an incremental run reads back before the last one."
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(), description="Other hosts that next links may lead to; request headers are not sent there."
    )

    @field_validator("response_fields")
    @classmethod
    def _fields_are_names(cls, fields: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := wrong_fields(fields):
            msg = f"not names of fields: {', '.join(wrong)}"
            raise ValueError(msg)
        return fields

    @property
    def versioned_url(self) -> str:
        """Return the base address with its version segment."""
        return self.base_url if _VERSION.search(self.base_url) else f"{self.base_url}/v1"


class OptimadeConnector:
    """Reads one OPTIMADE database. One lane: its pages are a chain of next links."""

    kind: ClassVar[str] = "optimade"
    messages: ClassVar[Mapping[str, str]] = {"row.no_attributes": "The attributes of the record are no JSON object."}
    Config: ClassVar[type[BaseModel]] = OptimadeConfig

    def __init__(self, config: OptimadeConfig) -> None:
        self._config = config
        self._api = Api(
            config.versioned_url,
            headers={"Accept": ACCEPT},
            secret_headers=config.headers,
            allowed_hosts=config.allowed_hosts,
        )

    def streams(self) -> Sequence[Stream]:
        """Return structures and references, read incrementally by `last_modified`."""
        return tuple(
            Stream(
                name=name,
                key=("id",),
                cursor_field=CURSOR_FIELD,
                schema=schema_of(name),
                description=f"The {name} of the database, with the provider's own fields.",
            )
            for name in LAYOUTS
        )

    def check(self, ctx: Context) -> CheckReport:
        """Return whether the provider answers and speaks OPTIMADE."""
        info = self._api.url("info")

        def describe() -> str:
            version = _api_version(self._get(ctx, info)[0])
            structures = self._api.url("structures", {"page_limit": 1, "include": ""})
            total = _listing(self._get(ctx, structures)[0]).total
            return f"OPTIMADE {version}, {'an unknown number of' if total is None else total} structures"

        return self._api.check(info, ctx, describe=describe)

    def plan(self, query: Query, since: Cursor | None, ctx: Context) -> Iterable[PartitionSpec]:
        """Yield the one partition: the address of the first page."""
        check_query(query, streams=LAYOUTS, kind=self.kind)
        size = self._config.page_limit
        fields = query.fields or self._config.response_fields
        # page_limit is always sent: the reference server's own default may exceed what it allows
        parameters = {
            "filter": self._filter(query, since) or None,
            "page_limit": size if query.limit is None else min(size, query.limit),
            "include": "",
            "response_fields": ",".join(dict.fromkeys((*fields, CURSOR_FIELD))) if fields else None,
        }
        return plan_listing(query, self._api.url(query.stream, parameters))

    def _filter(self, query: Query, since: Cursor | None) -> str:
        own = (query.filter or "").strip()
        after = read_time((since or {}).get(CURSOR_FIELD))
        if after is None:
            return own
        # whole seconds: the reference server finds nothing for a time with a fraction
        begin = (after - timedelta(seconds=self._config.lookback_s)).replace(microsecond=0)
        newer = f'{CURSOR_FIELD} > "{begin:%Y-%m-%dT%H:%M:%SZ}"'
        return f"({own}) AND {newer}" if own else newer

    def fetch(self, spec: PartitionSpec, cursor: Cursor | None, ctx: Context) -> Iterator[Page]:
        """Yield the pages from `cursor` on, following next links only."""
        is_first = cursor is None

        def read(response: HttpResponse) -> Listing:
            nonlocal is_first
            listing, is_first = _listing(response, is_first=is_first), False
            delay_s = value_at(listing.document, ("meta", "request_delay"))
            if isinstance(delay_s, int | float) and not isinstance(delay_s, bool) and delay_s > 0:
                ctx.http.slow_down(float(delay_s))
            return listing

        ask = partial(self._get, ctx)
        return self._api.pages(spec, cursor, ctx, paginator=NextLink(("links", "next")), read=read, ask=ask)

    def _get(self, ctx: Context, url: str) -> tuple[HttpResponse, str]:
        """Return a 200 answer and the address that gave it; the page limit may have been lowered on the way."""
        for _ in range(PAGE_LIMIT_TRIES):
            response = self._api.get(url, ctx, accept_status=(*READ_STATUS, HTTPStatus.INTERNAL_SERVER_ERROR))
            if response.status == HTTPStatus.INTERNAL_SERVER_ERROR and not _is_request_error(response):
                # a server error after all: now with the client's own retries
                response = self._api.get(url, ctx, accept_status=READ_STATUS)
            if response.status < HTTPStatus.BAD_REQUEST:
                return response, url
            lowered = _lower_page_limit(url, response)
            if lowered is None:
                break
            message = "The provider allows fewer records a page than page_limit asks for; the read goes on with fewer."
            ctx.log("source.page_limit_lowered", level="warning", message=message, url=redact_url(lowered))
            url = lowered
        raise _rejection(response)

    def standardize(self, records: Records, stream: Stream) -> "pa.Table":
        """Return standard columns, the provider's fields without their leading "_", and the reader columns."""

        return standardize(records, stream, path=("data",), read=read_entry)

    def checkpoint(self, spec: PartitionSpec, since: Cursor | None, high_water: str | None) -> Cursor | None:
        """Return the greatest `last_modified` read; where the provider gives none, what was known before."""
        return later_cursor(CURSOR_FIELD, since, high_water)


def _document(response: HttpResponse) -> Mapping[str, Any]:
    """Return the JSON object of a body; SourceChanged where it is none, SourceRejected where it is a list of errors."""
    document = read_document(response)
    if not isinstance(document, dict):
        raise bad_content(response, found="JSON without an object", expected="an OPTIMADE answer")
    if document.get("errors") and "data" not in document:
        raise _rejected(response)
    return document


def _listing(response: HttpResponse, *, is_first: bool = False) -> Listing:
    """Return what a listing's body says; values of the wrong type count as not given."""
    document = _document(response)
    data = document.get("data")
    if not isinstance(data, list):
        raise bad_content(response, found="JSON without a list of data", expected="an OPTIMADE listing")
    entries = [entry for entry in data if isinstance(entry, dict)]
    has_more = value_at(document, ("meta", "more_data_available"))
    messages = _messages(document.get("meta"))
    undated = sum(value_at(entry, ("attributes", CURSOR_FIELD)) is None for entry in entries)
    if is_first and undated:
        messages.append(
            f"{undated} of {len(data)} records on the first page carry no last_modified; "
            "what the provider leaves undated is found by a full read only."
        )
    return Listing(
        response=response,
        document=document,
        record_count=len(data),
        ids=tuple(str(entry["id"]) for entry in entries if entry.get("id") is not None),
        total=as_count(value_at(document, ("meta", "data_returned"))),
        has_more=has_more if isinstance(has_more, bool) else None,
        messages=tuple(messages),
    )


def _messages(meta: Any) -> list[str]:
    found = []
    warnings = value_at(meta, ("warnings",))
    for warning in warnings if isinstance(warnings, list) else []:
        if isinstance(warning, dict):
            found.append(": ".join(str(warning[name]) for name in ("title", "detail") if warning.get(name)))
        elif warning:
            found.append(str(warning))
    message = value_at(meta, ("response_message",))
    if isinstance(message, str):
        found.append(message)
    return list(dict.fromkeys(" ".join(text.split())[:500] for text in found if text.strip()))


def _rejection(response: HttpResponse) -> IngestError:
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
    for path in (("data", "attributes", "api_version"), ("meta", "api_version")):
        version = value_at(document, path)
        if isinstance(version, str):
            return version
    raise bad_content(response, found="JSON without an api_version", expected="an OPTIMADE answer")

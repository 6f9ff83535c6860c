"""Pages that follow a key: as quick at the end of a list as at its beginning, and nothing is counted."""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from django.core import signing
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema_serializer, inline_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from ingestion.api.base import Strict
from ingestion.api.problems import invalid

DEFAULT_SIZE = 100
MAX_SIZE = 1000


class PageQuery(Strict):
    """Beginning and length of a page."""

    limit = serializers.IntegerField(
        min_value=1, max_value=MAX_SIZE, default=DEFAULT_SIZE, help_text="Rows on the page."
    )
    after = serializers.CharField(required=False, max_length=500, help_text="From the `next` of the page before.")


def keyset_page(
    request: Request, query: dict[str, Any], rows: QuerySet[Any], *, order: str = "id"
) -> tuple[list[Any], str | None]:
    """Return the page of `rows` that the query asks for, and the address of the next one, if there is one.

    `order` is "id" or "-id". The rows may be models or dicts.
    """
    after = read_cursor(request, query)
    if after is not None:
        if not after.isdecimal():
            raise bad_cursor()
        rows = rows.filter(**{"pk__lt" if order.startswith("-") else "pk__gt": int(after)})
    limit = query["limit"]
    found = list(rows.order_by(order)[: limit + 1])
    if len(found) <= limit:
        return found, None
    page = found[:limit]
    last = page[-1]
    return page, next_address(request, str(last["id"] if isinstance(last, dict) else last.pk))


def filtered(rows: QuerySet[Any], query: dict[str, Any]) -> QuerySet[Any]:
    """Return the rows that the query asks for: each parameter is equal to the field of its name."""
    given = {name: value for name, value in query.items() if name not in ("limit", "after") and value is not None}
    return rows.filter(**given)


def read_cursor(request: Request, query: dict[str, Any]) -> str | None:
    """Return the key after which the page begins, or None; Problem where the cursor is none of this list."""
    after = query.get("after")
    if after is None:
        return None
    try:
        found: str = _signer(request).unsign(after)
    except signing.BadSignature as error:
        raise bad_cursor() from error
    return found


def bad_cursor() -> Exception:
    """Return the problem of a cursor that was not given by this list."""
    return invalid("after is no cursor of this list; take it from the `next` of a page, unchanged")


def next_address(request: Request, key: str) -> str:
    """Return the address of the page that begins after the key, with the same filters."""
    parameters = request.query_params.copy()
    parameters["after"] = _signer(request).sign(key)
    return request.build_absolute_uri(f"{request.path}?{parameters.urlencode()}")


def page_answer(results: Sequence[Any] | Iterable[Any], next_page: str | None) -> Response:
    """Return the answer that holds one page."""
    return Response({"results": results, "next": next_page})


@cache
def page_of(item: Any) -> Any:
    """Return the schema of a page of such items, the same for each list of them."""
    serializer = item() if isinstance(item, type) else item
    name = type(serializer).__name__.removesuffix("Serializer")
    page = inline_serializer(
        f"{name}Page",
        {"results": type(serializer)(many=True), "next": serializers.URLField(allow_null=True)},
    )
    # A page is one object, although the action is a list.
    extend_schema_serializer(many=False)(type(page))
    return page


def _signer(request: Request) -> signing.Signer:
    # Bound to the list, so that a cursor of another one is refused instead of misread.
    return signing.Signer(salt=f"page {request.path.rstrip('/')}", sep="!")

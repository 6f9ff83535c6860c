"""A resource: rows of one table, each with an address at which it is shown, replaced, changed and removed."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, ClassVar

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema_view
from rest_framework import decorators, serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSetMixin

from ingestion.api.base import Strict, View, nothing, operation, validated
from ingestion.api.bodies import NO_BODY
from ingestion.api.pagination import PageQuery, filtered, keyset_page, page_answer, page_of
from ingestion.api.permissions import StaffWrites

READ_ONLY = ["get", "head", "options"]
APPEND_ONLY = [*READ_ONLY, "post"]
"""Methods of resources whose rows are not changed."""
_SUMMARIES = {
    "list": "List the {many}|Return a page of them.",
    "create": "Set a {one} up|Set a new one up.",
    "read": "Show a {one}|Return it.",
    "replace": "Replace a {one}'s settings|Replace its settings.",
    "change": "Change a {one}|Change the settings that are given.",
    "delete": "Remove a {one}|Remove it.",
}


class Resource(ViewSetMixin, View):
    """The rows of a table: every user may see them, staff may write them."""

    permission_classes = (StaffWrites,)
    query_classes = {"list": PageQuery}
    rows: ClassVar[QuerySet[Any]]
    order: ClassVar[str] = "id"
    serializer_class: ClassVar[type[serializers.BaseSerializer[Any]]]

    def list(self, request: Request) -> Response:
        """Return a page of the rows."""
        page, following = keyset_page(request, self.query, self.wanted(), order=self.order)
        return page_answer(self.serializer_class(page, many=True, context=self.know(page)).data, following)

    def create(self, request: Request) -> Response:
        """Make a row; 201 with it."""
        return self._save(request, status_code=status.HTTP_201_CREATED)

    def retrieve(self, request: Request, id: int) -> Response:
        """Return the row."""
        return Response(self.serializer_class(self.find(id)).data)

    def update(self, request: Request, id: int) -> Response:
        """Give the row the values of the body, and defaults for what is not there."""
        return self._save(request, self.find(id))

    def partial_update(self, request: Request, id: int) -> Response:
        """Give the row those values that are in the body."""
        return self._save(request, self.find(id), partial=True)

    def destroy(self, request: Request, id: int) -> Response:
        """Remove the row, unless something uses it."""
        self.find(id).delete()
        return Response(status=status.HTTP_204_NO_CONTENT)

    def find(self, row_id: int) -> Any:
        """Return the row of the address; Http404 where there is none."""
        return get_object_or_404(self.rows.all(), pk=row_id)

    def wanted(self) -> QuerySet[Any]:
        """Return the rows that the query asks for."""
        return filtered(self.rows.all(), self.query)

    def know(self, page: Sequence[Any]) -> Mapping[str, Any]:
        """Return what the serializer of many rows should not have to ask for row by row."""
        return {}

    def _save(
        self, request: Request, row: Any = None, *, partial: bool = False, status_code: int = status.HTTP_200_OK
    ) -> Response:
        serializer = self.serializer_class(row, data=request.data, partial=partial)
        serializer.is_valid(raise_exception=True)
        serializer.save()
        return Response(serializer.data, status=status_code)


def singular(many: str) -> str:
    """Return the name of one of them."""
    return f"{many.removesuffix('ies')}y" if many.endswith("ies") else many.removesuffix("s")


def resource(many: str, serializer: Any, *, query: type[Strict] = PageQuery, **said: str) -> Callable[[type], type]:
    """Return the decorator that describes a Resource in the OpenAPI document.

    `said` gives, by the last word of the operation's name, the "summary|description" that differs. What the class
    describes itself stays as described there.
    """
    words = {name: text.format(one=singular(many), many=many) for name, text in {**_SUMMARIES, **said}.items()}

    def described(name: str, **options: Any) -> Any:
        summary, _, description = words[name].partition("|")
        return operation(f"{many}_{name}", summary, description=description, **options)

    operations = {
        "list": described("list", parameters=[query], responses=page_of(serializer)),
        "create": described("create", request=serializer, responses={201: serializer}),
        "retrieve": described("read", responses=serializer),
        "update": described("replace", request=serializer, responses=serializer),
        "partial_update": described("change", request=serializer(partial=True), responses=serializer),
        "destroy": described("delete", responses={204: nothing("It is removed.")}),
    }

    def decorate(view: type) -> type:
        undescribed = {name: found for name, found in operations.items() if "schema" not in _options(vars(view), name)}
        return extend_schema_view(**undescribed)(view)

    return decorate


def _options(methods: Mapping[str, Any], name: str) -> Any:
    return getattr(methods.get(name), "kwargs", ())


def action(
    address: str, operation_id: str, summary: str, *, method: str = "post", of_all: bool = False, **options: Any
) -> Callable[[Any], Any]:
    """Return the decorator of one more thing that can be done with a row, or `of_all` with the rows, of a Resource.

    Options that are attributes of a view (query_class, permission_classes) hold for this action alone; all others
    describe it in the OpenAPI document. A post without the option `request` takes no body.
    """
    view = {name: options.pop(name) for name in tuple(options) if hasattr(View, name)}
    takes_nothing = method == "post" and options.setdefault("request", None) is None
    if takes_nothing:
        view["parser_classes"] = NO_BODY
    if "query_class" in view:
        options.setdefault("parameters", [view["query_class"]])

    def decorate(function: Any) -> Any:
        @wraps(function)
        def act(self: Resource, request: Request, **given: Any) -> Any:
            if takes_nothing:
                validated(Strict, request)
            return function(self, request, **given)

        name = re.sub("s/<[^>]*>", "", address).replace("/", "-")
        route = decorators.action([method], detail=not of_all, url_path=address, url_name=name, **view)
        return operation(operation_id, summary, **options)(route(act))

    return decorate

"""Bases of all views and bodies: nothing unknown is let pass."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar

from django.db.models import Model, QuerySet
from django.http import QueryDict
from drf_spectacular.utils import OpenApiResponse, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.views import APIView

from ingestion.api.bodies import check_value

DEPRECATED_AT = "@1796083200"
"""Since when what has an older name is deprecated: 2026-12-01, as RFC 9745 writes it."""


class Strict(serializers.Serializer[Any]):
    """A body or a query whose unknown fields are errors that name them."""

    def to_internal_value(self, data: Any) -> Any:
        """Return the validated values; ValidationError names what is unknown or cannot be written."""
        if self.parent is not None and getattr(self.root, "partial", False):
            # A change may leave out what is outside; what it does give is given whole.
            return validate(type(self), data)
        if isinstance(data, Mapping):
            errors = {}
            for name in data:
                field = self.fields.get(str(name))
                if field is None:
                    errors[str(name)] = [f"There is no such field; known are {', '.join(self._writable())}."]
                elif field.read_only:
                    errors[str(name)] = ["This field cannot be written."]
            if errors:
                raise serializers.ValidationError(errors)
        return super().to_internal_value(data)

    def _writable(self) -> list[str]:
        return sorted(name for name, field in self.fields.items() if not field.read_only)


class NoParameters(Strict):
    """An address that takes no parameters."""


class View(APIView):
    """A view whose query parameters are those of `query_class`, and no others."""

    query_class: ClassVar[type[Strict]] = NoParameters
    query_classes: ClassVar[Mapping[str, type[Strict]]] = {}
    """By method or, of a resource, by action, where they differ."""
    query: dict[str, Any]
    renamed_to: ClassVar[str] = ""
    """The address that has taken this one's place."""
    renamed: tuple[str, ...] = ()

    def note_renamed(self, old: str, new: str) -> None:
        """Let the answer say that the request used an old name, which is understood for one release."""
        self.renamed = (*self.renamed, f"{old} -> {new}")

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Let in who may come in, then read the query parameters into `self.query`."""
        super().initial(request, *args, **kwargs)
        if str(request.method).lower() not in self.http_method_names or not hasattr(self, str(request.method).lower()):
            return  # a method that is not allowed has no parameters to be wrong
        parameters: QueryDict = request.query_params
        for name, values in parameters.lists():
            check_value([name, *values])
            if len(values) > 1:
                raise serializers.ValidationError({name: ["Give this parameter once."]})
        method = str(request.method).replace("HEAD", "GET")
        query_class = self.query_classes.get(getattr(self, "action", method), self.query_class)
        serializer = query_class(data=parameters.dict(), context={"view": self})
        serializer.is_valid(raise_exception=True)
        self.query = serializer.validated_data
        if self.renamed_to:
            self.note_renamed(request.path, self.renamed_to)

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the answer; where an old name was used it says so in its headers, as RFC 9745 has it."""
        if self.renamed:
            response["Deprecation"] = DEPRECATED_AT
            response["Headgate-Renamed"] = ", ".join(self.renamed)
        return super().finalize_response(request, response, *args, **kwargs)


class RenamedChoiceField(serializers.ChoiceField):
    """A choice of which some have older names, which are understood for one release."""

    def __init__(self, *, renamed: Mapping[str, str], **options: Any) -> None:
        self._renamed = renamed
        super().__init__(**options)

    def to_internal_value(self, data: Any) -> Any:
        """Return the choice under its newer name."""
        if data in self._renamed:
            self.context["view"].note_renamed(f"{self.field_name}={data}", self._renamed[data])
        return super().to_internal_value(self._renamed.get(data, data))


def validated(serializer_class: type[serializers.BaseSerializer[Any]], request: Request, **options: Any) -> Any:
    """Return the validated values of the request's body; ValidationError where they are not."""
    return validate(serializer_class, request.data, **options)


def validate(serializer_class: type[serializers.BaseSerializer[Any]], data: Any, **options: Any) -> Any:
    """Return the validated values of the data; ValidationError where they are not."""
    serializer = serializer_class(data=data, **options)
    serializer.is_valid(raise_exception=True)
    return serializer.validated_data


def operation(operation_id: str, summary: str, **options: Any) -> Any:
    """Return the decorator that describes a view's method in the OpenAPI document."""
    options.setdefault("tags", [operation_id.partition("_")[0]])
    return extend_schema(operation_id=operation_id, summary=summary, **options)


def nothing(description: str) -> OpenApiResponse:
    """Return the description of an answer without a body."""
    return OpenApiResponse(description=description)


@extend_schema_field({"oneOf": [{"type": "integer"}, {"type": "string"}]})
class NameOrId(serializers.Field[Any, Any, Any, Any]):
    """A reference to a row by its name or number; shown as its name."""

    def __init__(self, rows: QuerySet[Any], **options: Any) -> None:
        self._rows = rows
        super().__init__(**options)

    def to_internal_value(self, data: Any) -> Model:
        """Return the row; ValidationError where there is none."""
        row = None
        if isinstance(data, str):
            row = self._rows.all().filter(name=data).first()
        if row is None and ((isinstance(data, str) and data.isdecimal()) or type(data) is int):
            row = self._rows.all().filter(pk=int(str(data)[:18])).first()
        if row is None:
            kind = self._rows.model._meta.verbose_name
            raise serializers.ValidationError(f"There is no {kind} {str(data)[:100]!r}. Give its name or number.")
        found: Model = row
        return found

    def to_representation(self, value: Any) -> str:
        """Return the row's name."""
        return str(value.name)


class Moment(serializers.DateTimeField):
    """A time as ISO 8601; without a zone it is UTC."""

    def to_internal_value(self, value: Any) -> datetime:
        """Return the time; a plus sign that became a space in the address is put back."""
        if isinstance(value, str) and value[-6:-5] == " ":
            value = f"{value[:-6]}+{value[-5:]}"
        return super().to_internal_value(value)

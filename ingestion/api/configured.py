"""What sources and destinations share: settings by kind, and secrets that come in but never out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from ingestion import registry
from ingestion.api.base import Strict, View, validated
from ingestion.api.bodies import NO_BODY
from ingestion.api.pagination import PageQuery, keyset_page, page_answer
from ingestion.api.permissions import StaffWrites
from ingestion.models import Destination, Source
from ingestion.ports.check import CheckReport

MASK = "***set***"
_OBJECT = {"type": "object", "additionalProperties": True}
Configured = Source | Destination


@extend_schema_field(_OBJECT)
class ObjectField(serializers.JSONField):
    """A JSON object, and no other JSON value."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        """Return the object; ValidationError for anything else."""
        value = super().to_internal_value(data)
        if not isinstance(value, dict):
            raise serializers.ValidationError("Write a JSON object.")
        return value


@extend_schema_field(_OBJECT)
class SecretsField(ObjectField):
    """Secrets by field name; what is shown is only which of them are set."""

    def to_representation(self, value: Any) -> Any:
        """Return the names of the secrets that are set, each with the mask for a value."""
        return {name: MASK for name, secret in value.items() if secret not in (None, "", {})}


class ConfiguredSerializer(Strict, serializers.ModelSerializer[Any]):
    """A named place with its kind, settings and secrets; each subclass says for which port."""

    port = ""
    check: Callable[..., None] = staticmethod(lambda **_: None)

    config = ObjectField(required=False, help_text="Settings of the kind; their schema stands under connectors, sinks.")
    secrets = SecretsField(
        required=False,
        help_text="Written, never shown. A change adds to the secrets there are; null removes one, the mask keeps it.",
    )

    def validate_kind(self, kind: str) -> str:
        """Return the kind; it stays what it was."""
        if self.instance is not None and self.instance.kind != kind:
            raise serializers.ValidationError("The kind cannot be changed; make another one.")
        registry.plugin_class(self.port, kind)
        return kind

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Return the settings, from which a plugin of the kind can be built."""
        kept: Any = self.instance
        kind = attrs.get("kind") or kept.kind
        stored = kept.secrets if kept is not None else {}
        if "secrets" in attrs:
            attrs["secrets"] = self._merged(kind, stored, attrs["secrets"])
        self.check(
            kind=kind,
            config=attrs.get("config", kept.config if kept is not None else {}),
            secrets=attrs.get("secrets", stored),
            name=attrs.get("name") or kept.name,
            own_id=kept.pk if kept is not None else None,
        )
        return attrs

    def _merged(self, kind: str, stored: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        known = registry.secret_fields(self.port, kind)
        if unknown := sorted(set(given) - known):
            names = ", ".join(sorted(known)) or "none"
            raise serializers.ValidationError(
                {"secrets": [f"{', '.join(unknown)} is no secret of this kind (known: {names}); write it into config."]}
            )
        changed = {name: value for name, value in given.items() if value != MASK}
        return {name: value for name, value in {**stored, **changed}.items() if value is not None}


class FindingSerializer(serializers.Serializer[Any]):
    """One layer that was looked at."""

    layer = serializers.CharField()
    ok = serializers.BooleanField()
    elapsed_ms = serializers.FloatField()
    detail = serializers.CharField()
    fix = serializers.CharField()
    code = serializers.CharField()


class CheckSerializer(serializers.Serializer[Any]):
    """What a check found, in the order it looked."""

    ok = serializers.BooleanField()
    findings = FindingSerializer(many=True)


class CollectionView(View):
    """All sources, or all destinations."""

    permission_classes = (StaffWrites,)
    query_classes = {"GET": PageQuery}
    model: type[Configured]
    serializer_class: type[ConfiguredSerializer]

    def know(self, rows: Sequence[Any]) -> dict[str, Any]:
        """Return what the serializer of many rows should not have to ask for row by row."""
        return {}

    def get(self, request: Request) -> Response:
        """Return a page of them."""
        rows, following = keyset_page(request, self.query, self.model._default_manager.all())
        return page_answer(self.serializer_class(rows, many=True, context=self.know(rows)).data, following)

    def post(self, request: Request) -> Response:
        """Set a new one up."""
        serializer = self.serializer_class(data=request.data)
        serializer.is_valid(raise_exception=True)
        serializer.save()
        return Response(serializer.data, status=status.HTTP_201_CREATED)


class ItemView(View):
    """One source, or one destination."""

    permission_classes = (StaffWrites,)
    model: type[Configured]
    serializer_class: type[ConfiguredSerializer]

    def get(self, request: Request, id: int) -> Response:  # noqa: A002 (the name in the address)
        """Return it, without its secrets."""
        return Response(self.serializer_class(self._find(id)).data)

    def put(self, request: Request, id: int) -> Response:  # noqa: A002
        """Replace its settings; its secrets are merged."""
        return self._change(request, id, partial=False)

    def patch(self, request: Request, id: int) -> Response:  # noqa: A002
        """Change the settings that are given; its secrets are merged."""
        return self._change(request, id, partial=True)

    def delete(self, request: Request, id: int) -> Response:  # noqa: A002
        """Remove it, unless something uses it."""
        self._find(id).delete()
        return Response(status=status.HTTP_204_NO_CONTENT)

    def _find(self, row_id: int) -> Any:
        return get_object_or_404(self.model, pk=row_id)

    def _change(self, request: Request, row_id: int, *, partial: bool) -> Response:
        serializer = self.serializer_class(self._find(row_id), data=request.data, partial=partial)
        serializer.is_valid(raise_exception=True)
        serializer.save()
        return Response(serializer.data)


class CheckView(View):
    """Tries a source or destination out."""

    parser_classes = NO_BODY

    model: type[Configured]
    check: Callable[[Any], CheckReport]

    def post(self, request: Request, id: int) -> Response:  # noqa: A002
        """Return which layer answers and which does not."""
        validated(Strict, request)
        report = type(self).check(get_object_or_404(self.model, pk=id))
        return Response(CheckSerializer({"ok": report.ok, "findings": report.findings}).data)

"""Base of sources and destinations: settings by kind, and secrets that come in but never out."""

from collections.abc import Callable, Mapping
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from ingestion import registry
from ingestion.api.base import Strict

MASK = "***set***"
_OBJECT = {"type": "object", "additionalProperties": True}


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
    """Findings of a check, in the order it looked."""

    ok = serializers.BooleanField()
    findings = FindingSerializer(many=True)


CONFIGURED = {
    "read": "Show a {one}|Return it, without its secrets.",
    "replace": "Replace a {one}'s settings|Replace its settings; its secrets are merged.",
    "change": "Change a {one}|Change the settings that are given; its secrets are merged.",
    "delete": "Remove a {one}|Remove it, unless something uses it.",
}
"""Sentences of the OpenAPI document on what has secrets."""

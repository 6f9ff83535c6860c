"""OpenAPI document beyond the views: aliases are left out, errors are described once."""

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema

_PROBLEM = {
    "type": "object",
    "description": "RFC 9457. `code` is stable; `detail` says what happened and what to do.",
    "required": ["type", "title", "status", "code", "detail", "instance", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "example": "request.invalid"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "message"],
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
}


def leave_out_aliases(endpoints: list[tuple[str, str, str, Any]], **_: Any) -> list[tuple[str, str, str, Any]]:
    """Return the endpoints without those that only repeat another one with a slash at the end."""
    return [endpoint for endpoint in endpoints if not endpoint[0].endswith("/") and "{rest}" not in endpoint[0]]


def describe_problems(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Return the document with the one form of all errors."""
    result.setdefault("components", {}).setdefault("schemas", {})["Problem"] = _PROBLEM
    reference = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for methods in result.get("paths", {}).values():
        for described in methods.values():
            if isinstance(described, dict) and "responses" in described:
                described["responses"].setdefault("default", {"description": "An error.", "content": reference})
    return result


class TokenScheme(OpenApiAuthenticationExtension):
    """Scheme of a token."""

    target_class = "ingestion.api.authentication.TokenAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, Any]:
        """Return the scheme as OpenAPI writes it."""
        return {
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "description": "`Token <token>`; `Bearer <token>` is understood, too.",
        }


class SessionScheme(OpenApiAuthenticationExtension):
    """Scheme of a session."""

    target_class = "ingestion.api.authentication.SessionAuthentication"
    name = "session"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, Any]:
        """Return the scheme as OpenAPI writes it."""
        return {"type": "apiKey", "in": "cookie", "name": "sessionid", "description": "The login of the admin."}

"""Tokens of the API: made, listed and revoked here; a token is shown once, when it is made."""

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest
from rest_framework.authtoken.admin import TokenAdmin as FrameworkTokenAdmin
from rest_framework.authtoken.models import Token, TokenProxy

from ingestion.admin.display import column

_SHOWN_CHARACTERS = 6

# The framework's own text is the key itself, which would stand in every history, title and confirmation.
Token.__str__ = lambda token: f"token of {token.user}"  # type: ignore[method-assign, attr-defined]

admin.site.unregister(TokenProxy)


@admin.register(TokenProxy)
class TokenAdmin(FrameworkTokenAdmin):
    """One token a user."""

    list_display = ("user", "key_begin", "created")
    list_select_related = ("user",)
    fields = ("user", "key_begin", "created")
    readonly_fields = ("key_begin", "created")
    autocomplete_fields = ("user",)
    key_begin = column("Key", lambda row: f"{row.key[:_SHOWN_CHARACTERS]}…" if row.key else "-")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return that a token is never handed to somebody else."""
        return False

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return what is asked for, and later what is shown."""
        return self.fields if obj is not None else ("user",)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Make the token and show it this once."""
        super().save_model(request, obj, form, change)
        self.message_user(
            request, f"The token of {obj.user} is {obj.key} - copy it now, it is not shown again.", messages.WARNING
        )

"""Identity of whoever sends a request: a token in the header, or the session of the admin."""

import re
from typing import Any

from django.http import QueryDict
from rest_framework import authentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

_TOKEN = re.compile(r"\A[0-9a-f]{40}\Z")
_KEYWORDS = (b"token", b"bearer")


class TokenAuthentication(authentication.TokenAuthentication):
    """Reads `Authorization: Token <token>`, or `Bearer <token>`."""

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        """Return user and token, None where the header names neither; AuthenticationFailed for a wrong one."""
        keyword, _, token = authentication.get_authorization_header(request).strip().partition(b" ")
        if keyword.lower() not in _KEYWORDS:
            return None
        text = token.strip().decode("latin-1")
        if not _TOKEN.match(text):
            raise AuthenticationFailed
        return self.authenticate_credentials(text)


class SessionAuthentication(authentication.SessionAuthentication):
    """Takes the session of the admin; what changes something needs its CSRF token in the header."""

    def enforce_csrf(self, request: Request) -> None:
        """Raise PermissionDenied unless the header X-CSRFToken is right.

        The form field of that name is not looked for: reading it would read an upload's body before its time.
        """
        super().enforce_csrf(_WithoutForm(request))  # type: ignore[arg-type]


class _WithoutForm:
    """A request whose form fields are not read."""

    POST = QueryDict("")

    def __init__(self, request: Request) -> None:
        self._request = request

    def __getattr__(self, name: str) -> Any:
        return getattr(self._request, name)

"""The API's documentation as pages; a browser without a session is sent to the login."""

from django.contrib.auth.views import redirect_to_login
from django.http import HttpResponseBase
from django.urls import reverse
from drf_spectacular.views import SpectacularRedocView, SpectacularSwaggerView
from rest_framework.exceptions import NotAuthenticated
from rest_framework.views import APIView


class _AsksForLogin(APIView):
    def handle_exception(self, exc: Exception) -> HttpResponseBase:
        """Send a browser to the login and back; a program gets the 401 of every other address."""
        if isinstance(exc, NotAuthenticated) and "text/html" in self.request.headers.get("Accept", ""):
            return redirect_to_login(self.request.get_full_path(), reverse("admin:login"))
        answer: HttpResponseBase = super().handle_exception(exc)
        return answer


class SwaggerView(_AsksForLogin, SpectacularSwaggerView):
    """The documentation with forms that try requests."""


class RedocView(_AsksForLogin, SpectacularRedocView):
    """The documentation as one page to read."""

"""The site of the operators: Django's admin under our name, with an overview as its first page."""

from typing import Any

from django.contrib.admin import AdminSite
from django.contrib.admin.forms import AdminAuthenticationForm
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.template.response import TemplateResponse

from ingestion.admin.overview import describe_installation
from ingestion.logins import TooManyAttempts

_FIRST = ("Pipeline", "Run", "Upload", "Source", "Destination", "Contract", "Schedule")


class LoginForm(AdminAuthenticationForm):
    """The admin's login, which says when there were too many attempts."""

    def clean(self) -> dict[str, Any]:
        """Return the login; ValidationError where it is wrong or not looked at."""
        try:
            return super().clean()
        except TooManyAttempts as refused:
            raise ValidationError(str(refused), code="throttled") from refused


class HeadgateSite(AdminSite):
    """The admin whose index says first how things are."""

    site_header = "Headgate"
    site_title = "Headgate"
    index_title = "Overview"
    site_url = None
    login_form = LoginForm
    index_template = "admin/ingestion/overview.html"

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        """Return the overview: health, freshness, failures, throughput, then the list of models."""
        return super().index(request, {**describe_installation(), **(extra_context or {})})

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[dict[str, Any]]:
        """Return the models, what an operator works with first."""
        apps: list[dict[str, Any]] = super().get_app_list(request, app_label)
        for app in apps:
            app["models"].sort(key=lambda model: (_rank(model["object_name"]), model["name"]))
        return sorted(apps, key=lambda app: app["app_label"] != "ingestion")


def _rank(name: str) -> int:
    return _FIRST.index(name) if name in _FIRST else len(_FIRST)

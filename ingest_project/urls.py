"""Every address of the site."""

from importlib import import_module

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path
from django.views.generic import RedirectView

admin.autodiscover()
import_module("ingestion.admin.registration")

urlpatterns: list[URLPattern | URLResolver] = [
    path("", RedirectView.as_view(url="/admin/"), name="home"),
    path("api/", include("ingestion.api.urls")),
    path("admin/", admin.site.urls),
]

handler400 = "ingestion.api.problems.bad_request"
handler403 = "ingestion.api.problems.permission_denied"
handler404 = "ingestion.api.problems.not_found"
handler500 = "ingestion.api.problems.server_error"

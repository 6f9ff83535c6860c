"""Every address of the site."""

from importlib.util import find_spec

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path

urlpatterns: list[URLPattern | URLResolver] = [path("admin/", admin.site.urls)]
if find_spec("ingestion.api.urls"):
    urlpatterns.insert(0, path("api/", include("ingestion.api.urls")))

"""What the tests of the pages share: a sample with known control totals, and ways to read a page."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib import admin
from django.test import Client
from django.urls import reverse

SAMPLE = b"id,formula,energy\n1,SiO2,-3.5\n2,nope,1\n3,Fe,500\n4,Al2O3,2\n4,TiO2,3\n"
"""Two rows that break a rule, one that comes twice, two that are accepted."""
SAMPLE_CONTRACT: dict[str, Any] = {
    "name": "sample",
    "key": ["id"],
    "columns": [
        {"name": "id", "type": "integer", "nullable": False},
        {"name": "formula", "type": "string", "pattern": "^[A-Z].*"},
        {"name": "energy", "type": "number", "min": -100, "max": 100},
    ],
}


def page(model: type[Any], what: str, *args: Any) -> str:
    """Return the address of one of the model's pages."""
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{what}", args=args)


def models() -> list[type[Any]]:
    """Return every model that has pages."""
    return sorted(admin.site._registry, key=lambda model: model._meta.label)


def text_of(response: Any) -> str:
    """Return the page as text."""
    return str(response.content.decode())


def notices(response: Any) -> list[str]:
    """Return the messages on the page, without their markup."""
    return [str(message) for message in response.context["messages"]]


def form_values(response: Any) -> dict[str, Any]:
    """Return what a browser would send if nothing was changed in the page's form."""
    values: dict[str, Any] = {}
    forms = [response.context["adminform"].form]
    for inline in response.context["inline_admin_formsets"]:
        forms += [inline.formset.management_form, *inline.formset.forms]
    for form in forms:
        for bound in form:
            for name, value in _sent(bound):
                values[name] = value
    return values


def _sent(bound: Any) -> list[tuple[str, Any]]:
    value = bound.value()
    widget = getattr(bound.field.widget, "widget", bound.field.widget)
    if hasattr(widget, "widgets") and hasattr(widget, "decompress"):
        parts = widget.decompress(value) if not isinstance(value, list) else value
        return [
            (f"{bound.html_name}{suffix}", "" if part is None else str(part))
            for suffix, part in zip(widget.widgets_names, parts, strict=True)
        ]
    shown = widget.format_value(value) if value is not None else None
    if widget.__class__.__name__ == "CheckboxInput":
        return [(bound.html_name, "on")] if value else []
    if isinstance(shown, list | tuple) and not getattr(widget, "allow_multiple_selected", False):
        shown = shown[0] if shown else ""
    return [(bound.html_name, "" if shown is None else shown)]


def press(client: Client, row: Any, name: str) -> str:
    """Press a button on the row's page and return what is said."""
    [said] = notices(client.post(page(type(row), "do", row.pk, name), follow=True))
    return said


def choose(client: Client, row: Any, name: str) -> str:
    """Choose an action for the row on the list and return what is said."""
    values = {"action": name, "_selected_action": [row.pk]}
    [said] = notices(client.post(page(type(row), "changelist"), values, follow=True))
    return said


WAYS = pytest.mark.parametrize("act", [press, choose])
Act = Callable[[Client, Any, str], str]

"""Sources and destinations are set up by forms made of their kind's settings, and tested."""

from pathlib import Path
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client

from ingestion.models import Destination, Source
from tests.admin.pages import form_values, notices, page, text_of
from tests.runs.driver import Driver

pytestmark = pytest.mark.usefixtures("driver")
ADD = page(Source, "add") + "?kind=vault"
FILLED = {
    "name": "vault",
    "config_address": "north",
    "config_shelf": "upper",
    "config_password": "open-1",
    "burst": "1",
}


@pytest.fixture
def vault(operator: Client) -> Source:
    """A source with two secrets."""
    secrets = {"password": "open-1", "headers": {"X-Key": "open-2"}, "second_key": "open-3"}
    return Source.objects.create(name="vault", kind="vault", config={"address": "north", "depth": 5}, secrets=secrets)


def errors(response: Any) -> dict[str, list[str]]:
    """Return what the form says is wrong, by field."""
    return {name: list(problems) for name, problems in response.context["adminform"].form.errors.items()}


def test_the_kind_is_chosen_first(operator: Client) -> None:
    text = text_of(operator.get(page(Source, "add")))

    assert "?kind=vault" in text
    assert "Reads what lies in a vault." in text
    assert "?kind=nonsense" not in text
    assert "?kind=vault" in text_of(operator.get(page(Source, "add") + "?kind=nonsense"))


def test_a_popup_stays_a_popup_while_the_kind_is_chosen(operator: Client) -> None:
    assert "_popup=1&amp;kind=vault" in text_of(operator.get(page(Source, "add") + "?_popup=1"))


def test_the_form_has_a_field_for_each_setting_with_its_description(operator: Client) -> None:
    fields = operator.get(ADD).context["adminform"].form.fields

    shown = {name: field.help_text for name, field in fields.items() if name.startswith("config_")}
    assert shown["config_address"] == "Where the vault stands."
    assert shown["config_depth"] == "How far to reach. Default: 3."
    assert set(shown) == {
        f"config_{name}"
        for name in (
            "address",
            "shelf",
            "depth",
            "patience_s",
            "is_quiet",
            "names",
            "labels",
            "password",
            "second_key",
            "headers",
        )  # fmt: skip
    }
    assert fields["config_patience_s"].label == "Patience (s)"
    assert fields["config_address"].required
    assert fields["config_password"].required
    assert not fields["config_headers"].required


def test_a_filled_form_makes_a_source_with_only_what_was_given(operator: Client) -> None:
    values = {
        **FILLED,
        "config_shelf": "lower",
        "config_depth": "3",
        "config_patience_s": "1.5",
        "config_names": "gold\n silver \n\n",
        "config_labels": '{"a": 1}',
        "config_headers": "X-Key: open:2\nX-Other: b",
        "rate_per_s": "2.5",
    }

    response = operator.post(ADD, values)

    assert response.status_code == 302, errors(response)
    source = Source.objects.get()
    assert (source.kind, source.rate_per_s, source.burst) == ("vault", 2.5, 1)
    assert source.config == {
        "address": "north", "shelf": "lower", "patience_s": 1.5, "is_quiet": False, "names": ["gold", "silver"],
        "labels": {"a": 1},
    }  # fmt: skip
    assert source.secrets == {"password": "open-1", "headers": {"X-Key": "open:2", "X-Other": "b"}}


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("config_address", "", "This field is required."),
        ("config_address", "two words", "write the address without blanks"),
        ("config_depth", "99", "Input should be less than or equal to 9"),
        ("config_depth", "deep", "Enter a whole number."),
        ("config_patience_s", "-1", "Input should be greater than 0"),
        ("config_shelf", "middle", "Select a valid choice"),
        ("config_labels", "{", "Enter a valid JSON."),
        ("config_labels", '{"a": "b"}', "a: Input should be a valid integer"),
        ("config_headers", "no colon", "Line 1 is not of the form name: value."),
        ("config_password", "", "This field is required."),
        ("burst", "0", "greater than or equal to 1"),
        ("rate_per_s", "0", "greater than or equal to 0.001"),
        ("name", "No Name", "Use lower case letters"),
    ],
)
def test_what_is_wrong_stands_at_its_field(operator: Client, field: str, value: str, said: str) -> None:
    response = operator.post(ADD, {**FILLED, field: value})

    assert response.status_code == 200
    assert list(errors(response)) == [field]
    assert said in errors(response)[field][0]
    assert "open-1" not in text_of(response)
    assert not Source.objects.exists()


def test_an_empty_secret_keeps_what_is_stored(operator: Client, vault: Source) -> None:
    response = operator.post(page(Source, "change", vault.pk), {**FILLED, "config_password": "", "config_depth": "6"})

    assert response.status_code == 302, errors(response)
    vault.refresh_from_db()
    assert vault.config["depth"] == 6
    assert vault.secrets == {"password": "open-1", "headers": {"X-Key": "open-2"}, "second_key": "open-3"}


def test_a_secret_is_replaced_or_removed_when_asked_for(operator: Client, vault: Source) -> None:
    values = {**FILLED, "config_password": "new", "config_headers": "A: b", "clear_second_key": "on"}

    operator.post(page(Source, "change", vault.pk), values)

    vault.refresh_from_db()
    assert vault.secrets == {"password": "new", "headers": {"A": "b"}}


def test_no_secret_is_shown_or_kept_in_the_history(operator: Client, vault: Source) -> None:
    text = text_of(operator.get(page(Source, "change", vault.pk)))
    operator.post(page(Source, "change", vault.pk), {**FILLED, "config_password": "open-9"})
    history = text_of(operator.get(page(Source, "history", vault.pk)))

    assert "Set; leave empty to keep it." in text
    assert "open-" not in text
    assert "Password" in LogEntry.objects.latest("pk").get_change_message()
    assert "open-" not in history


def test_a_source_of_a_kind_that_is_not_installed_can_be_looked_at(operator: Client) -> None:
    source = Source.objects.create(name="old", kind="gone", config={"a": 1})

    assert operator.get(page(Source, "change", source.pk)).status_code == 200
    response = operator.post(page(Source, "change", source.pk), {"name": "old", "burst": "1"})
    assert "no connector of kind" in errors(response)["__all__"][0]


def test_a_destination_is_made_by_its_form(operator: Client, lake: Path, tmp_path: Path) -> None:
    address = page(Destination, "add") + "?kind=objects"
    values = {**form_values(operator.get(address)), "name": "out"}
    response = operator.post(address, {**values, "config_url": "relative/folder"})
    assert "absolute path" in errors(response)["config_url"][0]

    response = operator.post(address, {**values, "config_url": str(lake)})
    assert "the lake" in errors(response)["__all__"][0]

    response = operator.post(address, {**values, "config_url": str(tmp_path / "out")})

    assert response.status_code == 302, errors(response)
    assert Destination.objects.get().config == {"url": str(tmp_path / "out")}


@pytest.mark.parametrize("is_button", [True, False])
def test_a_test_of_a_source_shows_each_layer_with_its_time_and_fix(
    operator: Client, vault: Source, is_button: bool
) -> None:
    if is_button:
        response = operator.post(page(Source, "do", vault.pk, "test_connection"), follow=True)
    else:
        values = {"action": "test_connection", "_selected_action": [vault.pk]}
        response = operator.post(page(Source, "changelist"), values, follow=True)

    [said] = notices(response)
    assert "✓ door (1.2 ms)" in said
    assert "✗ inner door (2.5 ms)" in said
    assert "→ Turn the second key." in said
    assert "&lt;b&gt;shut&lt;/b&gt;" in said


def test_a_test_of_a_destination_shows_what_it_finds(operator: Client, driver: Driver) -> None:
    destination = Destination.objects.create(name="catalog", kind="catalog")
    broken = Destination.objects.create(name="bad", kind="objects", config={})

    response = operator.post(page(Destination, "do", destination.pk, "test_connection"), follow=True)
    assert "every layer answers" in notices(response)[0]

    response = operator.post(page(Destination, "do", broken.pk, "test_connection"), follow=True)
    assert "✗ settings" in notices(response)[0]

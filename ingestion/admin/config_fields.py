"""Form fields from a plugin's Config: one for each field of it, and back to what is stored."""

import types
from collections.abc import Mapping
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin

from django import forms
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo

PREFIX = "config_"
CLEAR_PREFIX = "clear_"
_NUMBERS: dict[Any, type[forms.Field]] = {int: forms.IntegerField, float: forms.FloatField}
_WIDE = {"class": "vLargeTextField", "rows": 4, "cols": 60}


class SecretInput(forms.PasswordInput):
    """A field that never shows what is stored or was typed."""

    def __init__(self) -> None:
        super().__init__(render_value=False, attrs={"class": "vTextField", "autocomplete": "new-password"})


class SecretLines(forms.Textarea):
    """Several lines that are never shown again."""

    def format_value(self, value: Any) -> str:
        """Return nothing, whatever there is."""
        return ""


class LinesField(forms.CharField):
    """Several texts, one a line."""

    widget = forms.Textarea

    def prepare_value(self, value: Any) -> Any:
        """Return the texts as lines."""
        return "\n".join(map(str, value)) if isinstance(value, list | tuple) else value

    def to_python(self, value: Any) -> Any:
        """Return the lines that are not empty, as a list."""
        lines = value if isinstance(value, list | tuple) else str(value or "").splitlines()
        return [line.strip() for line in lines if line.strip()]

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Return whether the lines differ from what there was."""
        return self.to_python(initial) != self.to_python(data)


class ObjectField(forms.JSONField):
    """A JSON value; nothing is shown where there is none."""

    def prepare_value(self, value: Any) -> Any:
        """Return the value as JSON text."""
        return "" if value is None else super().prepare_value(value)


class PairsField(forms.CharField):
    """Names with their values, one `name: value` a line."""

    widget = SecretLines

    def to_python(self, value: Any) -> Any:
        """Return the values by name; ValidationError for a line without a colon."""
        pairs = {}
        for number, line in enumerate(str(value or "").splitlines(), start=1):
            if not line.strip():
                continue
            name, colon, text = line.partition(":")
            if not colon or not name.strip():
                raise forms.ValidationError(f"Line {number} is not of the form name: value.")
            pairs[name.strip()] = text.strip()
        return pairs


def make_fields(
    config_class: type[BaseModel],
    *,
    secret_names: frozenset[str],
    config: Mapping[str, Any],
    secrets: Mapping[str, Any],
) -> dict[str, forms.Field]:
    """Return a form field for each field of the Config; for a secret that is set and optional, one to remove it, too."""
    fields: dict[str, forms.Field] = {}
    for name, info in config_class.model_fields.items():
        if name not in secret_names:
            fields[PREFIX + name] = _plain_field(name, info, initial=config.get(name))
            continue
        is_set = bool(secrets.get(name))
        fields[PREFIX + name] = _secret_field(name, info, is_set=is_set)
        if is_set and not info.is_required():
            label = f"Remove {_label(name).lower()}"
            fields[CLEAR_PREFIX + name] = forms.BooleanField(label=label, required=False)
    return fields


def read_settings(
    config_class: type[BaseModel],
    cleaned: Mapping[str, Any],
    *,
    secret_names: frozenset[str],
    secrets: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings and secrets to store: an empty field is left to its default, an empty secret is kept."""
    config: dict[str, Any] = {}
    kept = {name: value for name, value in secrets.items() if name in secret_names}
    for name, info in config_class.model_fields.items():
        value = cleaned.get(PREFIX + name)
        if name in secret_names:
            if value not in (None, "", {}):
                kept[name] = value
            elif cleaned.get(CLEAR_PREFIX + name):
                kept.pop(name, None)
        elif isinstance(value, bool) or value not in (None, "", [], {}):
            default = info.get_default(call_default_factory=True)
            if info.is_required() or value != (list(default) if isinstance(default, tuple) else default):
                config[name] = value
    return config, kept


def find_errors(config_class: type[BaseModel], values: Mapping[str, Any]) -> list[tuple[str | None, str]]:
    """Return what is wrong as (name of the form field, sentence); None names the form as a whole."""
    try:
        config_class.model_validate(dict(values))
    except ValidationError as error:
        return [
            (_form_name(config_class, problem["loc"]), _sentence(problem))
            for problem in error.errors(include_url=False, include_input=False, include_context=False)
        ]
    return []


def _form_name(config_class: type[BaseModel], place: tuple[Any, ...]) -> str | None:
    return f"{PREFIX}{place[0]}" if place and place[0] in config_class.model_fields else None


def _sentence(problem: Mapping[str, Any]) -> str:
    text = str(problem["msg"]).removeprefix("Value error, ")
    below = ".".join(str(step) for step in problem["loc"][1:])
    return f"{below}: {text}" if below else text


def _secret_field(name: str, info: FieldInfo, *, is_set: bool) -> forms.Field:
    state = "Set; leave empty to keep it." if is_set else "Not set."
    options: dict[str, Any] = {
        "label": _label(name),
        "required": info.is_required() and not is_set,
        "help_text": f"{info.description or ''} Secret, never shown. {state}".strip(),
    }
    if _bare(info.annotation) is SecretStr:
        return forms.CharField(**options, strip=False, widget=SecretInput())
    options["help_text"] += " One a line, as name: value; what is written replaces all of them."
    return PairsField(**options, widget=SecretLines(attrs=_WIDE))


def _plain_field(name: str, info: FieldInfo, *, initial: Any) -> forms.Field:
    kind = _bare(info.annotation)
    default = None if info.is_required() else info.get_default(call_default_factory=True)
    has_default = default not in (None, "", (), [], {})
    options: dict[str, Any] = {
        "label": _label(name),
        "required": info.is_required(),
        "help_text": " ".join(
            filter(None, (info.description, f"Default: {default}." if has_default and kind is not bool else ""))
        ),
        "initial": initial,
    }
    if kind is bool:
        options["initial"] = default if initial is None and has_default else initial
        return forms.BooleanField(**{**options, "required": False})
    if get_origin(kind) is Literal or (isinstance(kind, type) and issubclass(kind, Enum)):
        values = get_args(kind) if get_origin(kind) is Literal else tuple(member.value for member in kind)
        if initial is None and has_default:
            options["initial"] = default
        choices = [(value, str(value)) for value in values]
        return forms.TypedChoiceField(**options, choices=choices if has_default else [("", "---------"), *choices])
    if kind in _NUMBERS:
        return _NUMBERS[kind](**options)
    if kind is str:
        # A single character may be a blank, such as a tab between cells.
        is_character = any(getattr(rule, "max_length", None) == 1 for rule in info.metadata)
        return forms.CharField(**options, strip=not is_character, widget=forms.TextInput({"class": "vLargeTextField"}))
    if get_origin(kind) in (tuple, list, set, frozenset) and str in get_args(kind):
        options["help_text"] = f"{options['help_text']} One a line.".strip()
        return LinesField(**options, widget=forms.Textarea(_WIDE))
    return ObjectField(**options, widget=forms.Textarea(_WIDE))


def _bare(annotation: Any) -> Any:
    """Return the type without `| None`."""
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [argument for argument in get_args(annotation) if argument is not type(None)]
        if len(inner) == 1:
            return inner[0]
    return annotation


def _label(name: str) -> str:
    text = name.replace("_", " ").capitalize()
    return f"{text.removesuffix(' s')} (s)" if text.endswith(" s") else text

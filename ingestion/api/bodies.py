"""JSON in and out: strict about what comes, quick about what goes."""

import json
from collections.abc import Mapping
from typing import IO, Any

import orjson
from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import QueryDict
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.utils.encoders import JSONEncoder

MAX_DEPTH = 100
_fallback = JSONEncoder().default


class JSONRenderer(BaseRenderer):
    """Writes an answer as compact UTF-8 JSON."""

    media_type = "application/json"
    format = "json"
    charset = None

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        """Return the bytes of the answer; nothing for an answer without content."""
        if data is None:
            return b""
        try:
            return orjson.dumps(data, default=_fallback, option=orjson.OPT_NON_STR_KEYS)
        except TypeError:
            # A record may hold an integer of more than 64 bits, which only the slower writer knows.
            return json.dumps(data, default=_fallback, ensure_ascii=False, separators=(",", ":")).encode()


class StrictJSONParser(BaseParser):
    """Reads a JSON body of bounded size and depth, without doubled names, NaN, NUL characters and broken text."""

    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        """Return the value; ParseError says what is wrong with it."""
        return parse_json(read_bounded(stream))


class YAMLParser(BaseParser):
    """Hands the text of a YAML body on as it is; what it means is read where it is used."""

    media_type = "application/yaml"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        """Return the text; ParseError where it is not UTF-8."""
        return decode(read_bounded(stream))


class XYAMLParser(YAMLParser):
    """YAML under its older name."""

    media_type = "application/x-yaml"


class TextYAMLParser(YAMLParser):
    """YAML as text."""

    media_type = "text/yaml"


class PlainYAMLParser(YAMLParser):
    """YAML from a program that names no better type."""

    media_type = "text/plain"


class FormParser(BaseParser):
    """Reads a small form, as `curl -d name=value` sends it."""

    media_type = "application/x-www-form-urlencoded"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> QueryDict:
        """Return the fields; ParseError where they are not UTF-8."""
        return QueryDict(decode(read_bounded(stream)))


class NothingParser(BaseParser):
    """Leaves a body alone where none is expected: some clients send an empty form with every POST."""

    media_type = "*/*"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return no fields."""
        return {}


NO_BODY = (StrictJSONParser, NothingParser)
"""For actions whose address says everything."""


def read_bounded(stream: IO[Any]) -> bytes:
    """Return the whole body; RequestDataTooBig beyond DATA_UPLOAD_MAX_MEMORY_SIZE, which it is read to at most."""
    limit: int = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    body: bytes = stream.read(limit + 1)
    if len(body) > limit:
        raise RequestDataTooBig
    return body


def decode(body: bytes) -> str:
    """Return the body as text; ParseError where it is not UTF-8 or has a NUL character."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ParseError("the body is not UTF-8 text") from error
    if "\0" in text:
        raise ParseError("the body has a NUL character")
    return text


def parse_json(body: bytes) -> Any:
    """Return the JSON value of a body, or ParseError."""
    try:
        value = json.loads(decode(body), object_pairs_hook=_once, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ParseError("the body is nested too deeply") from error
    except ValueError as error:
        raise ParseError(f"the body is no JSON ({error})") from error
    check_value(value)
    return value


def check_value(value: Any, *, depth: int = 0) -> None:
    """Raise ParseError where a value holds what no database can: NUL characters, broken text, endless depth."""
    if depth > MAX_DEPTH:
        raise ParseError("the body is nested too deeply")
    if isinstance(value, str):
        if "\0" in value:
            raise ParseError("a text has a NUL character")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ParseError("a text has half of a surrogate pair") from error
    elif isinstance(value, float) and value in (float("inf"), float("-inf")):
        raise ParseError("a number is too large")
    elif isinstance(value, dict):
        for name, item in value.items():
            check_value(name, depth=depth)
            check_value(item, depth=depth + 1)
    elif isinstance(value, list):
        for item in value:
            check_value(item, depth=depth + 1)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        doubled = sorted({name for name in names if names.count(name) > 1})
        raise ParseError(f"{', '.join(doubled)} appears more than once in one object")
    return found


def _refuse_constant(name: str) -> Any:
    raise ParseError(f"{name} is no number of JSON")

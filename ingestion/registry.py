"""The registry: connectors and sinks, found by kind and built from configured rows."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string
from pydantic import BaseModel, SecretStr, ValidationError

from ingestion.models import Destination, Source
from ingestion.ports.connector import Connector, Stream
from ingestion.ports.errors import ConfigError
from ingestion.ports.messages import BringsMessages, add_messages
from ingestion.ports.sink import Sink
from ingestion.toolkit.redact import register_secret


def known_kinds(port: str) -> list[str]:
    """Return the kinds of `connector` or `sink` that can be configured here, sorted."""
    return sorted(_table(port))


def plugin_class(port: str, kind: str) -> Any:
    """Return the class of that kind, its messages known from now on; ConfigError where there is none."""
    path = _table(port).get(kind)
    if path is None:
        raise ConfigError("config.unknown_kind", port=port, kind=kind, known=", ".join(known_kinds(port)))
    found = import_string(path)
    if isinstance(found, BringsMessages):
        try:
            add_messages(found.messages, owner=path)
        except ValueError as error:
            raise ConfigError("config.message_conflict", kind=kind, detail=str(error)) from error
    return found


def kinds_offering(port: str, ability: type[Any]) -> list[str]:
    """Return the kinds whose classes have the ability (a Protocol), those that come with Headgate first.

    One that cannot be loaded offers nothing: its fault shows where it is used, not in what others can do.
    """
    found = []
    for kind in _table(port):
        with suppress(ImportError, ConfigError):
            if isinstance(plugin_class(port, kind), ability):
                found.append(kind)
    return found


def own_kind(name: str) -> str:
    """Return the kind of a source or destination that Headgate makes by itself under that name."""
    kind: str = settings.HEADGATE_OWN_KINDS[name]
    return kind


def build_connector(source: Source) -> Connector:
    """Return the source's connector with its validated configuration."""
    connector: Connector = _build("connector", source.kind, source.config, source.secrets, where=source.name)
    return connector


def build_sink(destination: Destination) -> Sink:
    """Return the destination's sink with its validated configuration."""
    sink: Sink = _build("sink", destination.kind, destination.config, destination.secrets, where=destination.name)
    return sink


def validate_config(
    port: str, kind: str, config: Mapping[str, Any], secrets: Mapping[str, Any], *, where: str
) -> BaseModel:
    """Return the validated configuration; ConfigError names every field that is wrong, and no value."""
    model: type[BaseModel] = plugin_class(port, kind).Config
    misplaced = sorted(set(config) & secret_fields(port, kind))
    if misplaced:
        detail = f"{', '.join(misplaced)} must stand under secrets, not under config"
        raise ConfigError("config.invalid", where=where, detail=detail)
    try:
        return model.model_validate({**config, **secrets})
    except ValidationError as error:
        detail = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'config'}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False, include_context=False)
        )
        raise ConfigError("config.invalid", where=where, detail=detail) from None


def secret_fields(port: str, kind: str) -> frozenset[str]:
    """Return the names of the configuration fields that hold secrets."""
    model: type[BaseModel] = plugin_class(port, kind).Config
    return frozenset(name for name, field in model.model_fields.items() if _holds_secret(field.annotation))


def find_stream(source: Source, name: str) -> Stream:
    """Return the stream of that name; ConfigError names those there are."""
    streams = build_connector(source).streams()
    for stream in streams:
        if stream.name == name:
            return stream
    known = ", ".join(stream.name for stream in streams)
    raise ConfigError("config.unknown_stream", source=source.name, stream=name, known=known)


def published_url() -> str:
    """Return where the default objects destination lies: a folder or prefix beside the lake's.

    In a bucket that is the lake's altogether, it is a prefix that the lake has no objects under.
    """
    url: str = settings.HEADGATE_LAKE_URL
    base, mark, options = url.partition("?")
    if base.startswith("s3://") and "/" not in base.removeprefix("s3://").rstrip("/"):
        return f"{base.rstrip('/')}/published{mark}{options}"
    return f"{base.rstrip('/')}-published{mark}{options}"


def _build(port: str, kind: str, config: Mapping[str, Any], secrets: Mapping[str, Any], *, where: str) -> Any:
    validated = validate_config(port, kind, config, secrets, where=where)
    for value in _texts(secrets):
        register_secret(value)
    return plugin_class(port, kind)(validated)


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in a JSON value, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def _holds_secret(annotation: Any) -> bool:
    return annotation is SecretStr or any(_holds_secret(inner) for inner in getattr(annotation, "__args__", ()))


@cache
def _table(port: str) -> dict[str, str]:
    built_in = settings.HEADGATE_CONNECTORS if port == "connector" else settings.HEADGATE_SINKS
    installed = entry_points(group=f"headgate.{port}s")
    found = {kind: path.replace(":", ".") for kind, path in built_in.items()}
    for point in installed:
        found.setdefault(point.name, point.value.replace(":", "."))
    return found

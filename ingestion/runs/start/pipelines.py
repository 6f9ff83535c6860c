"""Setting up sources, destinations and pipelines; every face checks and saves them here."""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import count
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction

from ingestion import registry
from ingestion.models import Contract, Destination, Pipeline, PipelineDependency, Source
from ingestion.ports.connector import TakesUploads
from ingestion.ports.errors import ConfigError, Refused
from ingestion.ports.sink import ClaimingConfig
from ingestion.runs.record.lake import RESERVED_NAMES
from ingestion.runs.start.dependencies import check_dependency
from ingestion.runs.start.places import check_place

UPLOAD_SOURCE = "uploads"
LAKE_DESTINATION = "lake"
CATALOG_DESTINATION = "catalog"
DRUID_DESTINATION = "druid"
_SET_BY_SETTINGS = frozenset({"url", "broker_url", "username", "password", "shares_disk"})
_NOT_IN_NAMES = re.compile(r"[^a-z0-9_-]+")
_NAME_ROOM = 57
"""A name has 63 characters; the rest is for a number."""


def check_source_config(
    *, kind: str, config: Mapping[str, Any], secrets: Mapping[str, Any], name: str, own_id: int | None = None
) -> None:
    """Raise ConfigError unless a connector of that kind can be built from the settings."""
    registry.validate_config("connector", kind, config, secrets, where=name)


def check_destination_config(
    *, kind: str, config: Mapping[str, Any], secrets: Mapping[str, Any], name: str, own_id: int | None = None
) -> None:
    """Raise ConfigError unless a sink of that kind can be built from the settings; Refused where another has its place.

    `own_id` is that of the destination, where there is one already.
    """
    check_place(kind=kind, config=config, secrets=secrets, name=name, own_id=own_id)
    claim = _claim_of(kind, config, secrets, name=name)
    if not claim:
        return
    for other in Destination.objects.filter(kind=kind):
        if other.pk == own_id:
            continue
        with suppress(ConfigError):
            theirs = _claim_of(kind, other.config, other.secrets, name=other.name)
            if theirs == claim:
                raise Refused("destination.claimed", name=name, other=other.name, claim=claim)


def _claim_of(kind: str, config: Mapping[str, Any], secrets: Mapping[str, Any], *, name: str) -> str:
    validated = registry.validate_config("sink", kind, config, secrets, where=name)
    return validated.claim if isinstance(validated, ClaimingConfig) else ""


def check_new_name(name: str) -> str:
    """Return the name of a pipeline that is about to be made; ConfigError where the lake keeps it for itself."""
    if name in RESERVED_NAMES:
        raise ConfigError("pipeline.name_reserved", name=name)
    return name


def check_pipeline(*, source: Source, stream: str, mode: str) -> None:
    """Raise ConfigError unless the source offers the stream, and can read it in that mode.

    A stream of files has no cursor and may be incremental all the same: each file adds its rows.
    """
    found = registry.find_stream(source, stream)
    if mode == Pipeline.Mode.INCREMENTAL and found.cursor_field is None and not found.is_file:
        raise ConfigError("pipeline.incremental_needs_cursor", stream=stream)


def set_dependencies(pipeline: Pipeline, upstreams: Iterable[tuple[Pipeline, int]]) -> None:
    """Let the pipeline run after exactly these (upstream, seconds to wait); ConfigError where that closes a circle."""
    wanted = {upstream.pk: (upstream, timeout_s) for upstream, timeout_s in upstreams}
    for upstream, _ in wanted.values():
        check_dependency(pipeline, upstream)
    with transaction.atomic():
        PipelineDependency.objects.filter(pipeline=pipeline).exclude(upstream_id__in=wanted).delete()
        for upstream, timeout_s in wanted.values():
            PipelineDependency.objects.update_or_create(
                pipeline=pipeline, upstream=upstream, defaults={"timeout_s": timeout_s}
            )


def upload_pipeline(name: str, *, contract: Contract | None = None) -> Pipeline:
    """Return the pipeline of that name that takes uploads, made if there is none.

    A new one delivers to the lake destination and the catalog; with a key, files are merged by it, without one
    each file replaces the one before.
    """
    pipeline = Pipeline.objects.select_related("source", "contract").filter(name=name).first()
    if pipeline is not None:
        if contract is not None and pipeline.contract_id != contract.pk:
            adopt_contract(pipeline, contract)
        return pipeline
    try:
        with transaction.atomic():
            source = upload_source()
            pipeline = Pipeline.objects.create(
                name=check_new_name(name),
                source=source,
                stream=registry.plugin_class("connector", source.kind).upload_stream,
                contract=contract,
                mode=_upload_mode(contract),
            )
            pipeline.destinations.set(default_destinations())
    except IntegrityError:
        # Two first uploads under one name at once; the other was quicker.
        pipeline = Pipeline.objects.select_related("source", "contract").get(name=name)
    return pipeline


def fetch_pipeline(*, kind: str, config: Mapping[str, Any], host: str, stream: str | None = None) -> Pipeline:
    """Return the pipeline that reads one stream of a source of that kind and configuration, both made if there is none.

    They are named after the kind and the host, and deliver nowhere: the rows are read from the lake. Without a stream
    the source's first one is read.
    """
    try:
        with transaction.atomic():
            return _find_or_make(kind, config=dict(config), host=host, stream=stream)
    except IntegrityError:
        # Two first calls at once; the other was quicker, so now there is one to find.
        return _find_or_make(kind, config=dict(config), host=host, stream=stream)


def _find_or_make(kind: str, *, config: dict[str, Any], host: str, stream: str | None) -> Pipeline:
    source = Source.objects.filter(kind=kind, config=config).order_by("pk").first()
    if source is None:
        name = _free_name(f"{kind}-{host}", taken=Source.objects.values_list("name", flat=True))
        check_source_config(kind=kind, config=config, secrets={}, name=name)
        source = Source.objects.create(name=name, kind=kind, config=config)
    found = registry.find_stream(source, stream) if stream else registry.build_connector(source).streams()[0]
    pipelines = Pipeline.objects.filter(source=source, stream=found.name, destinations=None)
    pipeline = pipelines.filter(mode=Pipeline.Mode.FULL_REFRESH).select_related("source", "contract").first()
    if pipeline is None:
        name = _free_name(f"{source.name}-{found.name}", taken=Pipeline.objects.values_list("name", flat=True))
        pipeline = Pipeline.objects.create(name=name, source=source, stream=found.name)
    return pipeline


def _free_name(wanted: str, *, taken: Iterable[str]) -> str:
    base = _NOT_IN_NAMES.sub("-", wanted.lower()).strip("-_")[:_NAME_ROOM] or "source"
    known = set(taken)
    numbered = (base if number == 1 else f"{base}-{number}" for number in count(1))
    return next(name for name in numbered if name not in known)


def adopt_contract(pipeline: Pipeline, contract: Contract) -> None:
    """Check the pipeline's next runs against the contract."""
    pipeline.contract = contract
    fields = ["contract", "updated_at"]
    if pipeline.source.kind in upload_kinds():
        pipeline.mode = _upload_mode(contract)
        fields.append("mode")
    pipeline.save(update_fields=fields)


def upload_kinds() -> list[str]:
    """Return the kinds of sources whose pipelines take uploads."""
    return registry.kinds_offering("connector", TakesUploads)


def upload_source() -> Source:
    """Return the source that uploads belong to."""
    source, _ = Source.objects.get_or_create(name=UPLOAD_SOURCE, defaults={"kind": registry.own_kind(UPLOAD_SOURCE)})
    return source


def default_destinations() -> list[Destination]:
    """Return where a pipeline delivers that was made by an upload: published objects, catalog, and Druid if there is one."""
    catalog = _own_destination(CATALOG_DESTINATION)
    lake = _own_destination(LAKE_DESTINATION, config={"url": registry.published_url()})
    druid = druid_destination()
    return [lake, catalog] if druid is None else [lake, catalog, druid]


def _own_destination(name: str, **settings_of_new: Any) -> Destination:
    made = {"kind": registry.own_kind(name), **settings_of_new}
    destination, _ = Destination.objects.get_or_create(name=name, defaults=made)
    return destination


def druid_destination() -> Destination | None:
    """Return the destination of the Druid that the settings name, made if there is none; None where they name none.

    One of that name and another kind is somebody's own, and stays out of it.
    """
    config: Mapping[str, Any] | None = settings.HEADGATE_DRUID
    if config is None:
        return None
    secrets: Mapping[str, str] = settings.HEADGATE_DRUID_SECRETS
    move_druid_destination(config, secrets=secrets)
    druid = _own_destination(DRUID_DESTINATION, config=dict(config), secrets=dict(secrets))
    return druid if druid.kind == registry.own_kind(DRUID_DESTINATION) else None


def move_druid_destination(config: Mapping[str, Any], *, secrets: Mapping[str, str]) -> None:
    """Tell the default Druid destination, if it was made, where Druid is now; what people set besides stays."""
    for druid in Destination.objects.filter(name=DRUID_DESTINATION, kind=registry.own_kind(DRUID_DESTINATION)):
        kept = {name: value for name, value in druid.config.items() if name not in _SET_BY_SETTINGS}
        kept_secrets = {name: value for name, value in druid.secrets.items() if name not in _SET_BY_SETTINGS}
        wanted, wanted_secrets = {**kept, **config}, {**kept_secrets, **secrets}
        if (wanted, wanted_secrets) != (druid.config, druid.secrets):
            druid.config, druid.secrets = wanted, wanted_secrets
            druid.save(update_fields=["config", "secrets", "updated_at"])


def _upload_mode(contract: Contract | None) -> str:
    has_key = contract is not None and bool(contract.body.get("key"))
    return Pipeline.Mode.INCREMENTAL if has_key else Pipeline.Mode.FULL_REFRESH

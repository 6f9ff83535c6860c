"""Places of destinations: none lies in the lake, in our own folder or database, or where another destination lies."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from django.conf import settings

from ingestion import registry
from ingestion.models import Destination
from ingestion.ports.errors import ConfigError, Refused
from ingestion.ports.sink import PlacedConfig
from ingestion.toolkit.lake.places import overlap, segments_of

PUBLISHED = "published"
"""The folder of the data directory that destinations may lie in."""
OLD_DEFAULT = "published"
"""The prefix, within the lake's, that the default destination of a bucket had at first."""

Place = tuple[str, ...]


def check_place(
    *, kind: str, config: Mapping[str, Any], secrets: Mapping[str, Any], name: str, own_id: int | None = None
) -> None:
    """Raise Refused where a destination would lie at, in or around a place that is ours or another's.

    What would be removed from one would be missing in the other. `own_id` is that of the destination, where there is
    one already.
    """
    validated = registry.validate_config("sink", kind, config, secrets, where=name)
    if not isinstance(validated, PlacedConfig):
        return
    place = segments_of(validated.occupies)
    for owner, taken in (*_own_places(place), *_places_of_others(place, kind=kind, own_id=own_id)):
        if overlap(place, taken):
            folder = settings.HEADGATE_DATA_DIR / PUBLISHED
            raise Refused("destination.place_taken", name=name, owner=owner, folder=folder)


def _defaults() -> set[Place]:
    """Return the places that default destinations have, or had: two of them lie where no other may."""
    lake = settings.HEADGATE_LAKE_URL
    found = {segments_of(registry.published_url())}
    if lake.startswith("s3://"):
        found.add((*segments_of(lake), OLD_DEFAULT))
    return found


def _own_places(place: Place) -> Iterator[tuple[str, Place]]:
    if place in _defaults():
        return
    yield "the lake", segments_of(settings.HEADGATE_LAKE_URL)
    database = settings.DATABASES["default"]
    if database["ENGINE"].endswith("sqlite3") and str(database["NAME"]).startswith("/"):
        yield "the database", segments_of(str(database["NAME"]))
    data = segments_of(str(settings.HEADGATE_DATA_DIR))
    published = (*data, PUBLISHED)
    if place[: len(published)] != published:
        yield "the data folder", data


def _places_of_others(place: Place, *, kind: str, own_id: int | None) -> Iterator[tuple[str, Place]]:
    for other in Destination.objects.exclude(pk=own_id or 0):
        if other.kind not in registry.known_kinds("sink"):
            continue
        # What no longer validates cannot be delivered to either.
        with suppress(ConfigError):
            theirs = registry.validate_config("sink", other.kind, other.config, other.secrets, where=other.name)
            if isinstance(theirs, PlacedConfig):
                taken = segments_of(theirs.occupies)
                if not (theirs.is_shared and other.kind == kind and taken == place):
                    yield f"destination {other.name}", taken

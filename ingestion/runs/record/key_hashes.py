"""Key hashes of parts that an earlier version stored: made anew when they are next used, and kept."""

from collections.abc import Sequence
from dataclasses import replace

from ingestion.models import Part
from ingestion.ports.publication import Manifest, PartView
from ingestion.runs.record.lake import hashes_key, open_lake


def renew_hashes(manifests: Sequence[Manifest], *, key: Sequence[str]) -> list[Manifest]:
    """Return the manifests with hashes of this scheme beside all of their parts."""
    return [
        replace(manifest, parts=tuple(_renewed(part, key=key, time=manifest.contract.time) for part in manifest.parts))
        for manifest in manifests
    ]


def _renewed(part: PartView, *, key: Sequence[str], time: str | None) -> PartView:
    if part.is_hashed:
        return part
    from ingestion.toolkit.clean.current import fresh_hashes  # noqa: PLC0415 (heavy)

    stored = hashes_key(part.key)
    open_lake().put_if_absent(stored, fresh_hashes(open_lake(), part, key=key, time=time))
    Part.objects.filter(key=part.key, zone=Part.Zone.CLEAN).update(hashes_key=stored)
    return replace(part, hashes=stored)

"""Current rows of a published state: those that no later run has replaced, where a pipeline merges by key."""

import io
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from ingestion.models import Part
from ingestion.ports.publication import Manifest, PartView, WriteMode
from ingestion.quality.keys import HashedPart, find_duplicates, hash_keys, hash_scheme, read_scheme, resolve_duplicates
from ingestion.runs.record.lake import open_lake
from ingestion.toolkit.clean.kinds import Kind, PartShape, agreed_kinds

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    Positions = npt.NDArray[np.uint32]

_KNOWN_STATES = 4


def merge_key(manifests: Sequence[Manifest]) -> tuple[str, ...]:
    """Return the key by which later runs of the state replace rows of earlier ones; empty where they do not."""
    merging = [manifest for manifest in manifests[1:] if manifest.mode == WriteMode.MERGE]
    return merging[-1].contract.key if merging else ()


def replaced_rows(manifests: Sequence[Manifest]) -> "Mapping[int, Positions]":
    """Return which rows later runs have replaced: the number of a part in the state, and positions in it, in order.

    Found by merging the key hashes that lie beside the parts, and confirmed by the keys; so memory does not grow with
    the rows but with what was replaced. Parts never change, so the last few answers are kept.
    """
    key = merge_key(manifests)
    return _replaced(key, tuple(manifest.parts for manifest in manifests)) if key else {}


@lru_cache(maxsize=_KNOWN_STATES)
def _replaced(key: tuple[str, ...], runs: tuple[tuple[PartView, ...], ...]) -> "Mapping[int, Positions]":
    import numpy as np  # noqa: PLC0415 (heavy)

    from ingestion.toolkit.clean.reader import read_shape  # noqa: PLC0415 (heavy)

    lake = open_lake()
    parts = [part for run in runs for part in run]
    shapes = [read_shape(lake, part) for part in parts]
    agreed = agreed_kinds(shapes, declared={})
    kinds = {name: agreed[name] for name in key}
    stored = _stored_hashes(parts)
    hashed = [
        _hashed(part, number, hashes=stored.get(part.key, ""), shape=shape, kinds=kinds)
        for number, (part, shape) in enumerate(zip(parts, shapes, strict=True))
    ]
    losers = resolve_duplicates(find_duplicates(hashed), partial(_read_keys, parts, kinds), key=key, keep="latest")
    return {number: positions.astype(np.uint32) for number, positions in losers.items()}


def _hashed(part: PartView, number: int, *, hashes: str, shape: PartShape, kinds: Mapping[str, Kind]) -> HashedPart:
    """Return the part's stored hashes; made anew where they are of another scheme, or of other types than agreed on."""
    is_as_stored = all((column := shape.column(name)) is not None and column.kind == kinds[name] for name in kinds)
    if hashes and is_as_stored:
        with open_lake().open(hashes) as stored:
            is_ours = read_scheme(stored) == hash_scheme()
        if is_ours:
            return HashedPart(number, 0, partial(open_lake().open, hashes))
    from ingestion.toolkit.clean.reader import open_part  # noqa: PLC0415 (heavy)

    with open_part(open_lake(), part) as file:
        fresh = hash_keys(file.table(kinds), list(kinds))
    return HashedPart(number, 0, lambda: io.BytesIO(fresh))


def _read_keys(parts: Sequence[PartView], kinds: Mapping[str, Kind], index: int, positions: Any) -> "pa.Table":
    from ingestion.toolkit.clean.reader import open_part  # noqa: PLC0415 (heavy)

    with open_part(open_lake(), parts[index]) as file:
        return file.take(positions, kinds)


def _stored_hashes(parts: Sequence[PartView]) -> dict[str, str]:
    keys = [part.key for part in parts]
    found: dict[str, str] = {}
    for start in range(0, len(keys), 500):
        rows = Part.objects.filter(key__in=keys[start : start + 500], zone=Part.Zone.CLEAN)
        found |= dict(rows.values_list("key", "hashes_key"))
    return found

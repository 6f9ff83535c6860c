"""Current rows of a published state, as its readers ask for them: found once, and kept while the state stays."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from ingestion.ports.publication import Manifest, PartView
from ingestion.runs.record.key_hashes import renew_hashes
from ingestion.runs.record.lake import open_lake

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Places = npt.NDArray[np.uint32]

_KNOWN_STATES = 4


def replaced_rows(manifests: Sequence[Manifest]) -> "Mapping[int, Places]":
    """Return which rows later runs have replaced: the number of a part in the state, and positions in it, in order.

    Parts never change, so the last few answers are kept.
    """
    from ingestion.toolkit.clean.current import merge_key  # noqa: PLC0415 (heavy)

    key = merge_key(manifests)
    if not key:
        return {}
    return _replaced(key, tuple(part for manifest in renew_hashes(manifests, key=key) for part in manifest.parts))


@lru_cache(maxsize=_KNOWN_STATES)
def _replaced(key: tuple[str, ...], parts: tuple[PartView, ...]) -> "Mapping[int, Places]":
    from ingestion.toolkit.clean import current  # noqa: PLC0415 (heavy)

    return current.replaced_rows(open_lake(), parts, key=key)

"""Publications of one pipeline: the manifests there, which of them are the state, and the pointer that says so.

The state is a function of the manifests that are there, in the order of their runs: from the newest one that stands
alone (a replacing run, or a compacted manifest) on. So it comes out the same whoever computes it, after every crash.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ingestion.ports.errors import SinkRejected, SinkUnavailable, StoreCorrupt
from ingestion.ports.publication import WriteMode
from ingestion.toolkit.failpoints import failpoint
from ingestion.toolkit.lake.opening import ObjectStore
from sinks.objects.documents import Document, pointed_at, pointer_bytes, read_document
from sinks.objects.keys import COMPACTED, MANIFESTS, pointer_key

POINTER_TRIES = 5
_NAME = re.compile(rf"([0-9]+|{COMPACTED}-(?P<through>[0-9]+)-(?P<generation>[0-9]+))\.json")


@dataclass(frozen=True, order=True, slots=True)
class Entry:
    """One manifest that is there; in the order of what replaces what.

    `run` is the run of a run's manifest, and the newest run in a compacted one; `generation` is 0 for a run's.
    """

    run: int
    generation: int
    key: str
    size_bytes: int
    modified_at: datetime | None

    @property
    def is_compacted(self) -> bool:
        """Return whether it stands for all runs up to its own."""
        return self.generation > 0


class Publications:
    """The manifests and the pointer of one pipeline at one destination."""

    def __init__(self, store: ObjectStore, pipeline: str, *, destination: str) -> None:
        self._store = store
        self.pipeline = pipeline
        self.destination = destination

    def entries(self) -> list[Entry]:
        """Return the manifests that are there, oldest run first."""
        found = []
        for info in self._store.list(f"{self.pipeline}/{MANIFESTS}/"):
            name = _NAME.fullmatch(info.key.rpartition("/")[2])
            if name is not None:
                run, generation = (name[1], "0") if name["through"] is None else name.group("through", "generation")
                found.append(Entry(int(run), int(generation), info.key, info.size_bytes, info.modified_at))
        return sorted(found)

    def state(self, entries: Sequence[Entry] | None = None, *, pointer: bytes | None = None) -> list[Entry]:
        """Return those of the manifests that together are the published state, in order.

        What the pointer says only saves reading manifests; the present one is asked for where none is given.
        """
        # All but the first that the pointer names do not stand alone: that need not be read again.
        adding = set(pointed_at(pointer or self.read(pointer_key(self.pipeline)))[1:])
        state: list[Entry] = []
        for entry in reversed(self.entries() if entries is None else entries):
            state.append(entry)
            if entry.is_compacted or (entry.key not in adding and self._stands_alone(entry)):
                break
        return state[::-1]

    def pointed(self) -> set[str]:
        """Return the manifests that the pointer names at this moment."""
        return set(pointed_at(self.read(pointer_key(self.pipeline))))

    def newest_run(self) -> int | None:
        """Return the newest run that is published, or None."""
        return max((entry.run for entry in self.entries()), default=None)

    def document(self, key: str) -> Document:
        """Return a manifest; StoreCorrupt where it is missing."""
        return read_document(self.content(key))

    def content(self, key: str) -> bytes:
        """Return the bytes of a manifest; StoreCorrupt where it is missing."""
        return self._store.read(key)

    def point(self) -> None:
        """Let the pointer name the state.

        It follows the manifests and is read again after it was written, so that of two runs that commit at once
        the older cannot leave it behind: whoever writes last sees both manifests.
        """
        key = pointer_key(self.pipeline)
        for _ in range(POINTER_TRIES):
            pointer = self.read(key)
            state = self.state(pointer=pointer)
            wanted = pointer_bytes([entry.key for entry in state], run_id=state[-1].run) if state else None
            if wanted == pointer:
                return
            if wanted is None:
                self._store.delete(key)
            else:
                self._store.put(key, wanted)
        raise SinkUnavailable("store.unavailable", detail=f"{key} is being moved by others")

    def take_apart(self, run_id: int) -> bool:
        """Do without the compacted manifests that hold the run or later ones; False where that would lose rows.

        To be called before anything of the run is changed. Readers see the same rows before and after.
        """
        entries = self.entries()
        compacted = [entry for entry in entries if entry.is_compacted and entry.run >= run_id]
        if not compacted:
            return True
        left = [entry for entry in entries if entry not in compacted]
        state = self.state(left)
        covered = {entry.run for entry in state}
        if state and state[0].is_compacted:
            covered |= set(self.document(state[0].key).covers)
        if not self.document(compacted[-1].key).covers.keys() <= covered:
            return False
        wanted = pointer_bytes([entry.key for entry in state], run_id=state[-1].run)
        if compacted[-1].key in self.pointed():
            self._store.put(pointer_key(self.pipeline), wanted)
        failpoint("objects.before_taken_apart")
        for entry in reversed(compacted):
            self._store.delete(entry.key)
        return True

    def write(self, key: str, content: bytes, *, run_id: int) -> None:
        """Write the manifest of a run in the place of another that is there.

        That is of a run that was published in part and then completed by a retry. SinkRejected where the rows of
        later runs were compacted with its own, and the files of before are gone: nothing could be told apart any more.
        """
        if not self._hold_already(run_id, content) and not self.take_apart(run_id):
            later = f"run {run_id} comes too late: the runs around it were compacted; start a new run"
            raise SinkRejected("sink.rejected", destination=self.destination, detail=later)
        self._store.put(key, content)

    def _hold_already(self, run_id: int, content: bytes) -> bool:
        compacted = [entry for entry in self.entries() if entry.is_compacted]
        if not compacted:
            return False
        return self.document(compacted[-1].key).covers.get(run_id) == hashlib.sha256(content).hexdigest()

    def read(self, key: str) -> bytes | None:
        """Return the object, or None where there is none."""
        try:
            return self._store.read(key)
        except StoreCorrupt as error:
            if error.code != "store.missing":
                raise
            return None

    def _stands_alone(self, entry: Entry) -> bool:
        content = self.read(entry.key)
        return content is not None and read_document(content).mode is WriteMode.REPLACE

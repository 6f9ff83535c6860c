"""Writing the small files of a published state together, and a merged state down to one row a key.

New files first, then the manifest that stands for the state, then the pointer: a reader of the pointer sees the same
rows before, during and after, and work that was killed anywhere is done again with the same result.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ingestion.ports.context import Context
from ingestion.ports.errors import SinkRejected, SinkUnavailable
from ingestion.ports.housekeeping import Housekeeping
from ingestion.ports.publication import WriteMode
from ingestion.toolkit.failpoints import failpoint
from ingestion.toolkit.lake.keys import sha256_of
from ingestion.toolkit.lake.opening import ObjectStore
from sinks.objects.documents import Document, compacted_bytes, read_document
from sinks.objects.keys import COMPACTED, compacted_key
from sinks.objects.layout import Layout, Partition, StoredFile, folder_of
from sinks.objects.publications import Entry, Publications
from sinks.objects.working import fetch, send, working_folder

if TYPE_CHECKING:
    import polars as pl

    from sinks.objects.joining import Keep


@dataclass(frozen=True, slots=True)
class State:
    """A published state as it was read: its manifests and what they said, oldest first."""

    entries: Sequence[Entry]
    contents: Sequence[bytes]
    documents: Sequence[Document]

    @property
    def newest(self) -> Document:
        """Return the manifest of the newest run."""
        return self.documents[-1]

    @property
    def is_merged(self) -> bool:
        """Return whether rows of a later manifest replace rows of an earlier one."""
        return any(document.mode is WriteMode.MERGE for document in self.documents[1:])

    @property
    def files(self) -> list[tuple[int, StoredFile]]:
        """Return the files, each with the place of its manifest."""
        return [(order, file) for order, document in enumerate(self.documents) for file in document.files]

    def obstacle(self) -> str:
        """Return why its files cannot be written together, "" where they can."""
        if any(document.layout.as_json() != self.newest.layout.as_json() for document in self.documents):
            return "its files are of more than one form, since the settings were changed"
        if self.is_merged and any(document.key != self.newest.key for document in self.documents):
            return "its runs have more than one key, since the contract was changed"
        if self.is_merged and not self.newest.key:
            return "it has no key to merge by"
        return ""

    def covers(self) -> dict[int, str]:
        """Return the runs whose rows it holds, each with the hash of its manifest."""
        found: dict[int, str] = {}
        for entry, content, document in zip(self.entries, self.contents, self.documents, strict=True):
            found |= document.covers if entry.is_compacted else {entry.run: hashlib.sha256(content).hexdigest()}
        return found


def read_state(publications: Publications) -> State:
    """Return the published state."""
    entries = publications.state()
    contents = [publications.content(entry.key) for entry in entries]
    return State(entries, contents, [read_document(content) for content in contents])


def compact_state(
    publications: Publications, store: ObjectStore, ctx: Context, *, target_bytes: int, dry_run: bool
) -> Housekeeping:
    """Bring the published state into files of about the target size, and say what was, or would be, done."""
    if not dry_run:
        # One that was killed before it moved the pointer has left only that to do.
        publications.point()
    state = read_state(publications)
    if not state.entries or (len(state.entries) == 1 and state.entries[0].is_compacted):
        return Housekeeping(is_dry_run=dry_run)
    if obstacle := state.obstacle():
        return Housekeeping((f"{publications.pipeline} is left as it is: {obstacle}",), is_dry_run=dry_run)
    groups = _small_groups(state, target_bytes=target_bytes)
    small = [file for group in groups.values() for file in group]
    if not small and not state.is_merged:
        return Housekeeping(is_dry_run=dry_run)
    if dry_run:
        return _plan(state, groups)
    return _Compaction(publications, store, ctx, state, target_bytes).run()


def _small_groups(state: State, *, target_bytes: int) -> Mapping[str, Sequence[StoredFile]]:
    """Return the files below half the target by the folders of their partition, where there is more than one."""
    groups: dict[str, list[StoredFile]] = {}
    for _, file in state.files:
        if file.size_bytes < target_bytes // 2:
            groups.setdefault(folder_of(file.partition), []).append(file)
    return {folder: files for folder, files in sorted(groups.items()) if len(files) > 1}


def _plan(state: State, groups: Mapping[str, Sequence[StoredFile]]) -> Housekeeping:
    actions = [
        f"write {len(files)} small files{f' of {folder}' if folder else ''} together"
        for folder, files in groups.items()
    ]
    if state.is_merged:
        actions.append(f"merge {len(state.entries)} manifests, with one row a key of {', '.join(state.newest.key)}")
    small = [file for files in groups.values() for file in files]
    return Housekeeping(tuple(actions), len(small), sum(file.size_bytes for file in small), is_dry_run=True)


@dataclass(frozen=True, slots=True)
class _Compaction:
    publications: Publications
    store: ObjectStore
    ctx: Context
    state: State
    target_bytes: int

    def run(self) -> Housekeeping:
        """Carry it out."""
        kept: list[StoredFile] = []
        joined: list[StoredFile] = []
        read: list[StoredFile] = []
        with working_folder(self.ctx) as folder:
            remaining = self._remaining(folder) if self.state.is_merged else {}
            groups: dict[str, list[tuple[StoredFile, Keep | None]]] = {}
            for index, (_, file) in enumerate(self.state.files):
                keep = remaining.get(index)
                if keep is None and file.size_bytes >= self.target_bytes // 2:
                    kept.append(file)
                else:
                    groups.setdefault(folder_of(file.partition), []).append((file, keep))
            for _, found in sorted(groups.items()):
                if len(found) == 1 and found[0][1] is None:
                    kept.append(found[0][0])
                    continue
                read += [file for file, _ in found]
                joined += self._written(found, start=len(joined), folder=folder)
        lost = sum(int((~keep).sum()) for keep in remaining.values())
        self._publish([*kept, *joined], lost=lost)
        actions = [f"wrote {len(read)} files together into {len(joined)}"]
        if self.state.is_merged:
            actions.append(f"merged {len(self.state.entries)} manifests; later runs replaced {lost} rows")
        return Housekeeping(tuple(actions), len(read), sum(file.size_bytes for file in read))

    def _remaining(self, folder: Path) -> "Mapping[int, Keep]":
        """Return by file which rows remain, for the files that lose some to later runs."""
        from sinks.objects.merging import Replaced  # noqa: PLC0415 (loads numpy and polars)

        files = self.state.files
        with Replaced(files, folder=folder) as replaced:
            for index, (_, file) in enumerate(files):
                for keys in self._keys_of(file, folder):
                    self.ctx.beat()
                    replaced.add(index, keys)
            return replaced.remaining()

    def _keys_of(self, file: StoredFile, folder: Path) -> "Iterator[pl.DataFrame]":
        from ingestion.toolkit.clean.reader import PartFile  # noqa: PLC0415 (loads Arrow)
        from sinks.objects.joining import key_texts, pieces_of, shape_of  # noqa: PLC0415 (loads polars)
        from sinks.objects.rows import batches_of  # noqa: PLC0415

        layout, partition = self._layout, dict(file.partition)
        key = self.state.newest.key
        if layout.format == "parquet":
            # Columns of the key only, so not the whole file; what remains of it is verified when it is read whole.
            with self.store.open(file.path) as stream:
                for batch in batches_of(
                    PartFile(stream, key=file.path), [name for name in key if name not in partition]
                ):
                    yield key_texts(batch, key, shape=batch.schema, layout=layout, partition=partition)
            return
        path = self._fetched(file, folder)
        shape = shape_of(path, layout)
        for piece in pieces_of(path, layout):
            yield key_texts(piece, key, shape=shape, layout=layout, partition=partition)

    def _written(
        self, found: Sequence[tuple[StoredFile, "Keep | None"]], *, start: int, folder: Path
    ) -> Iterator[StoredFile]:
        """Yield the files that the remaining rows of these were written into."""
        from sinks.objects.joining import Joining  # noqa: PLC0415 (loads polars)

        made = folder / "made"
        joining = Joining(made, self._layout, target_bytes=self.target_bytes)
        number = start
        for file, keep in found:
            for rows in joining.add(self._fetched(file, folder), keep):
                yield self._stored(made, rows, number=number, partition=file.partition)
                number += 1
            self.ctx.beat()
        for rows in joining.end():
            yield self._stored(made, rows, number=number, partition=found[0][0].partition)

    def _fetched(self, file: StoredFile, folder: Path) -> Path:
        path = folder / "source"
        fetch(self.store, file.path, sha256=file.sha256, into=path, ctx=self.ctx)
        return path

    def _stored(self, path: Path, rows: int, *, number: int, partition: Partition) -> StoredFile:
        sha256 = sha256_of(path)
        base = f"{self.publications.pipeline}/{COMPACTED}/{self._through}-{self._generation}/{folder_of(partition)}"
        key = f"{base}{number:06d}-{sha256[:16]}{self._layout.extension}"
        failpoint("objects.before_joined")
        send(path, self.store, key, sha256=sha256, ctx=self.ctx)
        return StoredFile(key, "", rows, path.stat().st_size, sha256, partition)

    def _publish(self, files: Sequence[StoredFile], *, lost: int) -> None:
        before = sum(document.rows for document in self.state.documents)
        if sum(file.rows for file in files) != before - lost:
            detail = f"{before - lost} rows were expected in the compacted files"
            raise SinkRejected("sink.rejected", destination=self.publications.destination, detail=detail)
        now = read_state(self.publications)
        if now.contents[: len(self.state.contents)] != self.state.contents:
            raise SinkUnavailable("sink.busy", destination=self.publications.destination)
        key = compacted_key(self.publications.pipeline, through=self._through, generation=self._generation)
        content = compacted_bytes(self.state.newest, files, covers=self.state.covers(), generation=self._generation)
        failpoint("objects.before_compacted")
        self.store.put_if_absent(key, content)
        failpoint("objects.before_pointer")
        self.publications.point()

    @property
    def _layout(self) -> Layout:
        return self.state.newest.layout

    @property
    def _through(self) -> int:
        return self.state.newest.run

    @property
    def _generation(self) -> int:
        newest = self.state.entries[-1]
        return newest.generation + 1

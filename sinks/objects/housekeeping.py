"""Removing what is no longer published and need not be kept: manifests first, then the files that none names."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ingestion.ports.context import Context, ObjectInfo
from ingestion.ports.housekeeping import Housekeeping
from ingestion.ports.publication import WriteMode
from ingestion.toolkit.failpoints import failpoint
from ingestion.toolkit.lake.opening import ObjectStore
from sinks.objects.keys import is_ours, pointer_key
from sinks.objects.publications import Entry, Publications

ABANDONED = timedelta(days=1)


@dataclass
class _Removal:
    """Objects to remove, in the order in which they may go: until its manifest is gone, a file is somebody's."""

    store: ObjectStore
    ctx: Context
    dry_run: bool
    actions: list[str] = field(default_factory=list)
    object_count: int = 0
    size_bytes: int = 0

    def remove(self, key: str, size_bytes: int) -> None:
        self.object_count += 1
        self.size_bytes += size_bytes
        self.ctx.beat()
        if not self.dry_run:
            self.store.delete(key)
            failpoint("objects.after_removal")

    def abort_uploads(self, prefix: str, *, older_than: datetime) -> None:
        count = self.store.abort_stale_uploads(older_than, prefix=prefix, dry_run=self.dry_run)
        if count:
            self.actions.append(f"{'abort' if self.dry_run else 'aborted'} {count} unfinished uploads")

    def done(self) -> Housekeeping:
        return Housekeeping(tuple(self.actions), self.object_count, self.size_bytes, is_dry_run=self.dry_run)


def retain_publications(
    publications: Publications,
    store: ObjectStore,
    ctx: Context,
    *,
    keep_runs: int | None,
    keep_days: int | None,
    grace_hours: int,
    dry_run: bool,
) -> Housekeeping:
    """Remove the manifests that no rule keeps, then what no manifest names, then abandoned uploads; say what it was."""
    now, grace = ctx.clock(), timedelta(hours=grace_hours)
    entries = publications.entries()
    paths: dict[str, list[str]] = {}
    alone: set[str] = set()
    for entry in entries:
        ctx.beat()
        document = publications.document(entry.key)
        paths[entry.key] = [file.path for file in document.files]
        if entry.is_compacted or document.mode is WriteMode.REPLACE:
            alone.add(entry.key)
    kept = _kept(entries, now=now, keep_runs=keep_runs, keep_days=keep_days)
    # What the pointer still names where a commit was killed before it moved it is being read, too.
    kept |= {entry.key for entry in publications.state(entries)} | publications.pointed()
    replaced_at = _replaced_at(entries, alone=alone)
    gone = [
        entry
        for entry in entries
        if entry.key not in kept and (at := replaced_at.get(entry.key)) is not None and at <= now - grace
    ]
    named = {path for entry in entries if entry not in gone for path in paths[entry.key]}
    freed = {path: entry for entry in gone for path in paths[entry.key] if path not in named}
    there = {info.key: info for info in store.list(f"{publications.pipeline}/")}

    removal = _Removal(store, ctx, dry_run)
    verb = "remove" if dry_run else "removed"
    for entry in gone:
        files = [there[path] for path, owner in freed.items() if owner is entry and path in there]
        removal.actions.append(f"{verb} {_name_of(entry)}: {_amount(files)}")
        removal.remove(entry.key, entry.size_bytes)
    failpoint("objects.after_manifests_removed")
    orphans = [
        info
        for key, info in there.items()
        if is_ours(key)
        and key not in named
        and key not in freed
        and info.modified_at is not None
        and info.modified_at <= now - grace
    ]
    removal.actions += [f"{verb} {info.key}, which no manifest names" for info in orphans]
    for info in [*(there[path] for path in freed if path in there), *orphans]:
        removal.remove(info.key, info.size_bytes)
    removal.abort_uploads(f"{publications.pipeline}/", older_than=now - ABANDONED)
    return removal.done()


def drop_pipeline(publications: Publications, store: ObjectStore, ctx: Context, *, dry_run: bool) -> Housekeeping:
    """Remove the pointer, the manifests and every file that this sink made for the pipeline; others' files stay."""
    removal = _Removal(store, ctx, dry_run)
    entries = publications.entries()
    pointer = store.head(pointer_key(publications.pipeline))
    files = [info for info in store.list(f"{publications.pipeline}/") if is_ours(info.key)]
    verb = "remove" if dry_run else "removed"
    if pointer is not None:
        removal.remove(pointer.key, pointer.size_bytes)
    failpoint("objects.after_pointer_removed")
    for entry in reversed(entries):
        removal.remove(entry.key, entry.size_bytes)
    for info in files:
        removal.remove(info.key, info.size_bytes)
    if pointer is not None or entries or files:
        removal.actions.append(f"{verb} {len(entries)} manifests and {_amount(files)}")
    removal.abort_uploads(f"{publications.pipeline}/", older_than=ctx.clock())
    return removal.done()


def _kept(entries: Sequence[Entry], *, now: datetime, keep_runs: int | None, keep_days: int | None) -> set[str]:
    """Return the manifests of runs that a rule keeps: all of them where there is none."""
    runs = [entry for entry in entries if not entry.is_compacted]
    if keep_runs is None and keep_days is None:
        return {entry.key for entry in runs}
    kept = {entry.key for entry in runs[-keep_runs:]} if keep_runs else set()
    if keep_days is not None:
        since = now - timedelta(days=keep_days)
        kept |= {entry.key for entry in runs if entry.modified_at is None or entry.modified_at >= since}
    return kept


def _replaced_at(entries: Sequence[Entry], *, alone: Collection[str]) -> dict[str, datetime]:
    """Return when each manifest ceased to be part of the state: when the next one that stands alone was written."""
    found: dict[str, datetime] = {}
    at: datetime | None = None
    for entry in reversed(entries):
        if at is not None:
            found[entry.key] = at
        if entry.key in alone:
            at = entry.modified_at
    return found


def _name_of(entry: Entry) -> str:
    return f"the compaction up to run {entry.run}" if entry.is_compacted else f"run {entry.run}"


def _amount(files: Sequence[ObjectInfo]) -> str:
    return f"{len(files)} files, {sum(info.size_bytes for info in files)} bytes"

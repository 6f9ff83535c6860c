"""The documents that say what is published: manifests of runs, compacted ones, and the pointer."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ingestion.ports.publication import Manifest, WriteMode
from sinks.objects.layout import Layout, StoredFile

MANIFEST_VERSION = 2
POINTER_VERSION = 2


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest as it lies at the destination.

    `covers` are the runs whose rows a compacted one holds, each with the SHA-256 of its manifest: it stands for all
    that was published up to `run`.
    """

    run: int
    mode: WriteMode
    key: tuple[str, ...]
    layout: Layout
    files: tuple[StoredFile, ...]
    covers: Mapping[int, str]
    about: Mapping[str, Any]
    """The document itself, for what is handed on unread: contract, columns, logical time."""

    @property
    def rows(self) -> int:
        """Return how many rows its files hold."""
        return sum(file.rows for file in self.files)


def read_document(content: bytes) -> Document:
    """Return what a manifest says, one of an earlier version included."""
    found = json.loads(content)
    return Document(
        run=int(found["run"]),
        mode=WriteMode(found["mode"]),
        key=tuple(found.get("contract", {}).get("key", ())),
        layout=Layout.from_json(found),
        files=tuple(StoredFile.from_json(part) for part in found["parts"]),
        covers={int(run): sha256 for run, sha256 in found.get("covers", {}).items()},
        about=found,
    )


def manifest_bytes(manifest: Manifest, files: Sequence[StoredFile], *, layout: Layout) -> bytes:
    """Return the manifest of a run: the same run gives the same bytes, in whatever order its files come."""
    contract = manifest.contract
    places = {part.name: (part.lane, part.link, part.seq) for part in manifest.parts}
    ordered = sorted(files, key=lambda file: (places[file.part], file.path))
    return _json_bytes(
        {
            "version": MANIFEST_VERSION,
            "pipeline": manifest.pipeline,
            "run": manifest.run_id,
            "mode": manifest.mode.value,
            "logical_time": manifest.logical_time,
            "contract": {
                "name": contract.name,
                "version": manifest.contract_version,
                "key": list(contract.key),
                "time": contract.time,
            },
            "columns": [
                {"name": column.name, "type": column.type.value, "nullable": column.nullable, "unit": column.unit}
                for column in contract.columns
            ],
            **layout.as_json(),
            "rows": sum(file.rows for file in ordered),
            "parts": [file.as_json() for file in ordered],
        }
    )


def compacted_bytes(
    newest: Document, files: Sequence[StoredFile], *, covers: Mapping[int, str], generation: int
) -> bytes:
    """Return the manifest that stands for the whole state up to a run, whose contract and columns it tells."""
    return _json_bytes(
        {
            **{name: newest.about.get(name) for name in ("pipeline", "logical_time", "contract", "columns")},
            **newest.layout.as_json(),
            "version": MANIFEST_VERSION,
            "run": newest.run,
            "mode": WriteMode.REPLACE.value,
            "covers": {str(run): covers[run] for run in sorted(covers)},
            "generation": generation,
            "rows": sum(file.rows for file in files),
            "parts": [file.as_json() for file in files],
        }
    )


def pointer_bytes(manifests: Sequence[str], *, run_id: int) -> bytes:
    """Return the pointer at these manifests, which in this order are the published state."""
    return _json_bytes(
        {"version": POINTER_VERSION, "manifest": manifests[-1], "run": run_id, "manifests": list(manifests)}
    )


def pointed_at(content: bytes | None) -> list[str]:
    """Return the manifests that a pointer names; one of an earlier version names the newest alone."""
    if content is None:
        return []
    try:
        found = json.loads(content)
        return list(found.get("manifests") or [found["manifest"]])
    except (ValueError, KeyError, TypeError, AttributeError):
        # Somebody else's text: the state is found without it.
        return []


def staged_bytes(files: Sequence[StoredFile], *, layout: Layout) -> bytes:
    """Return the note that a part is staged whole, in these files."""
    return _json_bytes({**layout.as_json(), "parts": [file.as_json() for file in files]})


def read_staged(content: bytes, *, layout: Layout) -> list[StoredFile] | None:
    """Return the files that a part was staged in, None where that was in another form."""
    found = json.loads(content)
    if Layout.from_json(found).as_json() != layout.as_json():
        return None
    return [StoredFile.from_json(part) for part in found["parts"]]


def _json_bytes(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, ensure_ascii=False, sort_keys=True, indent=1) + "\n").encode()

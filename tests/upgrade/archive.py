"""The data directory that an older version left, unpacked at another place and beside servers at other addresses."""

import base64
import json
import sqlite3
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.fakes.druid import FakeDruid
from tests.fakes.paged_provider import PagedProvider

ARCHIVE = Path(__file__).parent.parent / "data" / "upgrade" / "77ec71b.tar.xz"
USERS = {"headgate": "kept"}
"""Who may ask the Druid: the password stands encrypted in the old tables."""
_LEASED = ("run", "partition", "delivery", "deliverypart")
_SENT = ("sent_at", "nudged_at")


@dataclass(frozen=True)
class Outside:
    """The servers that the old installation worked with, as they would be found after the upgrade."""

    druid: FakeDruid
    providers: Mapping[str, PagedProvider]


def read_archive() -> dict[str, bytes]:
    """Return the files of the archive by name."""
    with tarfile.open(ARCHIVE) as archive:
        return {member.name: file.read() for member in archive if (file := archive.extractfile(member))}


@contextmanager
def serve() -> Iterator[Outside]:
    """Give the servers; what Druid had been told it is told by `unpack`."""
    pages = {"provider": 3, "growing": 4, "broken": 3}
    with FakeDruid(users=USERS) as druid, ExitStack() as stack:
        providers = {name: stack.enter_context(PagedProvider(pages=count, per_page=5)) for name, count in pages.items()}
        yield Outside(druid, providers)


def unpack(folder: Path, outside: Outside) -> None:
    """Write the data directory into `folder`, with its paths and addresses, and with leases that have run out."""
    files = read_archive()
    made = json.loads(files["made.json"])
    moved = {made["data"]: str(folder), made["druid"]: outside.druid.url}
    moved |= {made["providers"][name]: provider.url for name, provider in outside.providers.items()}
    # The cursor of a pull is an address of its next page.
    moved |= {
        made["providers"][name].removesuffix("/optimade"): provider.url.removesuffix("/optimade")
        for name, provider in outside.providers.items()
    }
    for name, content in files.items():
        if name.startswith("data/"):
            target = folder / name.removeprefix("data/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    dump = files["dump.sql"].decode()
    for old, new in moved.items():
        dump = dump.replace(old, new)
    with closing(sqlite3.connect(folder / "headgate.sqlite3")) as opened:
        opened.executescript(dump)
        _let_time_pass(opened)
        opened.commit()
    for told in made["druid_was_told"]:
        body = base64.b64decode(told["body"]).replace(made["data"].encode(), str(folder).encode())
        _tell(outside.druid, told, body, held=made["held_tasks"], failed=made["failed_tasks"])


def _let_time_pass(opened: sqlite3.Connection) -> None:
    """Let every lease have run out and no run be late, whatever this machine's clock says."""
    for name in _LEASED:
        table = f"ingestion_{name}"
        columns = {row[1] for row in opened.execute(f"PRAGMA table_info({table})")}
        _set_past(opened, table, "lease_until", "-1 second")
        for column in ("not_before", *_SENT):
            if column in columns:
                _set_past(opened, table, column, "-1 hour")
    opened.execute("UPDATE ingestion_run SET deadline_at = datetime('now', '+1 day') WHERE deadline_at IS NOT NULL")
    _move_notes_to_now(opened)


def _move_notes_to_now(opened: sqlite3.Connection) -> None:
    """Move the times in what sinks noted of deliveries by as much as makes the latest of them now.

    A sink gives a task up that has been at work for longer than its patience.
    """
    notes = {pk: json.loads(refs) for pk, refs in opened.execute("SELECT id, refs FROM ingestion_delivery")}
    times = [
        (pk, name, datetime.fromisoformat(value))
        for pk, refs in notes.items()
        for name, value in refs.items()
        if name.endswith("_at") and isinstance(value, str) and value
    ]
    shift = datetime.now(UTC) - max(time for _, _, time in times)
    for pk, name, time in times:
        notes[pk][name] = (time + shift).isoformat()
    opened.executemany(
        "UPDATE ingestion_delivery SET refs = ? WHERE id = ?", [(json.dumps(refs), pk) for pk, refs in notes.items()]
    )


def _set_past(opened: sqlite3.Connection, table: str, column: str, shift: str) -> None:
    opened.execute(f"UPDATE {table} SET {column} = datetime('now', ?) WHERE {column} IS NOT NULL", [shift])  # noqa: S608


def _tell(
    druid: FakeDruid, told: Mapping[str, Any], body: bytes, *, held: list[str], failed: Mapping[str, str]
) -> None:
    task_id = json.loads(body).get("id") if told["path"].endswith("/task") else None
    if task_id in held:
        druid.hold()
    if task_id in failed:
        druid.fail_next_task(failed[task_id])
    credentials = base64.b64encode(":".join(next(iter(USERS.items()))).encode()).decode()
    request = urllib.request.Request(  # noqa: S310 - a fake on loopback
        druid.url + told["path"],
        data=body,
        method=told["method"],
        headers={"Content-Type": "application/json", "Authorization": f"Basic {credentials}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10):  # noqa: S310
            pass
    except urllib.error.HTTPError as error:
        error.close()
    if task_id and druid.can_end(task_id):
        druid.await_task(task_id)

"""Backup and restore of an installation: its database while it works, its lake by reference or copied, its keys on request.

The order makes a backup whole: objects never change and are stored before the rows that name them (rule R3), so a lake
that is copied after the database holds all that the database names.
"""

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import connection

from ingestion.models import Destination, Part, Pipeline, Run, Source, Upload
from ingestion.ports.errors import Refused
from ingestion.runs.record.lake import open_lake
from ingestion.toolkit.lake.local import LocalLake
from ingestion.toolkit.lake.opening import ObjectStore
from ingestion.toolkit.redact import redact

DESCRIPTION = "backup.json"
_FORMAT = 1
_BLOCK = 1 << 20
_TOOL_LINES = 3


@dataclass(frozen=True, slots=True)
class Backup:
    """The description of a backup, as it stands in its `backup.json`."""

    format: int
    database: str
    database_file: str
    database_sha256: str
    lake: str
    is_lake_copied: bool
    has_keys: bool
    runs: int
    parts: int


@dataclass(frozen=True, slots=True)
class Restored:
    """The outcome of a restore: what the database names and the lake does not hold, and whose credentials are unreadable."""

    backup: Backup
    missing: list[str]
    unreadable: list[str]


def back_up(folder: Path, *, copies_lake: bool, with_keys: bool) -> Backup:
    """Write a backup into an empty or new folder that only its owner may read, and return its description.

    The installation goes on working. Refused where the folder holds something, or PostgreSQL's `pg_dump` is missing or
    fails.
    """
    if folder.exists() and any(folder.iterdir()):
        raise Refused("backup.folder_not_empty", folder=str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    file = folder / ("database.sqlite3" if connection.vendor == "sqlite" else "database.dump")
    _dump(file)
    if copies_lake:
        copy_objects(open_lake(), LocalLake(folder / "lake"))
    if with_keys:
        _write_private(folder / "secret_keys", ",".join(settings.HEADGATE_SECRET_KEYS))
    made = Backup(
        format=_FORMAT,
        database=connection.vendor,
        database_file=file.name,
        database_sha256=_sha256_of(file),
        lake=redact(settings.HEADGATE_LAKE_URL),
        is_lake_copied=copies_lake,
        has_keys=with_keys,
        runs=Run.objects.count(),
        parts=Part.objects.count(),
    )
    # Written last: a folder without it is a backup that was broken off.
    _write_private(folder / DESCRIPTION, json.dumps(asdict(made), indent=1))
    return made


def read_backup(folder: Path) -> Backup:
    """Return a backup's description; Refused where it is not whole, or was changed."""
    try:
        found = Backup(**json.loads((folder / DESCRIPTION).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise Refused("backup.invalid", folder=str(folder), detail=f"its {DESCRIPTION} cannot be read") from error
    if found.format != _FORMAT:
        raise Refused("backup.invalid", folder=str(folder), detail=f"it has the unknown format {found.format}")
    file = folder / Path(found.database_file).name
    if not file.is_file() or _sha256_of(file) != found.database_sha256:
        raise Refused("backup.invalid", folder=str(folder), detail=f"{file.name} is missing, or was changed")
    return found


def restore(folder: Path) -> Restored:
    """Bring a backup into this installation, whose database must not hold anything yet, and return what is not there.

    The tables are brought to this version's form. A lake that was copied is copied into this installation's; one that
    was not must be the one the backup was made beside. Refused where the installation is not empty, the database is of
    another kind, or the backup is not whole: then nothing is changed.
    """
    backup = read_backup(folder)
    if backup.database != connection.vendor:
        raise Refused("backup.other_database", kind=backup.database, here=connection.vendor)
    if _is_in_use():
        raise Refused("backup.installation_in_use")
    _load(folder / Path(backup.database_file).name)
    call_command("migrate", verbosity=0)
    if backup.has_keys:
        _take_keys((folder / "secret_keys").read_text().strip())
    if backup.is_lake_copied:
        copy_objects(LocalLake(folder / "lake"), open_lake())
    return Restored(backup, missing=list(missing_objects()), unreadable=list(_unreadable()))


def copy_objects(source: ObjectStore, target: ObjectStore) -> int:
    """Copy every object that the target does not hold, and return how many; safe to repeat after it was broken off."""
    copied = 0
    for found in source.list(""):
        there = target.head(found.key)
        if there is not None and there.size_bytes == found.size_bytes:
            continue
        writer = target.writer(found.key)
        try:
            with source.open(found.key) as stored:
                while block := stored.read(_BLOCK):
                    writer.write(block)
        except BaseException:
            writer.abort()
            raise
        writer.commit()
        copied += 1
    return copied


def missing_objects() -> Iterator[str]:
    """Yield the keys that rows of the database name and the lake does not hold."""
    there = {found.key for found in open_lake().list("")}
    named = (
        Part.objects.values_list("key", flat=True),
        Upload.objects.exclude(key="").filter(sha256__isnull=False).values_list("key", flat=True),
        Run.objects.filter(state__in=("succeeded", "partial"))
        .exclude(manifest_key="")
        .values_list("manifest_key", flat=True),
    )
    for keys in named:
        yield from (key for key in keys.iterator(chunk_size=10_000) if key not in there)


def _is_in_use() -> bool:
    tables = set(connection.introspection.table_names())
    kinds = (Run, Pipeline, Source, Destination)
    return any(kind._meta.db_table in tables and kind._default_manager.exists() for kind in kinds)


def _unreadable() -> Iterator[str]:
    for kind in (Source, Destination):
        for pk, name in list(kind._default_manager.values_list("pk", "name")):
            try:
                kind._default_manager.get(pk=pk)
            except ImproperlyConfigured:
                yield f"{kind._meta.verbose_name} {name}"


def _dump(file: Path) -> None:
    if connection.vendor != "sqlite":
        _run_tool("pg_dump", "--format=custom", "--no-owner", f"--file={file}")
        file.chmod(0o600)
        return
    with closing(sqlite3.connect(file)) as copy:
        file.chmod(0o600)
        connection.ensure_connection()
        # In one step, so from one state: with write-ahead logging nobody waits for it, nor does it wait for anybody.
        connection.connection.backup(copy, pages=-1)


def _load(file: Path) -> None:
    if connection.vendor != "sqlite":
        _run_tool(
            "pg_restore", "--clean", "--if-exists", "--no-owner", "--single-transaction", str(file), names_database=True
        )
        connection.close()
        return
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as copy:
        connection.ensure_connection()
        copy.backup(connection.connection, pages=-1)
    connection.close()


def _run_tool(program: str, *options: str, names_database: bool = False) -> None:
    """Run one of PostgreSQL's programs on the installation's database; the password goes by its environment."""
    from django.db.backends.postgresql.client import DatabaseClient  # noqa: PLC0415 (there may be no psycopg)

    path = shutil.which(program)
    if path is None:
        raise Refused("backup.tool_missing", program=program)
    arguments, environment = DatabaseClient.settings_to_cmd_args_env(connection.settings_dict, [])
    *place, name = arguments[1:]
    database = ["--dbname", name] if names_database else [name]
    done = subprocess.run(  # noqa: S603 - the program was found on the path, its arguments are our settings
        [path, *place, *(database if names_database else []), *options, *([] if names_database else database)],
        env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        detail = redact("; ".join(done.stderr.strip().splitlines()[:_TOOL_LINES]))
        raise Refused("backup.tool_failed", program=program, detail=detail)


def _take_keys(keys: str) -> None:
    """Let the keys of the backup be this installation's; keys that its environment names stay as they are."""
    kept = settings.HEADGATE_DATA_DIR / "secrets" / "secret_keys"
    if kept.exists():
        kept.unlink()
        _write_private(kept, keys + "\n")
        settings.HEADGATE_SECRET_KEYS = keys.split(",")


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sha256_of(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()

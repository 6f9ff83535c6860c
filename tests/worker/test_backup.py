"""The drill of a restore: a backup taken while runs are under way, brought up elsewhere, goes on where it stood."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from ingestion.models import Pipeline, Run, RunState, Source
from ingestion.runs.operate.backup import back_up, copy_objects
from ingestion.toolkit.lake.local import LocalLake
from tests.worker.cluster import Cluster
from tests.worker.material import catalog_ids, csv_bytes, delivered_ids, published_ids, upload

pytestmark = [pytest.mark.worker, pytest.mark.both]


def test_a_backup_taken_at_work_goes_on_elsewhere(make_cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    old = make_cluster()
    worker = old.start_worker()
    done = upload(csv_bytes(20))
    old.wait(lambda: Run.objects.get(pk=done.pk).is_terminal, what="the first run")
    Source.objects.create(name="guarded", kind="optimade", secrets={"password": "sesame"})
    old.kill_worker(worker)
    under_way = upload(csv_bytes(20, first=10))  # its messages wait for a worker, and stay behind

    said = old.manage("backup", str(folder), "--lake", "--secrets")
    old.manage("check")  # the installation is as it was

    assert "Backed up 2 runs" in said
    assert {path.stat().st_mode & 0o077 for path in (folder, *folder.glob("*.*"), folder / "secret_keys")} == {0}
    new = make_cluster()
    if new.database_url.startswith("sqlite"):
        (new.folder / "headgate.sqlite3").unlink()  # as on a new machine, where not even tables are
    told = new.manage("restore", str(folder))
    settings.HEADGATE_SECRET_KEYS = (new.folder / "secrets" / "secret_keys").read_text().strip().split(",")
    assert "Restored 2 runs" in told
    assert "Enter their credentials" not in told
    assert Source.objects.get(name="guarded").secrets == {"password": "sesame"}
    assert published_ids(Run.objects.get(pk=done.pk)) == list(range(20))

    new.start_worker(beat=True)
    new.wait(lambda: Run.objects.get(pk=under_way.pk).is_terminal, what="the run that was under way")

    pipeline = Pipeline.objects.get()
    assert set(Run.objects.values_list("state", "code")) == {(RunState.SUCCEEDED, "")}
    assert sorted(catalog_ids(pipeline)) == list(range(30))
    # A destination stays where it was, whatever the new folder is called.
    assert delivered_ids(old.folder / "lake", Run.objects.get(pk=under_way.pk)) == list(range(10, 30))


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("used", "backup.installation_in_use"),
        ("changed", "backup.invalid"),
        ("broken off", "backup.invalid"),
        ("other", "backup.other_database"),
    ],
)
@pytest.mark.django_db(transaction=True)
def test_a_restore_that_would_do_harm_changes_nothing(
    fault: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _backup_of_nothing(tmp_path / "backup", monkeypatch)
    Source.objects.create(name="mine", kind="files")
    if fault == "changed":
        (folder / "database").write_bytes(b"another")
    if fault == "broken off":
        (folder / "backup.json").unlink()
    if fault == "other":
        description = json.loads((folder / "backup.json").read_text())
        (folder / "backup.json").write_text(json.dumps({**description, "database": "oracle"}))

    with pytest.raises(CommandError, match=code):
        call_command("restore", folder)

    assert Source.objects.get().name == "mine"


@pytest.mark.django_db(transaction=True)
def test_a_backup_names_what_it_leaves_out_and_overwrites_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "backup"
    monkeypatch.setattr("ingestion.runs.operate.backup._dump", lambda file: file.write_bytes(b"rows"))

    call_command("backup", folder)

    assert "--lake" in capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} == {
        *("backup.json",),
        *(path.name for path in folder.glob("database.*")),
    }
    with pytest.raises(CommandError, match=r"backup\.folder_not_empty"):
        call_command("backup", folder)


def test_objects_are_copied_once_and_a_copy_that_broke_off_goes_on(tmp_path: Path) -> None:
    source, target = LocalLake(tmp_path / "a"), LocalLake(tmp_path / "b")
    for number in range(5):
        source.put_if_absent(f"raw/p/1/0-0/{number:06d}", bytes([number]) * 100)

    assert copy_objects(source, target) == 5
    target.delete("raw/p/1/0-0/000003")
    assert copy_objects(source, target) == 1
    assert [target.read(found.key) for found in target.list("")] == [bytes([number]) * 100 for number in range(5)]


def _backup_of_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with monkeypatch.context() as patched:
        patched.setattr("ingestion.runs.operate.backup._dump", lambda file: file.write_bytes(b"rows"))
        made = back_up(folder, copies_lake=False, with_keys=False)
    shutil.move(folder / made.database_file, folder / "database")
    description = json.loads((folder / "backup.json").read_text())
    (folder / "backup.json").write_text(json.dumps({**description, "database_file": "database"}))
    return folder

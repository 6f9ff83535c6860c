"""Keys an installation makes for itself."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cryptography.fernet import Fernet

from ingest_project.keys import close_to_others, keep_secret, make_fernet_key, make_password
from ingest_project.redis_urls import next_database


def test_a_secret_is_made_once_and_kept(tmp_path: Path) -> None:
    first = keep_secret(tmp_path / "secrets" / "key", make=lambda: "first")

    second = keep_secret(tmp_path / "secrets" / "key", make=lambda: "second")

    assert (first, second) == ("first", "first")


def test_a_secret_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    keep_secret(tmp_path / "secrets" / "key", make=make_password)

    assert (tmp_path / "secrets" / "key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700


def test_a_database_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    database = tmp_path / "headgate.sqlite3"
    close_to_others(database)
    assert not database.exists()
    database.write_bytes(b"rows")
    database.chmod(0o644)

    close_to_others(database)

    assert database.stat().st_mode & 0o777 == 0o600


def test_processes_that_start_together_agree_on_one_secret(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        found = set(pool.map(lambda _: keep_secret(tmp_path / "key", make=make_fernet_key), range(64)))

    assert len(found) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
    Fernet(found.pop())


def test_results_and_limits_have_databases_of_their_own() -> None:
    assert next_database("redis://:word@host:6379/0", steps=1) == "redis://:word@host:6379/1"
    assert next_database("redis://host:6379", steps=2) == "redis://host:6379/2"
    assert next_database("rediss://host/5?ssl_cert_reqs=required", steps=1) == "rediss://host/6?ssl_cert_reqs=required"

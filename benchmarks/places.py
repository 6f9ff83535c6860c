"""Places of measurements: a folder, servers and processes of its own, all gone afterwards."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from ingest_project.stack import broker
from ingest_project.stack.parents import follower
from ingest_project.stack.services import accepts

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 120.0
SQLITE, POSTGRES = "SQLite", "PostgreSQL"
SETTINGS = "benchmarks.settings"
_FOREIGN = ("HEADGATE_", "CELERY_", "FLOWER_", "DJANGO_", "AWS_")


def wait_until(
    condition: Callable[[], bool], *, what: str, of: "Process | None" = None, patience_s: float = PATIENCE_S
) -> None:
    """Return when the condition holds; fail where it does not in time, with what `of` wrote."""
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            said = of.output[-3000:] if of else ""
            raise TimeoutError(f"{what} did not happen within {patience_s:.0f} s. {said}")
        time.sleep(0.02)


class Place:
    """A data directory, and what was started in it."""

    def __init__(self) -> None:
        """Make the folder."""
        self.folder = Path(tempfile.mkdtemp(prefix="headgate-benchmark-"))
        self._stack = ExitStack()
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def environment(self, **changes: str) -> dict[str, str]:
        """Return the variables of a process of this place, and of nothing else that this machine has set."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(_FOREIGN) and name not in {"DATABASE_URL", "BROKER_URL", "REDIS_URL"}
        }
        return {
            **kept,
            "DJANGO_SETTINGS_MODULE": SETTINGS,
            "HEADGATE_ENV_FILE": os.devnull,
            "HEADGATE_DATA": str(self.folder),
            "HEADGATE_LOG_LEVEL": "WARNING",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            **changes,
        }

    def enter_django(self, **changes: str) -> None:
        """Set this process up as one of the place: settings, database, broker."""
        import django

        wanted = self.environment(**changes)
        for name in set(os.environ) - set(wanted):
            del os.environ[name]
        os.environ.update(wanted)
        django.setup()

    def run(self, *words: str, **changes: str) -> str:
        """Return what a Python program of this place prints."""
        done = subprocess.run(
            [sys.executable, *words],
            cwd=ROOT,
            env=self.environment(**changes),
            capture_output=True,
            text=True,
            timeout=10 * PATIENCE_S,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stdout[-2000:]}{done.stderr[-4000:]}")
        return done.stdout

    def start(
        self, words: Sequence[str], *, name: str, variables: Mapping[str, str] | None = None, user: int | None = None
    ) -> "Process":
        """Return a process that ends with the place."""
        log = self.folder / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                list(words),
                cwd=ROOT,
                env=self.environment() if variables is None else dict(variables),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=user,
                preexec_fn=follower(),  # noqa: PLW1509 - nothing may outlive the measurement
            )
        started = Process(name, process, log)
        self._stack.callback(started.stop)
        return started

    def start_valkey(self) -> int:
        """Return the port of a server that keeps what it is told, as the embedded broker does."""
        port = broker.free_port()
        options = {"bind": "127.0.0.1", "port": str(port), "dir": str(self.folder), "appendonly": "yes", "save": ""}
        words = [word for key, value in options.items() for word in (f"--{key}", value)]
        server = self.start([str(broker.find_server()), *words], name="valkey")
        wait_until(lambda: accepts(port), what="the start of Valkey", of=server)
        return port

    def start_postgres(self, *settings: str) -> str:
        """Return the address of a PostgreSQL server without a database name; it waits for the disk as in use.

        `settings` such as "max_wal_size=4GB" come on top of the usual ones.
        """
        binaries = find_postgres()
        assert binaries is not None, "PostgreSQL is not installed"
        folder = Path(tempfile.mkdtemp(prefix="headgate-benchmark-postgres-"))
        self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
        user = _postgres_user()
        if user is not None:
            os.chown(folder, user, -1)
        initdb = [str(binaries / "initdb"), "-D", str(folder / "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8"]
        subprocess.run(initdb, check=True, capture_output=True, cwd=folder, user=user)
        port = broker.free_port()
        options = [
            *("listen_addresses=127.0.0.1", "unix_socket_directories=", "shared_buffers=256MB"),
            *("max_wal_size=2GB", "max_connections=50", *settings),
        ]
        words = [str(binaries / "postgres"), "-D", str(folder / "data"), "-p", str(port)]
        arguments = [*words, *(word for option in options for word in ("-c", option))]
        self.start(arguments, name="postgres", user=user)
        url = f"postgresql://postgres@127.0.0.1:{port}"
        wait_until(lambda: _answers(url), what="the start of PostgreSQL")
        return url


class Process:
    """A started program."""

    def __init__(self, name: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
        """Take the running process and where it writes."""
        self.name, self.pid, self._process, self._log = name, process.pid, process, log

    @property
    def output(self) -> str:
        """Return what it wrote."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def wait_for(self, text: str) -> None:
        """Return when it has written the text."""

        def is_there() -> bool:
            if self._process.poll() is not None:
                raise RuntimeError(f"{self.name} ended: {self.output[-3000:]}")
            return text in self.output

        wait_until(is_there, what=f"{text!r} of {self.name}")

    def stop(self) -> None:
        """End it, and kill what is left of its group."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait(PATIENCE_S)


def find_postgres() -> Path | None:
    """Return the folder of PostgreSQL's programs, the newest version's, or None."""
    if initdb := shutil.which("initdb"):
        return Path(initdb).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    return folders[-1] if folders else None


def _postgres_user() -> int | None:
    """Return another user where this one is root, whom PostgreSQL refuses."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall()}
    return known.get("postgres", known.get("nobody"))


def _answers(url: str) -> bool:
    import psycopg

    try:
        psycopg.connect(f"{url}/postgres", connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True

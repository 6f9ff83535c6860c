"""The class path of a Druid: resolved by Maven once, and kept until the pom or what is asked of it changes."""

import hashlib
import json
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from ingest_project.env import child_environment
from ingest_project.stack.druid.layout import TEMPLATES
from ingest_project.stack.druid.tools import find_maven
from ingest_project.stack.parents import follower
from ingest_project.stack.supervisor import StopRequested
from ingestion.ports.errors import ConfigError

POM = TEMPLATES / "pom.xml"
KEPT = "classpath.json"
_DETAIL_CHARACTERS = 300


def resolve_classpath(
    home: Path, *, java: Path, version: str, extensions: bool, say: Callable[[str], None]
) -> Sequence[str]:
    """Return the jars of a Druid, asking Maven where that was not done before or one of them has gone.

    ConfigError where Maven is missing or cannot get them, StopRequested where a person did not want to wait for it.
    """
    pom = POM.read_text()
    version = version or pom_version()
    key = hashlib.sha256(f"{pom}\0{version}\0{extensions}".encode()).hexdigest()
    jars = _read_kept(home / KEPT, key=key)
    if not jars:
        maven = find_maven()
        (home / "log").mkdir(parents=True, exist_ok=True)
        (home / "pom.xml").write_text(pom)
        say(f"Maven resolves Druid {version}; the first time on a machine it downloads some 200 MB")
        jars = _ask_maven(home, maven=maven, java=java, version=version, extensions=extensions)
        own = home / f".{KEPT}"
        own.write_text(json.dumps({"key": key, "version": version, "jars": jars}, indent=1) + "\n")
        own.replace(home / KEPT)
    return jars


def pom_version() -> str:
    """Return the version of Druid that the pom names."""
    match = re.search(r"<druid\.version>([^<]+)</druid\.version>", POM.read_text())
    assert match is not None  # noqa: S101 - the pom is ours
    return match[1]


def _read_kept(path: Path, *, key: str) -> list[str]:
    try:
        kept = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return []
    if kept["key"] != key or not all(Path(jar).is_file() for jar in kept["jars"]):
        return []
    jars: list[str] = kept["jars"]
    return jars


def _ask_maven(home: Path, *, maven: Path, java: Path, version: str, extensions: bool) -> list[str]:
    output, log = home / ".classpath", home / "log" / "maven.log"
    output.unlink(missing_ok=True)
    words = [
        *(str(maven), "--batch-mode", "--no-transfer-progress", f"-Ddruid.version={version}"),
        *(("-Pextensions",) if extensions else ()),
        *("dependency:build-classpath", "-Dmdep.includeScope=runtime", f"-Dmdep.outputFile={output}"),
    ]
    process: subprocess.Popen[bytes] | None = None
    with log.open("wb") as file:
        try:
            process = subprocess.Popen(  # noqa: S603 - the words are ours
                words,
                cwd=home,
                env=child_environment({"JAVA_HOME": str(java.parent.parent)}),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                preexec_fn=follower(),  # noqa: PLW1509 - this process has one thread
            )
            process.wait()
        except KeyboardInterrupt as stop:
            # One that was only just being started ends with this process: it follows its parent.
            if process is not None:
                process.kill()
                process.wait()
            raise StopRequested from stop
    if process.returncode != 0 or not output.is_file():
        detail = _first_error(log.read_text(errors="replace"))
        raise ConfigError("druid.unresolvable", version=version, detail=detail, log=str(log))
    jars = [jar for jar in output.read_text().strip().split(":") if jar]
    output.unlink()
    return jars


def _first_error(text: str) -> str:
    for line in text.splitlines():
        _, mark, said = line.partition("[ERROR]")
        if mark and said.strip():
            return said.strip()[:_DETAIL_CHARACTERS].rstrip(". ")
    return "it gave no reason"

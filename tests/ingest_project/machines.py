"""A machine that has Java 17 and Maven, or what a test takes for them."""

import os
import sys
from pathlib import Path

from tests.servers import ROOT

MAVEN = """#!/bin/sh
echo called >> {folder}/maven-calls
for word in "$@"; do
    case "$word" in
        -Dmdep.outputFile=*) output="${{word#*=}}" ;;
        -Ddruid.version=404) echo "[INFO] Scanning"; echo "[ERROR] Could not find druid:404. -> [Help 1]"; exit 1 ;;
    esac
done
echo "$@" > {folder}/maven-words
printf '%s' "{folder}/one.jar:{folder}/two.jar" > "$output"
"""


class Machine:
    """A folder of programs that stands first on PATH."""

    def __init__(self, folder: Path) -> None:
        """Install a Java and a Maven."""
        self.folder = folder
        folder.mkdir(parents=True)
        for name in ("one.jar", "two.jar"):
            (folder / name).touch()
        self.java = self.install(
            "java", f'#!/bin/sh\nexec {sys.executable} -S -E {ROOT / "tests" / "fakes" / "java.py"} "$@"\n'
        )
        self.maven = self.install("mvn", MAVEN.format(folder=folder))

    @property
    def path(self) -> str:
        """Return PATH with the programs first."""
        return f"{self.folder}:{os.environ['PATH']}"

    @property
    def jars(self) -> list[str]:
        """Return what its Maven resolves."""
        return [str(self.folder / name) for name in ("one.jar", "two.jar")]

    @property
    def maven_calls(self) -> int:
        """Return how often Maven was asked."""
        path = self.folder / "maven-calls"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def install(self, name: str, script: str) -> Path:
        """Return a program made of a script."""
        path = self.folder / name
        path.write_text(script)
        path.chmod(0o755)
        return path

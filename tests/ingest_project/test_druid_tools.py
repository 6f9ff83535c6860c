"""Java, Maven and the class path: found, asked once, and what to install where they are missing."""

from pathlib import Path

import pytest

from ingest_project.stack.druid import tools
from ingest_project.stack.druid.classpath import resolve_classpath
from ingestion.ports.errors import ConfigError
from tests.ingest_project.machines import Machine


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with a Java and a Maven of its own, and nothing else."""
    machine = Machine(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(machine.folder))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(tools, "JVM_FOLDER", tmp_path / "jvm")
    return machine


def resolve(machine: Machine, *, version: str = "", extensions: bool = False) -> list[str]:
    """Return the class path of a Druid in a folder beside the machine's programs."""
    home = machine.folder.parent / "druid"
    return list(
        resolve_classpath(home, java=machine.java, version=version, extensions=extensions, say=lambda _text: None)
    )


@pytest.mark.parametrize(
    ("told", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_392"', 8),
        ('openjdk version "21" 2023-09-19', 21),
        ("no such option", None),
    ],
)
def test_a_java_tells_its_version(machine: Machine, told: str, version: int | None) -> None:
    java = machine.install("other-java", f"#!/bin/sh\necho '{told}' >&2\n")

    assert tools.java_version(java) == version


def test_java_is_found_on_the_path(machine: Machine) -> None:
    assert tools.find_java() == machine.java


def test_java_home_goes_before_the_path(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    home = machine.folder.parent / "home"
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "java").symlink_to(machine.java)
    monkeypatch.setenv("JAVA_HOME", str(home))

    assert tools.find_java() == home / "bin" / "java"


def test_an_installed_java_is_found_behind_a_newer_default(machine: Machine) -> None:
    older = tools.JVM_FOLDER / "java-17-openjdk-amd64" / "bin" / "java"
    older.parent.mkdir(parents=True)
    older.symlink_to(machine.install("java17", machine.java.read_text()))
    machine.install("java", "#!/bin/sh\necho 'openjdk version \"25\"' >&2\n")

    assert tools.find_java() == older


def test_a_missing_java_says_what_to_install(machine: Machine) -> None:
    machine.java.unlink()

    with pytest.raises(ConfigError, match=r"Java 17, .* has none.*apt install openjdk-17-jre-headless") as caught:
        tools.find_java()

    assert caught.value.code == "druid.java_missing"


def test_another_java_is_named(machine: Machine) -> None:
    machine.install("java", "#!/bin/sh\necho 'openjdk version \"21.0.1\"' >&2\n")

    with pytest.raises(ConfigError, match="this machine has 21"):
        tools.find_java()


def test_a_missing_maven_says_what_to_install(machine: Machine) -> None:
    machine.maven.unlink()

    with pytest.raises(ConfigError, match="apt install maven") as caught:
        resolve(machine)

    assert caught.value.code == "druid.maven_missing"


def test_the_class_path_is_resolved_once(machine: Machine) -> None:
    first = resolve(machine)

    assert resolve(machine) == first == machine.jars
    assert machine.maven_calls == 1


def test_it_is_kept_without_maven(machine: Machine) -> None:
    resolve(machine)
    machine.maven.unlink()

    assert resolve(machine) == machine.jars


def test_another_version_is_resolved_again(machine: Machine) -> None:
    resolve(machine)

    resolve(machine, version="37.0.0")

    assert machine.maven_calls == 2
    assert "-Ddruid.version=37.0.0" in (machine.folder / "maven-words").read_text()


def test_the_extensions_are_a_profile(machine: Machine) -> None:
    resolve(machine)
    without = (machine.folder / "maven-words").read_text()

    resolve(machine, extensions=True)

    assert "-Pextensions" not in without
    assert "-Pextensions" in (machine.folder / "maven-words").read_text()
    assert machine.maven_calls == 2


def test_a_jar_that_has_gone_is_resolved_again(machine: Machine) -> None:
    resolve(machine)
    jar = machine.folder / "two.jar"
    jar.unlink()

    resolve(machine)

    assert machine.maven_calls == 2


def test_what_maven_could_not_get_is_said(machine: Machine) -> None:
    with pytest.raises(ConfigError, match="Could not find druid:404") as caught:
        resolve(machine, version="404")

    assert caught.value.code == "druid.unresolvable"
    assert Path(caught.value.values["log"]).read_text().startswith("[INFO] Scanning")

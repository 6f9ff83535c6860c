"""What a new kind touches: its own package, one line of the table, tests and documents; nothing else names it."""

import ast
from functools import cache

import pytest

from ingest_project import plugins
from tests.architecture.journey import PACKAGES, ROOT

TABLE = "ingest_project/plugins.py"
KINDS = sorted({*plugins.CONNECTORS.items(), *plugins.SINKS.items()})
OTHER_MEANINGS = {
    # A section of the admin; the name of the destination that every new pipeline has.
    "catalog": {"ingestion/admin/registration.py", "ingestion/runs/start/pipelines.py"},
    # The name of the default destination; a section of an older API; the Druid of one's own, which is a process.
    "druid": {
        "ingestion/runs/start/pipelines.py",
        "ingestion/api/legacy.py",
        "ingest_project/settings.py",
        "ingest_project/management/commands/druid.py",
        "ingest_project/management/commands/where.py",
        "ingest_project/stack/run.py",
        "ingest_project/stack/druid/place.py",
        "ingest_project/stack/druid/run.py",
    },
    # Keys of a job, of an answer, and of Druid's own language.
    "files": {
        "ingestion/management/cli/local_files.py",
        "ingestion/toolkit/duck/child.py",
        "ingestion/toolkit/duck/sandbox.py",
        "sinks/druid/sampling.py",
        "sinks/druid/staging.py",
        "sinks/druid/input_source.py",
    },
    "objects": {"ingestion/runs/operate/garbage.py", "ingestion/api/legacy.py", "sinks/druid/input_source.py"},
    # Django's vendor of our own database.
    "sqlite": {"ingestion/catalog/batches.py", "ingestion/runs/operate/backup.py"},
}
"""Where the word is something else than the kind."""


def own_place(dotted: str) -> str:
    """Return the module or package that belongs to a kind: the folder, where there is one for it alone."""
    module = dotted.partition(":")[0].replace(".", "/")
    folder = module.rpartition("/")[0]
    shared = {"connectors", "connectors/materials", "sinks"}
    return f"{module}.py" if folder in shared else f"{folder}/"


@cache
def modules() -> dict[str, ast.Module]:
    """Return the packages' modules, migrations left out, by their paths."""
    return {
        str(path.relative_to(ROOT)): ast.parse(path.read_text())
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if "migrations" not in path.parts
    }


@cache
def strings(path: str) -> frozenset[str]:
    """Return the string constants of a module."""
    nodes = ast.walk(modules()[path])
    return frozenset(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))


@cache
def imports(path: str) -> frozenset[str]:
    """Return the modules that a module imports, inside of functions too."""
    found: set[str] = set()
    for node in ast.walk(modules()[path]):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return frozenset(found)


def places_of(kind: str, dotted: str) -> set[str]:
    """Return the modules that name the kind, beside its own."""
    return {path for path in modules() if not path.startswith(own_place(dotted)) and kind in strings(path)}


@pytest.mark.parametrize(("kind", "dotted"), KINDS)
def test_a_kind_is_named_in_its_own_place_and_in_the_table(kind: str, dotted: str) -> None:
    assert places_of(kind, dotted) - OTHER_MEANINGS.get(kind, set()) == {TABLE}


@pytest.mark.parametrize(("kind", "dotted"), KINDS)
def test_a_kind_is_imported_by_its_own_place_alone(kind: str, dotted: str) -> None:
    own = own_place(dotted)
    module = own.removesuffix(".py").rstrip("/").replace("/", ".")
    importers = {path for path in modules() if any(f"{name}.".startswith(f"{module}.") for name in imports(path))}
    assert {path for path in importers if not path.startswith(own)} == set()


def test_the_documents_name_what_a_new_kind_touches() -> None:
    text = (ROOT / "docs" / "plugins.md").read_text()

    assert TABLE in text
    assert all(path in text for path in ("connectors/<kind>.py", "sinks/<kind>.py", "docs/pipelines.md"))

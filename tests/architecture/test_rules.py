"""What holds for the whole house: names that must agree, sizes, the table of messages."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import current_app
from django.conf import settings

from ingest_project import plugins
from ingest_project.celery import app
from ingestion import registry
from ingestion.ports import errors
from ingestion.ports.messages import MESSAGES, BringsMessages, sentence
from ingestion.ports.publication import DeliveryState
from ingestion.runs.work import states

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("ingest_project", "ingestion", "connectors", "sinks")
LONGEST_FILE = 400


def sources() -> Iterator[tuple[Path, str]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "migrations" not in path.parts:
                yield path, path.read_text()


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def plugin_classes() -> Iterator[tuple[Path, type]]:
    for port, table in (("connector", plugins.CONNECTORS), ("sink", plugins.SINKS)):
        for kind, path in table.items():
            module = ROOT / f"{path.partition(':')[0].replace('.', '/')}.py"
            yield module, registry.plugin_class(port, kind)


def messages_of_plugin(source: Path) -> dict[str, str]:
    """Return the messages of the plugins that the file may be a part of: those of its module, or of the package below the top."""
    found: dict[str, str] = {}
    for module, plugin in plugin_classes():
        is_part = source.relative_to(ROOT).parts[:2] == module.relative_to(ROOT).parts[:2]
        if is_part and isinstance(plugin, BringsMessages):
            found |= plugin.messages
    return found


def all_messages() -> dict[str, str]:
    found = dict(MESSAGES)
    for _, plugin in plugin_classes():
        found |= plugin.messages if isinstance(plugin, BringsMessages) else {}
    return found


def test_no_file_has_outgrown_its_reason() -> None:
    long = {str(path): text.count("\n") for path, text in sources() if text.count("\n") > LONGEST_FILE}

    assert long == {}


def test_every_name_that_is_published_is_a_task_with_a_queue() -> None:
    app.loader.import_default_modules()
    published = set()
    for _, text in sources():
        published |= set(re.findall(r'TaskMessage\(\s*"(ingestion\.\w+)"', text))
    registered = {name for name in current_app.tasks if name.startswith("ingestion.")}

    assert published <= registered
    assert registered == set(settings.HEADGATE_TASK_QUEUES)


def test_every_code_that_is_raised_has_its_sentence() -> None:
    kinds = {name for name in vars(errors) if name[0].isupper()}
    missing = set()
    for path, text in sources():
        for call in calls(ast.parse(text)):
            name = getattr(call.func, "id", getattr(call.func, "attr", ""))
            first = call.args[0] if call.args else None
            code = first.value if name in kinds and isinstance(first, ast.Constant) else None
            if isinstance(code, str) and code not in MESSAGES | messages_of_plugin(path):
                missing.add((str(path.relative_to(ROOT)), code))

    assert missing == set()


@pytest.mark.parametrize("code", sorted(all_messages()))
def test_every_sentence_ends_as_one_and_bears_missing_values(code: str) -> None:
    text = sentence(code, {})

    assert text[-1] in ".?"
    assert text[0].isupper() or text[0] in "?'"


def test_every_sentence_belongs_to_something_that_says_it() -> None:
    said = "\n".join(text for path, text in sources() if path.name != "messages.py")
    unsaid = [code for code in MESSAGES if f'"{code}"' not in said]

    assert unsaid == []


def test_a_plugin_leaves_the_sentences_of_the_table_alone() -> None:
    for module, _ in plugin_classes():
        assert not set(messages_of_plugin(module)) & set(MESSAGES)


def test_a_value_that_is_a_sentence_brings_no_second_full_stop() -> None:
    for detail, told in {
        "the file is gone.": "do not validate: the file is gone. Correct",
        "see ../x and so on ...": "do not validate: see ../x and so on .... Correct",
        "gone": "do not validate: gone. Correct",
    }.items():
        assert told in sentence("config.invalid", {"where": "here", "detail": detail})


def test_every_kind_has_a_class_of_that_kind_and_a_test() -> None:
    tested = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for table in (plugins.CONNECTORS, plugins.SINKS):
        for kind, path in table.items():
            module, _, name = path.partition(":")
            assert f"from {module} import" in tested, f"{kind} has no test of its own"
            assert f"class {name}" in (ROOT / f"{module.replace('.', '/')}.py").read_text()


def test_every_state_machine_ends() -> None:
    for table in (states.RUN_MOVES, states.PARTITION_MOVES, states.DELIVERY_MOVES):
        assert {state for moves in table.values() for state in moves} <= set(table)
    for table in (states.RUN_MOVES, states.PARTITION_MOVES):
        assert any(not moves for moves in table.values())
    assert states.DELIVERY_MOVES[DeliveryState.VERIFIED] == {DeliveryState.REMOVED}


def test_web_and_beat_start_without_heavy_libraries() -> None:
    import subprocess
    import sys

    script = (
        "import django, sys; django.setup(); import ingestion.api.urls, ingestion.admin, ingestion.tasks; "
        "from ingestion import registry; [registry.plugin_class(p, k) for p in ('connector', 'sink') "
        "for k in registry.known_kinds(p)]; "
        "print([name for name in ('pandas', 'polars', 'pyarrow', 'duckdb', 'boto3', 'fastexcel', 'pymysql') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"

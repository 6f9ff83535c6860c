"""What the documents name is there."""

import re
from pathlib import Path

import pytest

from tests.architecture.journey import DOCUMENT, ROOT

NAMED = re.compile(r"`([\w./-]+(?:\.py|\.toml|\.example|/))`|^.*?([a-z_]+/[a-z_]+\.py)", re.MULTILINE)
CODE = ("ingest_project", "ingestion", "connectors", "sinks", "tests")


def known_paths() -> list[str]:
    """Return the files and folders that a document may name, with a slash before each."""
    found = [path for folder in CODE for path in [ROOT / folder, *(ROOT / folder).rglob("*")]]
    return [f"/{path.relative_to(ROOT)}" for path in [*found, *ROOT.iterdir()] if "__pycache__" not in path.parts]


def test_every_file_that_the_architecture_names_is_there() -> None:
    paths = known_paths()
    named = {one or other for one, other in NAMED.findall(DOCUMENT.read_text())}
    assert len(named) > 60

    missing = {name for name in named if not any(path.endswith(f"/{name.rstrip('/')}") for path in paths)}

    assert missing == set()


@pytest.mark.parametrize("document", ["README.md", "CHANGELOG.md"])
def test_every_file_that_a_page_beside_the_documents_links_to_is_there(document: str) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", (ROOT / document).read_text())

    assert {link for link in links if not Path(ROOT / link).exists()} == set()

"""The connectors as the registry finds them: their own messages are known."""

import pytest

from ingestion import registry


@pytest.fixture(scope="session", autouse=True)
def loaded_plugins() -> None:
    """Load every built-in class, as the registry does before it builds one."""
    for kind in registry.known_kinds("connector"):
        registry.plugin_class("connector", kind)

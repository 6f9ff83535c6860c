"""The product's settings, and one connector more."""

from ingest_project.settings import *  # noqa: F403
from ingest_project.settings import HEADGATE_CONNECTORS as BUILT_IN

HEADGATE_CONNECTORS = {**BUILT_IN, "noop": "benchmarks.noop:NoopConnector"}

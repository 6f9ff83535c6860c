"""What each kind of process imports: memory and time that every one of them pays."""

import json
import subprocess
import sys

import pytest

from tests.servers import ROOT, product_environment

WATCHED = (
    *("celery", "kombu", "redis", "httpx", "boto3", "polars", "pyarrow", "pandas", "numpy", "duckdb", "fastexcel"),
    *("django", "rest_framework.views", "drf_spectacular.views", "ingestion.admin.registration", "tornado", "typer"),
    *("connectors.files", "sinks.objects.sink"),
)
"""Libraries and parts of ours that are heavy, or belong to one kind of process."""

PROCESSES = {
    # kind: (what it runs until it is ready, what of WATCHED it may import)
    "command line": (
        "import django; django.setup(); import ingestion.management.commands.ingest",
        {"django", "typer"},
    ),
    "beat": (
        "from ingest_project.celery import app; app.loader.import_default_modules(); import celery.apps.beat",
        {"django", "celery", "kombu", "redis"},
    ),
    "web": (
        "import ingest_project.wsgi; from django.urls import get_resolver; get_resolver().url_patterns",
        {"django", "redis", "rest_framework.views", "drf_spectacular.views", "ingestion.admin.registration"},
    ),
    "flower": (
        "import ingest_project.celery, ingest_project.stack.flower, django; django.setup()",
        {"django", "celery", "kombu", "redis", "tornado"},
    ),
    "supervisor": ("import ingest_project.stack.supervisor", set()),
}


@pytest.mark.parametrize("kind", PROCESSES)
def test_a_process_imports_what_it_needs(kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    start, allowed = PROCESSES[kind]
    report = f"import sys, json; print(json.dumps([name for name in {WATCHED!r} if name in sys.modules]))"

    done = subprocess.run(
        [sys.executable, "-c", f"{start}\n{report}"],
        cwd=ROOT,
        env=product_environment(tmp_path_factory.mktemp("data"), DJANGO_SETTINGS_MODULE="ingest_project.settings"),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert set(json.loads(done.stdout.splitlines()[-1])) <= allowed

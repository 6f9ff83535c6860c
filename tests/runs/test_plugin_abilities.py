"""A third party's plugin with an ability that a built-in one has: it takes its part without a change to the core."""

from pathlib import Path
from typing import Any, ClassVar

import pytest

from connectors.files import FilesConnector
from ingestion import registry
from ingestion.admin.uploads import UploadForm
from ingestion.models import Pipeline, Run, RunState, Source
from ingestion.ports.connector import TakesUploads
from ingestion.runs.start.contracts import save_contract
from ingestion.runs.start.pipelines import adopt_contract, upload_pipeline
from ingestion.runs.start.uploads import ingest_upload, receive
from tests.runs.conftest import CONTRACT
from tests.runs.driver import Driver


class InboxConnector(FilesConnector):
    """Takes uploads, under a name that nobody here knows."""

    kind: ClassVar[str] = "inbox"


@pytest.fixture(autouse=True)
def inbox(lake: Path, settings: Any) -> None:
    """The connector beside the built-in ones, and one that cannot be loaded."""
    settings.HEADGATE_CONNECTORS = {
        **settings.HEADGATE_CONNECTORS,
        "inbox": f"{__name__}:InboxConnector",
        "torn": "no.such.module:Connector",
    }
    registry._table.cache_clear()


def test_whoever_can_take_uploads_is_found_by_the_ability(transactional_db: None) -> None:
    assert registry.kinds_offering("connector", TakesUploads) == ["files", "inbox"]


def test_an_upload_runs_through_a_new_kind_of_source(driver: Driver, transactional_db: None, tmp_path: Path) -> None:
    source = Source.objects.create(name="inbox", kind="inbox")
    pipeline = Pipeline.objects.create(name="mail", source=source, stream="rows")
    (tmp_path / "a.csv").write_text("id,name\n1,a\n2,b\n")
    with (tmp_path / "a.csv").open("rb") as file:
        upload, _ = receive(file.read, name="a.csv")

    run, _ = ingest_upload(upload, trigger=Run.Trigger.API, pipeline=pipeline)
    driver.drain()

    run.refresh_from_db()
    assert (run.state, run.accepted) == (RunState.SUCCEEDED, 2)
    assert pipeline in UploadForm().fields["pipeline"].queryset


def test_a_contract_with_a_key_lets_files_of_a_new_kind_add_up(transactional_db: None) -> None:
    source = Source.objects.create(name="inbox", kind="inbox")
    pipeline = Pipeline.objects.create(name="mail", source=source, stream="rows")

    adopt_contract(pipeline, save_contract(CONTRACT))

    assert pipeline.mode == Pipeline.Mode.INCREMENTAL


def test_who_makes_the_source_of_uploads_decides_its_kind(transactional_db: None, settings: Any) -> None:
    settings.HEADGATE_OWN_KINDS = {**settings.HEADGATE_OWN_KINDS, "uploads": "inbox"}

    assert upload_pipeline("letters").source.kind == "inbox"

"""The files that a row crosses on its way from a source to the manifest, and the lines of the packages.

    python -m tests.architecture.journey            # prints them
    python -m tests.architecture.journey --write    # writes the ways into docs/architecture.md

A file counts where one of its functions was entered. Each way is gone twice, and the second time is counted, so that
what an import or a first connection runs does not count. An uploaded CSV begins at the HTTP request that brings it, a
page of an API where a run is asked for; both end with the run's manifest in the lake. The tasks are done in this
process, one after the other. Each way is counted for a pipeline without destinations, and for one with the two that
every new pipeline has, whose files come on top.

Commit 77ec71b, counted in the same way: 66 and 52 files without destinations, 88 and 74 with them.
"""

import ast
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("ingest_project", "ingestion", "connectors", "sinks")
DOCUMENT = ROOT / "docs" / "architecture.md"
MARKS = ("<!-- journey: begin -->", "<!-- journey: end -->")
LINE_BUDGET = 40_500
CSV = "id,name,energy\n1,Si,-5.4\n2,Ge,much\n3,C,-7.1\n3,C,-7.2\n"
CSV_CONTRACT = {
    "key": ["id"],
    "columns": [{"name": "id", "type": "integer", "nullable": False}, {"name": "energy", "type": "number"}],
}
API_CONTRACT = {"key": ["id"], "columns": [{"name": "id", "type": "string", "nullable": False}]}


def files_entered(work: Callable[[], object]) -> list[str]:
    """Return the files of the packages, in the order in which a function of each was first entered."""
    found: dict[str, None] = {}
    prefixes = tuple(f"{ROOT / package}{os.sep}" for package in PACKAGES)
    known: set[Any] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code not in known:
            known.add(code)
            if code.co_filename.startswith(prefixes) and code.co_name != "<module>":
                found.setdefault(str(Path(code.co_filename).relative_to(ROOT)))

    kept = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(kept)
    return list(found)


def csv_journey(driver: Any, *, delivers: bool) -> list[str]:
    """Return the files between the request that brings a CSV and the manifest of its run."""
    from django.contrib.auth import get_user_model
    from django.core.files.uploadedfile import SimpleUploadedFile
    from django.test import Client
    from rest_framework.authtoken.models import Token

    from ingestion.models import Run
    from ingestion.runs.start import contracts, pipelines

    name = f"csv-{delivers}".lower()
    pipeline = pipelines.upload_pipeline(name, contract=contracts.save_contract({**CSV_CONTRACT, "name": name}))
    pipeline.destinations.set(pipelines.default_destinations() if delivers else ())
    person = get_user_model().objects.create_superuser(name)
    client, headers = Client(), {"Authorization": f"Token {Token.objects.create(user=person).key}"}

    def go(content: bytes) -> None:
        form = {"datasource_name": name, "file": SimpleUploadedFile("rows.csv", content)}
        answer = client.post("/api/v1/uploads", form, headers=headers)
        assert answer.status_code == 202, answer.content
        _finish(driver, Run.objects.get(pk=answer.json()["run"]))

    rows = f"{CSV}9,{name},1.0\n"
    go(rows.encode())
    return files_entered(lambda: go(f"{rows}10,Sn,-3.9\n".encode()))


def page_journey(driver: Any, url: str, *, delivers: bool) -> list[str]:
    """Return the files between the request for a run and the manifest that holds an API's page."""
    from ingestion.models import Pipeline, Run, Source
    from ingestion.runs.start import contracts, pipelines
    from ingestion.runs.start.creation import create_run

    name = f"page-{delivers}".lower()
    source = Source.objects.create(name=name, kind="optimade", config={"base_url": url})
    contract = contracts.save_contract({**API_CONTRACT, "name": name})
    pipeline = Pipeline.objects.create(name=name, source=source, stream="structures", contract=contract)
    pipeline.destinations.set(pipelines.default_destinations() if delivers else ())

    def go() -> None:
        run, _ = create_run(pipeline, trigger=Run.Trigger.API)
        _finish(driver, run)

    go()
    return files_entered(go)


def _finish(driver: Any, run: Any) -> None:
    from ingestion.runs.record.lake import open_lake

    driver.drain()
    run.refresh_from_db()
    assert run.state == "succeeded", f"{run.state} {run.code} {run.message}"
    assert open_lake().head(run.manifest_key) is not None


def count_lines() -> dict[str, int]:
    """Return the lines of each package's modules, migrations left out."""
    return {
        package: sum(
            len(path.read_text().splitlines())
            for path in (ROOT / package).rglob("*.py")
            if "migrations" not in path.relative_to(ROOT).parts
        )
        for package in PACKAGES
    }


@contextmanager
def standing_alone() -> Iterator[tuple[Any, str]]:
    """Give a driver and the address of an API, on a database and a lake that are gone after the block."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    import django

    django.setup()
    from django.conf import settings
    from django.db import connection
    from django.test.utils import setup_test_environment

    from ingestion import dispatch
    from tests.fakes.paged_provider import PagedProvider
    from tests.runs.driver import Driver
    from tests.servers import Valkey

    setup_test_environment()
    driver = Driver()
    dispatch.send_as_is = driver.publish
    dispatch.send_chord = driver.send_chord
    with tempfile.TemporaryDirectory() as folder, Valkey() as valkey, PagedProvider(pages=1, per_page=5) as provider:
        settings.HEADGATE_LAKE_URL = str(Path(folder) / "lake")
        settings.HEADGATE_REDIS_URL = valkey.url(0)
        settings.HEADGATE_EGRESS_ALLOW = ["127.0.0.0/8"]
        settings.HEADGATE_EGRESS_PORTS = [int(provider.server.address.rpartition(":")[2])]
        connection.creation.create_test_db(verbosity=0)
        yield driver, provider.url


def first_line(file: str) -> str:
    """Return what a module says of itself in its first line."""
    docstring = ast.get_docstring(ast.parse((ROOT / file).read_text())) or ""
    return docstring.partition("\n")[0].rstrip(".:")


def as_markdown(csv: Sequence[str], page: Sequence[str]) -> str:
    """Return both ways as the section of the document, with the first line of every file."""

    def table(files: Sequence[str]) -> str:
        rows = (f"| {number} | `{file}` | {first_line(file)} |" for number, file in enumerate(files, 1))
        return "\n".join(("| | file | is |", "| --- | --- | --- |", *rows))

    return (
        f"### An uploaded CSV: {len(csv)} files\n\n{table(csv)}\n\n"
        f"### A page of an API: {len(page)} files\n\n"
        "What both ways share is not named a second time.\n\n"
        f"{table([file for file in page if file not in csv])}\n"
    )


def files_in_document() -> set[str]:
    """Return the files that the document's section names."""
    return set(re.findall(r"\| `([^`]+\.py)` \|", _section(DOCUMENT.read_text())[1]))


def write_document(csv: Sequence[str], page: Sequence[str]) -> None:
    """Write both ways into the document, between its marks."""
    before, _, after = _section(DOCUMENT.read_text())
    DOCUMENT.write_text(f"{before}\n{as_markdown(csv, page)}{after}")


def _section(text: str) -> tuple[str, str, str]:
    begin, end = (text.index(mark) for mark in MARKS)
    begin += len(MARKS[0]) + 1
    return text[:begin], text[begin:end], text[end:]


def main() -> None:
    """Print both ways and the lines."""
    with standing_alone() as (driver, url):
        csv, csv_whole = (csv_journey(driver, delivers=delivers) for delivers in (False, True))
        page, page_whole = (page_journey(driver, url, delivers=delivers) for delivers in (False, True))
    if "--write" in sys.argv:
        write_document(csv, page)
    _print("An uploaded CSV, from the request to the manifest", csv, csv_whole)
    _print("A page of an API, from the request for a run to the manifest", page, page_whole)
    lines = count_lines()
    detail = ", ".join(f"{package} {count:,}" for package, count in lines.items())
    sys.stdout.write(f"Lines: {sum(lines.values()):,} of {LINE_BUDGET:,} ({detail})\n")


def _print(title: str, files: Sequence[str], whole: Sequence[str]) -> None:
    more = [file for file in whole if file not in files]
    sys.stdout.write(f"{title}: {len(files)} files\n" + "".join(f"  {file}\n" for file in files))
    sys.stdout.write(f"and with two destinations {len(whole)}:\n" + "".join(f"  {file}\n" for file in more) + "\n")


if __name__ == "__main__":
    main()

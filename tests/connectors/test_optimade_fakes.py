"""The paged provider as a process of its own, as fault tests use it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.fakes.paged_provider import PagedProvider

ROOT = Path(__file__).parents[2]


def ask(address: str) -> Any:
    with urlopen(address, timeout=10) as response:  # noqa: S310 - our own loopback address
        return json.load(response)


def test_another_process_counts_requests_and_takes_faults() -> None:
    command = [sys.executable, "-m", "tests.fakes.paged_provider", "--port", "0", "--pages", "4", "--per-page", "2"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        site = url.removesuffix("/optimade")
        page = f"{url}/v1/structures?page_limit=2&page_offset=4"

        assert len(ask(page)["data"]) == 2
        ask(f"{site}/__fault?page=2&kind=status_500&times=1")
        with pytest.raises(HTTPError):
            ask(page)
        ask(page)

        assert ask(f"{site}/__requests") == {"total": 3, "pages": {"2": 3}}
        process.terminate()
        assert process.wait(timeout=10) == 0
    finally:
        process.kill()
        process.wait(timeout=10)
        process.stdout.close()


def test_its_pages_are_the_same_every_time() -> None:
    with PagedProvider(pages=3, per_page=4) as one, PagedProvider(pages=3, per_page=4) as other:
        first = [one.listing(page, {"page_offset": str(4 * page)})["data"] for page in range(3)]
        second = [other.listing(page, {"page_offset": str(4 * page)})["data"] for page in range(3)]

    assert first == second
    assert [record["id"] for page in first for record in page] == one.ids


def test_an_unknown_fault_is_refused() -> None:
    with PagedProvider() as provider, pytest.raises(ValueError, match="no fault"):
        provider.fault(0, "flood")

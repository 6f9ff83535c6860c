"""The fake Druid answers as the real one that runs here, call by call, so that it cannot drift."""

from pathlib import Path

import pytest

from tests.druid_server import Druid
from tests.fakes.druid import FakeDruid
from tests.fakes.druid_script import FILES, UNCOMPARED, Addresses, Answer, perform
from tests.fakes.druid_shapes import answer_differences
from tests.fakes.http_server import FakeSite, Reply

pytestmark = [pytest.mark.druid, pytest.mark.timeout(600)]
PREFIX = "hgs1"


def by_name(answers: list[Answer]) -> dict[str, Answer]:
    return {answer.name: answer for answer in answers}


def test_every_call_of_the_script_is_answered_alike_by_both(druid: Druid, tmp_path: Path) -> None:
    druid.ensure_running()
    with FakeSite({path: Reply(content) for path, content in FILES.items()}) as site, FakeDruid() as fake:
        real = Addresses(druid.overlord_url, druid.coordinator_url, druid.broker_url, site.url)
        imitation = Addresses(fake.url, fake.url, fake.url, site.url)

        recorded = by_name(perform(real, prefix=PREFIX, folder=tmp_path))
        found = by_name(perform(imitation, prefix=PREFIX, folder=tmp_path))

    assert list(recorded) == list(found)
    wrong = {
        name: differences
        for name in recorded
        if name not in UNCOMPARED and (differences := answer_differences(recorded[name], found[name]))
    }
    assert wrong == {}

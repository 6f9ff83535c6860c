"""The OPTIMADE connector: what every connector must do, its settings, its questions, its checkpoint."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import ValidationError

from connectors.materials.optimade import OptimadeConfig, OptimadeConnector
from ingestion.ports.batch import PartitionSpec, Query
from ingestion.ports.errors import ConfigError
from ingestion.toolkit.redact import redact
from tests.conformance.connector import ConnectorConformance, Situation
from tests.conformance.context import RecordingContext
from tests.connectors.optimade_script import (
    BASE,
    STRUCTURES,
    Respond,
    always,
    connector,
    entry,
    listing,
    recorded,
    recorded_provider,
)


class TestConformance(ConnectorConformance):
    """The contract of every connector."""

    def make_connector(self, **secrets: str) -> OptimadeConnector:
        return connector(page_limit=5, headers={"X-Key": secrets.get("headers", "a key")})

    def make_query(self, situation: Situation) -> Query:
        return STRUCTURES

    def make_context(self, situation: Situation) -> RecordingContext:
        answers: Mapping[Situation, Respond] = {
            Situation.ORDINARY: recorded_provider,
            Situation.EMPTY: always(listing([], data_returned=0)),
            Situation.ONE_BAD_RECORD: always(listing([entry(1), {"type": "structures"}, entry(2)])),
            Situation.LOOP: always(recorded("structures_offset_5.json")),
            Situation.REFUSED: always({"errors": [{"detail": "no"}]}, status=401),
        }
        return RecordingContext(answers[situation])


# settings


def test_a_version_is_added_where_the_address_has_none(subtests: pytest.Subtests) -> None:
    cases: list[tuple[str, str]] = [
        ("https://example.org/optimade", "https://example.org/optimade/v1"),
        ("https://example.org/optimade/", "https://example.org/optimade/v1"),
        ("https://example.org/optimade/v1/", "https://example.org/optimade/v1"),
        ("https://example.org/v1.2", "https://example.org/v1.2"),
        ("https://example.org/v10.0.1", "https://example.org/v10.0.1"),
        ("https://example.org/version1", "https://example.org/version1/v1"),
    ]
    for given, asked in cases:
        with subtests.test(given=given, asked=asked):
            assert OptimadeConfig(base_url=given).versioned_url == asked


def test_settings_that_cannot_work_are_refused(subtests: pytest.Subtests) -> None:
    cases: list[dict[str, Any]] = [
        {"base_url": "ftp://example.org"},
        {"base_url": "example.org"},
        {"base_url": "https://me:canary@example.org"},
        {"base_url": "https://example.org?api_key=canary"},
        {"base_url": BASE, "page_limit": 0},
        {"base_url": BASE, "response_fields": ["a,b"]},
        {"base_url": BASE, "headers": {"X-Key": "canary\r\nHost: other"}},
        {"base_url": BASE, "headers": {"Host": "canary"}},
        {"base_url": BASE, "surplus": 1},
    ]
    for config in cases:
        with subtests.test(config=config), pytest.raises(ValidationError):
            OptimadeConfig.model_validate(config)


# planning


def first_url(query: Query, since: Mapping[str, Any] | None = None, **config: Any) -> str:
    spec = next(iter(connector(**config).plan(query, since, RecordingContext().context)))
    return str(spec.data["url"])


def first_parameters(query: Query, since: Mapping[str, Any] | None = None, **config: Any) -> dict[str, list[str]]:
    return parse_qs(urlsplit(first_url(query, since, **config)).query, keep_blank_values=True)


def test_the_first_request_always_names_its_page_limit_and_wants_no_references() -> None:
    assert first_url(STRUCTURES) == f"{BASE}/v1/structures?page_limit=20&include="


def test_a_filter_is_sent_percent_encoded() -> None:
    url = first_url(Query(stream="structures", filter='elements HAS ALL "Si","O" AND nelements>2'))

    assert "elements%20HAS%20ALL%20%22Si%22,%22O%22%20AND%20nelements%3E2" in url


def test_an_incremental_read_asks_for_what_is_newer_in_whole_utc_seconds() -> None:
    since = {"last_modified": "2019-06-08T07:13:37.331000+02:00"}

    assert first_parameters(STRUCTURES, since, lookback_s=0)["filter"] == ['last_modified > "2019-06-08T05:13:37Z"']
    assert first_parameters(STRUCTURES, since, lookback_s=60)["filter"] == ['last_modified > "2019-06-08T05:12:37Z"']


def test_an_incremental_read_keeps_the_filter_in_parentheses() -> None:
    query = Query(stream="structures", filter="nsites=1 OR nsites=2")

    found = first_parameters(query, {"last_modified": "2020-01-01T00:00:00Z"}, lookback_s=0)["filter"]

    assert found == ['(nsites=1 OR nsites=2) AND last_modified > "2020-01-01T00:00:00Z"']


def test_the_fields_of_the_pipeline_come_before_those_of_the_source_and_keep_last_modified() -> None:
    asked = Query(stream="structures", fields=("nsites", "_exmpl_chemsys"))

    assert first_parameters(asked, response_fields=["species"])["response_fields"] == [
        "nsites,_exmpl_chemsys,last_modified"
    ]
    assert first_parameters(STRUCTURES, response_fields=["species"])["response_fields"] == ["species,last_modified"]


def test_a_small_limit_asks_for_a_small_page() -> None:
    assert first_parameters(Query(stream="structures", limit=3))["page_limit"] == ["3"]


def test_a_question_that_cannot_be_asked_is_refused(subtests: pytest.Subtests) -> None:
    cases: list[tuple[Query, str]] = [
        (Query(stream="molecules"), "config.unknown_stream"),
        (Query(stream="structures", fields=("a&b",)), "config.invalid"),
    ]
    for query, code in cases:
        with subtests.test(query=query, code=code):
            with pytest.raises(ConfigError) as raised:
                list(connector().plan(query, None, RecordingContext().context))

            assert raised.value.code == code


# how far it was read


def test_the_checkpoint_never_goes_back() -> None:
    later, earlier = {"last_modified": "2024-01-02T00:00:00.000000Z"}, {"last_modified": "2024-01-01T00:00:00.000000Z"}
    spec = PartitionSpec(0)

    assert connector().checkpoint(spec, None, "2024-01-02T00:00:00Z") == later
    assert connector().checkpoint(spec, earlier, "2024-01-02T00:00:00Z") == later
    assert connector().checkpoint(spec, later, "2024-01-01T00:00:00Z") == later


def test_a_provider_without_times_is_read_from_the_start_every_time() -> None:
    cursor = connector().checkpoint(PartitionSpec(0), None, None)

    assert cursor is None
    assert "filter" not in first_parameters(STRUCTURES, cursor)


def test_header_values_are_hidden_in_texts_from_then_on() -> None:
    connector(headers={"X-Key": "canary-value-71"})

    assert "canary-value-71" not in redact("the server said canary-value-71")

"""The entries of a page as the OPTIMADE connector reads them."""

import json
from typing import Any

import pytest

from ingestion.ports.batch import Query
from tests.connectors.optimade_script import (
    always,
    entry,
    fetch,
    listing,
    recorded_provider,
    rows,
)

# understanding


def test_provider_fields_lose_their_leading_underscore_and_nothing_else() -> None:
    found = rows(fetch(always(listing([entry(1, _exmpl_band_gap=1.5, exmpl_band_gap=2, __time="x", _id=[1])])))[0])[0]

    assert (found["exmpl_band_gap"], found["provider_exmpl_band_gap"]) in ((1.5, 2), (2, 1.5))
    assert found["time"] == "x"
    assert found["provider_id"] == "[1]"


def test_a_provider_column_holds_every_value_unchanged(subtests: pytest.Subtests) -> None:
    cases: list[tuple[list[Any], list[Any]]] = [
        ([1, None, 2], [1, None, 2]),
        ([1, 2.5], [1.0, 2.5]),
        ([True, False], [True, False]),
        ([True, 1], ["true", "1"]),
        (["a", 1, {"b": [None]}], ["a", "1", '{"b":[null]}']),
        ([None, None], [None, None]),
        ([2**63, 1], ["9223372036854775808", "1"]),
    ]
    for values, expected in cases:
        with subtests.test(values=values, expected=expected):
            entries = [entry(number, _p_x=value) for number, value in enumerate(values)]

            found = [row["p_x"] for row in rows(fetch(always(listing(entries)))[0])]

            assert found == expected
            assert [type(value) for value in found] == [type(value) for value in expected]


def test_times_are_utc_text_and_what_is_no_time_is_left_to_the_contract(subtests: pytest.Subtests) -> None:
    cases: list[tuple[Any, str | None]] = [
        ("2019-06-08T05:13:37.331000", "2019-06-08T05:13:37.331000Z"),
        ("2019-06-08T05:13:37Z", "2019-06-08T05:13:37.000000Z"),
        ("2019-06-08T05:13:37+02:00", "2019-06-08T03:13:37.000000Z"),
        ("2026-07-04 00:00:00.000000+00:00", "2026-07-04T00:00:00.000000Z"),
        ("last week", "last week"),
        (17, "17"),
        (None, None),
    ]
    for given, expected in cases:
        with subtests.test(given=given, expected=expected):
            pages, _ = fetch(always(listing([entry(1, last_modified=given)])))

            assert rows(pages)[0]["last_modified"] == expected


def test_entries_that_cannot_be_read_keep_their_place_and_their_text() -> None:
    entries = [
        entry(1),
        5,
        {"type": "structures"},
        {"id": "", "attributes": {}},
        {"id": "x", "attributes": [1]},
        entry(2),
    ]

    found = rows(fetch(always(listing(entries)))[0])

    assert [row["_error_code"] for row in found] == [
        None,
        "row.not_an_object",
        "row.missing_id",
        "row.missing_id",
        "row.no_attributes",
        None,
    ]
    assert found[1]["_raw"] == "5"
    assert [row["id"] for row in found] == ["s1", None, None, None, None, "s2"]


def test_a_field_too_large_to_be_sent_is_told_from_an_unknown_one() -> None:
    large = {**entry(1, species=None), "meta": {"partial_data_links": {"species": [{"format": "jsonlines"}]}}}

    found = rows(fetch(always(listing([large, entry(2)])))[0])

    assert [row["partial_data_fields"] for row in found] == ['["species"]', None]


def test_values_that_json_does_not_know_cost_only_themselves() -> None:
    body = '{"data": [{"id": "s1", "attributes": {"_p_gap": NaN, "_p_name": "\\ud800x"}}], "meta": {}, "links": {}}'

    found = rows(fetch(always(body))[0])[0]

    assert (found["p_gap"], found["p_name"]) == (None, "\ufffdx")


def test_a_record_of_the_recorded_pages_is_flattened() -> None:
    found = rows(fetch(recorded_provider, page_limit=5)[0])[1]

    assert found["id"] == "mpf_110"
    assert found["chemical_formula_reduced"] == "AcCuFO2"
    assert found["nsites"] == 5  # noqa: PLR2004
    assert json.loads(found["elements"]) == ["Ac", "Cu", "F", "O"]
    assert len(json.loads(found["lattice_vectors"])) == 3  # noqa: PLR2004
    assert found["last_modified"] == "2019-06-08T05:13:37.351000Z"
    assert found["exmpl_chemsys"] == "Ac-Cu-F-O"
    assert json.loads(found["_raw"])["id"] == "mpf_110"


def test_references_are_a_stream_too() -> None:
    query = Query(stream="references")
    reference = {
        "id": "dijkstra1968",
        "type": "references",
        "attributes": {"title": "Go To", "authors": [{"name": "E"}]},
    }

    pages, recording = fetch(always(listing([reference])), query)

    assert "/v1/references?" in recording.http.requests[0].url
    assert rows(pages, query)[0]["title"] == "Go To"


def test_batches_of_entries_make_one_column_of_one_type(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [entry(1, _p_x=1), entry(2, _p_x=2, nsites=4), entry(3, _p_x=0.5, _p_late="a"), entry(4, nsites="many")]
    whole = rows(fetch(always(listing(entries)))[0])
    monkeypatch.setattr("ingestion.toolkit.rest.records.BATCH_ROWS", 1)

    found = rows(fetch(always(listing(entries)))[0])

    assert found == whole
    assert [row["p_x"] for row in found] == [1.0, 2.0, 0.5, None]
    assert [row["p_late"] for row in found] == [None, None, "a", None]
    assert [row["nsites"] for row in found] == [None, "4", None, "many"]

"""Records as pages hold them."""

import pytest

from ingestion.toolkit.rest.records import read_json


def test_integers_keep_their_digits(subtests: pytest.Subtests) -> None:
    cases = {
        "9223372036854775807": 9223372036854775807,
        "18446744073709551616": 18446744073709551616,
        "-9223372036854775809": -9223372036854775809,
        "123456789012345678901234567890": 123456789012345678901234567890,
        "1" * 5_000: "1" * 5_000,
        "NaN": None,
        '"\\ud800 12345678901234567890"': "\ufffd 12345678901234567890",
    }
    for written, value in cases.items():
        with subtests.test(written=written[:40]):
            assert read_json(f'{{"a": [{written}]}}'.encode()) == {"a": [value]}


def test_what_is_no_json_is_refused(subtests: pytest.Subtests) -> None:
    for body in (b"", b"{", b"1234567890123456789012 x", b"\xff12345678901234567890", b"[" * 100_000):
        with subtests.test(body=body[:30]), pytest.raises(ValueError):
            read_json(body)

"""The sample files, cell by cell: what is read from each under a draft, what is rejected and why, or why the file is refused."""

import datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from ingestion.ports.batch import CLEAN_COLUMNS, ROW
from ingestion.ports.errors import ConfigError
from ingestion.quality.checking import Verdict
from ingestion.quality.contracts import compile_contract, parse_contract
from ingestion.quality.draft import draft_contract
from ingestion.toolkit.tabular.convert import convert_to_csv
from ingestion.toolkit.tabular.lines import csv_lines
from tests.quality.tables import contract
from tests.toolkit.tabular.reading import spans_of, tables_of

CASES = Path(__file__).parents[2] / "data" / "cases"


def verdict_of(case: str, *, body: dict[str, Any] | None = None, **options: str) -> Verdict:
    """Return the verdict over the file, by default under the contract that is drafted from it."""
    [table] = tables_of((CASES / case).read_bytes(), name=case, **options)
    used = draft_contract(table, name="x") if body is None else parse_contract(body)
    return compile_contract(used).check(table, run_id=1, part="0-0", is_file=True)


def cells_of(verdict: Verdict) -> list[list[Any]]:
    return [list(row.values()) for row in verdict.clean.drop_columns(list(CLEAN_COLUMNS)).to_pylist()]


def errors_of(verdict: Verdict) -> list[tuple[int, str]]:
    """Return number and sentence of each rejected row."""
    return [(row[ROW], row["errors"][0]["message"]) for row in verdict.rejected.to_pylist()]


TWICE = datetime.date(1900, 1, 1)
EXCEL = {
    "x06_hidden_first.xlsx": ([[1, "a"]], []),
    "x15_formula_nocache.xlsx": ([], [(0, "the cell B2 in the column 'v' has a formula without a calculated value")]),
    "x19_bool_num.xlsx": ([[1, "true"], [2, "5"], [3, "1"]], []),
    "x20_1900_dates.xlsx": ([[1, TWICE], [2, datetime.date(1900, 5, 6)], [3, TWICE]], []),
}
CSV = {
    "c02_leadzero.csv": (
        [[1, "01730", "+491701234", 0.5], [2, "90210", "0049170", 1.0], [3, "02116", "12", -0.0]],
        [],
    ),
    "c05_eu_semicolon.csv": (
        [["08/01/2016", -21419.06, "A"], ["12/01/2016", 1.5, "B, C"], ["13/01/2016", -15000.0, "D"]],
        [],
    ),
    "c07_dmy.csv": ([[1, "03/04/2024"], [2, "13/04/2024"], [3, "04/13/2024"]], []),
    "c26_sci_ids.csv": ([[1, "1E10", "MAR1", "1e3"], [2, "12E5", "SEPT2", "2.50"], [3, "00E1", "DEC1", "1e400"]], []),
    "c38_preamble.csv": ([], [(row, "The line has 3 fields, the header has 1.") for row in range(3)]),
    "c39_comment.csv": ([], [(row, "The line has 2 fields, the header has 1.") for row in range(3)]),
    "c40_sep.csv": ([[1, "a"], [2, "b"]], []),
    "c46_dates_mixed.csv": (
        [
            [at, text]
            for at, text in enumerate(
                ("2024-02-30", "2024-02-29", "2024-2-1", "20240301", "2024-03-01T00:00:00+02:00", "0000-00-00"), start=1
            )
        ],
        [],
    ),
    "c81_header_comma.csv": ([[1.5, datetime.date(2024, 1, 1)], [2.75, datetime.date(2024, 1, 2)]], []),
    "c84_padded_quotes.csv": ([[1, "Bob"], [2, "Ann"]], []),
    "c86_quoted_null.csv": ([[1, "NULL"], [2, ""], [3, None]], []),
}
REFUSED = {
    "c10_utf16.csv": ("file.encoding", "is not UTF-8 text (byte 0)"),
    "c11_latin1.csv": ("file.encoding", "is not UTF-8 text (byte 11)"),
    "c17_dup_header.csv": ("file.duplicate_column", "has the column 'amount' more than once"),
    "c35_gz.csv.gz": ("file.unknown_type", "is a gzip archive"),
    "p06_enc_plain_footer.parquet": (
        "file.encrypted",
        "is encrypted, and nothing here has its key. Send it decrypted.",
    ),
}
JSON = {
    "c33_dupkey.jsonl": ([[1, 2]], [(1, "the key 'a' stands twice in one object")]),
    "c53b_json_empty_obj.json": ([[]], [(0, "The record is no JSON object.")]),
    "c53c_badfirst.jsonl": ([], [(0, "expected ':' after key")]),
    "c80_dupkey_masked.jsonl": ([[1]], [(1, "the key 'a' stands twice in one object")]),
    "c82_json_digits.jsonl": (
        [[1, "12345678901234567.89", "0.1234567890123456789", "1e400", 100.0], [2, "1.5", "0.5", "1", 3.0]],
        [],
    ),
}
PARQUET = {
    "p04_far.parquet": ([[1, "10000-01-01T00:00:00Z"], [2, "0000-12-31T23:59:59.999999Z"]], []),
    "p05_far_nested.parquet": ([[1, '{"t":"10000-01-01T00:00:00"}'], [2, '{"t":"1970-01-01T00:00:00"}']], []),
    "p08_nested.parquet": (
        [[1, '{"1":"a","2":"b"}', '[{"t":"01:02:03.004000","d":"2024-01-01"}]', "[9223372036854775809]", "[null,1.0]"]],
        [],
    ),
}


@pytest.mark.parametrize(
    ("case", "cells", "errors"), [(case, *right) for case, right in (CSV | JSON | PARQUET | EXCEL).items()]
)
def test_every_cell_of_a_sample_is_right(case: str, cells: list[list[Any]], errors: list[tuple[int, str]]) -> None:
    verdict = verdict_of(case)

    assert cells_of(verdict) == cells
    assert [row for row, _ in errors_of(verdict)] == [row for row, _ in errors]
    for (_, found), (_, expected) in zip(errors_of(verdict), errors, strict=True):
        assert expected in found


def test_old_timestamps_are_those_that_duckdb_reads() -> None:
    case = "p07_int96.parquet"
    right = duckdb.sql(f"SELECT id, CAST(until AS VARCHAR) FROM '{CASES / case}'").fetchall()  # noqa: S608

    found = cells_of(verdict_of(case))

    assert [(key, str(until.replace(tzinfo=None))) for key, until in found] == right


@pytest.mark.parametrize(("case", "code", "told"), [(case, *why) for case, why in REFUSED.items()])
def test_a_sample_that_cannot_be_read_is_refused_with_the_reason(case: str, code: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        spans_of((CASES / case).read_bytes(), name=case)

    assert caught.value.code == code
    assert told in str(caught.value)


FAR = "id,far\r\n1,10000-01-01T00:00:00\r\n2,0000-12-31T23:59:59.999999\r\n"
NESTED = 'id,farst\r\n1,"{""t"":""10000-01-01T00:00:00""}"\r\n2,"{""t"":""1970-01-01T00:00:00""}"\r\n'


@pytest.mark.parametrize(("case", "written"), [("p04_far.parquet", FAR), ("p05_far_nested.parquet", NESTED)])
def test_a_far_moment_is_converted_as_it_is(case: str, written: str, tmp_path: Path) -> None:
    assert convert_to_csv(CASES / case, tmp_path).path.read_bytes().decode() == written


def test_a_moment_beyond_the_years_of_polars_is_written_as_text() -> None:
    batch = pa.record_batch(
        {"t": pa.array([2**63 - 1, None, 0], pa.timestamp("us", "UTC")), "d": pa.array([2**31 - 1, 0, 0], pa.date32())}
    )

    assert csv_lines(batch, defuse=False) == (
        b"294247-01-10T04:00:54.775807Z,5881580-07-11\r\n,1970-01-01\r\n1970-01-01T00:00:00Z,1970-01-01\r\n"
    )


def test_every_sample_is_in_one_of_the_tables() -> None:
    there = {path.name for path in CASES.iterdir()} - {"README.md"}

    assert there == {*CSV, *JSON, *PARQUET, *EXCEL, *REFUSED, "p07_int96.parquet"}


@pytest.mark.parametrize("case", ["p04_far.parquet"])
def test_a_moment_that_its_declared_type_cannot_hold_is_rejected_by_rule(case: str) -> None:
    verdict = verdict_of(case, body=contract({"name": "id", "type": "integer"}, {"name": "far", "type": "datetime"}))

    assert cells_of(verdict) == []
    assert errors_of(verdict) == [(at, "The value is not an existing date and time in ISO 8601.") for at in (0, 1)]

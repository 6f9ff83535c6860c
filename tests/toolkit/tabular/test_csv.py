"""CSV comes back cell for cell, whatever wrote it and wherever it is cut."""

import csv
import io
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestion.ports.batch import RAW, ROW
from ingestion.ports.errors import ConfigError
from ingestion.toolkit.tabular import text
from ingestion.toolkit.tabular.csv import read, split
from tests.toolkit.tabular.reading import cells_of, errors_of, opener, rows_of, spans_of

READ_AS = [
    pytest.param(b"a,b\n1,2\n", [["1", "2"]], id="plain"),
    pytest.param(b"a,b\r\n1,2\r\n", [["1", "2"]], id="crlf"),
    pytest.param(b"a,b\r1,2\r3,4", [["1", "2"], ["3", "4"]], id="cr-only"),
    pytest.param(b"a,b\n1,2", [["1", "2"]], id="no-last-newline"),
    pytest.param(b"a,b\r\n1,2\n3,4\r\n", [["1", "2"], ["3", "4"]], id="mixed-newlines"),
    pytest.param(b"\xef\xbb\xbfa,b\n1,2\n", [["1", "2"]], id="utf-8-mark"),
    pytest.param(b"a;b\n1;2,5\n", [["1", "2,5"]], id="semicolon"),
    pytest.param(b"a\tb\n1\t2\n", [["1", "2"]], id="tab"),
    pytest.param(b"a|b\n1|2\n", [["1", "2"]], id="pipe"),
    pytest.param(b"'a','b'\n'1,2','3'\n", [["1,2", "3"]], id="apostrophes-as-quotes"),
    pytest.param(b"a,b\n'tis,it's\n", [["'tis", "it's"]], id="apostrophes-as-text"),
    pytest.param(b"a,b\n1,\n,2\n", [["1", None], [None, "2"]], id="empty-is-null"),
    pytest.param(b'a,b\n"",1\n2,""\n', [["", "1"], ["2", ""]], id="quoted-empty-is-empty-text"),
    pytest.param(b"a,b\nNA,null\nnan,n/a\n", [["NA", "null"], ["nan", "n/a"]], id="null-words-are-text"),
    pytest.param(b"a,b\n007,1e5\n", [["007", "1e5"]], id="nothing-is-typed"),
    pytest.param(b"a,b\n 1 , 2\n", [[" 1 ", " 2"]], id="spaces-stay"),
    pytest.param(b'a,b\n"x\ny","p,q"\n', [["x\ny", "p,q"]], id="newline-in-quotes"),
    pytest.param(b'a,b\n"x\r\ny",1\r\n', [["x\r\ny", "1"]], id="crlf-in-quotes"),
    pytest.param(b'a,b\n"say ""hi""",""""\n', [['say "hi"', '"']], id="doubled-quotes"),
    pytest.param(b'a,b\n5" pipe,3\n6",4\n', [['5" pipe', "3"], ['6"', "4"]], id="quote-within-a-cell-is-text"),
    pytest.param(b'a,b\n5" pipe,"x\ny"\n,""\n', [['5" pipe', "x\ny"], [None, ""]], id="stray-quote-and-real-ones"),
    pytest.param(b"a,b\n\n1,2\n\r\n\n3,4\n\n", [["1", "2"], ["3", "4"]], id="blank-lines-are-no-records"),
    pytest.param(b'a\n\n1\n""\n', [["1"], [""]], id="one-column"),
    pytest.param("a,b\n日本,ü\n".encode(), [["日本", "ü"]], id="unicode"),
    pytest.param(b"a,b\n#1,2\n", [["#1", "2"]], id="no-comments"),
    pytest.param(b"a,b\n", [], id="header-only"),
    pytest.param(b"a,b", [], id="header-without-newline"),
    pytest.param(b"\n\na,b\n1,2\n", [["1", "2"]], id="blank-lines-before-the-header"),
    pytest.param(b"sep=;\na;b\n1;2\n", [["1", "2"]], id="hint"),
    pytest.param(b'\xef\xbb\xbf"SEP=\t"\r\na\tb\r\n1,5\t2,5\r\n', [["1,5", "2,5"]], id="quoted-hint"),
    pytest.param(b"sep=:\na:b\n1:2\n", [["1", "2"]], id="hint-of-a-rare-delimiter"),
    pytest.param(b"sep=a;b\n1;2\n", [["1", "2"]], id="no-hint"),
    pytest.param(b'a, b\n1, "x, ""y"""\n2, ""\n3 , z\n', [["1", 'x, "y"'], ["2", ""], ["3", "z"]], id="padded-quotes"),
    pytest.param(b'a;b\r\n"x" ; "y" \r\n  ; z \r\n', [["x", "y"], [None, "z"]], id="padded-behind"),
    pytest.param(b'a,b\r"x" , "y"\r1,2', [["x", "y"], ["1", "2"]], id="padded-cr-only"),
    pytest.param(b'a,b\n"p\nq", "y"\n" x ",5" b\n', [["p\nq", "y"], [" x ", '5" b']], id="padded-and-other-quotes"),
    pytest.param(b'a,b\n"1, "" , x", z\n', [['1, " , x', " z"]], id="padded-only-within-quotes"),
    pytest.param(b"x (a, b);c\n1,5;2\n", [["1,5", "2"]], id="comma-in-the-header"),
    pytest.param(b"x (a, b);y (c, d)\n1,5;-2.500,75\n;\n", [["1,5", "-2.500,75"], [None, None]], id="commas-there"),
    pytest.param(b"i,x;y,n\n1,2;3,a\n2,4;5,b\n", [["1", "2;3", "a"], ["2", "4;5", "b"]], id="semicolon-in-cells"),
]


@pytest.mark.parametrize(("data", "cells"), READ_AS)
@pytest.mark.parametrize("target_bytes", [1, 5, 1_000_000])
def test_cells_come_as_they_stand(data: bytes, cells: list[list[str]], target_bytes: int) -> None:
    assert cells_of(data, name="a.csv", target_bytes=target_bytes) == cells


@pytest.mark.parametrize(
    ("line", "code", "sentence"),
    [
        (b"1,2,3", "row.too_many_fields", "The line has 3 fields, the header has 2."),
        (b"1", "row.too_few_fields", "The line has 1 fields, the header has 2."),
        (b'"1" x,2', "row.malformed", "The line cannot be read: text follows a closing quote."),
        (b'"a,b",2,3', "row.too_many_fields", "The line has 3 fields, the header has 2."),
    ],
)
@pytest.mark.parametrize("target_bytes", [1, 1_000_000])
def test_a_bad_line_is_an_error_row_between_good_ones(line: bytes, code: str, sentence: str, target_bytes: int) -> None:
    rows = rows_of(b'a,b\n1,"x"\n' + line + b"\n2,\n", name="a.csv", target_bytes=target_bytes)

    assert [row[ROW] for row in rows] == [0, 1, 2]
    assert [(row["a"], row["b"]) for row in rows] == [("1", "x"), (None, None), ("2", None)]
    assert [(row["_error_code"], row["_error"]) for row in rows] == [(None, None), (code, sentence), (None, None)]
    assert rows[1][RAW] == f'"{line.decode()}"'.replace('""', '"\\"').replace('1" x', '1\\" x').replace(
        'b",2', 'b\\",2'
    )


def test_the_names_of_a_padded_file_are_bare_and_what_is_left_out_is_said() -> None:
    [span] = spans_of(b'sep=,\nid, name, "x y"\n1, "Bob", 2\n', name="a.csv")

    assert span.columns == ("id", "name", "x y")
    assert span.notes == (
        "The first line of a.csv tells Excel the delimiter ','; it is no row.",
        "Blanks around the cells of a.csv, outside quotes, are left out.",
    )


def test_bad_lines_at_both_ends_are_found() -> None:
    assert errors_of(b"a,b\n1\n2,3\n4,5,6", name="a.csv") == [
        (0, "row.too_few_fields"),
        (2, "row.too_many_fields"),
    ]


@pytest.mark.parametrize("target_bytes", [1, 1_000_000])
def test_a_long_last_line_without_an_end_is_found_behind_a_blank_one(target_bytes: int) -> None:
    assert errors_of(b"a,b\n,\n\n,,", name="a.csv", target_bytes=target_bytes) == [(1, "row.too_many_fields")]


def test_a_file_of_bad_lines_alone_has_rows() -> None:
    assert errors_of(b"a,b\n1\n", name="a.csv") == [(0, "row.too_few_fields")]


def test_a_short_line_is_found_where_the_last_column_is_often_empty() -> None:
    data = b"a,b,c\n" + b'1,"x,y",\n' * 50 + b"1,2\n" + b"1,2,3\n" * 50

    assert errors_of(data, name="a.csv") == [(50, "row.too_few_fields")]


@pytest.mark.parametrize(
    ("data", "code", "values"),
    [
        (b"a,a\n1,2\n", "file.duplicate_column", {"column": "a"}),
        (b",".join(b"c%d" % n for n in range(5_001)), "file.too_many_columns", {"columns": 5_001}),
        (b'a,b\n1,2\n3,"x\n4,5\n', "file.malformed", {"detail": "the quote opened in line 3 is never closed"}),
        (b'a,b\n5" x,2\n3,"x\n4,5\n', "file.malformed", {"detail": "the quote opened in line 3 is never closed"}),
        (b'a,"b\n1,2\n', "file.malformed", {}),
        (b"a,b\n1,\xff\n", "file.encoding", {"offset": 6}),
        (b"a,\xe9\n1,2\n", "file.encoding", {"offset": 2}),
        (b"a,b\n1,\x00\n", "file.encoding", {"offset": 6}),
        (b"\xff\xfea\x00,\x00", "file.encoding", {"offset": 0}),
        (b"", "file.empty", {}),
        (b" \r\n\n", "file.empty", {}),
    ],
)
def test_a_file_that_cannot_be_used_says_why(data: bytes, code: str, values: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as raised:
        spans_of(data, name="a.csv")

    assert raised.value.code == code
    assert {key: raised.value.values[key] for key in values} == values


def test_a_bad_byte_far_into_the_file_is_named_by_its_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "BLOCK_BYTES", 16)
    data = b"a,b\n" + b"1,2\n" * 20 + "é,ü\n".encode() * 20 + b"1,\xe9\n"

    with pytest.raises(ConfigError) as raised:
        spans_of(data, name="a.csv")

    assert raised.value.values["offset"] == len(data) - 2


def test_a_million_columns_are_refused_quickly() -> None:
    data = b",".join(b"c%d" % number for number in range(1_000_000)) + b"\n1\n"

    with pytest.raises(ConfigError) as raised:
        spans_of(data, name="a.csv")

    assert raised.value.code == "file.too_many_columns"


def test_a_line_of_more_than_16_mib_is_refused() -> None:
    with pytest.raises(ConfigError) as raised:
        spans_of(b"a,b\n1,2\n" + b"x" * (40 * 1024 * 1024), name="a.csv")

    assert raised.value.values["detail"] == "line 3 is longer than 16 MiB"


def test_a_file_cut_after_planning_is_truncated() -> None:
    data = b"a,b\n1,2\n3,4\n"
    [span] = spans_of(data, name="a.csv")

    with pytest.raises(ConfigError) as raised:
        read(opener(data[:-4]), span, name="a.csv")

    assert raised.value.code == "file.truncated"


def test_spans_touch_and_know_their_rows() -> None:
    data = b"a,b\n" + b'1,"x\ny"\n\n' * 100

    spans = spans_of(data, name="a.csv", target_bytes=64)

    assert spans[0].offset == 4
    assert spans[-1].offset + spans[-1].length == len(data)
    for before, after in zip(spans, spans[1:], strict=False):
        assert after.offset == before.offset + before.length
        assert after.first_row == before.first_row + (before.row_count or 0)
    assert sum(span.row_count or 0 for span in spans) == 100


@pytest.mark.parametrize("block_bytes", [1, 2, 3, 7, 64])
@pytest.mark.parametrize(("data", "cells"), READ_AS)
def test_the_blocks_in_which_a_file_is_read_do_not_matter(
    data: bytes, cells: list[list[str]], block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "BLOCK_BYTES", block_bytes)

    assert cells_of(data, name="a.csv", target_bytes=8) == cells


def test_a_span_costs_a_few_times_its_size_in_python_memory() -> None:
    data = b"a,b,c\n" + b'12345,"some, text",\n' * 200_000
    [span] = spans_of(data, name="a.csv", target_bytes=1 << 30)

    tracemalloc.start()
    read(opener(data), span, name="a.csv")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 6 * len(data)


CELL = st.text(st.sampled_from(list("ab,;|\t\"' \n\rä1")), max_size=6)


@st.composite
def written_files(draw: st.DrawFn) -> tuple[bytes, list[list[str]], str, str]:
    width = draw(st.integers(1, 4))
    rows = draw(st.lists(st.lists(CELL, min_size=width, max_size=width), max_size=12))
    delimiter, quote = draw(st.sampled_from(",;\t|")), draw(st.sampled_from("\"'"))
    line_end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    # The writer of this Python leaves a newline bare that is not its own line end, which no reader can undo.
    has_newlines = any("\n" in cell or "\r" in cell for row in rows for cell in row)
    quoting = csv.QUOTE_ALL if has_newlines else draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    output = io.StringIO(newline="")
    writer = csv.writer(output, delimiter=delimiter, quotechar=quote, lineterminator=line_end, quoting=quoting)
    writer.writerow([f"c{number}" for number in range(width)])
    writer.writerows(rows)
    return output.getvalue().encode(), rows, delimiter, quote


@settings(max_examples=300, deadline=None)
@given(written_files(), st.integers(1, 200))
def test_what_pythons_csv_writes_comes_back_from_any_cut(
    written: tuple[bytes, list[list[str]], str, str], target_bytes: int
) -> None:
    data, rows, delimiter, quote = written

    spans = split(opener(data), len(data), name="a.csv", target_bytes=target_bytes, delimiter=delimiter, quote=quote)
    tables = [read(opener(data), span, name="a.csv") for span in spans]

    found = [row for table in tables for row in table.to_pylist()]
    assert [[row[name] or "" for name in spans[0].columns] for row in found] == rows
    assert [row[ROW] for row in found] == list(range(len(rows)))
    assert [row["_error_code"] for row in found] == [None] * len(rows)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80), st.integers(1, 50))
def test_any_bytes_are_read_or_refused_with_a_code(data: bytes, target_bytes: int) -> None:
    try:
        rows = rows_of(b"a,b\n" + data, name="a.csv", target_bytes=target_bytes)
    except ConfigError as error:
        assert error.code.startswith("file.")
    else:
        assert [row[ROW] for row in rows] == list(range(len(rows)))


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from(list('ab,"\n\r ')), max_size=40), st.integers(1, 30))
def test_every_cut_gives_the_same_records(body: str, target_bytes: int) -> None:
    data = b"a,b\n" + body.encode()
    try:
        whole = rows_of(data, name="a.csv")
    except ConfigError:
        return

    assert rows_of(data, name="a.csv", target_bytes=target_bytes) == whole

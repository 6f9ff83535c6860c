"""Queries of people: what they see, and that they get at nothing else."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ingestion.ports.errors import ConfigError
from ingestion.toolkit.clean.current import replaced_rows
from ingestion.toolkit.clean.kinds import agreed_kinds
from ingestion.toolkit.clean.reader import read_shape
from ingestion.toolkit.duck.sandbox import Answer, Limits, run_query
from ingestion.toolkit.duck.views import ViewFile, view_statements, write_replaced
from ingestion.toolkit.lake.opening import open_lake
from tests.toolkit.rows.material import numbered, put_part

TIMESTAMP = datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=UTC)
LIMITS = Limits(timeout_s=20, memory_bytes=128 << 20, rows=100)


class Asked:
    """Queries over parts in a lake of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lake = open_lake(str(folder / "lake"))
        self.parts: list[Any] = []
        self.key: tuple[str, ...] = ()

    def put(self, columns: dict[str, Any]) -> None:
        """Add a part."""
        self.parts.append(put_part(self.lake, columns, link=len(self.parts)))

    def ask(self, sql: str, *, limits: Limits = LIMITS) -> Answer:
        """Return the answer to the SQL."""
        files = [ViewFile(self.folder / "lake" / part.key, read_shape(self.lake, part)) for part in self.parts]
        kinds = agreed_kinds([file.shape for file in files], declared={})
        replaced = replaced_rows(self.lake, self.parts, key=self.key) if self.key else {}
        (self.folder / "scratch").mkdir(exist_ok=True)
        lost = write_replaced(replaced, self.folder / "scratch" / "replaced.parquet")
        setup = view_statements(files, kinds=kinds, replaced=lost)
        paths = [file.path for file in files] + ([lost] if lost else [])
        return run_query(sql, setup=setup, files=paths, limits=limits, scratch=self.folder / "scratch")

    def refused(self, sql: str, *, limits: Limits = LIMITS) -> ConfigError:
        """Return the error that the SQL ends with."""
        with pytest.raises(ConfigError) as caught:
            self.ask(sql, limits=limits)
        assert str(self.folder) not in str(caught.value), "the machine's paths are nobody's business"
        return caught.value


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    """Rows 0 to 9."""
    asked = Asked(tmp_path)
    asked.put(numbered(10, name=[f"n{number}" for number in range(10)]))
    return asked


def test_an_answer_has_columns_types_and_rows(asked: Asked) -> None:
    answer = asked.ask("SELECT id, name, id / 4 AS part FROM rows WHERE id > 7 ORDER BY id DESC -- the last ones")

    assert answer == Answer(
        ["id", "name", "part"], ["BIGINT", "VARCHAR", "DOUBLE"], [[9, "n9", 2.25], [8, "n8", 2.0]], truncated=False
    )


def test_values_are_those_of_json(asked: Asked) -> None:
    answer = asked.ask(
        "SELECT 1.5, 12345678901234567890.5, 'nan'::DOUBLE, '-inf'::DOUBLE, DATE '2026-01-02', "
        "TIMESTAMPTZ '2026-01-02 03:04:05Z', 'a'::BLOB, [1, 2], {'a': TRUE}, 170141183460469231731687303715884105727"
    )

    assert answer.rows == [
        [
            1.5, "12345678901234567890.5", "NaN", "-Infinity", "2026-01-02", "2026-01-02T03:04:05+00:00", "YQ==",
            [1, 2], {"a": True}, 170141183460469231731687303715884105727,
        ]
    ]  # fmt: skip


def test_an_answer_is_cut_off_at_its_limit_and_says_so(asked: Asked) -> None:
    answer = asked.ask("SELECT id FROM rows ORDER BY id", limits=Limits(timeout_s=20, memory_bytes=128 << 20, rows=3))
    short = Limits(timeout_s=20, memory_bytes=128 << 20, rows=100, answer_bytes=1000)

    assert (answer.rows, answer.truncated) == ([[0], [1], [2]], True)
    assert len(asked.ask("SELECT repeat('x', 300) FROM rows", limits=short).rows) == 3
    assert asked.refused("SELECT repeat('x', 3000)", limits=short).code == "query.too_wide"


def test_parts_that_disagree_are_read_as_exports_read_them(tmp_path: Path) -> None:
    asked = Asked(tmp_path)
    moments = pa.timestamp("us", tz="UTC")
    asked.put({"a": pa.array([1]), "b": pa.array([1]), "at": pa.array([TIMESTAMP], moments), "n": pa.nulls(1)})
    asked.put({"b": pa.array([0.5]), "a": pa.array(["x"]), "at": pa.array([date(2026, 1, 2)]), "more": ["y"]})

    answer = asked.ask('SELECT a, b, "at", more, n FROM rows ORDER BY b')

    assert answer.types == ["VARCHAR", "DOUBLE", "VARCHAR", "VARCHAR", "VARCHAR"]
    assert answer.rows == [
        ["x", 0.5, "2026-01-02", "y", None],
        ["1", 1.0, "2026-01-02T03:04:05.000600+00:00", None, None],
    ]


def test_of_each_key_the_last_row_is_seen(tmp_path: Path) -> None:
    asked = Asked(tmp_path)
    asked.key = ("id", "kind")
    asked.put({"id": [1, 2, 3], "kind": ["a", "a", "b"], "v": ["old", "old", "old"]})
    asked.put({"kind": ["b", "a"], "id": [2, 1], "v": ["new", "new"]})
    asked.parts.append(asked.parts[0])
    asked.put({"id": [3], "kind": ["b"], "v": ["newest"]})

    answer = asked.ask("SELECT id, kind, v FROM rows ORDER BY id, kind")

    assert answer.rows == [[1, "a", "old"], [2, "a", "old"], [2, "b", "new"], [3, "b", "newest"]]


def test_names_may_be_anything(tmp_path: Path) -> None:
    asked = Asked(tmp_path)
    asked.put({'a"; DROP': [1], "A": [2], "a": [3], "file_index": [4], "__order": [5], "rows": [6]})

    answer = asked.ask("SELECT * EXCLUDE (_run, _part, _row, _page) FROM rows")

    assert answer.columns == ['a"; DROP', "A", "a_1", "file_index", "__order_1", "rows"]
    assert answer.rows == [[1, 2, 3, 4, 5, 6]]


def test_without_parts_there_are_no_rows(tmp_path: Path) -> None:
    answer = Asked(tmp_path).ask("SELECT count(*) AS n, min(_run) FROM rows")

    assert answer.rows == [[0, None]]


def test_what_is_no_select_over_the_rows_is_refused(asked: Asked) -> None:
    error = asked.refused("SELECT * FROM read_csv('/etc/passwd')")

    assert error.code == "query.not_allowed"


@pytest.mark.parametrize(
    ("sql", "word"),
    [
        ("SELECT nope FROM rows", "nope"),
        ("SELEC 1", "syntax"),
        ("SELECT 'a'::INTEGER", "convert"),
        ("SELECT ?", "parameter"),
        ("SELECT " + "(" * 2000 + "1" + ")" * 2000, "depth"),
        ("SELECT " + "NOT " * 4000 + "TRUE", "depth"),
        ("SELECT " + "x" * 20_000, "characters"),
    ],
)
def test_what_is_wrong_is_said_in_the_words_of_the_database(asked: Asked, sql: str, word: str) -> None:
    error = asked.refused(sql)

    assert error.code == "query.invalid"
    assert word in str(error).lower()


_STEPS = "".join(f", a{n} AS (FROM a{n - 1} a, a{n - 1} b)" for n in range(1, 40))
GROWING = f"WITH a0 AS (SELECT 1 x){_STEPS} SELECT count(*) FROM a39"  # noqa: S608 - hostile on purpose
"""Doubles its columns forty times; the planner does not look up from that."""
SHORT = Limits(timeout_s=0.5, memory_bytes=128 << 20, rows=10)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM range(100000000) a, range(100000000) b",
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t",
        GROWING,
    ],
)
def test_a_query_without_end_is_stopped(asked: Asked, sql: str) -> None:
    error = asked.refused(sql, limits=SHORT)

    assert error.code == "query.timeout"
    assert list((asked.folder / "scratch").iterdir()) == []


@pytest.mark.parametrize(
    "sql", ["SELECT range(1000000000)", "SELECT list(range) FROM range(300000000)", "SELECT repeat('x', 4000000000)"]
)
def test_a_query_that_eats_memory_is_stopped(asked: Asked, sql: str) -> None:
    error = asked.refused(sql, limits=Limits(timeout_s=10, memory_bytes=64 << 20, rows=10))

    assert error.code == "query.out_of_memory"


def test_the_process_of_a_query_knows_no_secrets(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    from ingestion.toolkit.duck import sandbox

    seen: dict[str, Any] = {}
    start = sandbox.subprocess.Popen
    monkeypatch.setenv("DATABASE_URL", "postgres://secret@nowhere/x")
    monkeypatch.setattr(
        sandbox.subprocess, "Popen", lambda *args, **named: (seen.update(named), start(*args, **named))[1]
    )

    asked.ask("SELECT 1")

    assert seen["env"] == {}

"""The SQL of SQLite."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ingestion.toolkit.clean.kinds import Kind
from sinks.relational.dialect import Dialect
from sinks.relational.naming import PREFIX, RUN, Limits, digest_of
from sinks.relational.schema_plan import ActualColumn, NewColumn, TableKey
from sinks.relational.statements import Name, Sql, Value, joined, names, sql


@dataclass(frozen=True)
class SqliteDialect(Dialect):
    """The tables of one file. Whether a column may be null cannot be changed here, so it is never forbidden."""

    name: ClassVar[str] = "SQLite"
    placeholder: ClassVar[str] = "?"
    limits: ClassVar[Limits] = Limits(longest=200, ignores_case=True)
    types: ClassVar[Mapping[Kind, str]] = {
        Kind.INTEGER: "INTEGER",
        Kind.UNSIGNED: "UNSIGNED_TEXT",
        Kind.NUMBER: "REAL",
        Kind.BOOLEAN: "BOOLEAN",
        Kind.DATE: "DATE",
        Kind.TIMESTAMP: "DATETIME",
        Kind.TEXT: "TEXT",
        # With TEXT in the name a type keeps what it is given; JSON alone would turn the text 1.0 into the number 1.
        Kind.JSON: "JSON_TEXT",
    }
    own_types: ClassVar[Mapping[str, str]] = {"name": "TEXT", "text": "TEXT", "integer": "INTEGER", "time": "DATETIME"}
    row_number: ClassVar[str] = "INTEGER PRIMARY KEY"
    block_rows: ClassVar[int] = 20_000
    merge_rows: ClassVar[int] = 200_000
    keeps_json: ClassVar[bool] = True

    knows_sizes: bool = False
    """Not every build of SQLite keeps the sizes of tables."""

    def table(self, name: str) -> Name:
        return Name(name)

    def beginning(self, *, limit_s: int, only_reads: bool) -> list[Sql]:
        # Nothing can wait for a lock later on: who begins to write is the only one until the end.
        return [sql("BEGIN" if only_reads else "BEGIN IMMEDIATE")]

    # --- what is there

    def listing(self) -> Sql:
        return sql("SELECT name FROM sqlite_master WHERE type = 'table'")

    def describing(self, table: str) -> Sql:
        return sql("SELECT name, type, 1 FROM pragma_table_info({})", Value(table))

    def finding_key(self, table: str) -> Sql:
        index = Value(_key_index(table))
        return sql("SELECT name, {} FROM pragma_index_info({}) ORDER BY seqno", index, index)

    def measuring(self, table: str) -> Sql:
        query = "SELECT SUM(pgsize) FROM dbstat WHERE name = {}" if self.knows_sizes else "SELECT 0 WHERE {} <> ''"
        return sql(query, Value(table))

    # --- tables

    def definition(self, new: NewColumn, *, key_columns: int = 1) -> Sql:
        return sql("{} {}", Name(new.column), self.type_of(new))

    def creating(self, table: str, columns: Sequence[NewColumn], *, key: Sequence[str]) -> list[Sql]:
        definitions = joined(", ", (self.definition(new) for new in columns))
        statements = [sql("CREATE TABLE {} ({})", self.table(table), definitions)]
        statements += self.rekeying(table, old=TableKey(), new=key, columns={})
        if any(new.column == RUN for new in columns):
            index = Name(f"{PREFIX}run_{digest_of(table)}")
            statements.append(sql("CREATE INDEX {} ON {} ({})", index, self.table(table), Name(RUN)))
        return statements

    def retyping(self, table: str, column: str, column_type: str) -> list[Sql]:
        return [self.dropping_column(table, column), self.adding(table, column, column_type)]

    def requiring(self, table: str, column: str, *, column_type: str, is_required: bool) -> list[Sql]:
        return []

    def rekeying(
        self, table: str, *, old: TableKey, new: Sequence[str], columns: Mapping[str, ActualColumn]
    ) -> list[Sql]:
        index = Name(_key_index(table))
        statements = [sql("DROP INDEX IF EXISTS {}", index)] if old.columns else []
        if new:
            statements.append(sql("CREATE UNIQUE INDEX {} ON {} ({})", index, self.table(table), names(new)))
        return statements

    # --- values, by functions that the connection brings along

    def as_text(self, column: Sql, kind: Kind) -> Sql:
        if kind is Kind.BOOLEAN:
            return sql("CASE {} WHEN 1 THEN 'true' WHEN 0 THEN 'false' END", column)
        return sql("headgate_text({})", column)

    def parsed(self, text: Sql, kind: Kind) -> Sql:
        return sql("headgate_parse({}, {})", text, Value(kind.value))

    # --- checksums

    def whole(self, number: Sql) -> Sql:
        return sql("CAST({} AS INTEGER)", number)

    def days(self, column: Sql) -> Sql:
        return sql("CAST(julianday({}) - 2440587.5 AS INTEGER)", column)

    def microseconds(self, column: Sql) -> Sql:
        # To the second, for what is behind it is rounded to a thousandth there.
        seconds = sql("CAST(strftime('%s', substr({}, 1, 19)) AS INTEGER)", column)
        return sql("({} * 1000000 + CAST(substr({}, 21, 6) AS INTEGER))", seconds, column)

    def byte_count(self, text: Sql) -> Sql:
        return sql("length(CAST({} AS BLOB))", text)

    def text_number(self, text: Sql) -> Sql:
        return sql("headgate_number({})", text)

    def differ(self, left: Sql, right: Sql) -> Sql:
        return sql("{} IS NOT {}", left, right)


def _key_index(table: str) -> str:
    return f"{PREFIX}key_{digest_of(table)}"

"""MySQL and MariaDB: rows by INSERT of many, staging and merging in InnoDB tables."""

import ssl
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pymysql

from ingestion.ports.context import Context
from ingestion.toolkit.clean.kinds import Kind
from sinks.relational.counted import CountedSession, inserting, with_timestamps_as_text
from sinks.relational.database import IDLE_LIMIT_S, LOCK_WAIT_S, STATEMENT_LIMIT_S, Merge, RowWriter
from sinks.relational.mysql_errors import LOCK_WAIT_TIMEOUT, explain
from sinks.relational.mysql_values import as_text, parsed
from sinks.relational.naming import RUN, Limits, digest_of
from sinks.relational.schema_plan import Found, NewColumn
from sinks.relational.statements import Name, Sql, Value, column_of, joined, names, sql
from sinks.relational.troubles import Trouble
from sinks.relational.watching import watched

if TYPE_CHECKING:
    import polars as pl

_STRICT = "STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"
_EXACT_COLLATIONS = ("utf8mb4_nopad_bin", "utf8mb4_0900_bin")
"""MariaDB's and MySQL's: the only ones in which no two different texts are equal, trailing blanks included."""
_KEY_BYTES = 3072
_LONGEST_KEY_TEXT = 255
_BYTES_A_CHARACTER = 4
_SETTINGS = (
    f"SET SESSION time_zone = '+00:00', sql_mode = '{_STRICT}', innodb_lock_wait_timeout = {LOCK_WAIT_S}, "
    f"lock_wait_timeout = {LOCK_WAIT_S}, wait_timeout = {IDLE_LIMIT_S}"
)
_TYPES = {
    Kind.INTEGER: "bigint",
    Kind.UNSIGNED: "decimal(20,0)",
    Kind.NUMBER: "double",
    Kind.BOOLEAN: "boolean",
    Kind.DATE: "date",
    Kind.TIMESTAMP: "datetime(6)",
    Kind.JSON: "json",
}


class MySQLSession(CountedSession):
    """A connection to one database of a MySQL or MariaDB server."""

    name: ClassVar[str] = "MySQL"
    mark: ClassVar[str] = "%s"
    # Names are utf8mb3 there: no characters beyond the first plane.
    limits: ClassVar[Limits] = Limits(longest=64, ignores_case=True, last_character=0xFFFF)
    driver_errors: ClassVar[tuple[type[Exception], ...]] = (pymysql.MySQLError, OSError)
    block_rows: ClassVar[int] = 10_000
    merge_rows: ClassVar[int] = 200_000
    numbering = "bigint NOT NULL AUTO_INCREMENT PRIMARY KEY"
    own_types: ClassVar[dict[str, str]] = {
        "name": "varchar(190)",
        "text": "longtext",
        "integer": "bigint",
        "time": "datetime(6)",
    }

    def __init__(
        self,
        *,
        host: str,
        port: int,
        database: str,
        user: str,
        password: str | None,
        timeout_s: int,
        tls: ssl.SSLContext | bool,
    ) -> None:
        """Connect; `tls` is how to encrypt, True for "where the server can", False for not at all."""
        self._options: dict[str, Any] = {
            **{"host": host, "port": port, "database": database, "user": user},
            **{"password": password, "timeout_s": timeout_s, "tls": tls},
        }
        self._connection: Any = pymysql.connect(
            host=host,
            port=port,
            user=user,
            password=(password or "").encode(),
            database=database,
            charset="utf8mb4",
            autocommit=True,
            connect_timeout=timeout_s,
            # A statement may take long; the server itself is asked meanwhile whether it works on it.
            read_timeout=STATEMENT_LIMIT_S + timeout_s,
            write_timeout=IDLE_LIMIT_S,
            init_command=_SETTINGS,
            ssl=tls if isinstance(tls, ssl.SSLContext) else None,
            ssl_disabled=tls is False,
        )
        self._database = database
        self._held: list[str] = []
        self._inexact: frozenset[str] = frozenset()
        self._collation = self._exact_collation()
        self.table_ending = f" ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE {self._collation}"  # type: ignore[misc]

    # --- statements

    def execute(self, statement: Sql) -> int:
        text, values = statement.written_for(quote=self.quote, mark=self.mark)
        with self._connection.cursor() as cursor:
            return int(cursor.execute(text, values or None))

    def rows(self, statement: Sql) -> list[tuple[Any, ...]]:
        text, values = statement.written_for(quote=self.quote, mark=self.mark)
        with self._connection.cursor() as cursor:
            cursor.execute(text, values or None)
            return list(cursor.fetchall())

    def begin(self, *, limit_s: int, only_reads: bool = False) -> None:
        self.execute(sql(_SETTINGS))
        if self.is_mariadb:
            self.execute(sql("SET SESSION max_statement_time = {}", Value(limit_s)))
        self.execute(sql("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"))
        self.execute(sql("START TRANSACTION"))

    def end(self, *, commits: bool) -> None:
        try:
            self.execute(sql("COMMIT" if commits else "ROLLBACK"))
            while self._held:
                self.rows(sql("SELECT RELEASE_LOCK({})", Value(self._held.pop())))
        except self.driver_errors:
            if commits:
                raise

    def hold(self, lock: str, *, shared: bool) -> None:
        # The server knows no shared locks of this kind: parts of one table are staged one after the other here.
        name = f"headgate.{digest_of(lock)}"
        if not self.count(sql("SELECT GET_LOCK({}, {})", Value(name), Value(LOCK_WAIT_S))):
            raise pymysql.err.OperationalError(LOCK_WAIT_TIMEOUT, "another delivery holds the table")
        self._held.append(name)

    def close(self) -> None:
        if self._connection.open:
            self._connection.close()

    def watched(self, ctx: Context) -> AbstractContextManager[None]:
        return watched(ctx, interrupt=self._interrupt, is_working=self._is_working)

    @classmethod
    def explain(cls, error: Exception) -> Trouble:
        return explain(error)

    def quote(self, name: str) -> str:
        return "`" + name.replace("`", "``") + "`"

    @property
    def is_mariadb(self) -> bool:
        """Return which of the two servers it is."""
        return "MariaDB" in str(self._connection.get_server_info())

    # --- the check

    def encryption(self) -> str:
        found = self.first(sql("SHOW SESSION STATUS LIKE 'Ssl_version'"))
        return f"encrypted with {found[1]}" if found and found[1] else "the connection is not encrypted"

    def problem_of_place(self) -> str:
        engines = self.rows(sql("SELECT support FROM information_schema.engines WHERE engine = 'InnoDB'"))
        return "" if engines and engines[0][0] in ("YES", "DEFAULT") else "the server has no InnoDB tables"

    # --- tables

    @property
    def place(self) -> str:
        return self._database

    def table(self, name: str) -> Name:
        return Name(self._database, name)

    def tables(self) -> list[str]:
        found = self.rows(
            sql("SELECT table_name FROM information_schema.tables WHERE table_schema = {}", Value(self._database))
        )
        return [str(name) for (name,) in found]

    def describe(self, table: str) -> dict[str, Found]:
        found = self.rows(
            sql(
                "SELECT column_name, column_type, character_set_name, collation_name, is_nullable"
                " FROM information_schema.columns WHERE table_schema = {} AND table_name = {} ORDER BY ordinal_position",
                Value(self._database),
                Value(table),
            )
        )
        return {
            str(name): Found(
                str(kind) + (f" CHARACTER SET {charset} COLLATE {collation}" if collation else ""), nullable == "YES"
            )
            for name, kind, charset, collation, nullable in found
        }

    def key_of(self, table: str) -> tuple[str, ...]:
        found = self.rows(
            sql(
                "SELECT column_name FROM information_schema.statistics"
                " WHERE table_schema = {} AND table_name = {} AND index_name = 'PRIMARY' ORDER BY seq_in_index",
                Value(self._database),
                Value(table),
            )
        )
        return tuple(str(name) for (name,) in found)

    def type_of(self, new: NewColumn, *, key_columns: int = 1) -> str:
        if new.kind is not Kind.TEXT:
            return _TYPES[new.kind]
        if new.is_key:
            # An index takes so many bytes and no more; a longer value is refused, not cut.
            return self._text_type(min(_LONGEST_KEY_TEXT, _KEY_BYTES // _BYTES_A_CHARACTER // key_columns))
        return f"longtext CHARACTER SET utf8mb4 COLLATE {self._collation}"

    def size_of(self, table: str) -> int:
        return self.count(
            sql(
                "SELECT data_length + index_length FROM information_schema.tables"
                " WHERE table_schema = {} AND table_name = {}",
                Value(self._database),
                Value(table),
            )
        )

    def creating(self, table: str, columns: Sequence[NewColumn], *, key: Sequence[str]) -> list[Sql]:
        parts = [self.definition(new, key_columns=max(len(key), 1)) for new in columns]
        if key:
            parts.append(sql("PRIMARY KEY ({})", names(key)))
        if any(new.column == RUN for new in columns):
            parts.append(sql("KEY ({})", Name(RUN)))
        return [sql("CREATE TABLE {} ({}){}", self.table(table), joined(", ", parts), self.table_ending)]

    def adding(self, table: str, new: NewColumn) -> list[Sql]:
        loose = NewColumn(new.column, new.kind)
        return [sql("ALTER TABLE {} ADD COLUMN {} {} NULL", self.table(table), Name(new.column), self.type_of(loose))]

    def retyping(self, table: str, new: NewColumn) -> list[Sql]:
        loose = NewColumn(new.column, new.kind)
        return [
            sql("ALTER TABLE {} MODIFY COLUMN {} {} NULL", self.table(table), Name(new.column), self.type_of(loose))
        ]

    def swapping(self, table: str, *, column: str, aside: str, fresh: str) -> list[Sql]:
        return [
            # In one statement, so that no reader misses the column in between.
            sql(
                "ALTER TABLE {} CHANGE COLUMN {} {} {} NULL, RENAME COLUMN {} TO {}",
                self.table(table),
                Name(column),
                Name(aside),
                self.describe(table)[column].type,
                Name(fresh),
                Name(column),
            )
        ]

    def relaxing(self, table: str, column: str, *, column_type: str) -> list[Sql]:
        return [sql("ALTER TABLE {} MODIFY COLUMN {} {} NULL", self.table(table), Name(column), column_type)]

    def tightening(self, table: str, column: str, *, column_type: str) -> list[Sql]:
        return [sql("ALTER TABLE {} MODIFY COLUMN {} {} NOT NULL", self.table(table), Name(column), column_type)]

    def rekeying(self, table: str, *, old: Sequence[str], new: Sequence[str]) -> list[Sql]:
        steps = [sql("DROP PRIMARY KEY")] if old else []
        found = self.describe(table)
        for name in new:
            kind = found[name].type if name in found else ""
            if kind.startswith("longtext"):
                length = min(_LONGEST_KEY_TEXT, _KEY_BYTES // _BYTES_A_CHARACTER // len(new))
                kind = self._text_type(length)
            if kind:
                steps.append(sql("MODIFY COLUMN {} {} NOT NULL", Name(name), kind))
        if new:
            steps.append(sql("ADD PRIMARY KEY ({})", names(new)))
        return [sql("ALTER TABLE {} {}", self.table(table), joined(", ", steps))] if steps else []

    # --- values

    def as_text(self, column: Sql, kind: Kind) -> Sql:
        return as_text(column, kind)

    def parsed(self, text: Sql, kind: Kind) -> Sql:
        return parsed(text, kind)

    def prepare_parsing(self) -> None:
        # Under the strict rules one text that is no date would end the whole statement; the next begin() sets them again.
        self.execute(sql("SET SESSION sql_mode = 'NO_ZERO_DATE,NO_ZERO_IN_DATE,NO_ENGINE_SUBSTITUTION'"))

    # --- rows

    def writer(self, table: str, columns: Sequence[str]) -> RowWriter:
        return _Writer(self._connection, inserting(self, table, columns))

    def prepare_merge(self, merge: Merge) -> None:
        """Find the text columns to which somebody gave a collation in which different texts are equal."""
        found = self.describe(merge.target)
        self._inexact = frozenset(
            name
            for name in merge.compared
            if "COLLATE" in found[name].type and not found[name].type.endswith((*_EXACT_COLLATIONS, "utf8mb4_bin"))
        )

    def distinct(self, left: str, right: str, columns: Sequence[str]) -> Sql:
        same = (
            sql(
                "CAST({} AS BINARY) <=> CAST({} AS BINARY)" if name in self._inexact else "{} <=> {}",
                column_of(left, name),
                column_of(right, name),
            )
            for name in columns
        )
        return sql("NOT ({})", joined(" AND ", same))

    def differ(self, left: Sql, right: Sql) -> Sql:
        return sql("NOT ({} <=> {})", left, right)

    def updating(self, merge: Merge, first: int, end: int) -> Sql:
        return sql(
            "UPDATE {} AS t JOIN {} AS s ON {} SET {} WHERE {} AND {}",
            self.table(merge.target),
            self.table(merge.staging),
            self.same_key("t", "s", merge.key),
            self.assignments(merge, alias="t"),
            self.within("s", first, end),
            self.changeable(merge),
        )

    def _text_type(self, length: int) -> str:
        return f"varchar({length}) CHARACTER SET utf8mb4 COLLATE {self._collation}"

    def _exact_collation(self) -> str:
        wanted = joined(", ", (Value(name) for name in _EXACT_COLLATIONS))
        found = self.first(
            sql("SELECT collation_name FROM information_schema.collations WHERE collation_name IN ({})", wanted)
        )
        return str(found[0]) if found else "utf8mb4_bin"

    def _interrupt(self) -> None:
        with closing(MySQLSession(**self._options)) as other:
            other.execute(sql("KILL QUERY {}", str(int(self._connection.thread_id()))))

    def _is_working(self) -> bool:
        with closing(MySQLSession(**self._options)) as other:
            found = other.first(
                sql(
                    "SELECT command FROM information_schema.processlist WHERE id = {}",
                    Value(self._connection.thread_id()),
                )
            )
        return found is not None and found[0] == "Query"


@dataclass(frozen=True, slots=True)
class _Writer:
    """Inserts rows, as many in one statement as the driver puts together."""

    connection: Any
    statement: str

    def encode(self, frame: "pl.DataFrame") -> list[tuple[Any, ...]]:
        return with_timestamps_as_text(frame).rows()

    def write(self, encoded: list[tuple[Any, ...]]) -> None:
        with self.connection.cursor() as cursor:
            cursor.executemany(self.statement, encoded)

"""What databases have in common whose staged rows are numbered, and whose rows travel one by one."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sinks.relational.database import PART_NUMBER, PLACE, Session
from sinks.relational.statements import Name, Sql, Value, column_of, joined, names, sql

if TYPE_CHECKING:
    import polars as pl

NUMBER = "headgate_row"
"""Numbers staged rows, so that any stretch of them can be merged alone."""
TIMESTAMP_FORMAT = "%Y-%m-%d %H:%M:%S%.6f"


class CountedSession(Session):
    """A connection to such a database."""

    numbering: str
    """How a column is declared that numbers its rows."""

    def create_staging(self, staging: str, *, target: str, columns: Sequence[str], key: Sequence[str]) -> None:
        found = self.describe(target)
        integer = self.own_types["integer"]
        definitions = [
            sql("{} {}", Name(NUMBER), self.numbering),
            *(sql("{} {}", Name(name), integer) for name in (PART_NUMBER, PLACE)),
            *(sql("{} {}", Name(name), found[name].type) for name in columns),
        ]
        whole = self.table(staging)
        self.execute(sql("CREATE TABLE {} ({}){}", whole, joined(", ", definitions), self.table_ending))
        # The search for absent keys asks for each key of the target whether it waits here.
        self.execute(sql("CREATE INDEX {} ON {} ({})", Name(f"{staging}_key"), whole, names(key)))

    def within(self, alias: str, first: int, end: int) -> Sql:
        number = column_of(alias, NUMBER)
        return sql("{} >= {} AND {} < {}", number, Value(first), number, Value(end))

    def ranges(self, staging: str) -> list[tuple[int, int]]:
        found = self.first(sql("SELECT MIN({}), MAX({}) FROM {}", Name(NUMBER), Name(NUMBER), self.table(staging)))
        if found is None or found[0] is None:
            return []
        return [(first, first + self.merge_rows) for first in range(int(found[0]), int(found[1]) + 1, self.merge_rows)]

    def addresses(self, staging: str, first: int, end: int) -> list[int]:
        found = self.rows(
            sql("SELECT {} FROM {} WHERE {} ORDER BY 1", Name(NUMBER), self.table(staging), self.within("", first, end))
        )
        return [int(number) for (number,) in found]


def inserting(session: Session, table: str, columns: Sequence[str]) -> str:
    """Return the INSERT of one row with a mark for each value."""
    marks = joined(", ", (Value(None) for _ in columns))
    statement = sql("INSERT INTO {} ({}) VALUES ({})", session.table(table), names(columns), marks)
    return statement.written_for(quote=session.quote, mark=session.mark)[0]


def with_timestamps_as_text(frame: "pl.DataFrame") -> "pl.DataFrame":
    """Return the frame with its dates and moments as these databases read them."""
    import polars as pl  # noqa: PLC0415 (heavy)
    import polars.selectors as cs  # noqa: PLC0415

    return frame.with_columns(
        cs.datetime().dt.strftime(TIMESTAMP_FORMAT),
        cs.date().dt.strftime("%Y-%m-%d"),
        cs.by_dtype(pl.UInt64).cast(pl.String),
    )

"""A database asked over a connection: which tables there are, their columns, their keys."""

from sinks.relational.connection import Connection
from sinks.relational.schema_plan import ActualColumn, TableKey
from sinks.relational.statements import sql


def table_names(connection: Connection) -> list[str]:
    """Return the names of the tables there are."""
    return [str(name) for (name,) in connection.rows(connection.dialect.listing())]


def describe(connection: Connection, table: str) -> dict[str, ActualColumn]:
    """Return the columns of a table in their order; empty where there is none."""
    return {
        str(name): ActualColumn(str(column_type), nullable=bool(nullable))
        for name, column_type, nullable in connection.rows(connection.dialect.describing(table))
    }


def key_of(connection: Connection, table: str) -> TableKey:
    """Return the key by which the table tells its rows apart."""
    found = connection.rows(connection.dialect.finding_key(table))
    return TableKey(tuple(str(name) for name, _ in found), constraint=str(found[0][1]) if found else "")


def is_empty(connection: Connection, table: str) -> bool:
    """Return whether the table has no rows."""
    return connection.first(sql("SELECT 1 FROM {} LIMIT 1", connection.dialect.table(table))) is None

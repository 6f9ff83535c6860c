"""Guard of a person's SQL: it must be one SELECT over the view `rows`. Judged by DuckDB's own parser, before anything runs.

The sandbox denies files, network and settings anyway; this denies what would only tell how the sandbox is made, and
says so in words.
"""

import json
from collections.abc import Collection, Iterator
from typing import Any

VIEW = "rows"
_QUERY_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
_TABLE_FUNCTIONS = frozenset({"generate_series", "json_each", "json_tree", "range", "unnest"})
_SHOWS = frozenset({"DESCRIBE", "SUMMARY"})
_HIDDEN_FUNCTIONS = frozenset(
    {
        "current_setting",
        "currval",
        "getvariable",
        "json_deserialize_sql",
        "nextval",
        "pg_get_constraintdef",
        "pg_get_viewdef",
        "sleep_ms",
        "write_log",
    }
)
_INTERNAL_NAMES = (
    "SELECT lower(view_name) FROM duckdb_views() UNION SELECT lower(function_name) FROM duckdb_functions() "
    "WHERE function_type IN ('table', 'table_macro')"
)
"""Names that mean something besides the rows; a query that gives such a name to a part of itself could mean both."""


class NotAllowed(Exception):  # noqa: N818 - a verdict, not a failure
    """The SQL is not one SELECT over the rows; the text says what is wrong with it."""


def check_query(connection: Any, sql: str) -> None:
    """Raise NotAllowed unless the SQL is one SELECT over `rows`, and DuckDB's error where it cannot be parsed."""
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise NotAllowed("write one statement" if statements else "the query is empty")
    # DuckDB writes SELECT statements alone as a tree; everything else is an error there.
    (text,) = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchone()
    tree = json.loads(text)
    if tree.get("error") or len(tree["statements"]) != 1:
        raise NotAllowed("only SELECT can be run here")
    internal = {name for (name,) in connection.execute(_INTERNAL_NAMES).fetchall()} - {VIEW}
    problem = next(_problems(tree["statements"][0], names={VIEW}, internal=internal), None)
    if problem is not None:
        raise NotAllowed(problem)


def _problems(node: Any, *, names: Collection[str], internal: Collection[str]) -> Iterator[str]:
    """Yield what is wrong below a node of the tree; `names` are the tables that may be named there."""
    if isinstance(node, list):
        for item in node:
            yield from _problems(item, names=names, internal=internal)
    elif isinstance(node, dict):
        named = {str(entry["key"]).lower() for entry in (node.get("cte_map") or {}).get("map", ())}
        if taken := sorted(named & set(internal)):
            yield f"WITH cannot be named {taken[0]}"
        known = {*names, *named}
        if node.get("type") == "RECURSIVE_CTE_NODE":
            known.add(str(node.get("cte_name", "")).lower())
        yield from _problems_of(node, names=known)
        for item in node.values():
            yield from _problems(item, names=known, internal=internal)


def _problems_of(node: dict[str, Any], *, names: Collection[str]) -> Iterator[str]:
    kind = str(node.get("type", ""))
    if kind.endswith("_NODE") and kind not in _QUERY_NODES:
        yield "only SELECT can be run here"
    elif kind == "BASE_TABLE":
        path = (node.get("qualified_name") or {}).get("path") or [node.get("table_name", "")]
        if len(path) != 1 or str(path[0]).lower() not in names:
            yield f"there is no table {'.'.join(map(str, path))!r} here; the data are called {VIEW}"
    elif kind == "TABLE_FUNCTION":
        name = str((node.get("function") or {}).get("function_name", "")).lower()
        if name not in _TABLE_FUNCTIONS:
            yield f"the table function {name} cannot be used here"
    elif kind == "SHOW_REF" and node.get("show_type") not in _SHOWS:
        yield "SHOW cannot be used here"
    elif node.get("class") == "FUNCTION" and str(node.get("function_name", "")).lower() in _HIDDEN_FUNCTIONS:
        yield f"the function {node['function_name']} cannot be used here"

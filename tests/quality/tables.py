"""Short ways to check tables in tests."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from ingestion.quality.checking import Verdict
from ingestion.quality.contracts import compile_contract, parse_contract


def contract(*columns: Mapping[str, Any], **rest: Any) -> dict[str, Any]:
    """Return a contract with these columns."""
    return {"name": "test", "columns": list(columns), **rest}


def check(
    body: Mapping[str, Any],
    data: Mapping[str, Any] | pa.Table,
    *,
    is_file: bool = True,
    cursor_field: str | None = None,
) -> Verdict:
    """Return the verdict over a table or over columns."""
    table = data if isinstance(data, pa.Table) else pa.table(dict(data))
    return compile_contract(parse_contract(body)).check(
        table, run_id=7, part="0-0", is_file=is_file, cursor_field=cursor_field
    )


def check_column(values: Sequence[Any] | pa.Array, **column: Any) -> Verdict:
    """Return the verdict over one column called `v`, beside a column that tells the rows apart."""
    array = values if isinstance(values, pa.Array) else pa.array(values, pa.string())
    return check(contract({"name": "v", **column}), {"v": array, "n": list(range(len(array)))})


def broken(verdict: Verdict) -> dict[int, list[tuple[str, str]]]:
    """Return (column, rule) of every error by row number."""
    return {
        row["_row"]: [(error["column"], error["rule"]) for error in row["errors"]]
        for row in verdict.rejected.to_pylist()
    }

"""Contracts as people write them: read from YAML or JSON, checked, hashed, written back, and compiled to check tables."""

import datetime as dt
import hashlib
import json
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ingestion.ports.batch import CLEAN_COLUMNS, READER_COLUMNS
from ingestion.ports.errors import ConfigError
from ingestion.ports.schema import NUMBER_FORMATS, Column, ColumnType, ContractBody
from ingestion.quality.values import read_bound, read_value

if TYPE_CHECKING:
    import pyarrow as pa

    from ingestion.quality.checking import Verdict


MAX_TEXT_BYTES = 1 << 20
RESERVED_NAMES = frozenset((*READER_COLUMNS, *CLEAN_COLUMNS, "__time"))
_TEMPORAL = (ColumnType.DATE, ColumnType.DATETIME)
_NESTED = (ColumnType.OBJECT, ColumnType.ARRAY)
_PROBE = dt.datetime(2021, 11, 27, 17, 46, 39, tzinfo=dt.UTC)


def parse_contract(source: str | bytes | Mapping[str, Any]) -> ContractBody:
    """Return the contract that a person wrote as YAML or JSON, or handed over as a mapping.

    Raises ConfigError `contract.invalid`; its `problems` names every problem as "<path>: <sentence>".
    Names that appear twice, aliases and texts above 1 MiB are rejected.
    """
    mapping = source if isinstance(source, Mapping) else _read_text(source)
    if not isinstance(mapping, Mapping):
        raise _invalid(["the contract is not a mapping with name, key and columns"])
    try:
        body = ContractBody.model_validate(_with_iso_dates(mapping))
    except ValidationError as error:
        raise _invalid([_problem(details) for details in error.errors()]) from error
    except RecursionError as error:
        raise _invalid(["the contract is nested too deeply"]) from error
    ensure_valid(body)
    return body


def ensure_valid(body: ContractBody) -> None:
    """Raise ConfigError `contract.invalid` where a rule of the contract could never be applied to data."""
    problems = [
        f"columns.{position}.{problem}"
        for position, column in enumerate(body.columns)
        for problem in _column_problems(column)
    ]
    for position, name in enumerate(body.key):
        column = body.column(name)
        if column is not None and column.type in (*_NESTED, ColumnType.ANY):
            problems.append(f"key.{position}: {name} is of type {column.type} and cannot be a key")
    if len(set(body.key)) < len(body.key):
        problems.append("key: a column is named more than once")
    if problems:
        raise _invalid(problems)


def dump_contract(body: ContractBody) -> dict[str, Any]:
    """Return the contract as plain JSON values, without what is empty; `parse_contract` reads it back as it was."""
    columns = [
        {
            name: value
            for name, value in column.model_dump(mode="json").items()
            if value is not None and not (name == "nullable" and value)
        }
        for column in body.columns
    ]
    whole = body.model_dump(mode="json") | {"columns": columns}
    return {name: value for name, value in whole.items() if value not in (None, [])}


def contract_hash(body: ContractBody) -> str:
    """Return the SHA-256 of the contract's meaning, in hex; the order of names in its text does not matter."""
    canonical = json.dumps(dump_contract(body), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _invalid(problems: list[str]) -> ConfigError:
    return ConfigError("contract.invalid", detail="; ".join(problems), problems=problems)


def _problem(details: Mapping[str, Any]) -> str:
    path = ".".join(str(step) for step in details["loc"])
    sentence = str(details["msg"]).removeprefix("Value error, ")
    return f"{path}: {sentence}" if path else sentence


def _column_problems(column: Column) -> Iterator[str]:
    if column.name in RESERVED_NAMES:
        yield f"name: {column.name} is a name that Headgate gives itself; choose another"
    if column.pattern is not None:
        yield from _pattern_problems(column.pattern)
    if column.format is not None:
        if column.type in (ColumnType.INTEGER, ColumnType.NUMBER):
            if column.format not in NUMBER_FORMATS:
                yield f"format: {column.format!r} is none of a number; write one of {', '.join(NUMBER_FORMATS)}"
        elif column.type not in _TEMPORAL:
            yield f"format: only dates, datetimes and numbers have a format, the column is of type {column.type}"
        else:
            yield from _format_problems(column.format)
    yield from _value_problems(column)


def _value_problems(column: Column) -> Iterator[str]:
    bounds = {}
    for name, bound in (("min", column.min), ("max", column.max)):
        if bound is not None:
            try:
                bounds[name] = read_bound(column, bound)
            except ValueError as error:
                yield f"{name}: {error}"
    if len(bounds) > 1 and bounds["min"] > bounds["max"]:  # type: ignore[operator]
        yield f"min: {column.min} is greater than max {column.max}, so no value could pass"
    if column.enum is None:
        return
    if not column.enum or column.type in _NESTED:
        yield f"enum: {'an object or array has no allowed values' if column.enum else 'no value is allowed'}"
        return
    for position, value in enumerate(column.enum):
        try:
            read_value(column, value)
        except ValueError as error:
            yield f"enum.{position}: {error}"


def _pattern_problems(pattern: str) -> Iterator[str]:
    # The engine of the check runs in linear time; a pattern it cannot run is rejected here and not row by row.
    import polars as pl  # noqa: PLC0415 - heavy, and only contracts with patterns or formats need it

    try:
        pl.Series([""]).str.contains(pattern)
    except pl.exceptions.PolarsError as error:
        reason = " ".join(str(error).split("This error occurred")[0].replace("regex parse error:", "").split())
        yield f"pattern: {pattern!r} cannot be checked ({reason})"


def _format_problems(pattern: str) -> Iterator[str]:
    import polars as pl  # noqa: PLC0415 - heavy, and only contracts with patterns or formats need it

    probe = pl.Series([_PROBE.replace(tzinfo=None)]).dt.replace_time_zone("UTC")
    try:
        written = probe.dt.strftime(pattern)
        year = written.str.to_datetime(pattern, strict=False, time_unit="us").dt.year().item()
    except (pl.exceptions.PolarsError, ValueError):
        year = None
    if year != _PROBE.year:
        yield f"format: {pattern!r} does not describe a whole date; write for example %d.%m.%Y %H:%M"


def _read_text(source: str | bytes) -> Any:
    try:
        text = source.decode("utf-8-sig") if isinstance(source, bytes) else source.removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise _invalid(["the contract is not UTF-8 text"]) from error
    if len(text.encode("utf-8", "surrogatepass")) > MAX_TEXT_BYTES:
        raise _invalid([f"the contract is longer than {MAX_TEXT_BYTES} bytes"])
    try:
        return json.loads(text, object_pairs_hook=_unique_names, parse_constant=_reject_constant)
    except json.JSONDecodeError:
        return _read_yaml(text)
    except RecursionError as error:
        raise _invalid(["the contract is nested too deeply"]) from error


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise _invalid([f"{name}: the name appears more than once in one mapping" for name in doubled])
    return dict(pairs)


def _reject_constant(name: str) -> Any:
    raise _invalid([f"{name} is not a finite number"])


def _read_yaml(text: str) -> Any:
    import yaml  # noqa: PLC0415 - contracts in the database are mappings already

    class Loader(yaml.SafeLoader):
        """YAML without aliases (a short text must not become a large one) and without names given twice."""

        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            if self.check_event(yaml.AliasEvent):
                raise _invalid(["aliases (*name) are not allowed; write the value out"])
            return super().compose_node(parent, index)

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
            pairs = [(str(key.value), None) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            _unique_names(pairs)
            return super().construct_mapping(node, deep=deep)

    try:
        return yaml.load(text, Loader)  # noqa: S506 - Loader is a SafeLoader
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise _invalid([f"{where}{error.problem or 'not readable as YAML or JSON'}"]) from error
    except (yaml.YAMLError, ValueError) as error:
        raise _invalid([f"not readable as YAML or JSON: {error}"]) from error
    except RecursionError as error:
        raise _invalid(["the contract is nested too deeply"]) from error


def _with_iso_dates(value: Any) -> Any:
    # YAML reads an unquoted date as a date object; a contract says it in text.
    if isinstance(value, dt.date | dt.datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {name: _with_iso_dates(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_iso_dates(item) for item in value]
    return value


RULES = ("read", "type", "nullable", "pattern", "min", "max", "enum", "key.null", "key.duplicate")
"""The names of the rules that a row can break; they never change once released."""


def compile_contract(body: ContractBody) -> "CompiledContract":
    """Return the contract ready to check tables; ConfigError where a rule of it can never be applied."""
    ensure_valid(body)
    return CompiledContract(body)


@dataclass(frozen=True, slots=True)
class CompiledContract:
    """A valid contract; `check` may be called for any number of tables, also from several threads."""

    body: ContractBody

    def check(
        self, table: "pa.Table", *, run_id: int, part: str, is_file: bool, cursor_field: str | None = None
    ) -> "Verdict":
        """Return the verdict over every row of a connector's table. Pure: the same table gives the same verdict.

        The reader columns of `ports.batch` may be absent. Raises ConfigError where the columns as a whole do not fit
        the contract: `contract.missing_key_column`, `contract.missing_column`, `contract.unexpected_column`.
        """
        # Polars and Arrow are loaded here, so that processes that only read contracts start without them.
        from ingestion.quality.checking import check_table  # noqa: PLC0415

        return check_table(self.body, table, run_id=run_id, part=part, is_file=is_file, cursor_field=cursor_field)

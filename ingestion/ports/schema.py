"""The data contract as a person writes it; type names are those of Frictionless Table Schema."""

import re
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class ColumnType(StrEnum):
    """The types a column can be declared to have."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    DATE = "date"
    DATETIME = "datetime"
    OBJECT = "object"
    ARRAY = "array"
    ANY = "any"


class ExtraColumns(StrEnum):
    """The fate of a column that the contract does not name."""

    KEEP = "keep"
    DISCARD = "discard"
    REJECT = "reject"


NUMBER_FORMATS = ("1.234,5", "1 234,5", "1'234.5", "1,234.5")


class Column(BaseModel):
    """One expected column.

    `format` is a strftime pattern for date and datetime; without it ISO 8601 is read. For integer and number it is one of
    NUMBER_FORMATS, which says how texts write 1234.5; without it as here.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=200)]
    type: ColumnType = ColumnType.STRING
    nullable: bool = True
    pattern: str | None = None
    min: float | int | str | None = None
    max: float | int | str | None = None
    enum: tuple[Any, ...] | None = None
    format: str | None = None
    unit: str | None = None
    description: str | None = None

    @field_validator("pattern")
    @classmethod
    def _pattern_compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as error:
                msg = f"the pattern is not a regular expression: {error}"
                raise ValueError(msg) from error
        return pattern

    @model_validator(mode="after")
    def _bounds_fit_the_type(self) -> Self:
        if (self.min is not None or self.max is not None) and self.type not in (
            ColumnType.INTEGER,
            ColumnType.NUMBER,
            ColumnType.DATE,
            ColumnType.DATETIME,
        ):
            msg = f"min and max need a number or a date, the column is of type {self.type}"
            raise ValueError(msg)
        return self


class ContractBody(BaseModel):
    """The expected schema and rules of a stream."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=100)]
    key: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    time: str | None = None
    extra_columns: ExtraColumns = ExtraColumns.KEEP
    missing_values: tuple[str, ...] = ()
    """Texts that stand for a missing value, besides an empty cell without quotes."""
    description: str | None = None

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        names = [column.name for column in self.columns]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            msg = f"columns named more than once: {', '.join(doubled)}"
            raise ValueError(msg)
        unknown = [name for name in self.key if name not in names]
        if unknown:
            msg = f"key columns that are not declared: {', '.join(unknown)}"
            raise ValueError(msg)
        if self.time is not None and self.time not in names:
            msg = f"the time column {self.time} is not declared"
            raise ValueError(msg)
        times = {c.name for c in self.columns if c.type in (ColumnType.DATE, ColumnType.DATETIME)}
        if self.time is not None and self.time not in times:
            msg = f"the time column {self.time} is neither a date nor a datetime"
            raise ValueError(msg)
        return self

    def column(self, name: str) -> Column | None:
        """Return the declared column of that name, or None."""
        return next((column for column in self.columns if column.name == name), None)

    @property
    def key_types(self) -> tuple[tuple[str, ColumnType], ...]:
        """Return the columns of the key with their types; rows meet only where all of this is the same."""
        types = {column.name: column.type for column in self.columns}
        # Both are text in clean parts.
        return tuple((name, ColumnType.STRING if types[name] is ColumnType.ANY else types[name]) for name in self.key)

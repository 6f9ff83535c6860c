"""SQL put together from three kinds of pieces that never mix: text we wrote, names, and values.

    sql("DELETE FROM {} WHERE {} < {}", Name("samples"), Name("_run"), Value(7))

A name is quoted and a value is bound when a database renders the statement, so neither can be taken for SQL; a hostile
column name is a name, whatever it holds.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Name:
    """An identifier, such as a table in its schema: Name("public", "samples")."""

    parts: tuple[str, ...]

    def __init__(self, *parts: str) -> None:
        object.__setattr__(self, "parts", parts)


@dataclass(frozen=True, slots=True)
class Value:
    """A value that the driver binds."""

    value: Any


@dataclass(frozen=True, slots=True)
class Sql:
    """A statement, or a piece of one."""

    pieces: tuple["str | Name | Value", ...]

    def written_for(self, *, quote: Callable[[str], str], mark: str) -> tuple[str, list[Any]]:
        """Return the text and the values that a driver takes, whose mark for a bound value is `mark`."""
        # Drivers that mark values by %s read %% as %, and neither where there are no values.
        has_values = any(isinstance(piece, Value) for piece in self.pieces)
        escape = (lambda text: text.replace("%", "%%")) if has_values and mark.startswith("%") else str
        words: list[str] = []
        values: list[Any] = []
        for piece in self.pieces:
            match piece:
                case Name(parts=parts):
                    words.append(escape(".".join(map(quote, parts))))
                case Value(value=value):
                    words.append(mark)
                    values.append(value)
                case _:
                    words.append(escape(piece))
        return "".join(words), values

    def shown(self, quote: Callable[[str], str]) -> str:
        """Return the statement as a person reads it."""
        text, values = self.written_for(quote=quote, mark="\0")
        for value in values:
            text = text.replace("\0", repr(value), 1)
        return text


Piece: TypeAlias = str | Name | Value | Sql


def sql(template: str, *arguments: Piece) -> Sql:
    """Return the template with its `{}` filled in turn; a text among the arguments is SQL that we wrote."""
    texts = template.split("{}")
    if len(texts) != len(arguments) + 1:
        msg = f"{template!r} has {len(texts) - 1} places for {len(arguments)} arguments"
        raise ValueError(msg)
    pieces: list[str | Name | Value] = [texts[0]]
    for argument, text in zip(arguments, texts[1:], strict=True):
        pieces.extend(argument.pieces if isinstance(argument, Sql) else (argument,))
        pieces.append(text)
    return Sql(tuple(piece for piece in pieces if piece != ""))


def joined(separator: str, parts: Iterable[Piece]) -> Sql:
    """Return the parts with the separator between them."""
    pieces: list[str | Name | Value] = []
    for part in parts:
        if pieces:
            pieces.append(separator)
        pieces.extend(part.pieces if isinstance(part, Sql) else (part,))
    return Sql(tuple(pieces))


def names(columns: Iterable[str], *, of: str = "") -> Sql:
    """Return the columns with commas between them, each of the table with the alias `of`."""
    return joined(", ", (column_of(of, column) for column in columns))


def column_of(alias: str, column: str) -> Sql:
    """Return one column, of the table with that alias where there is one."""
    return sql("{}.{}", alias, Name(column)) if alias else sql("{}", Name(column))

"""Druid's SQL into SQLite's: names keep their case, times are ISO text, functions of Druid are Python's.

Names are passed as `[h<hex>]`, so that any name is possible, upper and lower case differ, and an unknown one is an
error. What Druid refuses and SQLite would take is refused here, in Druid's words.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.fakes.druid.times import GRANULARITIES, iso, now_ms, parse_iso

LONGEST_NAME = 128


def word_set(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


_TOKEN = re.compile(
    r"(?P<space>\s+|--[^\n]*)|(?P<text>'(?:[^']|'')*')|(?P<name>\"(?:[^\"]|\"\")*\")|(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)"
    r"|(?P<word>[A-Za-z_$][\w$]*)|(?P<mark><>|<=|>=|!=|\|\||[^\s\w])"
)
_KEYWORDS = word_set(
    "SELECT FROM WHERE AND OR NOT NULL IS IN AS GROUP BY ORDER LIMIT OFFSET HAVING DISTINCT FILTER CASE WHEN THEN ELSE"
    " END LIKE BETWEEN ASC DESC UNION ALL JOIN LEFT INNER CROSS ON WITH EXISTS TRUE FALSE NULLS FIRST LAST ESCAPE"
)
# measured: words that 33.0.0 does not take as a name without quotes
_RESERVED = word_set(
    "ONE VALUE VALUES COUNT YEAR MONTH DAY HOUR MINUTE SECOND TIME TIMESTAMP DATE START END USER ROW ROWS MIN MAX SUM"
    " AVG RANK RESULT METHOD PERCENT POSITION INTERVAL NUMERIC GROUP ORDER LIMIT OFFSET TABLE COLUMN AT LOWER UPPER"
    " CURRENT PERIOD RANGE"
)
_AGGREGATES = word_set("COUNT SUM MIN MAX AVG APPROX_COUNT_DISTINCT")
_CASTS = {
    "BIGINT": "to_bigint",
    "INTEGER": "to_bigint",
    "DOUBLE": "to_double",
    "FLOAT": "to_double",
    "VARCHAR": "to_varchar",
    "TIMESTAMP": "to_timestamp",
}
SYSTEM_SCHEMAS = frozenset({"INFORMATION_SCHEMA", "sys"})


class SqlError(Exception):
    """A query that Druid answers by 400."""

    def __init__(
        self, message: str, *, code: str = "invalidInput", at: "Token | None" = None, status: int = 400
    ) -> None:
        self.code = code
        self.status = status
        self.context: dict[str, str] = {} if code == "general" else {"sourceType": "sql"}
        if at is not None:
            message += f" (line [{at.line}], column [{at.column}])"
            place = {"line": at.line, "column": at.column, "endLine": at.line, "endColumn": at.end_column}
            self.context |= {name: str(value) for name, value in place.items()}
        super().__init__(message)


@dataclass(frozen=True)
class Token:
    """One word of a query."""

    kind: str
    text: str
    line: int
    column: int

    @property
    def upper(self) -> str:
        """Return an unquoted word in capitals, else nothing that a keyword could be."""
        return self.text.upper() if self.kind in ("word", "mark") else ""

    @property
    def value(self) -> str:
        """Return a name without its quotes, a text without its."""
        if self.kind == "name":
            return self.text[1:-1].replace('""', '"')
        return self.text[1:-1].replace("''", "'") if self.kind == "text" else self.text

    @property
    def end_column(self) -> int:
        """Return the column of its last character."""
        return self.column + len(self.text) - 1


def tokens_of(query: str) -> list[Token]:
    """Return a query's words, blanks and comments left out."""
    found, line, begin = [], 1, 0
    for match in _TOKEN.finditer(query):
        kind = match.lastgroup or ""
        if kind != "space":
            found.append(Token(kind, match.group(), line, match.start() - begin + 1))
        if "\n" in match.group():
            line += match.group().count("\n")
            begin = match.start() + match.group().rindex("\n") + 1
    if found and found[-1].text == ";":
        found.pop()
    return found


def encoded(name: str) -> str:
    """Return a name as SQLite is given it."""
    return f"[h{name.encode().hex()}]"


def decoded(name: str) -> str | None:
    """Return the name behind an encoded one, None for anything else."""
    return bytes.fromhex(name[1:]).decode() if re.fullmatch(r"h(?:[0-9a-f]{2})*", name) else None


@dataclass
class Query:
    """A query understood: its tables, and its words for SQLite."""

    tokens: list[Token]

    def __post_init__(self) -> None:
        self.tables: dict[str, Token] = {}
        self._check_words()
        self._mark_tables()

    def translated(self) -> str:
        """Return the query for SQLite."""
        words = self._translate(self.tokens)
        return " ".join(words)

    def name_token(self, name: str) -> Token | None:
        """Return where a column's name stands."""
        return next((each for each in self.tokens if each.kind in ("name", "word") and each.value == name), None)

    def call_token(self, name: str) -> Token | None:
        """Return a call of a function as one word."""
        for place, token in enumerate(self.tokens):
            if token.upper == name.upper():
                end = self.tokens[_closing(self.tokens, place + 1)]
                return Token("word", " " * (end.column - token.column + 1), token.line, token.column)
        return None

    def parameter_count(self) -> int:
        """Return how many values are to be bound."""
        return sum(1 for each in self.tokens if each.text == "?")

    def check_aggregates(self, columns: dict[str, str]) -> None:
        """Refuse MIN and MAX of text."""
        for place, token in enumerate(self.tokens[:-3]):
            if token.upper in ("MIN", "MAX") and self.tokens[place + 1].text == "(":
                column = self.tokens[place + 2]
                if self.tokens[place + 3].text == ")" and columns.get(column.value) == "VARCHAR":
                    raise SqlError(f"Aggregation [{token.upper}] does not support type [STRING], column [v0]")

    def is_of_nothing(self, rows: Sequence[Sequence[Any]]) -> bool:
        """Return whether these are the counts and sums over all there is, where there is nothing."""
        words = [each.upper for each in self.tokens]
        called = {word for place, word in enumerate(words) if words[place + 1 : place + 2] == ["("]} & _AGGREGATES
        if not self.tables or not called or {"GROUP", "FILTER"} & set(words) or len(rows) != 1:
            return False
        return (
            not any(rows[0])
            if called == {"COUNT"}
            else all(value in (0, None) for value in rows[0]) and None in rows[0]
        )

    def check_order(self) -> None:
        """Refuse a scan that is not ordered by time."""
        words = [each.upper for each in self.tokens]
        is_grouped = bool({"GROUP", "DISTINCT", "UNION"} & set(words)) or any(
            word in _AGGREGATES and self.tokens[place + 1 : place + 2] and self.tokens[place + 1].text == "("
            for place, word in enumerate(words)
        )
        if is_grouped or "ORDER" not in words or any(name.partition(".")[0] in SYSTEM_SCHEMAS for name in self.tables):
            return
        start = words.index("ORDER") + 2
        stop = next((n for n in range(start, len(words)) if words[n] in ("LIMIT", "OFFSET")), len(words))
        columns = [each.value for each in self.tokens[start:stop] if each.upper not in ("ASC", "DESC", ",")]
        if columns != ["__time"]:
            others = ", ".join(f"[{name}]" for name in columns)
            raise SqlError(
                "Query could not be planned. A possible reason is [SQL query requires ordering a table by non-time"
                f" column [{others}], which is not supported.]",
                code="general",
            )

    def _check_words(self) -> None:
        first = self.tokens[0].upper if self.tokens else ""
        if first in ("INSERT", "REPLACE"):
            raise SqlError(
                f"{first} operations are not supported by requested SQL engine [native], consider using MSQ."
            )
        if not first:
            raise SqlError("Received an unexpected token [<EOF>] (line [0], column [0]), acceptable options: []")
        if first not in ("SELECT", "WITH"):
            raise SqlError("Non-query expression encountered in illegal context")
        for before, token in zip(self.tokens, self.tokens[1:], strict=False):
            if token.kind == "name" and len(token.value) > LONGEST_NAME:
                raise SqlError(
                    f"Length of identifier '{token.value}' must be less than or equal to {LONGEST_NAME} characters"
                )
            if before.upper == "AS" and token.upper in _RESERVED - set(_CASTS):
                raise SqlError(
                    f"Incorrect syntax near the keyword 'AS' at line {before.line}, column {before.column}.\n"
                    "Was expecting one of: .."
                )
            if token.text == ";":
                raise SqlError("Received an unexpected token [;], acceptable options: []", at=token)

    def _mark_tables(self) -> None:
        names = {
            self.tokens[n].value
            for n in range(len(self.tokens) - 2)
            if self.tokens[n + 1].upper == "AS" and self.tokens[n + 2].text == "("
        }
        place = 0
        while place < len(self.tokens) - 1:
            if self.tokens[place].upper in ("FROM", "JOIN") and self.tokens[place + 1].kind in ("name", "word"):
                path, end = self._path(place + 1)
                if path[0] == "druid" and len(path) > 1:
                    path = path[1:]
                name = ".".join(path) if path[0] in SYSTEM_SCHEMAS else path[0]
                if name not in names:
                    self.tables[name] = self.tokens[place + 1]
                first = self.tokens[place + 1]
                self.tokens[place + 1 : end] = [Token("name", f'"{name}"', first.line, first.column)]
            place += 1

    def _path(self, place: int) -> tuple[list[str], int]:
        path = [self.tokens[place].value]
        place += 1
        while place + 1 < len(self.tokens) and self.tokens[place].text == ".":
            path.append(self.tokens[place + 1].value)
            place += 2
        return path, place

    def _translate(self, tokens: Sequence[Token]) -> list[str]:
        words: list[str] = []
        place = 0
        while place < len(tokens):
            token = tokens[place]
            following = tokens[place + 1] if place + 1 < len(tokens) else None
            if token.kind == "word" and following is not None and following.text == "(":
                end = _closing(tokens, place + 1)
                words += self._call(token.upper, tokens[place + 2 : end])
                place = end
            elif token.upper == "TIMESTAMP" and following is not None and following.kind == "text":
                words.append(f"'{iso(parse_iso(following.value.strip().replace(' ', 'T')))}'")
                place += 1
            elif token.upper == "CURRENT_TIMESTAMP":
                words.append(f"'{iso(now_ms())}'")
            elif token.kind == "name" or (token.kind == "word" and token.upper not in _KEYWORDS):
                words.append(encoded(token.value))
            else:
                words.append(token.text)
            place += 1
        return words

    def _call(self, name: str, inside: Sequence[Token]) -> list[str]:
        if name == "CAST":
            place = max(n for n, each in enumerate(inside) if each.upper == "AS")
            return [_CASTS[inside[place + 1].upper], "(", *self._translate(inside[:place]), ")"]
        if name in ("FLOOR", "CEIL") and len(inside) > 2 and inside[-2].upper == "TO":
            period = GRANULARITIES[inside[-1].upper]
            return ["TIME_FLOOR", "(", *self._translate(inside[:-2]), ",", f"'{period}'", ")"]
        if name == "JSON_VALUE" and len(inside) > 2 and inside[-2].upper == "RETURNING":
            return ["JSON_VALUE", "(", *self._translate(inside[:-2]), ",", f"'{inside[-1].upper}'", ")"]
        if name == "APPROX_COUNT_DISTINCT":
            return ["COUNT", "(", "DISTINCT", *self._translate(inside), ")"]
        if name in _KEYWORDS:  # IN (..), AND (..), FILTER (..)
            return [name, "(", *self._translate(inside), ")"]
        return [name, "(", *self._translate(inside), ")"]


def _closing(tokens: Sequence[Token], place: int) -> int:
    depth = 0
    for n in range(place, len(tokens)):
        depth += {"(": 1, ")": -1}.get(tokens[n].text, 0) if tokens[n].kind == "mark" else 0
        if depth == 0:
            return n
    raise SqlError('Received an unexpected token [<EOF>], acceptable options: [")"]')


def bound(parameter: dict[str, Any]) -> Any:
    """Return a parameter's value as SQLite compares it."""
    value = parameter.get("value")
    if value is not None and parameter.get("type") in ("TIMESTAMP", "DATE"):
        return iso(value if isinstance(value, int) else parse_iso(str(value).replace(" ", "T")))
    return int(value) if isinstance(value, bool) else value

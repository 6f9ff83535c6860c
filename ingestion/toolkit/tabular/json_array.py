"""A JSON document: an array of objects, or one object; read as a stream of elements."""

import codecs
import json
import re
from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa

from ingestion.ports.errors import ConfigError
from ingestion.toolkit.tabular.json_records import RecordColumns
from ingestion.toolkit.tabular.spans import (
    DEFAULT_TARGET_BYTES,
    MAX_JSON_DEPTH,
    MAX_RECORD_BYTES,
    Opener,
    Span,
)
from ingestion.toolkit.tabular.text import BLOCK_BYTES, UTF8_BOM, bom_length, check_text

FORMAT = "json"
_SPACE = re.compile(r"[ \t\r\n]*")
# Numbers stay text: the decoder only finds where an element ends.
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str, strict=False)


def split(open_file: Opener, size: int, *, name: str, target_bytes: int = DEFAULT_TARGET_BYTES) -> list[Span]:
    """Return the whole file as one span, whatever the target: elements cannot be found without reading them all."""
    del target_bytes
    with open_file() as file:
        begin = bom_length(file.read(len(UTF8_BOM)), name=name)
    return [Span(FORMAT, begin, size - begin)]


def read(open_file: Opener, span: Span, *, name: str, as_text: bool = False) -> pa.Table:
    """Return the elements as records; one that is no object is an error row.

    ConfigError file.truncated where the document ends too early, file.malformed where it is no JSON: what follows
    the fault cannot be told apart, so no row of such a file is used.
    """
    columns = RecordColumns(name, as_text=as_text)
    with open_file() as file:
        for row, element in enumerate(_elements(file, span, name=name), start=span.first_row):
            columns.add(row, element.encode())
    return columns.table()


class _Window:
    """A sliding piece of the text; `position` is where reading goes on."""

    def __init__(self, file: BinaryIO, span: Span, *, name: str) -> None:
        self._file, self._name = file, name
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._left, self._at = span.length, span.offset
        file.seek(span.offset)
        self.text, self.position, self.is_whole = "", 0, False

    def grow(self) -> None:
        """Drop what was read and append the next block."""
        block = self._file.read(min(BLOCK_BYTES, self._left))
        self._left -= len(block)
        self.is_whole = not block or self._left <= 0
        if 0 in block:
            check_text(block, offset=self._at, name=self._name)
        before = len(self._decoder.getstate()[0])
        try:
            text = self._decoder.decode(block, final=self.is_whole)
        except UnicodeDecodeError as error:
            raise ConfigError("file.encoding", name=self._name, offset=self._at - before + error.start) from error
        self._at += len(block)
        self.text, self.position = self.text[self.position :] + text, 0

    def next_character(self) -> str:
        """Return the next character that is no white space, without passing it; "" at the end."""
        while True:
            match = _SPACE.match(self.text, self.position)
            self.position = match.end() if match else self.position
            if self.position < len(self.text):
                return self.text[self.position]
            if self.is_whole:
                return ""
            self.grow()


def _elements(file: BinaryIO, span: Span, *, name: str) -> Iterator[str]:
    """Yield the text of each element of the array; of the document itself where it is no array."""
    window = _Window(file, span, name=name)
    first = window.next_character()
    if first != "[":
        yield _element(window, 0, name=name)
    else:
        window.position += 1
        count = 0
        if window.next_character() == "]":
            window.position += 1
        else:
            while True:
                yield _element(window, count, name=name)
                count += 1
                separator = window.next_character()
                window.position += 1
                if separator == "]":
                    break
                if separator == "":
                    raise ConfigError("file.truncated", name=name, detail=f"it ends after element {count}")
                if separator != ",":
                    raise ConfigError("file.malformed", name=name, detail=f"no comma follows element {count}")
                window.next_character()
    if window.next_character():
        raise ConfigError("file.malformed", name=name, detail="more text follows the JSON document")


def _element(window: _Window, count: int, *, name: str) -> str:
    """Return the text of the element at the window's position and pass it."""
    window.next_character()
    while True:
        try:
            _, end = _DECODER.raw_decode(window.text, window.position)
            if end < len(window.text) or window.is_whole:  # a number may go on in the next block
                element = window.text[window.position : end]
                window.position = end
                return element
        except json.JSONDecodeError as error:
            # an open string is reported where it begins, so only the end of the text tells a cut from a fault
            if window.is_whole:
                is_cut = error.pos >= len(window.text) or error.msg.startswith("Unterminated")
                code = "file.truncated" if is_cut else "file.malformed"
                raise ConfigError(code, name=name, detail=f"element {count + 1}: {error.msg}") from error
        except RecursionError as error:
            detail = f"element {count + 1} is nested deeper than {MAX_JSON_DEPTH} levels"
            raise ConfigError("file.malformed", name=name, detail=detail) from error
        if len(window.text) - window.position > MAX_RECORD_BYTES:
            detail = f"element {count + 1} is broken or longer than {MAX_RECORD_BYTES // 1024 // 1024} MiB"
            raise ConfigError("file.malformed", name=name, detail=detail)
        window.grow()

"""Checks that every text format needs first: no UTF-16, a byte order mark skipped, and proof of UTF-8 without NUL."""

from collections.abc import Iterator
from typing import BinaryIO

from ingestion.ports.errors import ConfigError
from ingestion.toolkit.tabular.spans import MAX_RECORD_BYTES

UTF8_BOM = b"\xef\xbb\xbf"
UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
BLOCK_BYTES = 4 * 1024 * 1024


def bom_length(head: bytes, *, name: str) -> int:
    """Return how many bytes of UTF-8 mark the file begins with; file.encoding where the mark is that of UTF-16."""
    if head[:2] in UTF16_BOMS:
        raise ConfigError("file.encoding", name=name, offset=0)
    return len(UTF8_BOM) if head.startswith(UTF8_BOM) else 0


def check_text(block: bytes, *, offset: int, name: str) -> None:
    """Raise file.encoding, with the byte's offset in the file, unless the block at `offset` is UTF-8 without NUL.

    The block must not end within a character.
    """
    nul = block.find(0)
    if nul >= 0:
        raise ConfigError("file.encoding", name=name, offset=offset + nul)
    if block.isascii():
        return
    try:
        block.decode()
    except UnicodeDecodeError as error:
        raise ConfigError("file.encoding", name=name, offset=offset + error.start) from error


def read_lines_in_blocks(file: BinaryIO, *, offset: int, newline: bytes, name: str) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, block) from `offset` to the end; every block but the last ends with a newline byte.

    A newline byte is never part of a longer UTF-8 character, so blocks hold whole characters; each is checked.
    """
    file.seek(offset)
    carried = b""
    while block := file.read(BLOCK_BYTES):
        cut = block.rfind(newline) + 1
        if not cut:
            carried += block
            if len(carried) > MAX_RECORD_BYTES:
                raise _too_long(file, offset, newline=newline, name=name)
            continue
        whole = carried + block[:cut] if carried else block[:cut]
        carried = block[cut:]
        check_text(whole, offset=offset, name=name)
        yield offset, whole
        offset += len(whole)
    if carried:
        check_text(carried, offset=offset, name=name)
        yield offset, carried


def line_at(file: BinaryIO, position: int, *, newline: bytes) -> int:
    """Return the number, from 1, of the line that holds the byte at `position`."""
    file.seek(0)
    line, left = 1, position
    while left > 0 and (block := file.read(min(BLOCK_BYTES, left))):
        line += block.count(newline)
        left -= len(block)
    return line


def _too_long(file: BinaryIO, position: int, *, newline: bytes, name: str) -> ConfigError:
    line = line_at(file, position, newline=newline)
    detail = f"line {line} is longer than {MAX_RECORD_BYTES // 1024 // 1024} MiB"
    return ConfigError("file.malformed", name=name, detail=detail)

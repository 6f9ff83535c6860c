"""JSON Lines: cut at line ends, one record a line."""

import numpy as np
import pyarrow as pa

from ingestion.ports.errors import ConfigError
from ingestion.toolkit.tabular.json_records import RecordColumns
from ingestion.toolkit.tabular.spans import DEFAULT_TARGET_BYTES, Opener, Span
from ingestion.toolkit.tabular.text import UTF8_BOM, bom_length, read_lines_in_blocks

FORMAT = "jsonl"
SAMPLE_LINES = 200


def split(open_file: Opener, size: int, *, name: str, target_bytes: int = DEFAULT_TARGET_BYTES) -> list[Span]:
    """Return the spans of the file, each of whole lines and about `target_bytes`, with exact record counts.

    Empty lines are no records. The whole file is read once: ConfigError file.encoding where it is no UTF-8.
    """
    cuts: list[tuple[int, int, int, int]] = []
    first_row = rows = 0
    renamed: dict[str, str] | None = None
    with open_file() as file:
        start = at = bom_length(file.read(len(UTF8_BOM)), name=name)
        for offset, block in read_lines_in_blocks(file, offset=at, newline=b"\n", name=name):
            if renamed is None:
                renamed = _renamed(block, name=name)
            if offset - start >= target_bytes:
                cuts.append((start, offset, first_row, rows))
                start, first_row, rows = offset, first_row + rows, 0
            data = np.frombuffer(block, dtype=np.uint8)
            ends = np.flatnonzero(data == ord("\n"))
            if not block.endswith(b"\n"):
                ends = np.append(ends, data.size)
            starts = np.concatenate((np.zeros(1, dtype=np.int64), ends[:-1] + 1))
            is_filled = (ends - starts > 1) | (
                (ends - starts == 1) & (data[starts.clip(max=data.size - 1)] != ord("\r"))
            )
            stops = np.minimum(ends[is_filled] + 1, data.size) + offset
            while stops.size:
                index = int(np.searchsorted(stops, start + target_bytes))
                taken = min(index + 1, stops.size)
                rows += taken
                if index < stops.size:
                    cuts.append((start, int(stops[index]), first_row, rows))
                    start, first_row, rows = int(stops[index]), first_row + rows, 0
                stops = stops[taken:]
    if rows:
        cuts.append((start, size, first_row, rows))
    if not cuts:
        raise ConfigError("file.empty", name=name)
    return [Span(FORMAT, a, b - a, row, count, renamed=renamed or {}) for a, b, row, count in cuts]


def read(open_file: Opener, span: Span, *, name: str, as_text: bool = False) -> pa.Table:
    """Return the records of one span, scalars typed where a column has one type; broken lines are error rows."""
    with open_file() as file:
        file.seek(span.offset)
        buffer = file.read(span.length)
    if len(buffer) < span.length:
        raise ConfigError("file.truncated", name=name, detail=f"{len(buffer)} of {span.length} bytes are there")
    columns = RecordColumns(name, as_text=as_text)
    row = span.first_row
    for line in buffer.split(b"\n"):
        if line and line != b"\r":
            columns.add(row, line)
            row += 1
    return columns.table()


def _renamed(block: bytes, *, name: str) -> dict[str, str]:
    columns = RecordColumns(name)
    for row, line in enumerate(block.split(b"\n", SAMPLE_LINES)[:SAMPLE_LINES]):
        columns.add(row, line or b"{}")
    columns.table()
    return columns.renamed()

"""The file that a quiet service's lines go to."""

from collections import deque
from collections.abc import Sequence
from logging import LogRecord, makeLogRecord
from logging.handlers import RotatingFileHandler
from pathlib import Path

LARGEST_BYTES = 20_000_000
OLDER_FILES = 2
REMEMBERED_LINES = 15


class LogFile:
    """A file of lines that is followed by a new one when it has grown large; the last lines are remembered."""

    def __init__(self, path: Path) -> None:
        """Take the file; it is made with the first line."""
        self.path = path
        self._handler = RotatingFileHandler(
            path, maxBytes=LARGEST_BYTES, backupCount=OLDER_FILES, encoding="utf-8", delay=True
        )
        self._last: deque[str] = deque(maxlen=REMEMBERED_LINES)

    def write(self, lines: Sequence[str]) -> None:
        """Append lines."""
        self._last.extend(lines)
        for line in lines:
            self._handler.handle(_record(line))

    def last_lines(self) -> list[str]:
        """Return the newest lines, oldest first."""
        return list(self._last)

    def close(self) -> None:
        """Let go of the file until the next line."""
        self._handler.close()


def _record(line: str) -> LogRecord:
    return makeLogRecord({"msg": line})

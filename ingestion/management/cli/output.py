"""Output of a command: tables on a terminal, tab-separated lines in a pipe, one JSON object where asked for."""

import json
import shlex
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True, slots=True)
class Output:
    """Place and form of one command's output."""

    as_json: bool = False
    is_quiet: bool = False

    @property
    def is_terminal(self) -> bool:
        """Return whether a person reads the answer as it comes."""
        return sys.stdout.isatty() and not self.as_json

    @property
    def shows_progress(self) -> bool:
        """Return whether somebody sees a progress bar."""
        return sys.stderr.isatty() and not self.is_quiet

    @property
    def can_ask(self) -> bool:
        """Return whether a person sits at a terminal and can be asked something."""
        return sys.stdin.isatty() and sys.stderr.isatty() and not self.as_json

    def ask(self, question: str) -> str:
        """Return what the person types after the question; empty where nobody answers."""
        sys.stderr.write(f"{clean(question)} ")
        sys.stderr.flush()
        return sys.stdin.readline().strip()

    def say(self, text: str) -> None:
        """Print a remark beside the answer."""
        if not self.is_quiet:
            sys.stderr.write(f"{clean(text)}\n")

    def warn(self, text: str) -> None:
        """Print what went wrong, also where remarks are not wanted."""
        sys.stderr.write(f"{clean(text)}\n")

    def warn_renamed(self, old: str, new: str) -> None:
        """Say that an old name was used, which answers for one release."""
        self.warn(f"`{old}` is now `{new}`; the old name answers until the next release.")

    def answer(self, value: Mapping[str, Any], *, lines: Iterable[str]) -> None:
        """Print the answer: as one JSON object, or as lines."""
        if self.as_json:
            sys.stdout.write(json.dumps(value, ensure_ascii=False, default=_plain) + "\n")
        else:
            for line in lines:
                sys.stdout.write(f"{clean(line)}\n")

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[Any]],
        *,
        value: Mapping[str, Any],
        wide: Sequence[str] = (),
    ) -> None:
        """Print rows: as one JSON object, a table, or a header and tab-separated lines.

        A terminal is narrow, so its table leaves the columns named by `wide` out.
        """
        if self.as_json:
            self.answer(value, lines=())
        elif self.is_terminal:
            kept = [place for place, column in enumerate(columns) if column not in wide]
            table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
            for place in kept:
                table.add_column(Text(columns[place]), overflow="fold")
            for row in rows:
                table.add_row(*(Text(_short(row[place]), justify=_side(row[place])) for place in kept))
            Console(file=sys.stdout).print(table)
        else:
            sys.stdout.write("\t".join(columns) + "\n")
            for row in rows:
                sys.stdout.write("\t".join(as_text(cell) for cell in row) + "\n")


def command_line(words: str) -> str:
    """Return a command of this installation as a person here can type it: this Python, this data directory."""
    here, python = Path.cwd(), Path(sys.executable)
    found = shutil.which("python")
    if found and Path(found).parent == python.parent:
        program = "python"
    else:
        program = str(python.relative_to(here) if python.is_relative_to(here) else python)
    base, data = Path(settings.BASE_DIR), Path(settings.HEADGATE_DATA_DIR)
    manage = "manage.py" if here == base else str(base / "manage.py")
    place = "" if data == base / "var" else f" --data {shlex.quote(str(data))}"
    return f"{program} {manage} {words}{place}"


def as_text(cell: Any) -> str:
    """Return a cell as one line of text."""
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, datetime):
        return f"{cell.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"
    if isinstance(cell, float):
        return f"{cell:.1f}"
    if isinstance(cell, (dict, list, tuple)):
        return clean(json.dumps(cell, ensure_ascii=False, default=_plain))
    return clean(str(cell))


def clean(text: str) -> str:
    """Return the text without characters that would move a terminal's cursor or break a line in two."""
    return "".join(" " if unicodedata.category(character) in ("Cc", "Zl", "Zp") else character for character in text)


def _short(cell: Any) -> str:
    return f"{cell.astimezone(UTC):%m-%d %H:%M}Z" if isinstance(cell, datetime) else as_text(cell)


def _side(cell: Any) -> Any:
    return "right" if isinstance(cell, (int, float)) and not isinstance(cell, bool) else "left"


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)

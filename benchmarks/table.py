"""The results as one table of ratios."""

from collections.abc import Iterable
from dataclasses import dataclass

HEADINGS = ("case", "ours", "yardstick", "ratio", "goal", "met", "peak memory")


@dataclass(frozen=True)
class Row:
    """One line: what was measured, what it is compared with, and what it should be.

    `goal` bounds the ratio where there is a yardstick, else `ours`; without a goal the line only informs.
    """

    case: str
    ours: float
    unit: str = "s"
    yardstick: float | None = None
    goal: float | None = None
    peak_bytes: int | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Return ours divided by the yardstick's."""
        return self.ours / self.yardstick if self.yardstick else None

    @property
    def is_met(self) -> bool | None:
        """Return whether the goal was reached, None where there is none."""
        if self.goal is None:
            return None
        return (self.ours if self.ratio is None else self.ratio) <= self.goal


def render(rows: Iterable[Row]) -> str:
    """Return the table as text, the notes below it."""
    rows = list(rows)
    lines = [HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    text = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    text.insert(1, "-" * len(text[0]))
    notes = [f"{row.case}: {row.note}" for row in rows if row.note]
    return "\n".join([*text, *([""] if notes else []), *notes])


def _cells(row: Row) -> tuple[str, ...]:
    ratio, met = row.ratio, row.is_met
    return (
        row.case,
        f"{_number(row.ours)} {row.unit}",
        "-" if row.yardstick is None else f"{_number(row.yardstick)} {row.unit}",
        "-" if ratio is None else f"{ratio:.2f}",
        "-" if row.goal is None else f"<= {row.goal:g}{'' if ratio is not None else f' {row.unit}'}",
        "-" if met is None else "yes" if met else "NO",
        "-" if row.peak_bytes is None else f"{row.peak_bytes / 1e6:.0f} MB",
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"

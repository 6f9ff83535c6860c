"""Writes the bundled measurements: a seeded CSV with faults on purpose, its contract, and the counts to expect.

    python -m sample.make

The values are invented. Of 1,000 rows 10 are faulty (one fault of each kind) and 2 repeat a key, so a run must end
with 988 accepted, 10 rejected and 2 duplicate rows.
"""

import argparse
import csv
import io
import json
import random
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sample.provider import load_structures

SEED = 20260101
ROWS = 1_000
HEADER = ("id", "formula", "energy", "measured_at", "lab", "note")
FORMULAS = ("Al2O3", "BaTiO3", "CaF2", "CdTe", "Cu2O", "Fe2O3", "GaAs", "LiCoO2", "MgO", "NaCl", "Si", "TiO2", "ZnS")
LABS = ("berlin", "gent", "lausanne", "uppsala")
NOTES = ("", "", "", "annealed at 450 °C", "second run, new furnace", 'the "blue" sample', "thin film, 20 µm")
BEGIN = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)

CONTRACT = """\
# What a row of measurements.csv must be. Rows that break a rule are rejected and can be downloaded.
name: measurements
key: [id]
columns:
  - {name: id, type: integer, nullable: false, min: 1}
  - {name: formula, type: string, nullable: false, pattern: "^([A-Z][a-z]?[0-9]*)+$"}
  - {name: energy, type: number, nullable: false, unit: eV/atom, min: -100, max: 100}
  - {name: measured_at, type: datetime, nullable: false}
  - {name: lab, type: string, nullable: false, enum: [berlin, gent, lausanne, uppsala]}
  - {name: note, type: string}
time: measured_at
extra_columns: keep
"""

Row = list[str]


def _with(column: str, value: str) -> Callable[[Row], Row]:
    at = HEADER.index(column)
    return lambda row: [*row[:at], value, *row[at + 1 :]]


FAULTS: tuple[tuple[int, str, str, Callable[[Row], Row]], ...] = (
    (47, "energy", "not a number", _with("energy", "n/a")),
    (151, "energy", "above the maximum", _with("energy", "250.0")),
    (233, "formula", "does not match the pattern", _with("formula", "tiO2")),
    (310, "measured_at", "a day that does not exist", _with("measured_at", "2026-02-30T10:00:00Z")),
    (402, "lab", "not one of the allowed values", _with("lab", "atlantis")),
    (488, "id", "missing", _with("id", "")),
    (575, "id", "not an integer", _with("id", "576a")),
    (661, "energy", "missing", _with("energy", "")),
    (749, "", "a field too many", lambda row: [*row, "surplus"]),
    (836, "", "a field too few", lambda row: row[:-1]),
)
"""Faulty rows: row number from 0, column, what is wrong, and how the row is made so."""

REPEATS = ((912, 12), (987, 600))
"""Rows that carry the key of an earlier one: row number, and the row whose key it takes."""


def make_rows() -> list[Row]:
    """Return the rows of the file, header excluded; the same every time."""
    chance = random.Random(SEED)  # noqa: S311 - sample data, not secrets
    rows = []
    for number in range(ROWS):
        formula = FORMULAS[int(chance.random() * len(FORMULAS))]
        energy = f"{-8 + 6 * chance.random():.4f}"
        measured = BEGIN + timedelta(minutes=37 * number)
        lab = LABS[int(chance.random() * len(LABS))]
        note = NOTES[int(chance.random() * len(NOTES))]
        rows.append([str(number + 1), formula, energy, f"{measured:%Y-%m-%dT%H:%M:%SZ}", lab, note])
    for number, other in REPEATS:
        rows[number] = [rows[other][0], *rows[number][1:-1], "measured again"]
    for number, _, _, spoil in FAULTS:
        rows[number] = spoil(rows[number])
    return rows


DESTINATIONS = ("lake", "catalog", "druid")
"""Destinations at which every accepted row must be found; in Druid where one is configured."""


def _books(fetched: int, *, accepted: int, rejected: int = 0, duplicate: int = 0) -> dict[str, Any]:
    return {
        "fetched": fetched,
        "accepted": accepted,
        "rejected": rejected,
        "duplicate": duplicate,
        "filtered": 0,
        "destinations": dict.fromkeys(DESTINATIONS, accepted),
    }


def make_files() -> dict[str, str]:
    """Return the content of every file, by name."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(make_rows())
    accepted = ROWS - len(FAULTS) - len(REPEATS)
    structures = len(load_structures())
    expected = {
        "measurements": _books(ROWS, accepted=accepted, rejected=len(FAULTS), duplicate=len(REPEATS)),
        "structures": _books(structures, accepted=structures),
        "faults": [{"row": row, "column": column, "fault": fault} for row, column, fault, _ in FAULTS],
        "repeats": [{"row": row, "of_row": other} for row, other in REPEATS],
    }
    return {
        "measurements.csv": text.getvalue(),
        "measurements.yaml": CONTRACT,
        "expected.json": json.dumps(expected, indent=2) + "\n",
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files beside this module, or into --out."""
    parser = argparse.ArgumentParser(prog="python -m sample.make", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    out: Path = parser.parse_args(arguments).out
    for name, content in make_files().items():
        (out / name).write_text(content, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

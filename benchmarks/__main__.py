"""`python -m benchmarks [--quick] [--only NAME ...]`: measure, and print one table of ratios.

Every case works in a process and a folder of its own.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial

from benchmarks.catalog import measure_catalog
from benchmarks.druid import measure_druid
from benchmarks.file import measure_file
from benchmarks.many import measure_many
from benchmarks.objects import measure_objects
from benchmarks.places import POSTGRES, ROOT, SQLITE, find_postgres
from benchmarks.relational import measure_relational
from benchmarks.stages import measure_chord, measure_stages
from benchmarks.table import Row, render

CASES: dict[str, Callable[..., Iterator[Row]]] = {
    "stages-sqlite": partial(measure_stages, database=SQLITE),
    "stages-postgres": partial(measure_stages, database=POSTGRES),
    "chord": partial(measure_chord, database=SQLITE),
    "file": measure_file,
    "objects": measure_objects,
    "druid": measure_druid,
    "catalog-sqlite": partial(measure_catalog, database=SQLITE),
    "catalog-postgres": partial(measure_catalog, database=POSTGRES),
    "relational-postgres": measure_relational,
    "many": measure_many,
}
CASE_PATIENCE_S = 900
_MARK = "@@row "


def main() -> int:
    """Run the chosen cases one after another and print what they found; 1 where a case broke."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it works, measures nothing")
    parser.add_argument("--only", action="append", help=f"cases that begin so: {', '.join(CASES)}")
    parser.add_argument("--inside", choices=[*CASES], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        for row in CASES[options.inside](quick=options.quick):
            print(_MARK + json.dumps(asdict(row)), flush=True)
        return 0
    rows: list[Row] = []
    broken: list[str] = []
    chosen = [name for name in CASES if not options.only or name.startswith(tuple(options.only))]
    if not chosen:
        parser.error(f"there is no case {', '.join(options.only)}; there are {', '.join(CASES)}")
    for name in chosen:
        lacking = _lacking(name)
        if lacking:
            print(f"{name} is left out: {lacking}", flush=True)
            continue
        began = time.monotonic()
        print(f"{name} ...", end=" ", flush=True)
        found, trouble = _run_case(name, quick=options.quick)
        rows += found
        print(f"{time.monotonic() - began:.0f} s", flush=True)
        if trouble:
            broken.append(name)
            print(trouble, file=sys.stderr)
    print()
    print(render(rows))
    if broken:
        print(f"\nThese cases broke: {', '.join(broken)}")
    return 1 if broken else 0


def _lacking(name: str) -> str:
    """Return what this machine lacks for the case; empty where nothing."""
    if name.endswith("postgres") and find_postgres() is None:
        return "PostgreSQL is not installed"
    if name == "druid" and not all(map(shutil.which, ("java", "mvn"))):
        return "Java or Maven is not installed"
    return ""


def _run_case(name: str, *, quick: bool) -> tuple[list[Row], str]:
    """Return what the case found, and what it said where it broke."""
    words = [sys.executable, "-m", "benchmarks", "--inside", name, *(["--quick"] if quick else [])]
    try:
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=CASE_PATIENCE_S, check=False)
    except subprocess.TimeoutExpired:
        return [], f"{name} took longer than {CASE_PATIENCE_S} s"
    rows = [Row(**json.loads(line.removeprefix(_MARK))) for line in done.stdout.splitlines() if line.startswith(_MARK)]
    return rows, done.stderr[-4000:] if done.returncode else ""


if __name__ == "__main__":
    sys.exit(main())

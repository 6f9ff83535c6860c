"""Names of tables and columns within the limits of a database, and our own names there."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass

PREFIX = "headgate_"
"""The beginning of every table of ours; no pipeline's table may have it."""

RUN, PART, ROW, PAGE, DELETED_AT = "_run", "_part", "_row", "_page", "_deleted_at"
LINEAGE = (RUN, PART, ROW, PAGE)
"""The lineage of a row: behind the data, in every table."""

PART_NUMBER, PLACE = "headgate_part", "headgate_place"
"""The origin of a staged row: the number of its part, its place in it."""
ROW_NUMBER = "headgate_row"
"""Numbers staged rows, so that any stretch of them can be merged alone."""
STAGED = (PART_NUMBER, PLACE, ROW_NUMBER)

PLACEHOLDER = "{pipeline}"
_ORDINARY = 0x20


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a database for a name."""

    longest: int
    counts_bytes: bool = False
    ignores_case: bool = False
    last_character: int = 0x10FFFF
    reserved: frozenset[str] = frozenset()
    """Names of columns that every table has already."""

    def length(self, name: str) -> int:
        """Return the length as the database counts it."""
        return len(name.encode(errors="replace")) if self.counts_bytes else len(name)

    def shortened(self, name: str, *, ending: str = "") -> str:
        """Return the name with the ending, cut before it where both together are too long."""
        while self.length(name + ending) > self.longest:
            name = name[:-1]
        return name + ending

    def folded(self, name: str) -> str:
        """Return what two names have in common that the database takes for one."""
        return name.casefold() if self.ignores_case else name


def problem_of_template(template: str) -> str:
    """Return what is wrong with a template for table names, or nothing."""
    bare = template.replace(PLACEHOLDER, "")
    if "{" in bare or "}" in bare:
        return f"write {PLACEHOLDER} where the pipeline's name belongs; there are no other placeholders"
    if not template.strip() or any(ord(mark) < _ORDINARY for mark in template):
        return "a table needs a name of printable characters"
    return ""


def problem_of_table(name: str, *, limits: Limits) -> str:
    """Return why a table cannot have that name, or nothing."""
    if limits.length(name) > limits.longest:
        unit = "bytes" if limits.counts_bytes else "characters"
        return f"the table name {name!r} is longer than the {limits.longest} {unit} that the database allows"
    if name.casefold().startswith(PREFIX):
        return f"names that begin with {PREFIX} are those of Headgate's own tables"
    if any(ord(mark) < _ORDINARY or ord(mark) > limits.last_character for mark in name) or name != name.strip():
        return f"the table name {name!r} has characters that the database does not allow"
    return ""


def table_name(template: str, *, pipeline: str) -> str:
    """Return the name of the pipeline's table."""
    return template.replace(PLACEHOLDER, pipeline)


def column_name(wanted: str, *, taken: Collection[str], limits: Limits) -> str:
    """Return a name for the column `wanted`, as near to it as the database allows and unlike those `taken`.

    What is cut off, looks like another name to the database, or is a name of its own, gets a number behind it.
    """
    plain = "".join(mark if _ORDINARY <= ord(mark) <= limits.last_character else "_" for mark in wanted).strip()
    known = {limits.folded(name) for name in (*taken, *limits.reserved, *STAGED)}
    shortened = limits.shortened(plain or "_")
    candidate, number = shortened, 1
    while limits.folded(candidate) in known:
        number += 1
        candidate = limits.shortened(shortened, ending=f"_{number}")
    return candidate


def aside_name(column: str, *, day: str, taken: Collection[str], limits: Limits) -> str:
    """Return the name under which a column is set aside on a day (YYYYMMDD)."""
    known = {limits.folded(name) for name in taken}
    ending, number = f"__old_{day}", 1
    while limits.folded(limits.shortened(column, ending=ending)) in known:
        number += 1
        ending = f"__old_{day}_{number}"
    return limits.shortened(column, ending=ending)


def staging_name(table: str, *, run_id: int) -> str:
    """Return the name of the table in which a run's rows wait for their commit."""
    return f"{PREFIX}stage_{run_id}_{digest_of(table)}"


def filling_name(table: str) -> str:
    """Return the name of the table in which values wait that fill columns of the table."""
    return f"{PREFIX}fill_{digest_of(table)}"


def later_name(table: str, *, run_id: int) -> str:
    """Return the name of the table in which the keys wait that later runs than this one brought."""
    return f"{PREFIX}later_{run_id}_{digest_of(table)}"


def number_of(part: str) -> int:
    """Return the number that stands for a part ("<lane>-<link>-<seq>") in its rows while they wait."""
    lane, link, seq = map(int, part.split("-"))
    return lane << 40 | link << 20 | seq


def part_of(number: int) -> str:
    """Return the name of the part that a number stands for."""
    mask = (1 << 20) - 1
    return f"{number >> 40}-{number >> 20 & mask}-{number & mask:06d}"


def run_of(staging: str, *, table: str) -> int | None:
    """Return the run whose rows for the table wait under that name, or None where it is none of the table's."""
    run, _, digest = staging.removeprefix(PREFIX).removeprefix("stage_").removeprefix("later_").partition("_")
    return int(run) if digest == digest_of(table) and run.isdecimal() else None


def digest_of(text: str) -> str:
    """Return eight characters that stand for a text of any length."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]

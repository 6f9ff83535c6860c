"""The parts of a workbook that its reader does not show: hidden sheets, errors, formulas that nobody calculated."""

import html
import io
import posixpath
import re
import zipfile
from dataclasses import dataclass

NOT_CALCULATED = "a formula without a calculated value"

_BOOK = "xl/workbook.xml"
_LINKS = "xl/_rels/workbook.xml.rels"
_MAX_DIRECTORY_BYTES = 4 * 1024 * 1024
_SHEET = re.compile(r"<(?:\w+:)?sheet\s([^<>]*)>")
_LINK = re.compile(r"<(?:\w+:)?Relationship\s([^<>]*)>")
_SETTINGS = re.compile(r"<(?:\w+:)?workbookPr\s([^<>]*)>")
_ATTRIBUTE = re.compile(r"""([\w:]+)\s*=\s*(?:"([^"]*)"|'([^']*)')""")
_NO_VALUE = rb"\s*(?:<(?:\w+:)?v\s*/>|<(?:\w+:)?v>\s*</(?:\w+:)?v>)?\s*</(?:\w+:)?c>"
_MAY_BE_BARE = re.compile(b"f>" + _NO_VALUE), re.compile(b"/>" + _NO_VALUE)
"""Matches the ends of formulas alone: a tenth of the cost of looking at each cell from its beginning."""
_BARE_FORMULA = re.compile(
    rb"<((?:\w+:)?)c((?:\s[^<>]*)?)>\s*<\1f(?:\s[^<>]*)?(?:/>|>[^<]*</\1f>)\s*(<\1v\s*/>|<\1v>\s*</\1v>)?\s*</\1c>"
)
_HAS_ERROR = re.compile(rb"""=\s*["']e["']""")
_ERROR = re.compile(
    rb"""(<((?:\w+:)?)c(\s[^<>]*?\st\s*=\s*["']e["'][^<>]*)>[^<]*"""
    rb"""(?:<\2f(?:\s[^<>]*)?(?:/>|>[^<]*</\2f>)[^<]*)?<\2v>)([^<]*)(</\2v>)"""
)
_TYPE = re.compile(rb"""\st\s*=\s*["'](\w*)["']""")
_ADDRESS = re.compile(rb"""\sr\s*=\s*["'](\w+)["']""")
_MARK = b"#HEADGATE!"
_ANY_ERROR = b"#NULL!"
_READABLE = frozenset((b"#DIV/0!", b"#N/A", _ANY_ERROR, b"#NUM!", b"#REF!", b"#VALUE!"))
"""The errors that the reader takes for that; any other ends the reading of the whole sheet."""


@dataclass(frozen=True, slots=True)
class Workbook:
    """The sheets with cells, visible ones first, by name; where each is stored; and which are hidden."""

    sheets: dict[str, str]
    hidden: frozenset[str] = frozenset()
    begins_1904: bool = False


def describe_workbook(archive: zipfile.ZipFile) -> Workbook:
    """Return what the workbook says of its sheets; nothing where it keeps that elsewhere."""
    links = {link.get("Id", ""): link for link in _tags(_LINK, _read(archive, _LINKS))}
    text = _read(archive, _BOOK)
    shown, hidden = dict[str, str](), dict[str, str]()
    for sheet in _tags(_SHEET, text):
        link = next((links[value] for key, value in sheet.items() if key.endswith(":id") and value in links), {})
        if link.get("Type", "").endswith("/worksheet"):
            found = shown if sheet.get("state", "visible") == "visible" else hidden
            found[sheet.get("name", "")] = posixpath.normpath(posixpath.join("/xl", link.get("Target", ""))).lstrip("/")
    settings = next(iter(_tags(_SETTINGS, text)), {})
    return Workbook(shown | hidden, frozenset(hidden), settings.get("date1904") in ("1", "true"))


def mark_errors(content: bytes, *, member: str) -> tuple[bytes, list[tuple[str, str]]]:
    """Return the workbook's bytes with every cell without a value as an error, and address and fault of each in order.

    Excel keeps a formula's last value beside it; programs that only write leave it out, and the cell looks empty.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if member not in archive.namelist():
            return content, []
        sheet = archive.read(member)
        marked = _BARE_FORMULA.sub(_as_error, sheet) if any(end.search(sheet) for end in _MAY_BE_BARE) else sheet
        if _HAS_ERROR.search(marked) is None:
            return content, []
        faults = list[tuple[str, str]]()
        marked = _ERROR.sub(lambda match: _as_readable(match, faults), marked)
        if marked == sheet:
            return content, faults
        output = io.BytesIO()
        with zipfile.ZipFile(output, "w") as copy:
            for info in archive.infolist():
                copy.writestr(info.filename, marked if info.filename == member else archive.read(info))
    return output.getvalue(), faults


def _as_error(match: "re.Match[bytes]") -> bytes:
    prefix, attributes = match.group(1), match.group(2)
    kind = _TYPE.search(attributes)
    if kind is not None and kind.group(1) == b"str" and match.group(3):
        return match.group()  # an empty text is what the formula gives
    rest = _TYPE.sub(b"", attributes)
    return b'<%sc%s t="e"><%sv>%s</%sv></%sc>' % (prefix, rest, prefix, _MARK, prefix, prefix)


def _as_readable(match: "re.Match[bytes]", faults: list[tuple[str, str]]) -> bytes:
    before, _, attributes, value, after = match.groups()
    address = _ADDRESS.search(attributes)
    fault = NOT_CALCULATED if value == _MARK else f"Excel's error {value.decode('utf-8', 'replace')}"
    faults.append((address.group(1).decode("utf-8", "replace") if address else "", fault))
    return before + (value if value in _READABLE else _ANY_ERROR) + after


def _read(archive: zipfile.ZipFile, member: str) -> str:
    try:
        with archive.open(member) as file:
            return file.read(_MAX_DIRECTORY_BYTES).decode("utf-8", "replace")
    except KeyError:
        return ""


def _tags(pattern: "re.Pattern[str]", text: str) -> list[dict[str, str]]:
    return [
        {key: html.unescape(double or single) for key, double, single in _ATTRIBUTE.findall(attributes)}
        for attributes in pattern.findall(text)
    ]

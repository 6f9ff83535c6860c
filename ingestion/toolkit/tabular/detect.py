"""The format of a file, by its bytes; its name is only a hint that must not contradict them."""

import zipfile
from pathlib import PurePosixPath

import orjson

from ingestion.ports.errors import ConfigError
from ingestion.toolkit.tabular.csv_structure import HINT, detect_dialect, sample
from ingestion.toolkit.tabular.spans import Opener
from ingestion.toolkit.tabular.text import bom_length

HEAD_BYTES = 64 * 1024
EXTENSIONS: dict[str, frozenset[str]] = {
    ".csv": frozenset({"csv"}),
    ".tsv": frozenset({"csv"}),
    ".tab": frozenset({"csv"}),
    ".txt": frozenset({"csv", "jsonl"}),
    ".json": frozenset({"json", "jsonl"}),
    ".jsonl": frozenset({"jsonl"}),
    ".ndjson": frozenset({"jsonl"}),
    ".parquet": frozenset({"parquet"}),
    ".pq": frozenset({"parquet"}),
    ".xlsx": frozenset({"xlsx"}),
    ".xlsm": frozenset({"xlsx"}),
}
_FOUND = {
    "csv": "text",
    "json": "a JSON document",
    "jsonl": "JSON Lines",
    "parquet": "Parquet",
    "xlsx": "an Excel workbook",
}
_ENCRYPTED_MAGICS = (b"PARE", b"age-encryption.org/", b"-----BEGIN PGP MESSAGE", b"Salted__", b"$ANSIBLE_VAULT;")
OLE_MAGIC = b"\xd0\xcf\x11\xe0"
_FOREIGN = (
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (OLE_MAGIC, "an old Excel workbook or Word document"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"ORC", "an ORC file"),
    (b"Obj\x01", "an Avro file"),
)
_ENCRYPTED_OLE = "EncryptedPackage".encode("utf-16-le")
_MARKUP = (b"<!doctype", b"<html", b"<?xml")


def detect(open_file: Opener, size: int, *, name: str, wanted: str | None = None) -> str:
    """Return csv, jsonl, json, parquet or xlsx; `wanted` is a format that a person has named.

    ConfigError file.empty; file.wrong_type where the content contradicts the extension or the named format;
    file.unknown_type where nothing is recognised; file.encoding for text that is not UTF-8.
    """
    with open_file() as file:
        head = file.read(HEAD_BYTES)
    if not size or not head:
        raise ConfigError("file.empty", name=name)
    if _is_encrypted(open_file, head, size):
        raise ConfigError("file.encrypted", name=name)
    extension = PurePosixPath(name).suffix.lower()
    expected = frozenset({wanted}) if wanted else EXTENSIONS.get(extension)
    label = extension or "without extension"
    found, description = _binary_format(open_file, head)
    if found is None and description is None:
        found = _text_format(head, size, name=name, expected=expected)
        if found is None:
            description = "no table"
    if found is not None and (expected is None or found in expected):
        return found
    if expected is None:
        raise ConfigError("file.unknown_type", name=name, found=description)
    what = description if found is None else _FOUND[found]
    if wanted:
        label = f"to be read as {wanted}"
    raise ConfigError("file.wrong_type", name=name, extension=label, found=what)


def _is_encrypted(open_file: Opener, head: bytes, size: int) -> bool:
    """Return whether only a password or key opens the file: Parquet says so in its first bytes, or else in its footer."""
    if head.startswith(_ENCRYPTED_MAGICS):
        return True
    if head.startswith(b"PK\x03\x04"):
        return bool(int.from_bytes(head[6:8], "little") & 1)
    if head.startswith(OLE_MAGIC):
        # The directory of the old container stands anywhere; that of an encrypted workbook is near an end of it.
        with open_file() as file:
            file.seek(max(0, size - HEAD_BYTES))
            return _ENCRYPTED_OLE in head or _ENCRYPTED_OLE in file.read(HEAD_BYTES)
    return False


def _binary_format(open_file: Opener, head: bytes) -> tuple[str | None, str | None]:
    """Return the format of a binary file, or what else it is; two Nones for text."""
    if head.startswith(b"PAR1"):
        return "parquet", None
    if head.startswith(b"PK\x03\x04"):
        return _zip_format(open_file)
    return None, next((what for magic, what in _FOREIGN if head.startswith(magic)), None)


def _zip_format(open_file: Opener) -> tuple[str | None, str | None]:
    try:
        with open_file() as file, zipfile.ZipFile(file) as archive:
            names = set(archive.namelist())
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError):
        return "xlsx", None  # no directory: a cut workbook says so itself, with its own message
    is_book = "[Content_Types].xml" in names and any(name.startswith("xl/") for name in names)
    return ("xlsx", None) if is_book else (None, "a ZIP archive")


def _text_format(head: bytes, size: int, *, name: str, expected: frozenset[str] | None) -> str | None:
    begin = bom_length(head, name=name)
    _refuse_wide_text(head, name=name)
    text = head[begin:]
    bare = text.lstrip()
    if not bare:
        if len(head) >= size:
            raise ConfigError("file.empty", name=name)
        return "csv"
    if bare[:16].lower().startswith(_MARKUP):
        return None
    found = _json_format(bare, is_whole=len(head) >= size, expected=expected)
    if found is not None:
        return found
    if expected is not None or HINT.match(text):
        return "csv"
    # without a hint, text is a table only where its records have more than one column
    is_whole = len(head) >= size
    structure = sample(text, detect_dialect(text, is_whole=is_whole), is_whole=is_whole)
    return "csv" if structure is not None and structure.starts.size and structure.fields[0] > 1 else None


def _refuse_wide_text(head: bytes, *, name: str) -> None:
    nul = head.find(0)
    if nul >= 0:
        raise ConfigError("file.encoding", name=name, offset=nul)


def _json_format(bare: bytes, *, is_whole: bool, expected: frozenset[str] | None) -> str | None:
    """Return json or jsonl where the text is that; broken JSON counts where the name says JSON."""
    says_json = expected is not None and bool(expected & {"json", "jsonl"}) and "csv" not in expected
    if bare.startswith(b"["):
        inner = bare[1:].lstrip()
        is_array = inner[:1] in (b"{", b"]", b"[", b"") or (says_json and expected is not None and "json" in expected)
        return "json" if is_array else ("jsonl" if says_json else None)
    lines = [line for line in bare.split(b"\n") if line.strip()]
    if not is_whole and len(lines) > 1:
        lines = lines[:-1]
    if bare.startswith(b"{"):
        if _is_object(lines[0]) or any(_is_object(line) for line in lines[1:]):
            return "jsonl" if len(lines) > 1 or expected is None or "jsonl" in expected else "json"
        if says_json and expected is not None:
            is_document = "json" in expected and not lines[0].rstrip().endswith(b"}")
            return "json" if is_document or "jsonl" not in expected else "jsonl"
        return "json" if lines[0].strip() == b"{" else None
    if says_json and expected is not None:
        return "jsonl" if any(_is_object(line) for line in lines) else None
    return None


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(orjson.loads(line), dict)
    except orjson.JSONDecodeError:
        return False

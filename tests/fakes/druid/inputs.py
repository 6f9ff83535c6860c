"""Inputs of a task: input sources give bytes, input formats make records of them."""

import csv
import fnmatch
import gzip
import io
import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException, IncompleteRead
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.fakes.druid.times import EPOCH
from tests.fakes.druid.values import java_text

ENDLESS_S = 30.0


class UnreachableError(Exception):
    """An address does not answer with a file: the real one tries again for minutes."""


@dataclass(frozen=True)
class Unreadable:
    """A line that is no record."""

    text: str
    reason: str


Record = Mapping[str, Any] | Unreadable


@dataclass
class Reader:
    """Reads a task's input; `byte_count` counts what came. `s3` is a boto3 client, for the sources that need one."""

    source: Mapping[str, Any]
    form: Mapping[str, Any]
    s3: Any = None
    byte_count: int = 0

    def records(self) -> Iterator[Record]:
        """Yield the records of all files, one after another."""
        for name, data in _files(self.source, self.s3):
            content = gzip.decompress(data) if name.endswith(".gz") else data
            self.byte_count += len(content)
            yield from _FORMATS[self.form["type"]](content, self.form)


def _files(source: Mapping[str, Any], s3: Any) -> Iterator[tuple[str, bytes]]:
    match source["type"]:
        case "inline":
            yield "inline", source["data"].encode()
        case "http":
            for uri in source["uris"]:
                yield urlsplit(uri).path, _download(uri, source)
        case "local":
            for path in _local_files(source):
                yield path.name, path.read_bytes()
        case "s3":
            for bucket, key in _objects(source, s3):
                yield key, s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        case "combining":
            for delegate in source["delegates"]:
                yield from _files(delegate, s3)


def _download(uri: str, source: Mapping[str, Any]) -> bytes:
    request = urllib.request.Request(uri, headers={"Range": "bytes=0-", "User-Agent": "Java/17.0.15"})  # noqa: S310
    if "httpAuthenticationUsername" in source:
        import base64

        pair = f"{source['httpAuthenticationUsername']}:{source.get('httpAuthenticationPassword', '')}"
        request.add_header("Authorization", f"Basic {base64.b64encode(pair.encode()).decode()}")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=ENDLESS_S) as response:
            try:
                return bytes(response.read())
            except IncompleteRead as torn:
                return bytes(torn.partial)  # measured: a torn body is the end of the file, and no error
    except (urllib.error.URLError, HTTPException, OSError) as error:
        raise UnreachableError(uri) from error


def _local_files(source: Mapping[str, Any]) -> Iterator[Path]:
    if source.get("files"):
        yield from (path for path in map(Path, source["files"]) if path.is_file())
        return
    folder = Path(source["baseDir"])
    if folder.is_dir():
        pattern = source.get("filter", "*")
        yield from (path for path in sorted(folder.rglob("*")) if fnmatch.fnmatch(path.name, pattern))


def _objects(source: Mapping[str, Any], s3: Any) -> Iterator[tuple[str, str]]:
    for each in source.get("objects") or ():
        yield each["bucket"], each["path"]
    for uri in source.get("uris") or ():
        parts = urlsplit(uri)
        yield parts.netloc, parts.path.lstrip("/")
    for prefix in source.get("prefixes") or ():
        parts = urlsplit(prefix)
        listing = s3.get_paginator("list_objects_v2").paginate(Bucket=parts.netloc, Prefix=parts.path.lstrip("/"))
        for page in listing:
            yield from ((parts.netloc, each["Key"]) for each in page.get("Contents", ()) if each["Size"])


def _lines(content: bytes) -> Iterator[str]:
    text = content.decode("utf-8", errors="replace")
    lines = text.replace("\r\n", "\n").split("\n")
    yield from lines[:-1] if lines[-1] == "" else lines


def _json(content: bytes, _: Mapping[str, Any]) -> Iterator[Record]:
    decoder = json.JSONDecoder(parse_constant=_no_constant)
    for line in _lines(content):
        try:
            value, _end = decoder.raw_decode(line.lstrip())  # measured: what follows on the line is not looked at
        except ValueError:
            yield Unreadable(line, f"Unable to parse row [{line}]")
            continue
        yield value if isinstance(value, dict) else {}


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _csv(content: bytes, form: Mapping[str, Any]) -> Iterator[Record]:
    names: list[str] | None = form.get("columns")
    lines = list(_lines(content))[form.get("skipHeaderRows", 0) :]
    delimiter = form.get("delimiter") or ("\t" if form["type"] == "tsv" else ",")
    if form.get("findColumnsFromHeader") and lines:
        names = next(csv.reader([lines.pop(0)], delimiter=delimiter))
    for line in lines:  # measured: by line, so that a line break within quotes tears a row
        cells = next(csv.reader([line], delimiter=delimiter), [])
        named = zip(names or (), cells, strict=False)
        yield {name: cell if cell != "" else None for name, cell in named}


def _parquet(content: bytes, _: Mapping[str, Any]) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(content))
    columns = {}
    for field in table.schema:
        column = table.column(field.name)
        if pa.types.is_timestamp(field.type):
            # nanoseconds come through as they are: Druid has no case for them
            if field.type.unit != "ns":
                column = column.cast(pa.timestamp("ms", field.type.tz), safe=False)
            column = column.cast(pa.int64())
        columns[field.name] = column.to_pylist()
    for values in zip(*columns.values(), strict=True):
        yield {name: _plain(value) for name, value in zip(columns, values, strict=True)}


def _plain(value: Any) -> Any:
    import datetime
    import decimal

    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, datetime.datetime):
        return int((value - EPOCH.replace(tzinfo=value.tzinfo)).total_seconds() * 1000)
    if isinstance(value, datetime.date):
        return int(
            (datetime.datetime(value.year, value.month, value.day, tzinfo=EPOCH.tzinfo) - EPOCH).total_seconds() * 1000
        )
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value


_FORMATS = {"json": _json, "csv": _csv, "tsv": _csv, "parquet": _parquet}


def printed(record: Mapping[str, Any]) -> str:
    """Return a record as a report shows it."""
    return java_text(dict(record))

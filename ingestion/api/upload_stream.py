"""The body of an upload on its way into the lake: nothing of the file is kept in memory or written twice."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

from django.conf import settings
from django.core.files.uploadhandler import FileUploadHandler
from django.http import HttpRequest, UnreadablePostError
from django.http.multipartparser import MultiPartParser
from django.utils.http import parse_header_parameters
from rest_framework import serializers

from ingestion.api.problems import invalid
from ingestion.models import Upload
from ingestion.ports.errors import ConfigError, Refused
from ingestion.runs.start.uploads import UploadReceiver

BLOCK_BYTES = 1 << 20
FORM_BYTES = 1 << 20
"""Bytes that a form may have around its file: boundaries, headers, fields."""
CONTRACT_BYTES = 1 << 20
_ENDLESS = 1 << 62
_BOUNDARY = re.compile(rb"boundary=\"?([^\";,]+)", re.IGNORECASE)


@dataclass(slots=True)
class Received:
    """A file that has arrived, and the fields that came with it."""

    upload: Upload
    is_new: bool
    fields: dict[str, Any] = field(default_factory=dict)


def receive_upload(request: HttpRequest, *, name: str | None) -> Received:
    """Return the upload in the body, a form or the bare file; its bytes go to the lake while they arrive.

    Refused as soon as there are more bytes than allowed, before the rest is read. ConfigError where the body ends
    early. In both cases nothing is kept.
    """
    if request.content_type == "multipart/form-data":
        return _receive_form(request, name=name)
    return _receive_bare(request, name=name or _name_in_header(request))


def _receive_bare(request: HttpRequest, *, name: str | None) -> Received:
    if not name:
        raise serializers.ValidationError({"name": ["Give the file's name, here or in Content-Disposition."]})
    expected, body = _body(request)
    receiver = UploadReceiver(name, created_by=request.user, expected_bytes=expected)  # type: ignore[arg-type]
    with _kept_whole(receiver, expected=expected):
        while block := body.read(BLOCK_BYTES):
            receiver.write(block)
        return Received(*receiver.finish())


def _receive_form(request: HttpRequest, *, name: str | None) -> Received:
    expected, body = _body(request)
    if expected is not None and expected > settings.HEADGATE_UPLOAD_MAX_BYTES + FORM_BYTES:
        raise Refused("file.too_large", name=name or "The file", limit_bytes=settings.HEADGATE_UPLOAD_MAX_BYTES)
    counted = _Counted(body, boundary=_boundary(request))
    handler = _FormHandler(lambda given: UploadReceiver(name or given, created_by=request.user))  # type: ignore[arg-type]
    with _kept_whole(handler, expected=expected):
        # An unknown length (chunked) is said to be endless: the parser stops at the last boundary, or at the end.
        meta = {**request.META, "CONTENT_LENGTH": str(_ENDLESS if expected is None else expected)}
        parser = MultiPartParser(meta, counted, [handler], request.encoding or settings.DEFAULT_CHARSET)  # type: ignore[arg-type]
        fields, _ = parser.parse()
        if not counted.is_complete:
            raise ConfigError("upload.incomplete", received=counted.read_bytes, expected=expected or "more")
        if handler.receiver is None:
            raise serializers.ValidationError({"file": ["Send the file in the field `file`."]})
        given: dict[str, Any] = {}
        for field_name, values in fields.lists():
            if len(values) > 1:
                raise serializers.ValidationError({field_name: ["Give this field once."]})
            given[field_name] = values[0]
        if handler.contract is not None:
            given["contract"] = _decoded(handler.contract)
        return Received(*handler.receiver.finish(), fields=given)


class _FormHandler(FileUploadHandler):
    """Sends the field `file` to the lake and keeps the small file `contract`; other files are refused."""

    chunk_size = BLOCK_BYTES

    def __init__(self, open_receiver: Callable[[str], UploadReceiver]) -> None:
        super().__init__()
        self._open_receiver = open_receiver
        self.receiver: UploadReceiver | None = None
        self.contract: bytes | None = None

    def new_file(self, field_name: str, file_name: str, *args: Any, **kwargs: Any) -> None:
        super().new_file(field_name, file_name, *args, **kwargs)
        if field_name == "contract" and self.contract is None:
            self.contract = b""
        elif field_name == "file" and self.receiver is None:
            self.receiver = self._open_receiver(file_name)
        else:
            message = "Send one file, in the field `file`, and at most one contract."
            raise serializers.ValidationError({field_name: [message]})

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        if self.field_name == "file" and self.receiver is not None:
            self.receiver.write(raw_data)
        elif self.contract is not None:
            self.contract += raw_data
            if len(self.contract) > CONTRACT_BYTES:
                raise invalid(f"contract: it is longer than {CONTRACT_BYTES} bytes", status=413)

    def file_complete(self, file_size: int) -> None:
        """Return nothing: the file lies in the lake already, and is finished when the whole form has come."""

    def abort(self) -> None:
        """Keep nothing of the file."""
        if self.receiver is not None:
            self.receiver.abort()


class _Counted:
    """A body that knows how much of it was read, and whether its last boundary has come."""

    def __init__(self, body: IO[bytes], *, boundary: bytes) -> None:
        self._body = body
        self._end = b"--" + boundary + b"--"
        self._tail = b""
        self.read_bytes = 0

    def read(self, size: int = -1) -> bytes:
        block = self._body.read(size)
        self.read_bytes += len(block)
        self._tail = (self._tail + block)[-(len(self._end) + 1024) :] if block else self._tail
        return block

    @property
    def is_complete(self) -> bool:
        return self._end in self._tail


@contextmanager
def _kept_whole(target: UploadReceiver | _FormHandler, *, expected: int | None) -> Iterator[None]:
    """Keep nothing of a file that did not come whole, whatever the reason."""
    try:
        yield
    except UnreadablePostError as error:
        target.abort()
        raise ConfigError("upload.incomplete", received="some", expected=expected or "more") from error
    except BaseException:
        target.abort()
        raise


def _body(request: HttpRequest) -> tuple[int | None, IO[bytes]]:
    """Return the length of the body, None where it is not said, and the body."""
    length = request.META.get("CONTENT_LENGTH") or ""
    if not length and request.META.get("wsgi.input_terminated"):
        # Chunked: the server ends the stream, which Django takes for empty.
        return None, request.META["wsgi.input"]
    return (int(length) if length.isdecimal() else 0), request  # type: ignore[return-value]


def _boundary(request: HttpRequest) -> bytes:
    found = _BOUNDARY.search(request.META.get("CONTENT_TYPE", "").encode("latin-1"))
    if found is None:
        raise invalid("the form has no boundary")
    return found.group(1).strip()


def _name_in_header(request: HttpRequest) -> str | None:
    _, parameters = parse_header_parameters(request.headers.get("Content-Disposition", ""))
    return parameters.get("filename")


def _decoded(contract: bytes) -> str:
    try:
        return contract.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise serializers.ValidationError({"contract": ["The contract is not UTF-8 text."]}) from error

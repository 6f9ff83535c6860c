"""An S3 server that takes uploads and throws the bytes away: what an upload costs against it is the client's alone.

usage: python -m benchmarks.null_s3 PORT

It knows PutObject, multipart uploads, HeadObject, DeleteObject, an empty list, and If-None-Match. It believes every
checksum, and gives it back: a part's as sent, a whole object's put together from its parts'.
"""

import asyncio
import base64
import hashlib
import sys
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

READ_BYTES = 1 << 20
_CHECKSUM = "x-amz-checksum-sha256"
_ANSWERS = {
    "started": "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>",
    "completed": '<CompleteMultipartUploadResult><ETag>"e"</ETag></CompleteMultipartUploadResult>',
    "listed": "<ListBucketResult><IsTruncated>false</IsTruncated><KeyCount>0</KeyCount></ListBucketResult>",
    "missing": "<Error><Code>NoSuchKey</Code></Error>",
    "there": "<Error><Code>PreconditionFailed</Code></Error>",
}


@dataclass
class Known:
    """An object as the server remembers it: its size, what the client said of it, and the checksums of its parts."""

    size_bytes: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    parts: dict[int, tuple[int, str]] = field(default_factory=dict)


OBJECTS: dict[str, Known] = {}
UPLOADS: dict[str, Known] = {}


class Connection(asyncio.BufferedProtocol):
    """One connection; bodies are counted as they come, never kept."""

    def __init__(self) -> None:
        self._buffer = bytearray(READ_BYTES)
        self._view = memoryview(self._buffer)
        self._head = b""
        self._left = 0
        self._in_body = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> bytearray:
        """Return where to read to."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read: the rest of a head, or a piece of a body."""
        data = self._view[:nbytes]
        while data:
            if self._in_body:
                taken = min(self._left, len(data))
                self._left -= taken
                data = data[taken:]
            else:
                self._head += bytes(data)
                head, mark, rest = self._head.partition(b"\r\n\r\n")
                if not mark:
                    return
                self._begin(head.decode("latin1"))
                data = memoryview(rest)
            if self._in_body and not self._left:
                self._in_body = False
                self._answer()

    def _begin(self, head: str) -> None:
        lines = head.split("\r\n")
        self._head = b""
        self._method, self._target, _ = lines[0].split(" ", 2)
        pairs = (line.split(":", 1) for line in lines[1:])
        self._headers = {name.lower(): value.strip() for name, value in pairs}
        self._size_bytes = self._left = int(self._headers.get("content-length", 0))
        self._in_body = True
        if "expect" in self._headers:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _answer(self) -> None:
        parts = urlsplit(self._target)
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        status, headers, body = self._act(parts.path, query)
        length = headers.pop("Content-Length", str(len(body)))
        lines = [f"HTTP/1.1 {status}", 'ETag: "e"', f"Content-Length: {length}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._transport.write("\r\n".join([*lines, "", body]).encode())

    def _act(  # noqa: PLR0911 - one answer each
        self, path: str, query: dict[str, str]
    ) -> tuple[str, dict[str, str], str]:
        match self._method:
            case "PUT" if "partNumber" in query:
                checksum = self._headers.get(_CHECKSUM, "")
                UPLOADS[path].parts[int(query["partNumber"])] = (self._size_bytes, checksum)
                return "200 OK", {}, ""
            case "POST" if "uploads" in query:
                UPLOADS[path] = Known(headers=self._told())
                return "200 OK", {}, _ANSWERS["started"]
            case "PUT" | "POST" if "if-none-match" in self._headers and path in OBJECTS:
                return "412 Precondition Failed", {}, _ANSWERS["there"]
            case "PUT":
                OBJECTS[path] = Known(self._size_bytes, self._told())
                return "200 OK", {}, ""
            case "POST":
                OBJECTS[path] = _completed(UPLOADS.pop(path))
                return "200 OK", {}, _ANSWERS["completed"]
            case "DELETE":
                OBJECTS.pop(path, None)
                return "204 No Content", {}, ""
            case "GET" if "list-type" in query:
                return "200 OK", {}, _ANSWERS["listed"]
        found = OBJECTS.get(path)
        if found is None:
            return "404 Not Found", {}, "" if self._method == "HEAD" else _ANSWERS["missing"]
        date = "Wed, 01 Jan 2025 00:00:00 GMT"
        return "200 OK", {**found.headers, "Content-Length": str(found.size_bytes), "Last-Modified": date}, ""

    def _told(self) -> dict[str, str]:
        return {
            name: value for name, value in self._headers.items() if name.startswith("x-amz-meta-") or name == _CHECKSUM
        }


def _completed(upload: Known) -> Known:
    ordered = [upload.parts[number] for number in sorted(upload.parts)]
    size_bytes = sum(size for size, _ in ordered)
    digests = b"".join(base64.b64decode(checksum) for _, checksum in ordered)
    whole = base64.b64encode(hashlib.sha256(digests).digest()).decode()
    return Known(size_bytes, {**upload.headers, _CHECKSUM: f"{whole}-{len(ordered)}"})


async def serve(port: int) -> None:
    """Serve until the process ends."""
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))

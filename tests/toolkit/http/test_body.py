"""Bodies: packed, too large, cut."""

import gzip
import zlib

import httpx
import pytest

from ingestion.ports.errors import (
    SourceChanged,
    SourceRejected,
)
from tests.fakes.http_client import URL, Source, client


def packed(body: bytes, encoding: str, **headers: str) -> httpx.Response:
    # The bytes as a stream: httpx would unpack what is given as content.
    return httpx.Response(200, stream=httpx.ByteStream(body), headers={"content-encoding": encoding, **headers})


def test_packed_bodies_are_unpacked() -> None:
    raw = zlib.compressobj(wbits=-15)
    bodies = {
        "gzip": gzip.compress(b"[1]", mtime=0),
        "x-gzip": gzip.compress(b"[", mtime=0) + gzip.compress(b"1]"),
        "deflate": zlib.compress(b"[1]"),
        "DEFLATE": raw.compress(b"[1]") + raw.flush(),
        "identity": b"[1]",
    }

    found = {name: client(Source(packed(body, name))).get(URL).body for name, body in bodies.items()}

    assert set(found.values()) == {b"[1]"}


def test_only_what_can_be_unpacked_in_steps_is_asked_for() -> None:
    source = Source(httpx.Response(200))

    client(source).get(URL)

    assert source.requests[0].headers["accept-encoding"] == "gzip, deflate"


def test_an_encoding_that_was_not_asked_for_is_bad_content() -> None:
    with pytest.raises(SourceChanged) as caught:
        client(Source(packed(b"x", "br"))).get(URL)

    assert caught.value.code == "source.bad_content"


def test_a_damaged_packed_body_is_fetched_again(subtests: pytest.Subtests) -> None:
    cases: list[bytes] = [
        gzip.compress(b"x" * 1000, mtime=0)[:-9],
        b"no gzip at all",
        gzip.compress(b"x", mtime=0) + b"rest",
    ]
    for body in cases:
        with subtests.test(body=body):
            source = Source(packed(body, "gzip"), httpx.Response(200, content=b"good"))

            assert client(source).get(URL).body == b"good"


def test_a_body_beyond_the_limit_is_refused_packed_or_not(subtests: pytest.Subtests) -> None:
    cases: list[httpx.Response] = [
        httpx.Response(200, content=b"x" * 2000),
        packed(gzip.compress(b"x" * 2000, mtime=0), "gzip"),
        httpx.Response(200, stream=httpx.ByteStream(b""), headers={"content-length": "2000"}),
    ]
    for answer in cases:
        with subtests.test(answer=answer):
            source = Source(answer)

            with pytest.raises(SourceChanged) as caught:
                client(source, max_body_bytes=1000).get(URL)

            assert caught.value.code == "source.too_large"
            assert len(source.requests) == 1


def test_a_body_of_another_length_than_declared_is_fetched_again() -> None:
    cut = httpx.Response(200, stream=httpx.ByteStream(b"ab"), headers={"content-length": "4"})
    source = Source(cut, httpx.Response(200, content=b"abcd"))

    assert client(source).get(URL).body == b"abcd"


def test_an_unreadable_explanation_does_not_hide_the_status() -> None:
    body = httpx.Response(404, stream=httpx.ByteStream(b"x" * 100_000))

    with pytest.raises(SourceRejected) as caught:
        client(Source(body)).get(URL)

    assert caught.value.code == "source.not_found"


def test_progress_is_told_of() -> None:
    told: list[int] = []

    client(Source(httpx.Response(200, content=b"x")), beat=lambda: told.append(1)).get(URL)

    assert len(told) >= 2

"""One API: its addresses, and where its credentials go."""

import httpx
import pytest
from pydantic import BaseModel, SecretStr, ValidationError

from ingestion.ports.batch import Query
from ingestion.ports.errors import AuthError, ConfigError
from ingestion.toolkit.redact import redact
from ingestion.toolkit.rest.api import Api, BaseUrl, SecretHeaders, check_query, later_cursor
from tests.conformance.context import RecordingContext
from tests.fakes.http_client import Source, client

BASE = "https://api.example.org/v1"
SECRET = "CANARY-0f3a9d1c"


def test_secret_headers_go_to_the_apis_own_origin_alone(subtests: pytest.Subtests) -> None:
    cases: list[tuple[str, bool]] = [
        (f"{BASE}/records?page=2", True),
        ("https://API.example.org:443/elsewhere", True),
        ("http://api.example.org/v1/records", False),
        ("https://api.example.org:444/v1/records", False),
        ("https://www.api.example.org/v1/records", False),
        ("https://api.example.org.evil.example/v1", False),
        ("https://evil.example/?https://api.example.org", False),
        ("ftp://api.example.org/", False),
        (f"{BASE}/{'x' * 70_000}", False),
    ]
    for url, is_sent in cases:
        with subtests.test(url=url, is_sent=is_sent):
            api = Api(BASE, headers={"Accept": "application/json"}, secret_headers={"X-Key": SecretStr(SECRET)})

            headers = api.headers_for(url)

            assert headers["Accept"] == "application/json"
            assert ("X-Key" in headers) is is_sent


def test_a_secret_header_stays_with_its_origin_through_a_redirect_and_out_of_every_text() -> None:
    source = Source(
        httpx.Response(302, headers={"location": "https://evil.example.net/"}),
        httpx.Response(401, text=f"bad key {SECRET}"),
    )
    recording = RecordingContext()
    object.__setattr__(recording.context, "http", client(source))

    with pytest.raises(AuthError) as raised:
        Api(BASE, secret_headers={"X-Key": SecretStr(SECRET)}).get(f"{BASE}/records", recording.context)

    assert [request.headers.get("x-key") for request in source.requests] == [SECRET, None]
    assert SECRET not in f"{raised.value} {raised.value.values}"
    assert redact(f"x {SECRET} y") == "x *** y"


def test_an_address_keeps_what_is_empty_and_leaves_out_what_is_none() -> None:
    assert Api(BASE).url("things", {"q": 'a="b",c', "include": "", "limit": None}) == (
        f"{BASE}/things?q=a%3D%22b%22,c&include="
    )
    assert Api(BASE).url("things") == f"{BASE}/things"


def test_settings_that_cannot_work_are_refused() -> None:
    class Config(BaseModel):
        base_url: BaseUrl
        headers: SecretHeaders = {}

    assert Config(base_url=" https://example.org/api/ ").base_url == "https://example.org/api"
    for base_url in ("example.org", "ftp://example.org", "https://me:x@example.org", "https://example.org?key=x"):
        with pytest.raises(ValidationError):
            Config(base_url=base_url)
    for name, value in (("Host", "x"), ("X Y", "x"), ("X-Key", "a\r\nb"), ("X-Key", "ä")):
        with pytest.raises(ValidationError):
            Config(base_url=BASE, headers={name: SecretStr(value)})


def test_a_query_for_what_is_not_there_says_what_is() -> None:
    with pytest.raises(ConfigError, match="things"):
        check_query(Query("stuff"), streams=("things",), kind="api")
    with pytest.raises(ConfigError, match="a&b"):
        check_query(Query("things", fields=("ok", "a&b")), streams=("things",), kind="api")


def test_a_cursor_never_goes_back() -> None:
    later, earlier = {"at": "2024-01-02T00:00:00.000000Z"}, {"at": "2024-01-01T00:00:00.000000Z"}

    assert later_cursor("at", None, "2024-01-02T00:00:00Z") == later
    assert later_cursor("at", earlier, "2024-01-02T01:00:00+01:00") == later
    assert later_cursor("at", later, "2024-01-01T00:00:00Z") == later
    assert later_cursor("at", later, None) == later
    assert later_cursor("at", None, "last week") is None

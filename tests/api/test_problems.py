"""Bad requests and what they are answered."""

import json
from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client

from ingestion.models import Pipeline, Source
from ingestion.ports.errors import (
    AuthError,
    ConfigError,
    IngestError,
    RateLimited,
    Refused,
    RowsRejected,
    SinkUnavailable,
    SourceRejected,
    SourceUnavailable,
    StoreCorrupt,
)
from tests.api.conftest import PASSWORD, Api, problem


def test_without_a_token_the_answer_says_how_to_send_one(anonymous: Api) -> None:
    response = anonymous.get("/v1/runs")

    body = problem(response, 401, "request.unauthenticated")
    assert "header Authorization" in body["detail"]
    assert response["WWW-Authenticate"] == "Token"


@pytest.mark.django_db
@pytest.mark.parametrize(
    "header", ["Token", "Token ", "Token abc", "Token " + "0" * 40, "Token a b", "Bearer x", "Token " + "é" * 40]
)
def test_a_malformed_or_unknown_token_is_no_token(anonymous: Api, header: str) -> None:
    response = anonymous.get("/v1/runs", headers={"Authorization": header})

    problem(response, 401, "request.unauthenticated")


def test_a_token_in_the_address_is_no_token(user: Api) -> None:
    token = user.headers["Authorization"].split()[1]

    problem(Api().get(f"/v1/runs?token={token}"), 401, "request.unauthenticated")


def test_bearer_is_understood_too(user: Api) -> None:
    token = user.headers["Authorization"].split()[1]

    assert Api().get("/v1/runs", headers={"Authorization": f"Bearer {token}"}).status_code == 200


def test_a_wrong_method_is_named(user: Api) -> None:
    assert "DELETE" in problem(user.send("delete", "/v1/runs"), 405, "request.method")["detail"]


def test_a_contract_version_cannot_be_changed(staff: Api) -> None:
    for method in ("put", "patch", "delete"):
        problem(staff.send(method, "/v1/contracts/1", {}), 405, "request.method")


@pytest.mark.parametrize(
    "body",
    [b"name=x", b"{", b'{"a": NaN}', b'{"a": 1e999}', b'{"a": 1, "a": 2}', b'{"pipeline": "a\\u0000b"}', b'"\xff"',
     b'{"pipeline": "\\ud800"}', b"[" * 100_000, b'{"a": ' + b"1" * 5000 + b"}", b"[]", b'"text"', b"7"],
    ids=lambda body: repr(body[:20]),
)  # fmt: skip
def test_a_body_that_is_no_good_json_is_refused(user: Api, body: bytes) -> None:
    problem(user.raw("/v1/runs", body, content_type="application/json"), 400, "request.invalid")


def test_an_unknown_content_type_is_named(user: Api) -> None:
    response = user.raw("/v1/runs", b"<a/>", content_type="application/xml")

    assert "application/xml" in problem(response, 415, "request.media_type")["detail"]


def test_a_body_above_the_limit_is_refused(user: Api, settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 100

    problem(user.post("/v1/runs", {"pipeline": "x" * 200}), 413, "request.too_large")


@pytest.mark.django_db
def test_a_session_needs_its_csrf_token(django_user_model: Any) -> None:
    django_user_model.objects.create_user("operator", password=PASSWORD, is_staff=True)
    client = Client(enforce_csrf_checks=True)
    client.get("/admin/login/")  # gives the cookie
    client.login(username="operator", password=PASSWORD)
    body = json.dumps({"cron": "0 6 * * *"})

    refused = client.post("/api/v1/schedules/preview", body, content_type="application/json")
    token = client.cookies["csrftoken"].value
    taken = client.post(
        "/api/v1/schedules/preview", body, content_type="application/json", headers={"X-CSRFToken": token}
    )

    problem(refused, 403, "request.csrf")
    assert taken.status_code == 200


@pytest.mark.django_db
def test_a_host_that_is_not_ours_is_refused(user: Api) -> None:
    problem(user.get("/v1/runs", headers={"Host": "evil.example"}), 400, "request.invalid")


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "1000000000", "abc", ""])
def test_a_page_size_beyond_the_bounds_is_refused(user: Api, limit: str) -> None:
    body = problem(user.get(f"/v1/runs?limit={limit}"), 400, "request.invalid")

    assert body["errors"][0]["field"] == "limit"


@pytest.mark.both
@pytest.mark.parametrize("after", ["1", "abc", "1!abc", "%00", "9" * 400, "1:sig"])
@pytest.mark.parametrize("path", ["/v1/runs", "/v1/data", "/v1/sources"])
def test_a_cursor_that_was_not_given_is_refused(user: Api, path: str, after: str) -> None:
    problem(user.get(f"{path}?after={after}"), 400, "request.invalid")


def test_an_unknown_field_is_named(staff: Api) -> None:
    response = staff.post("/v1/sources", {"name": "a", "kind": "vault", "config": {"url": "u"}, "owner": "me"})

    body = problem(response, 400, "request.invalid")
    assert [error["field"] for error in body["errors"]] == ["owner"]
    assert "owner" in body["detail"]
    assert not Source.objects.exists()


def test_a_field_that_cannot_be_written_is_named(staff: Api, pipeline: Pipeline) -> None:
    response = staff.send("patch", f"/v1/pipelines/{pipeline.pk}", {"is_paused": True})

    assert problem(response, 400, "request.invalid")["errors"][0]["field"] == "is_paused"


def test_an_unknown_parameter_is_named(user: Api) -> None:
    response = user.get("/v1/runs?pipeline__source__secrets=x")

    assert "pipeline__source__secrets" in problem(response, 400, "request.invalid")["detail"]


@pytest.mark.both
@pytest.mark.parametrize("query", ["name=a%00b", "name=a&name=b", "%00=1"])
def test_a_parameter_with_nul_or_given_twice_is_refused(user: Api, query: str) -> None:
    problem(user.get(f"/v1/contracts?{query}"), 400, "request.invalid")


@pytest.mark.both
@pytest.mark.parametrize("name", ["..%2F..", "x" * 300, "9" * 300, "9" * 5000, "-1", "1.5", "1e3", "../../admin"])
def test_an_id_that_is_no_number_of_ours_is_not_found(user: Api, name: str) -> None:
    problem(user.get(f"/v1/runs/{name}"), 404, "request.not_found")


def test_a_row_that_is_not_there_is_not_found(staff: Api) -> None:
    for path in ("/v1/runs/7", "/v1/sources/7", "/v1/uploads/7", "/v1/contracts/7", "/v1/runs/7/events"):
        problem(staff.get(path), 404, "request.not_found")
    for action in ("cancel", "retry", "approve", "discard", "rollback"):
        problem(staff.post(f"/v1/runs/7/{action}"), 404, "run.not_found")


CASES: list[tuple[Exception, int, str]] = [
    (ConfigError("config.invalid", where="x", detail="y"), 400, "config.invalid"),
    (RowsRejected("row.missing_id"), 400, "row.missing_id"),
    (Refused("pipeline.paused", pipeline="x"), 409, "pipeline.paused"),
    (Refused("run.not_found", run=1), 404, "run.not_found"),
    (Refused("file.too_large", name="x", limit_bytes=1), 413, "file.too_large"),
    (Refused("request.invalid", detail="x"), 400, "request.invalid"),
    (AuthError("source.auth", host="x", status=401), 502, "source.auth"),
    (SourceRejected("source.rejected", host="x", status=400, detail="y"), 502, "source.rejected"),
    (StoreCorrupt("store.missing", key="x"), 500, "store.missing"),
    (SourceUnavailable("source.unavailable", host="x", detail="y"), 503, "source.unavailable"),
    (SinkUnavailable("sink.unavailable", destination="x", detail="y"), 503, "sink.unavailable"),
    (RateLimited("limiter.waiting", key="x", retry_after_s=2.2), 429, "limiter.waiting"),
    (OperationalError("server closed the connection"), 503, "request.unavailable"),
    (IngestError("request.unavailable", part="x"), 500, "request.unavailable"),
]


@pytest.mark.parametrize(("error", "status", "code"), CASES, ids=lambda value: str(value)[:30])
def test_each_error_has_its_status(
    user: Api, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, code: str
) -> None:
    monkeypatch.setattr("ingestion.api.service.collect_statistics", lambda **_: _raise(error))

    response = user.get("/v1/stats")

    problem(response, status, code)
    assert ("Retry-After" in response) == (status in (429, 503))
    if code == "limiter.waiting":
        assert response["Retry-After"] == "3"


def test_a_defect_is_logged_under_the_incident_that_is_told(
    user: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ingestion.api.service.collect_statistics", lambda **_: _raise(ZeroDivisionError("secret")))

    body = problem(user.get("/v1/stats"), 500, "request.errored")

    incident = body["detail"].split("incident ")[1].split(")")[0]
    assert incident in caplog.text
    assert "ZeroDivisionError" in caplog.text
    assert "secret" not in json.dumps(body)


def test_a_request_id_of_the_caller_is_kept(user: Api) -> None:
    kept = user.get("/v1/runs/7", headers={"X-Request-ID": "abc-123"})
    replaced = user.get("/v1/runs/7", headers={"X-Request-ID": "<script>"})

    assert kept.json()["request_id"] == "abc-123"
    assert replaced.json()["request_id"] != "<script>"


@pytest.mark.django_db
def test_an_unknown_address_tells_nobody_anything(anonymous: Api, user: Api) -> None:
    problem(anonymous.get("/v2/everything"), 401, "request.unauthenticated")
    problem(user.get("/v2/everything"), 404, "request.not_found")
    problem(user.send("delete", "/v2/everything"), 404, "request.not_found")


def _raise(error: Exception) -> Any:
    raise error

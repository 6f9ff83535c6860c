"""Tokens, health, the root and the OpenAPI document."""

import subprocess
import sys
from typing import Any

import pytest
import yaml
from django.conf import settings as django_settings
from django.core.management import call_command
from django.urls import reverse
from rest_framework.authtoken.models import Token

from ingestion.api.settings import VERSION
from ingestion.runs.operate.health import PartHealth
from tests.api.conftest import PASSWORD, Api, problem

LOGIN = {"username": "user", "password": PASSWORD}


def test_a_token_is_obtained_rotated_and_revoked(user: Api, anonymous: Api) -> None:
    obtained = anonymous.post("/v1/tokens", LOGIN)
    first = obtained.json()["token"]
    assert obtained["Cache-Control"] == "no-store"
    assert (obtained.json()["user"], Api(first).get("/v1/runs").status_code) == ("user", 200)

    second = Api(first).post("/v1/tokens/rotate").json()["token"]
    assert second != first
    problem(Api(first).get("/v1/runs"), 401, "request.unauthenticated")

    assert Api(second).send("delete", "/v1/tokens/current").status_code == 204
    problem(Api(second).get("/v1/runs"), 401, "request.unauthenticated")
    assert not Token.objects.exists()


def test_a_form_obtains_a_token_too(user: Api, anonymous: Api) -> None:
    response = anonymous.raw(
        "/v1/tokens", f"username=user&password={PASSWORD}", content_type="application/x-www-form-urlencoded"
    )

    assert response.status_code == 200


def test_a_wrong_password_and_an_unknown_user_are_answered_alike(user: Api, anonymous: Api) -> None:
    wrong = problem(anonymous.post("/v1/tokens", {**LOGIN, "password": "x"}), 401, "request.credentials")
    unknown = problem(anonymous.post("/v1/tokens", {**LOGIN, "username": "nobody"}), 401, "request.credentials")

    for body in (wrong, unknown):
        del body["request_id"]
    assert wrong == unknown


def test_an_unknown_user_costs_a_password_hash_too(
    user: Api, anonymous: Api, monkeypatch: pytest.MonkeyPatch, django_user_model: Any
) -> None:
    hashed: list[str] = []
    make = django_user_model.set_password
    monkeypatch.setattr(django_user_model, "set_password", lambda self, raw: (hashed.append(raw), make(self, raw))[1])

    anonymous.post("/v1/tokens", {"username": "nobody", "password": "guess"})

    assert hashed == ["guess"]


@pytest.mark.django_db
@pytest.mark.parametrize("body", [{"username": "user"}, {**LOGIN, "scope": "x"}, {"username": "a\0", "password": "b"}])
def test_half_a_login_is_refused(anonymous: Api, body: dict[str, str]) -> None:
    problem(anonymous.post("/v1/tokens", body), 400, "request.invalid")


def test_somebody_who_was_switched_off_gets_nothing(user: Api, anonymous: Api, django_user_model: Any) -> None:
    django_user_model.objects.update(is_active=False)

    problem(anonymous.post("/v1/tokens", LOGIN), 401, "request.credentials")
    problem(user.get("/v1/runs"), 401, "request.unauthenticated")


# --- health


def parts(*, database: bool = True, broker: bool = True) -> tuple[bool, list[PartHealth]]:
    return database, [
        PartHealth("database", database, True, 1.0, "" if database else "everything"),
        PartHealth("broker", broker, False, 1.0, "" if broker else "new work"),
    ]


@pytest.mark.both
@pytest.mark.parametrize(
    ("found", "status", "word"),
    [
        (parts(), 200, "ok"),
        (parts(broker=False), 200, "degraded"),
        (parts(database=False), 503, "unavailable"),
    ],
)
def test_only_the_database_makes_it_unready(
    anonymous: Api, monkeypatch: pytest.MonkeyPatch, found: Any, status: int, word: str
) -> None:
    monkeypatch.setattr("ingestion.api.health.check_readiness", lambda: found)
    monkeypatch.setattr("ingestion.api.health.last_run_state", lambda: None)

    for path in ("/health/ready", "/v1/health"):
        response = anonymous.get(path)
        assert (response.status_code, response.json()["status"]) == (status, word)
        assert [part["part"] for part in response.json()["parts"]] == ["database", "broker"]
    assert anonymous.get("/health/live").json() == {"status": "ok"}


@pytest.mark.both
@pytest.mark.django_db(transaction=True)
def test_readiness_asks_the_real_parts(anonymous: Api) -> None:
    body = anonymous.get("/health/ready").json()

    assert {part["part"]: part["is_ok"] for part in body["parts"]}["database"] is True


# --- what it is


def test_the_root_leads_everywhere(user: Api) -> None:
    body = user.get("/v1").json()

    assert (body["version"], body["user"], body["is_staff"]) == (VERSION, "user", False)
    assert body["capabilities"]["upload_max_bytes"] == django_settings.HEADGATE_UPLOAD_MAX_BYTES
    for address in body["links"].values():
        assert user.client.get(address, headers=user.headers).status_code == 200, address


def test_an_address_may_end_with_a_slash(user: Api) -> None:
    assert user.get("/v1/runs/").status_code == 200
    assert user.get("/v1/").json()["links"]["runs"].endswith("/api/v1/runs")


def test_head_answers_like_get(user: Api) -> None:
    for address in ("/v1/sources", "/v1/runs?limit=1", "/v1/data"):
        assert (user.send("head", address).status_code, user.send("head", address).content) == (200, b""), address


def test_the_openapi_document_is_valid_and_whole(tmp_path: Any) -> None:
    target = tmp_path / "schema.yml"
    call_command("spectacular", "--validate", "--fail-on-warn", "--file", str(target))

    document = yaml.safe_load(target.read_text())
    assert "/api/v1/runs/{id}/rejected" in document["paths"]
    assert not [path for path in document["paths"] if path.endswith("/")]
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            assert "default" in described["responses"], (method, path)
            assert described["summary"], (method, path)


def test_docs_come_without_another_host(user: Api) -> None:
    page = user.get("/docs").content.decode()

    assert reverse("schema") in page
    assert "https://cdn" not in page


def test_a_web_process_loads_what_a_first_upload_needs() -> None:
    modules = "connectors.files", "sinks.catalog", "polars"
    program = (
        "import sys, django; django.setup(); from ingestion.api.warming import load_ahead; load_ahead();"
        f"sys.exit(not all(name in sys.modules for name in {modules}))"
    )

    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize("page", ["docs", "redoc"])
def test_a_browser_is_asked_for_a_login_by_the_documentation_and_a_program_is_not(
    page: str, user: Api, anonymous: Api, client: Any
) -> None:
    asked = client.get(f"/api/{page}", headers={"Accept": "text/html,*/*;q=0.8"})
    assert (asked.status_code, asked["Location"]) == (302, f"/admin/login/?next=/api/{page}")

    problem(anonymous.get(f"/{page}"), 401, "request.unauthenticated")
    wrong = client.get(f"/api/{page}", headers={"Accept": "text/html", "Authorization": "Token wrong"})
    assert wrong.status_code == 401

"""Every address x everybody: who gets in. An address that is missing from the table fails."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.urls import get_resolver
from rest_framework.authtoken.models import Token

from ingestion.models import Pipeline
from tests.api.conftest import Api

METHODS = ("get", "post", "put", "patch", "delete")
PUBLIC = (200, 200, 200)
USERS = (401, 200, 200)
STAFF = (401, 403, 200)

# Expected: anonymous, user, staff; 2xx and what follows from an empty body (4xx other than 401, 403) count as let in.
TABLE: dict[str, dict[str, tuple[int, int, int]]] = {
    "health-live": {"get": PUBLIC},
    "health-ready": {"get": PUBLIC},
    "health": {"get": PUBLIC},
    "schema": {"get": USERS},
    "docs": {"get": USERS},
    "redoc": {"get": USERS},
    "service": {"get": USERS},
    "stats": {"get": USERS},
    "tokens": {"post": USERS},
    "tokens-rotate": {"post": USERS},
    "tokens-current": {"delete": USERS},
    "connectors": {"get": USERS},
    "sinks": {"get": USERS},
    "sources": {"get": USERS, "post": STAFF},
    "source": {"get": USERS, "put": STAFF, "patch": STAFF, "delete": STAFF},
    "source-check": {"post": USERS},
    "destinations": {"get": USERS, "post": STAFF},
    "destination": {"get": USERS, "put": STAFF, "patch": STAFF, "delete": STAFF},
    "destination-check": {"post": USERS},
    "destination-redeliver": {"post": STAFF},
    "destination-fill": {"post": STAFF},
    "destination-compact": {"post": STAFF},
    "destination-retain": {"post": STAFF},
    "destination-drop": {"post": STAFF},
    "destination-schema": {"get": USERS},
    "destination-schema-revert": {"post": STAFF},
    "destination-tasks": {"get": USERS},
    "destination-task-log": {"get": USERS},
    "destination-task-cancel": {"post": STAFF},
    "deliveries": {"get": USERS},
    "delivery": {"get": USERS},
    "contracts": {"get": USERS, "post": STAFF},
    "contract": {"get": USERS},
    "pipelines": {"get": USERS, "post": STAFF},
    "pipeline": {"get": USERS, "put": STAFF, "patch": STAFF, "delete": STAFF},
    "pipeline-destinations": {"post": STAFF},
    "pipeline-destination": {"delete": STAFF},
    "pipeline-pause": {"post": STAFF},
    "pipeline-resume": {"post": STAFF},
    "schedules": {"get": USERS, "post": STAFF},
    "schedules-preview": {"post": STAFF},
    "schedule": {"get": USERS, "put": STAFF, "patch": STAFF, "delete": STAFF},
    "uploads": {"get": USERS, "post": USERS},
    "upload": {"get": USERS},
    "runs": {"get": USERS, "post": USERS},
    "runs-bulk": {"post": USERS},
    "runs-cancel": {"post": USERS},
    "run": {"get": USERS},
    "run-cancel": {"post": USERS},
    "run-approve": {"post": USERS},
    "run-discard": {"post": USERS},
    "run-retry": {"post": USERS},
    "run-rollback": {"post": USERS},
    "run-redeliver": {"post": STAFF},
    "run-events": {"get": USERS},
    "run-partitions": {"get": USERS},
    "run-parts": {"get": USERS},
    "run-deliveries": {"get": USERS},
    "run-rejected": {"get": USERS},
    "run-records": {"get": USERS},
    "data": {"get": USERS},
    "data-export": {"get": USERS},
    "query": {"post": USERS},
    "ingest-upload": {"post": USERS},
    "ingest-status": {"get": USERS},
    "unknown": {},
}


LET_IN = {200, 201, 202, 204, 207, 400, 404, 409, 415}


def restore_tokens(**clients: Api) -> None:
    """Make the tokens valid again that a request has rotated or revoked."""
    for name, client in clients.items():
        Token.objects.filter(user__username=name).delete()
        owner = get_user_model().objects.get(username=name)
        Token.objects.create(user=owner, key=client.headers["Authorization"].split()[1])


def routes() -> Iterator[tuple[str, str, set[str]]]:
    """Yield name, example address and methods of everything below /api/."""
    api = next(found for found in get_resolver().url_patterns if str(found.pattern) == "api/")
    for route in api.url_patterns:
        address = str(route.pattern).replace("<int:id>", "999999").replace("<task:task>", "hg.items.1.1.a1")
        address = address.replace("<str:destination>", "catalog")
        address = address.replace("^(?P<rest>.*)$", "nowhere/at/all")
        yield route.name, f"/{address}", set(methods_of(route.callback))


def methods_of(callback: Any) -> Iterator[str]:
    """Yield the methods that a view answers; a resource says them for each of its addresses."""
    for method in METHODS:
        answered = method in callback.actions if hasattr(callback, "actions") else hasattr(callback.cls, method)
        if answered and method in callback.cls.http_method_names:
            yield method


def test_the_table_names_every_address_and_every_method() -> None:
    found: dict[str, set[str]] = {}
    for name, _, methods in routes():
        found.setdefault(name, set()).update(methods)

    assert found == {name: set(methods) for name, methods in TABLE.items()}


@pytest.mark.django_db
@pytest.mark.parametrize("name", TABLE)
def test_everybody_gets_as_far_as_the_table_says(  # noqa: PLR0917 (one fixture for each kind of person)
    name: str, anonymous: Api, user: Api, staff: Api, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingestion.api.health.check_readiness", lambda: (True, []))
    for address in [address for found, address, _ in routes() if found == name]:
        for method in METHODS:
            expected = TABLE[name].get(method)

            got = tuple(who.send(method, address).status_code for who in (anonymous, user, staff))

            if expected is None:
                assert got[0] == (405 if PUBLIC in TABLE[name].values() else 401), (method, address, got)
                assert set(got[1:]) <= {401, 403, 404, 405}, (method, address, got)
            else:
                for status, wanted in zip(got, expected, strict=True):
                    assert status == wanted or (wanted == 200 and status in LET_IN), (method, address, got)
            restore_tokens(user=user, staff=staff)

"""Limits of wrong passwords: the same ones whoever is asked, API or admin."""

from typing import Any

import pytest
from django.test import Client

from ingestion import logins
from tests.api.conftest import PASSWORD, Api, problem

NOW = 1_728_000.0  # the beginning of a minute, an hour and a day
MINUTE, HOUR, DAY = 60, 3600, 86_400


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time that the limits see, to be set by the test."""
    now = [NOW]
    monkeypatch.setattr(logins.time, "time", lambda: now[0])
    return now


def ask(face: str, *, username: str = "user", password: str = "x", address: str = "10.0.0.1") -> str:
    """Return what a face makes of a login: in, wrong or throttled."""
    client = Client(REMOTE_ADDR=address)
    login = {"username": username, "password": password}
    if face == "api":
        answer: Any = client.post("/api/v1/tokens", login, content_type="application/json")
        return {200: "in", 401: "wrong", 429: "throttled"}[answer.status_code]
    answer = client.post("/admin/login/?next=/admin/", login)
    if answer.status_code == 302:
        return "in"
    return "throttled" if b"Too many attempts" in answer.content else "wrong"


@pytest.mark.parametrize("username", ["staff", "nobody"])
@pytest.mark.parametrize("faces", [("api", "admin"), ("admin", "api")])
def test_a_face_counts_what_was_tried_at_the_other(staff: Api, faces: tuple[str, str], username: str) -> None:
    guesses = {ask(faces[0], username=username.upper()) for _ in range(10)}

    assert guesses == {"wrong"}
    assert {ask(face, username=username, password=PASSWORD) for face in faces} == {"throttled"}
    assert ask("api", username=username, password=PASSWORD, address="10.0.0.2") != "throttled"


@pytest.mark.parametrize(("kind", "spread"), [("account", "address"), ("address", "username")])
def test_guesses_that_are_spread_out_are_counted_too(user: Api, staff: Api, kind: str, spread: str) -> None:
    allowed = dict(logins.LIMITS[kind])[MINUTE]

    guesses = [ask("api", **{spread: f"10.1.0.{n}"}) for n in range(allowed + 1)]

    assert guesses == ["wrong"] * allowed + ["throttled"]
    assert ask("api", password=PASSWORD, **{spread: "10.2.0.1" if spread == "address" else "user"}) == "throttled"
    assert ask("api", username="staff", password=PASSWORD, address="10.3.0.1") == "in"


def test_one_address_shuts_nobody_out_elsewhere(user: Api) -> None:
    for _ in range(logins.LIMITS["account"][0][1] + 5):
        ask("api")

    assert ask("api", password=PASSWORD, address="10.0.0.2") == "in"


def test_whoever_goes_on_is_slowed_down(user: Api, clock: list[float]) -> None:
    def guess(after_s: int) -> int:
        clock[0] = NOW + after_s
        return sum(ask("api") == "wrong" for _ in range(12))

    minutes = [guess(minute * MINUTE) for minute in range(4)]
    hours = [guess(hour * HOUR + minute * MINUTE) for hour in range(1, 4) for minute in range(4)]

    assert minutes == [10, 10, 10, 0]
    assert hours == [10, 10, 10, 0] * 2 + [10, 0, 0, 0]
    assert guess(DAY) == 10


def test_a_refusal_says_when_to_come_back_and_believes_no_forwarded_address(
    user: Api, anonymous: Api, clock: list[float]
) -> None:
    wrong = {"username": "user", "password": "x"}
    for _ in range(10):
        anonymous.post("/v1/tokens", wrong)

    refused = anonymous.post("/v1/tokens", wrong, headers={"X-Forwarded-For": "10.1.2.3"})

    problem(refused, 429, "request.throttled")
    assert 1 <= int(refused["Retry-After"]) <= MINUTE
    clock[0] = NOW + MINUTE
    assert anonymous.post("/v1/tokens", {**wrong, "password": PASSWORD}).status_code == 200


def test_right_passwords_are_not_counted(user: Api) -> None:
    assert {ask("api", password=PASSWORD) for _ in range(40)} == {"in"}


def test_logins_work_and_are_counted_while_redis_is_away(user: Api, settings: Any) -> None:
    settings.CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://127.0.0.1:1/0"}
    }

    assert ask("api", password=PASSWORD, address="10.9.0.1") == "in"
    assert [ask("admin", address="10.9.0.1") for _ in range(11)] == ["wrong"] * 10 + ["throttled"]

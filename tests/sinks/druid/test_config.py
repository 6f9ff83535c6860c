"""Settings that can be made, and those that cannot."""

from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from ingestion.ports.errors import ConfigError
from sinks.druid.config import LONGEST_TASK_S, DruidConfig
from sinks.druid.staging import GRACE_S
from tests.conformance.connector import CANARY

URL = "http://druid:8888"
WEEK_S = 7 * 86_400


def config(**settings: Any) -> DruidConfig:
    return DruidConfig(**{"url": URL, **settings})


WRONG: list[dict[str, Any]] = [
    {"url": ""},
    {"url": "druid:8888"},
    {"url": "ftp://druid"},
    {"url": "http://"},
    {"url": "http://druid:0"},
    {"url": "http://druid:99999"},
    {"url": "http://[::1"},
    {"url": f"http://user:{CANARY}@druid"},
    {"url": "http://druid?x=1"},
    {"broker_url": "file:///etc/passwd"},
    {"allowed_redirects": ["http://other:8090"]},
    {"allowed_redirects": ["other"]},
    {"allowed_redirects": ["other:8090/path"]},
    {"allowed_redirects": ["user@other:8090"]},
    {"allowed_redirects": ["other:port"]},
    {"datasource": "all"},
    {"datasource": "{pipeline}{pipeline}"},
    {"datasource": '{pipeline}"'},
    {"datasource": "../{pipeline}"},
    {"datasource": ".{pipeline}"},
    {"datasource": "a b{pipeline}"},
    {"staging": "http://bucket"},
    {"staging": "s3://x"},
    {"staging": "s3://bucket?access_key=a&secret_key=b"},
    {"staging": "s3://bucket?unknown=1"},
    {"username": "ingest"},
    {"password": CANARY},
    {"staging": "s3://bucket", "staging_access_key": CANARY},
    {"staging": "s3://bucket", "read_secret_key": CANARY},
    {"read_access_key": CANARY, "read_secret_key": CANARY},
    {"s3_key_variable": "LAKE_KEY"},
    {"s3_key_variable": "AKIA-secret", "s3_secret_variable": "X"},
    {"max_tasks": 0},
    {"task_timeout_s": 9},
    {"task_timeout_s": WEEK_S},
    {"task_attempts": 0},
    {"engine": "javascript"},
    {"filter": {"type": "javascript", "function": "function(x) { return true }"}},
    {"spec": {"type": "index_parallel"}},
]


def test_a_wrong_setting_is_refused_without_its_value() -> None:
    for settings in WRONG:
        with pytest.raises(ValidationError) as raised:
            config(**settings)

        problems = raised.value.errors(include_url=False, include_context=False)
        assert CANARY not in str([{**problem, "input": None} for problem in problems])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"url": "https://druid/"},
        {"username": "ingest", "password": "secret"},
        {"allowed_redirects": ["overlord-2:8090", "[::1]:8090"]},
        {"datasource": "prod.{pipeline}_v-1"},
        {"staging": "s3://bucket/prefix?endpoint=http://store:9000&region=eu-1&path_style=1"},
        {"task_timeout_s": LONGEST_TASK_S},
        # as stored before ingestion by SQL left
        {"engine": "sql"},
        {"engine": "native"},
    ],
)
def test_a_right_setting_is_taken(settings: dict[str, Any]) -> None:
    assert config(**settings).datasource_of("samples")


def test_a_signed_address_can_hold_as_long_as_the_longest_task() -> None:
    assert LONGEST_TASK_S + GRACE_S < WEEK_S


@pytest.mark.parametrize("pipeline", ['a"b', "../x", "a/b", "x" * 129, "a b", "", "a;DROP TABLE x", ".x", "ä", "a\n"])
def test_a_pipeline_that_druid_could_not_be_asked_for_is_refused(pipeline: str) -> None:
    with pytest.raises(ConfigError) as raised:
        config().datasource_of(pipeline)

    assert raised.value.code == "sink.bad_name"


def test_secrets_show_in_no_text_of_the_settings() -> None:
    found = config(
        username="ingest",
        staging="s3://bucket",
        **{
            name: SecretStr(CANARY)
            for name in ("password", "staging_access_key", "staging_secret_key", "read_access_key", "read_secret_key")
        },
    )

    assert CANARY not in repr(found)
    assert CANARY not in str(found)
    assert CANARY not in found.model_dump_json()

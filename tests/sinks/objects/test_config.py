"""Settings of the destination: what can be meant, what cannot, and what is said of it."""

from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from ingestion.admin.config_fields import make_fields, read_settings
from ingestion.toolkit.lake.s3_options import StorageOptions
from sinks.objects.config import ObjectsConfig
from sinks.objects.keys import parse_template

BUCKET = "s3://bucket/prefix?endpoint=http://127.0.0.1:9000"
SECRETS = frozenset({"access_key", "secret_key"})


@pytest.mark.parametrize("url", ["", "published", "./x", "ftp://host/x", "s3://", "s3://bucket?endpoint=canary"])
def test_an_address_that_cannot_be_meant_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        ObjectsConfig(url=url)


def test_credentials_in_the_address_are_refused() -> None:
    with pytest.raises(ValidationError, match="access_key and secret_key"):
        ObjectsConfig(url="s3://bucket?access_key=a&secret_key=b")


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{pipeline}/{run}/{name}", "no placeholder {name}; there are {pipeline}, {run}, {date}, {part}"),
        ("{pipeline}/{run}/{part.__class__}", "no placeholder {part.__class__}"),
        ("{pipeline}/{run:08d}/{part}", "no placeholder {run:08d}"),
        ("{pipeline}/{run}/{part", "brace"),
        ("{pipeline}/{run}/{{part}}", "brace"),
        ("{run}/{part}", "begin with {pipeline}/"),
        ("x{pipeline}/{run}/{part}", "begin with {pipeline}/"),
        ("{pipeline}/{date}/{part}", "{run}"),
        ("{pipeline}/{run}-{part}", "{run}"),
        ("{pipeline}/{run}/{date}", "{part}"),
        ("{pipeline}/{run}/{part}/rows", "{part}"),
        ("{pipeline}/manifests/{run}/{part}", "manifests"),
        ("{pipeline}/compacted/{run}/{part}", "compacted"),
        ("{pipeline}/../{run}/{part}", "dot first"),
        ("{pipeline}//{run}/{part}", "empty segment"),
        ("{pipeline}/{run}/a\\{part}", "backslash"),
        ("{pipeline}/{run}/a\n{part}", "cannot be printed"),
        ("{pipeline}/{run}/" + "x" * 300 + "{part}", "too long"),
        ("", "{pipeline}/"),
    ],
)
def test_a_template_that_gives_no_safe_and_unique_keys_is_refused_with_the_reason(template: str, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ObjectsConfig(url="/srv/x", key_template=template)

    assert said in str(caught.value)


def test_a_template_gives_keys_of_the_logical_day_in_utc() -> None:
    template = parse_template("{pipeline}/day={date}/run={run}/{date}-{part}")
    late = "2026-01-01T23:30:00-05:00"

    assert template.folder_of("samples", run_id=7, logical_time=late) == "samples/day=2026-01-02/run=7/"
    assert template.name_of("0-0-000000", pipeline="samples", run_id=7, logical_time=late) == "2026-01-02-0-0-000000"
    assert template.folder_of("samples", run_id=7, logical_time="2026-01-01T23:30:00").startswith(
        "samples/day=2026-01-01/"
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"format": "xml"}, "format"),
        ({"gzip": True}, "gzip is for jsonl and csv"),
        ({"partition_by": ["a", "a"]}, "each once"),
        ({"partition_by": list("abcde")}, "up to 4"),
        ({"partition_by": ["_run"]}, "_run"),
        ({"kms_key": "k", "sse": "AES256"}, "kms_key needs"),
        ({"sse": "rot13"}, "sse"),
        ({"tags": {str(number): "x" for number in range(11)}}, "10 tags"),
        ({"tags": {"": "x"}}, "1 to 128"),
        ({"tags": {"k": "x" * 257}}, "256"),
        ({"tags": {"aws:k": "x"}}, "aws:"),
        ({"tags": {"k": "<x>"}}, "letters"),
        ({"compact_to_mb": 0}, "compact_to_mb"),
        ({"grace_hours": -1}, "grace_hours"),
        ({"unheard_of": 1}, "unheard_of"),
    ],
)
def test_settings_that_contradict_themselves_or_the_store_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ObjectsConfig(url=BUCKET, **settings)


@pytest.mark.parametrize("settings", [{"sse": "AES256"}, {"tags": {"a": "b"}}])
def test_a_folder_cannot_encrypt_or_tag(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="a folder has neither"):
        ObjectsConfig(url="/srv/x", **settings)


def test_what_the_store_shall_do_goes_down_to_it() -> None:
    config = ObjectsConfig(
        url=BUCKET,
        access_key=SecretStr("k"),
        secret_key=SecretStr("s"),
        sse="aws:kms",
        kms_key="alias/a",
        tags={"a": "b"},
    )

    assert config.opening() == {
        "access_key": "k",
        "secret_key": "s",
        "storage": StorageOptions(encryption="aws:kms", kms_key="alias/a", tags={"a": "b"}),
    }
    assert config.place == "s3://bucket/prefix"


def test_the_admins_form_shows_every_setting_and_reads_it_back() -> None:
    config = {
        "url": BUCKET,
        "format": "csv",
        "gzip": True,
        "defuse_formulas": False,
        "partition_by": ["category", "measured_at"],
        "key_template": "{pipeline}/{date}/{run}/{part}",
        "sse": "aws:kms",
        "kms_key": "alias/a",
        "tags": {"team": "materials"},
        "compact_to_mb": 64,
        "grace_hours": 48,
    }

    fields = make_fields(ObjectsConfig, secret_names=SECRETS, config=config, secrets={})
    cleaned = {
        name: field.clean(field.prepare_value(field.initial))
        for name, field in fields.items()
        if name.removeprefix("config_") in config
    }
    stored, _ = read_settings(ObjectsConfig, cleaned, secret_names=SECRETS, secrets={})

    assert set(fields) == {f"config_{name}" for name in ObjectsConfig.model_fields}
    assert stored == config
    assert ObjectsConfig.model_validate(stored).layout.partition_by == ("category", "measured_at")

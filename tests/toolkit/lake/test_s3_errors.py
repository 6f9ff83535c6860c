"""The errors of boto3, each as one of ours, and the addresses of lakes in buckets."""

import inspect
from typing import Any

import botocore.exceptions
import pytest
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError, ProtocolError

from ingestion.ports.errors import ConfigError, SinkUnavailable
from ingestion.toolkit.lake.opening import open_lake
from ingestion.toolkit.lake.s3 import S3Lake
from ingestion.toolkit.lake.s3_errors import translate
from ingestion.toolkit.lake.s3_options import parse_s3_url
from tests.conformance.lake import KEY

MISTAKES = (
    "s3://",
    "s3://a/b",
    "s3://bucket/../x",
    "s3://bucket?colour=canary",
    "s3://bucket?region=a&region=canary",
    "s3://bucket?endpoint=canary",
    "s3://bucket?endpoint=ftp://canary",
    "s3://bucket?endpoint=http://user:canary@host",
    "s3://bucket?endpoint=http://host:99999999",
    "s3://bucket?path_style=canary",
    "s3://bucket?checksum=canary",
    "s3://bucket?access_key=canary",
    "s3://canary:canary@bucket/x",
)


def test_an_address_with_a_mistake_is_refused_without_repeating_its_values() -> None:
    for url in MISTAKES:
        with pytest.raises(ConfigError) as caught:
            open_lake(url)
            pytest.fail(f"{url} was taken")
        assert "canary" not in f"{caught.value} {caught.value!r} {caught.value.values}"


def test_options_say_what_the_address_says() -> None:
    options = parse_s3_url("s3://bucket/a/b/?endpoint=http://h:9000/&access_key=k%2F1&secret_key=s%2B2&path_style=0")

    assert (options.bucket, options.prefix, options.endpoint) == ("bucket", "a/b", "http://h:9000")
    assert (options.access_key, options.secret_key, options.path_style) == ("k/1", "s+2", False)
    assert "s+2" not in repr(options)
    assert "s+2" not in repr(S3Lake(options))
    assert parse_s3_url("s3://bucket").region is None


CODES = {
    "AccessDenied": "store.auth",
    "InvalidAccessKeyId": "store.auth",
    "SignatureDoesNotMatch": "store.auth",
    "ExpiredToken": "store.auth",
    "RequestTimeTooSkewed": "store.auth",
    "403": "store.auth",
    "NoSuchBucket": "store.config",
    "PermanentRedirect": "store.config",
    "AuthorizationHeaderMalformed": "store.config",
    "EntityTooLarge": "store.config",
    "301": "store.config",
    "400": "store.config",
    "501": "store.config",
    "InternalError": "store.unavailable",
    "SlowDown": "store.unavailable",
    "ServiceUnavailable": "store.unavailable",
    "RequestTimeout": "store.unavailable",
    "ConditionalRequestConflict": "store.unavailable",
    "NoSuchUpload": "store.unavailable",
    "429": "store.unavailable",
    "503": "store.unavailable",
    "NoSuchKey": "store.missing",
    "404": "store.missing",
    "PreconditionFailed": "store.conflict",
    "XMinioStorageFull": "store.no_space",
    "507": "store.no_space",
    "SomethingNew": "store.unavailable",
    "": "store.unavailable",
}


def said_of(code: str, *, status: int = 0) -> tuple[str, bool]:
    """Return our code for a store's, and whether it is tried again; nothing that the store said is repeated."""
    answer: Any = {"Error": {"Code": code, "Message": "canary"}}
    if status:
        answer["ResponseMetadata"] = {"HTTPStatusCode": status}
    ours = translate(ClientError(answer, "PutObject"), key=KEY, where="http://store")
    assert "canary" not in str(ours)
    assert "?" not in str(ours)
    return ours.code, isinstance(ours, SinkUnavailable)


def test_every_code_of_a_store_has_one_of_ours() -> None:
    assert {code: said_of(code)[0] for code in CODES} == CODES


def test_an_unknown_code_is_judged_by_its_status() -> None:
    said = {status: said_of("<html>canary", status=status) for status in range(300, 600)}

    assert {code for code, _ in said.values()} <= {"store.auth", "store.config", "store.unavailable", "store.no_space"}
    assert [status for status, (_, again) in said.items() if status >= 500 and status != 501 and not again] == []


def test_every_code_that_the_model_of_s3_names_is_known() -> None:
    lake = open_lake("s3://bucket?region=us-east-1", access_key="a", secret_key="b")
    assert isinstance(lake, S3Lake)

    for shape in lake.client.meta.service_model.error_shapes:
        ours = translate(ClientError({"Error": {"Code": shape.name}}, "GetObject"), key=KEY, where="x")
        assert ours.code.startswith("store.")


def example(kind: type[Exception]) -> Exception:
    error = kind.__new__(kind)
    Exception.__init__(error, "canary")
    return error


def test_every_error_class_of_botocore_has_one_of_ours() -> None:
    classes = [kind for _, kind in inspect.getmembers(botocore.exceptions, inspect.isclass)]
    seen = {}
    for kind in classes:
        if issubclass(kind, BotoCoreError):
            ours = translate(example(kind), key=KEY, where="http://store")
            assert ours.code in {"store.auth", "store.config", "store.unavailable", "store.checksum"}
            assert "canary" not in str(ours)
            seen[kind.__name__] = ours.code

    assert seen["NoCredentialsError"] == seen["SSOTokenLoadError"] == "store.auth"
    assert seen["EndpointConnectionError"] == seen["ReadTimeoutError"] == seen["IncompleteReadError"]
    assert seen["IncompleteReadError"] == "store.unavailable"
    assert seen["NoRegionError"] == seen["SSLError"] == seen["ParamValidationError"] == "store.config"
    for other in (HTTPError("x"), ProtocolError("x")):
        assert translate(other, key=KEY, where="x").code == "store.unavailable"

import json
import logging
from uuid import uuid4

import pytest

from ingestion.toolkit.redact import RedactingFilter, redact, redact_url, register_secret


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("postgresql://user:hunter22@db/x", "hunter22"),
        ("cannot open redis://:hunter22@cache:6379/0 now", "hunter22"),
        ("amqp://u:p@ss@host/", "p@ss"),
        ("GET https://x.org/a?api_key=hunter22&page=2", "hunter22"),
        ("next: https://x.org/a?page=2&access_token=hunter22", "hunter22"),
        ("https://bucket/x?X-Amz-Signature=0123abcd&X-Amz-Date=1", "0123abcd"),
        ("Authorization: Bearer abc.def", "abc.def"),
        ("{'authorization': 'Basic dXNlcjpwYXNz'}", "dXNlcjpwYXNz"),
        ('{"password": "hunter 22"}', "hunter 22"),
        ('{\\"password\\": \\"hunter22\\"}', "hunter22"),
        ("password=hunter22, host=db", "hunter22"),
        ("db_password = 'hunter22'", "hunter22"),
        ("aws_secret_access_key: hunter22/+x", "hunter22/+x"),
        ("X-Api-Key: hunter22", "hunter22"),
        ("Cookie: session=hunter22; other=hunter23", "hunter23"),
        ("Set-Cookie: id=hunter22; Path=/", "hunter22"),
        ("used AKIAIOSFODNN7EXAMPLE here", "AKIAIOSFODNN7EXAMPLE"),
        ("ghp_0123456789abcdefghijABCDEFGHIJ012345", "ghp_0123456789"),
        ("xoxb-1234567890-abcdefghij", "abcdefghij"),
        ("AIzaSyA0123456789abcdefghijklmnopqrstuvw", "AIzaSyA0123456789"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "eyJzdWIiOiIxIn0"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "MIIE"),
        ("curl -H 'bearer 0123456789abcdef'", "0123456789abcdef"),
    ],
)
def test_secrets_in_known_places_and_forms_are_hidden(text: str, secret: str) -> None:
    cleaned = redact(text)

    assert secret not in cleaned
    assert "***" in cleaned


@pytest.mark.parametrize(
    "text",
    [
        *("nothing to see", "row 7: energy -1.5 is below -1", "https://x.org/v1/structures?page_limit=10&filter=a=1"),
        *("mail to someone@example.org", "2026-11-22T12:00:00+00:00", "layer auth: ok", "key: id, columns: a, b"),
        *("tokens used: none", "https://x.org/@scope/package", '{"name": "x", "value": 3}', ""),
    ],
)
def test_texts_without_secrets_stay_as_they_are(text: str) -> None:
    assert redact(text) == text


def test_a_registered_value_is_hidden_wherever_and_however_it_is_written() -> None:
    secret = f'CANARY/{uuid4().hex}+"x'
    register_secret(secret)

    texts = [secret, f"x{secret}y", f"https://x.org/?q={secret.replace('/', '%2F')}", json.dumps({"any": secret})]

    assert not any(uuid_part(secret) in redact(text) for text in texts[:2] + texts[3:])
    assert redact(f"at {secret}!") == "at ***!"


def uuid_part(secret: str) -> str:
    return secret[7:39]


def test_a_registered_value_is_hidden_in_its_form_for_urls() -> None:
    secret = f"a b/{uuid4().hex}"
    register_secret(secret)

    assert redact_url(f"https://x.org/?q=a%20b%2F{secret[4:]}") == "https://x.org/?q=***"
    assert redact_url(f"https://x.org/a%20b/{secret[4:]}") == "https://x.org/***"


def test_a_secret_that_begins_with_another_one_leaves_nothing_behind() -> None:
    short = f"first{uuid4().hex}"
    register_secret(short)
    register_secret(f"{short}tail")

    assert redact(f"<{short}tail>") == "<***>"


def test_a_short_value_does_not_blacken_every_text() -> None:
    register_secret("a")
    register_secret("")

    assert redact("banana") == "banana"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:pass@x.org/a", "https://x.org/a"),
        ("https://user@x.org/a?b=1", "https://x.org/a?b=1"),
        ("https://x.org/a?token=abc&b=1#c", "https://x.org/a?token=***&b=1#c"),
        ("https://x.org/a?api-key=abc", "https://x.org/a?api-key=***"),
        ("https://x.org/a?key=abc", "https://x.org/a?key=***"),
        ("https://x.org/a?page_token=abc", "https://x.org/a?page_token=***"),
        ("https://x.org/a?filter=elements%20HAS%20%22Si%22", "https://x.org/a?filter=elements%20HAS%20%22Si%22"),
        ("http://[::1", "http://[::1"),
        ("", ""),
        ("no url at all", "no url at all"),
    ],
)
def test_a_url_is_shown_without_its_secrets_and_otherwise_unchanged(url: str, shown: str) -> None:
    assert redact_url(url) == shown


@pytest.fixture
def handler() -> logging.Handler:
    class Kept(logging.Handler):
        def __init__(self) -> None:
            super().__init__()
            self.lines: list[str] = []
            self.records: list[logging.LogRecord] = []

        def emit(self, record: logging.LogRecord) -> None:
            self.records.append(record)
            self.lines.append(self.format(record))

    kept = Kept()
    kept.addFilter(RedactingFilter())
    return kept


def test_log_lines_tracebacks_and_extra_values_come_out_clean(handler: logging.Handler) -> None:
    secret = f"CANARY-{uuid4().hex}"
    register_secret(secret)
    logger = logging.getLogger(f"tests.{uuid4().hex}")
    logger.propagate = False
    logger.addHandler(handler)

    logger.warning("opening %s with %d", secret, 3, extra={"password": "hunter22", "where": {"dsn": [f"x{secret}"]}})
    try:
        raise ValueError(secret)
    except ValueError:
        logger.exception("failed")

    lines, records = handler.lines, handler.records  # type: ignore[attr-defined]
    assert lines[0] == "opening *** with 3"
    assert "ValueError: ***" in lines[1]
    assert "Traceback" in lines[1]
    assert records[0].password == "***"
    assert records[0].where == {"dsn": ["x***"]}
    assert not any(secret in repr(vars(record)) for record in records)

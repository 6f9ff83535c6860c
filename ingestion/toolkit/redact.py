"""Secrets out of texts: URLs, messages, log lines. What is replaced shows as ***.

Three nets, because each has holes: the exact values this process has loaded, names that secrets go by, and the forms
that well-known credentials have.
"""

import json
import logging
import re
import threading
from typing import Any
from urllib.parse import quote

HIDDEN = "***"
MIN_SECRET_LENGTH = 6
"""Shorter values are not searched for: a password "a" would blacken every text."""

_NAMES = (
    r"[\w-]*(?:passw(?:or)?d|passphrase|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credential|signature)"
    r"[\w-]*|x-amz-[\w-]+|(?:set-)?cookie|(?:proxy-)?authorization|sig|pwd"
)
_SECRET_NAME = re.compile(_NAMES, re.IGNORECASE)
_QUERY_NAME = re.compile(rf"(?:{_NAMES}|key|jwt|auth|session(?:id)?)", re.IGNORECASE)
_USERINFO = re.compile(r"(?P<scheme>\b[a-z][a-z0-9+.-]{0,63}://)[^\s/?#@'\"<>]*(?:@[^\s/?#@'\"<>]*)*@", re.IGNORECASE)
_QUERY = re.compile(r"(?P<lead>[?&;#])(?P<name>[^=&;#\s'\"<>]+)=(?P<value>[^&;#\s'\"<>]*)")
_HEADER = re.compile(
    r"(?P<name>(?<![\w-])(?:(?:proxy-)?authorization|(?:set-)?cookie)['\"]?\s*[:=]\s*['\"]?)"
    r"(?P<value>(?:(?:basic|bearer|token|digest|apikey)\s+)?[^'\"\r\n,}]+)",
    re.IGNORECASE,
)
_NAMED = re.compile(
    rf"(?P<name>(?<![\w-])(?:{_NAMES})\\?['\"]?\s*[:=]\s*)"
    r"(?P<value>\\\"[^\"\\]*\\\"|\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|[^\s'\",;&}\])]+)",
    re.IGNORECASE,
)
_FORMATS = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"
    r"|\bgh[pousr]_[A-Za-z0-9]{20,}\b|\bgithub_pat_\w{20,}\b"
    r"|\bxox[a-z]-[A-Za-z0-9-]{10,}"
    r"|\bAIza[\w-]{30,}"
    r"|\beyJ[\w-]{8,}\.[\w-]{4,}\.[\w-]*"
    r"|\b(?:bearer|basic)\s+[\w.~+/=-]{8,}",
    re.IGNORECASE | re.DOTALL,
)


class _Registered:
    """The exact values to hide, and one pattern that finds them all."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.values: set[str] = set()
        self.pattern: re.Pattern[str] | None = None


_registered = _Registered()


def register_secret(value: str) -> None:
    """Hide this exact value from now on in every text of the process, also in its URL and JSON forms."""
    if len(value) < MIN_SECRET_LENGTH:
        return
    forms = {value, quote(value, safe=""), quote(value), json.dumps(value)[1:-1]}
    with _registered.lock:
        if forms <= _registered.values:
            return
        _registered.values |= forms
        # The longest first: a secret that begins with another one must not leave its end behind.
        ordered = sorted(_registered.values, key=len, reverse=True)
        _registered.pattern = re.compile("|".join(re.escape(form) for form in ordered))


def is_secret_name(name: str) -> bool:
    """Return whether a header, parameter or field of this name holds a secret, as far as names tell."""
    return _SECRET_NAME.fullmatch(name) is not None


def redact(text: str) -> str:
    """Return the text with every secret that can be recognised replaced by ***."""
    pattern = _registered.pattern
    if pattern is not None:
        text = pattern.sub(HIDDEN, text)
    text = _FORMATS.sub(HIDDEN, text)
    text = _USERINFO.sub(rf"\g<scheme>{HIDDEN}@", text)
    text = _QUERY.sub(_hide_query_value, text)
    text = _HEADER.sub(rf"\g<name>{HIDDEN}", text)
    return _NAMED.sub(_hide_named_value, text)


def redact_url(url: str) -> str:
    """Return the URL without user name and password and without the values of secret-looking parameters.

    Takes any text, valid URL or not, and changes nothing else in it.
    """
    pattern = _registered.pattern
    if pattern is not None:
        url = pattern.sub(HIDDEN, url)
    url = _USERINFO.sub(r"\g<scheme>", url)
    return _QUERY.sub(_hide_query_value, url)


def _hide_query_value(match: re.Match[str]) -> str:
    if not _QUERY_NAME.fullmatch(match["name"]):
        return match[0]
    return f"{match['lead']}{match['name']}={HIDDEN}"


def _hide_named_value(match: re.Match[str]) -> str:
    value = match["value"]
    quoted = re.match(r"\\?['\"]", value)
    mark = quoted[0] if quoted else ""
    return f"{match['name']}{mark}{HIDDEN}{mark}"


class RedactingFilter(logging.Filter):
    """Takes secrets out of a log record: message, traceback and extra values.

    Belongs on every handler: Python asks a logger's own filters only for records made on that very logger.
    """

    _plain = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
    _formatter = logging.Formatter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True always, with the record made clean."""
        record.msg = redact(record.getMessage())
        record.args = None
        if record.exc_info and record.exc_info[0] is not None and not record.exc_text:
            record.exc_text = self._formatter.formatException(record.exc_info)
        if record.exc_text:
            # The text stands for the traceback from here on: another formatter would write the original again.
            record.exc_text = redact(record.exc_text)
            record.exc_info = None
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        for name, value in list(vars(record).items()):
            if name not in self._plain:
                setattr(record, name, _redact_value(name, value))
        return True


def _redact_value(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return HIDDEN if is_secret_name(name) else redact(value)
    if isinstance(value, dict):
        return {key: _redact_value(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_redact_value(name, item) for item in value]
    return value

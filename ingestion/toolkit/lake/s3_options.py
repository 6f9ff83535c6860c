"""The address of an S3 lake, taken apart."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from ingestion.ports.errors import ConfigError
from ingestion.toolkit.lake.keys import check_key

Checksum = Literal["when_supported", "when_required"]
Encryption = Literal["AES256", "aws:kms"]
_KNOWN = ("endpoint", "region", "path_style", "checksum", "access_key", "secret_key")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class StorageOptions:
    """Options for every object that the store takes: its encryption at rest, and its tags."""

    encryption: Encryption | None = None
    kms_key: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    def arguments(self) -> dict[str, str]:
        """Return the arguments of PutObject and CreateMultipartUpload; what is not set is left to the bucket."""
        found = {
            "ServerSideEncryption": self.encryption,
            "SSEKMSKeyId": self.kms_key,
            "Tagging": urlencode(self.tags),
        }
        return {name: value for name, value in found.items() if value}


@dataclass(frozen=True, slots=True)
class S3Options:
    """Address and options of a bucket; the credentials do not show in its text."""

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None
    path_style: bool = False
    checksum: Checksum = "when_supported"
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    storage: StorageOptions = StorageOptions()


def parse_s3_url(
    url: str,
    *,
    access_key: str | None = None,
    secret_key: str | None = None,
    storage: StorageOptions | None = None,
) -> S3Options:
    """Return the options of `s3://bucket/prefix?endpoint=&region=&path_style=&checksum=`, or a ConfigError.

    The messages name options and never repeat their values, for one of them may be a secret.
    """
    parts = urlsplit(url)
    if not _BUCKET.fullmatch(parts.netloc):
        raise ConfigError("store.config", detail="s3:// must be followed by a bucket name of 3 to 63 characters")
    options = _options(parts.query)
    prefix = unquote(parts.path).strip("/")
    if prefix:
        check_key(prefix)
    access_key = access_key or options.get("access_key")
    secret_key = secret_key or options.get("secret_key")
    if bool(access_key) != bool(secret_key):
        raise ConfigError("store.config", detail="access_key and secret_key belong together, only one is set")
    endpoint = _endpoint(options.get("endpoint"))
    return S3Options(
        bucket=parts.netloc,
        prefix=prefix,
        endpoint=endpoint,
        # The name signs the request; stores with an endpoint of their own mostly go by AWS's first one.
        region=options.get("region") or ("us-east-1" if endpoint else None),
        path_style=_flag(options.get("path_style"), default=endpoint is not None),
        checksum=_checksum(options.get("checksum", "when_supported")),
        access_key=access_key or None,
        secret_key=secret_key or None,
        storage=storage or StorageOptions(),
    )


def _options(query: str) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    names = [name for name, _ in pairs]
    for name in names:
        if name not in _KNOWN:
            raise ConfigError("store.config", detail=f"unknown option {name[:40]!r}; known are {', '.join(_KNOWN)}")
        if names.count(name) > 1:
            raise ConfigError("store.config", detail=f"the option {name} is given more than once")
    return dict(pairs)


def _endpoint(text: str | None) -> str | None:
    if not text:
        return None
    try:
        parts = urlsplit(text)
        is_sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_sound = False
    if not is_sound or "@" in text or "?" in text or "#" in text:
        raise ConfigError("store.config", detail="the endpoint must look like https://host or http://host:port")
    return text.rstrip("/")


def _flag(text: str | None, *, default: bool) -> bool:
    if not text:
        return default
    if text.lower() not in _TRUE | _FALSE:
        raise ConfigError("store.config", detail="path_style must be 0 or 1")
    return text.lower() in _TRUE


def _checksum(text: str) -> Checksum:
    if text == "when_supported":
        return "when_supported"
    if text == "when_required":
        return "when_required"
    raise ConfigError("store.config", detail="checksum must be when_supported or when_required")

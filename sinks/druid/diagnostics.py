"""Causes of failures on the way to the rows, found in the words of stores and of Druid, with their remedies. Pure."""

import re
from dataclasses import dataclass

from ingestion.ports.errors import AuthError, IngestError, SinkUnavailable


@dataclass(frozen=True, slots=True)
class Cause:
    """Layer that a failure belongs to, and its remedy."""

    layer: str
    fix: str


_OUR_STORE = (
    ("region", r"region", "Write the bucket's region into the address of staging: s3://bucket/prefix?region=..."),
    ("bucket", r"NoSuchBucket|no such bucket|InvalidBucketName", "Create the bucket, or correct its name in staging."),
    ("clock", r"RequestTimeTooSkewed|clock", "Set this machine's clock by a time server."),
)
_OUR_KEYS = Cause(
    "auth",
    "Correct the keys of staging: staging_access_key must list, read, write and delete there, read_access_key read.",
)
_OUR_ENDPOINT = (
    "Start the store, or correct its endpoint in the address of staging (with path_style=1 where the bucket is no part"
    " of the host's name)."
)
_DRUIDS = (
    (
        "region",
        r"\bregion\b|AuthorizationHeaderMalformed|PermanentRedirect",
        "Give Druid the bucket's region: druid.s3.endpoint.signingRegion, and AWS_REGION for every service and task.",
    ),
    (
        "credentials",
        r"load credentials|InvalidAccessKeyId|SignatureDoesNotMatch|AccessDenied|Access Denied|403|Forbidden|ExpiredToken",
        "Give Druid keys that may read the bucket: druid.s3.accessKey and secretKey, or name the variables that hold"
        " them in s3_key_variable and s3_secret_variable.",
    ),
    (
        "bucket",
        r"NoSuchBucket|bucket does not exist",
        "Name a bucket that Druid's endpoint has: it reads another store.",
    ),
    (
        "path style",
        r"UnknownHost|Name or service not known|nodename nor servname",
        "Let Druid address the bucket by path (druid.s3.enablePathStyleAccess=true), or let its machines resolve the"
        " bucket's host name.",
    ),
    (
        "endpoint",
        r"Connect|refused|timed? ?out|Unable to execute HTTP request|NoSuchKey|404",
        "Give Druid the store's endpoint under a name that holds on its machines (not localhost):"
        " druid.s3.endpoint.url.",
    ),
    (
        "extension",
        r"Could not resolve type id|load all the necessary extensions",
        "Load the missing extension on all services (druid.extensions.loadList), or let the input be auto.",
    ),
)


def cause_in_store(error: IngestError) -> Cause | None:
    """Return the cause of what the store for rows on their way has said to us; None where it is nothing of a store's."""
    if not error.code.startswith(("store.", "sink.", "config.", "egress.")):
        return None
    said = str(error.values.get("detail") or "")
    if isinstance(error, AuthError):
        return Cause("clock", _OUR_STORE[2][2]) if "RequestTimeTooSkewed" in said else _OUR_KEYS
    for layer, pattern, fix in _OUR_STORE:
        if re.search(pattern, said):
            return Cause(layer, fix)
    return Cause("endpoint", _OUR_ENDPOINT) if isinstance(error, SinkUnavailable) else None


def cause_in_druid(error: IngestError) -> Cause | None:
    """Return the cause of what Druid says of an input in a bucket; None where its words are not known."""
    said = str(error.values.get("detail") or "")
    return next((Cause(layer, fix) for layer, pattern, fix in _DRUIDS if re.search(pattern, said)), None)

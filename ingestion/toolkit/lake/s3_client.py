"""The client that speaks to a bucket."""

import os
import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from ingestion.ports.errors import ConfigError
from ingestion.toolkit.lake.s3_errors import S3_ERRORS, translate
from ingestion.toolkit.lake.s3_options import S3Options

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

TRIES = 4
"""Number of times that one request is sent, all in all, with pauses that grow in between."""
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 60
_session_lock = threading.Lock()
"""A session may be used by one thread at a time, its clients by all."""


def make_client(options: S3Options) -> "S3Client":
    """Return a client of the store; nothing is asked of it yet."""
    s3: Any = {"addressing_style": "path" if options.path_style else "auto"}
    if options.checksum == "when_supported":
        # Every body goes with its SHA-256 in a header that is signed; to sign the body would be to hash it once more.
        s3["payload_signing_enabled"] = False
    config = Config(
        # boto3 still signs URLs of foreign endpoints with the old version 2, which most stores refuse.
        signature_version="s3v4",
        s3=s3,
        retries={"mode": "standard", "total_max_attempts": TRIES},
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        max_pool_connections=8,
        request_checksum_calculation=options.checksum,
        response_checksum_validation=options.checksum,
    )
    try:
        with _session_lock:
            return _session(os.getpid()).client(
                "s3",
                endpoint_url=options.endpoint,
                region_name=options.region,
                aws_access_key_id=options.access_key,
                aws_secret_access_key=options.secret_key,
                config=config,
            )
    except S3_ERRORS as error:
        raise translate(error, key="", where=options.endpoint or "AWS") from error
    except ValueError as error:
        raise ConfigError("store.config", detail="the endpoint or region is no valid address") from error


@lru_cache(maxsize=1)
def _session(process_id: int) -> boto3.session.Session:  # noqa: ARG001 (a forked child gets one of its own)
    # One session a process: each reads S3's description anew, which takes 65 ms a client instead of 4.
    return boto3.session.Session()

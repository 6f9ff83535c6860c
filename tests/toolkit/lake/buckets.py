"""Lakes in new buckets of the servers that tests start."""

import os
from urllib.parse import urlencode

from ingestion.toolkit.lake.opening import open_lake
from ingestion.toolkit.lake.s3 import S3Lake
from ingestion.toolkit.lake.s3_options import StorageOptions
from tests.servers import S3Server

_numbers = iter(range(1, 1_000_000))


def new_bucket(server: S3Server) -> str:
    """Return the name of a bucket made now."""
    bucket = f"lake-{os.getpid()}-{next(_numbers)}"
    server.create_bucket(bucket)
    return bucket


def lake_at(
    server: S3Server,
    bucket: str = "",
    *,
    prefix: str = "head gate/lake",
    storage: StorageOptions | None = None,
    **options: str,
) -> S3Lake:
    """Return a lake in the bucket, or in a new one; `options` are those of its address, and keys other than its own."""
    keys = {name: options.pop(name, getattr(server, name)) for name in ("access_key", "secret_key")}
    query = urlencode({"endpoint": server.endpoint, "region": server.region, **server.options, **options})
    more = {} if storage is None else {"storage": storage}
    lake = open_lake(f"s3://{bucket or new_bucket(server)}/{prefix}?{query}", **keys, **more)
    assert isinstance(lake, S3Lake)
    return lake

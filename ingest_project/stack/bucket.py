"""The bucket of a lake on S3."""

from botocore.exceptions import ClientError

from ingestion.toolkit.lake.s3_client import make_client
from ingestion.toolkit.lake.s3_errors import MISSING, S3_ERRORS, translate
from ingestion.toolkit.lake.s3_options import parse_s3_url


def make_bucket(lake_url: str) -> bool:
    """Return whether the bucket of a lake was made now; the store's error as one of ours where it refuses."""
    options = parse_s3_url(lake_url)
    client = make_client(options)
    try:
        client.head_bucket(Bucket=options.bucket)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") not in {*MISSING, "NoSuchBucket"}:
            raise translate(error, key="", where=options.bucket) from error
    except S3_ERRORS as error:
        raise translate(error, key="", where=options.bucket) from error
    else:
        return False
    try:
        client.create_bucket(Bucket=options.bucket)
    except S3_ERRORS as error:
        raise translate(error, key="", where=options.bucket) from error
    return True

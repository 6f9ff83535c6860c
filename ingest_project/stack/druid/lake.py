"""The lake's store as the S3 extension of Druid has to know it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ingest_project.env import child_environment
from ingestion.toolkit.lake.s3_options import S3Options, parse_s3_url

_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_DEFAULT_REGION = "us-east-1"


@dataclass(frozen=True)
class LakeAccess:
    """Properties of Druid, and the variables they take the keys from."""

    properties: Sequence[str]
    variables: Mapping[str, str] = field(repr=False)


def lake_access(lake_url: str) -> LakeAccess:
    """Return the settings of Druid's S3 client for a lake.

    They are there for a lake in a folder too: with the extension loaded but no region or no keys, even a load that
    touches no S3 can fail.
    """
    options = parse_s3_url(lake_url) if lake_url.startswith("s3://") else S3Options(bucket="")
    own = child_environment({})
    given = (options.access_key, options.secret_key)
    variables = {name: value or own.get(name) or "none" for name, value in zip(_KEYS, given, strict=True)}
    region = options.region or own.get("AWS_DEFAULT_REGION") or _DEFAULT_REGION
    properties = [
        *_key("accessKey", variable=_KEYS[0]),
        *_key("secretKey", variable=_KEYS[1]),
        f"druid.s3.endpoint.signingRegion={region}",
        f"druid.s3.enablePathStyleAccess={str(options.path_style).lower()}",
    ]
    if options.endpoint:
        properties.extend(
            (
                f"druid.s3.protocol={urlsplit(options.endpoint).scheme}",
                f"druid.s3.endpoint.url={options.endpoint}",
                "druid.s3.disableChunkedEncoding=true",
            )
        )
    return LakeAccess(properties=properties, variables=variables | {"AWS_REGION": region})


def _key(name: str, *, variable: str) -> tuple[str]:
    return (f'druid.s3.{name}={{"type":"environment","variable":"{variable}"}}',)

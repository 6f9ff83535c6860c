"""Places of stores, compared: whether two addresses have a folder or a prefix in common, whatever they are called."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from ingestion.toolkit.lake.s3_options import parse_s3_url


def segments_of(url: str) -> tuple[str, ...]:
    """Return the place as segments, from the outermost: a folder or file with all links followed, or bucket and prefix.

    A bucket is named with its endpoint, as two stores may have one of the same name. ConfigError where the address is
    none of a bucket.
    """
    parts = urlsplit(url)
    if parts.scheme == "s3":
        options = parse_s3_url(url)
        endpoint = urlsplit(options.endpoint or "").netloc.lower()
        return ("s3", endpoint, options.bucket, *filter(None, options.prefix.split("/")))
    path = Path(unquote(parts.path) if parts.scheme == "file" else url)
    return ("file", *path.resolve().parts)


def overlap(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Return whether one of the places is the other, or lies in it."""
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]

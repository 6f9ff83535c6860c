"""Files in a folder or a bucket, named by manifests."""

from sinks.objects.config import ObjectsConfig
from sinks.objects.sink import ObjectsSink

__all__ = ["ObjectsConfig", "ObjectsSink"]

"""One upload in a process of its own, for `benchmarks.objects`: prints its wall, CPU and memory as JSON.

usage: python -m benchmarks.uploading sink|boto3 '{"path": ..., "endpoint": ...}'
"""

import hashlib
import json
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

BUCKET = "bucket"
KEYS = {"access_key": "k", "secret_key": "s"}
LOGICAL_TIME = "2026-01-02T00:00:00+00:00"


class AnonymousMemory(threading.Thread):
    """Watches how much memory of its own, not of files, the process has at most."""

    def __init__(self) -> None:
        """Begin to watch."""
        super().__init__(daemon=True)
        self.peak_mb = 0.0
        self.start()

    @staticmethod
    def now_mb() -> float:
        """Return what it has at this moment."""
        with Path("/proc/self/status").open() as status:
            line = next(line for line in status if line.startswith("RssAnon"))
        return int(line.split()[1]) / 1024

    def run(self) -> None:
        """Look every few milliseconds."""
        while True:
            self.peak_mb = max(self.peak_mb, self.now_mb())
            time.sleep(0.01)


def upload_with_boto3(asked: dict[str, Any]) -> Callable[[], None]:
    """Return what uploads the file as boto3 does it, with a checksum of the same kind."""
    import boto3
    from botocore.config import Config

    client = boto3.client(
        "s3",
        endpoint_url=asked["endpoint"],
        region_name="us-east-1",
        aws_access_key_id=KEYS["access_key"],
        aws_secret_access_key=KEYS["secret_key"],
        config=Config(s3={"addressing_style": "path"}, max_pool_connections=20),
    )
    options = {"ChecksumAlgorithm": "SHA256"}
    return lambda: client.upload_file(asked["path"], BUCKET, asked["key"], ExtraArgs=options)


def upload_with_sink(asked: dict[str, Any]) -> Callable[[], None]:
    """Return what stages the file as a part of a local lake."""
    from pydantic import SecretStr

    from ingestion.ports.context import Context
    from ingestion.ports.publication import DeliveryState, DeliveryView, PartView, WriteMode
    from ingestion.ports.schema import ContractBody
    from ingestion.toolkit.lake.opening import open_lake
    from sinks.objects import ObjectsConfig, ObjectsSink

    path = Path(asked["path"])
    url = f"s3://{BUCKET}/{asked['prefix']}?endpoint={asked['endpoint']}"
    secrets = {name: SecretStr(value) for name, value in KEYS.items()}
    sink = ObjectsSink(ObjectsConfig(url=url, **secrets, **asked["settings"]))
    part = PartView(path.name, 0, 0, 0, rows=asked["rows"], size_bytes=path.stat().st_size, sha256=_sha256_of(path))
    contract = ContractBody(name="measured")
    delivery = DeliveryView(
        1, 7, "measured", 1, "store", WriteMode.APPEND, contract, DeliveryState.PLANNED, 1, LOGICAL_TIME
    )
    ctx: Any = Context(
        http=None,  # type: ignore[arg-type]
        limiter=None,  # type: ignore[arg-type]
        lake=open_lake(str(path.parent)),
        clock=lambda: datetime.now(UTC),
        scratch=path.parent / "scratch",
    )
    if asked["settings"]:
        import sinks.objects.rows
        import sinks.objects.splitting  # noqa: F401 - loaded before the memory of libraries is taken
    import ingestion.toolkit.lake.s3  # noqa: F401

    def stage() -> None:
        sink.stage(part, delivery, ctx)

    return stage


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    """Prepare, upload under the clock, and print the cost."""
    prepare = {"boto3": upload_with_boto3, "sink": upload_with_sink}[sys.argv[1]]
    upload = prepare(json.loads(sys.argv[2]))
    before_mb = AnonymousMemory.now_mb()
    memory = AnonymousMemory()
    wall, cpu = time.perf_counter(), time.process_time()
    upload()
    found = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    print(json.dumps({**found, "peak_mb": memory.peak_mb, "before_mb": before_mb}))


if __name__ == "__main__":
    main()

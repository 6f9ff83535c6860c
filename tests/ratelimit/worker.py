"""One worker process of the limiter's tests: takes permissions for a while and prints when it got each."""

import argparse
import json
import sys
import time

from ingestion.ports.errors import RateLimited
from ingestion.ratelimit.limiter import RedisLimiter
from ingestion.ratelimit.rule import Rate


def main() -> None:
    """Wait for a line on stdin, take permissions until the time is over, write their times as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--burst", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    asked = parser.parse_args()
    limiter = RedisLimiter(asked.url, lambda _: Rate(asked.rate, asked.burst))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    granted = []
    ends_at = time.monotonic() + asked.seconds
    while time.monotonic() < ends_at:
        try:
            limiter.acquire(asked.key)
        except RateLimited as limit:
            time.sleep(min(limit.retry_after_s or 0, 0.05))
            continue
        granted.append(time.monotonic())
    json.dump(granted, sys.stdout)


if __name__ == "__main__":
    main()

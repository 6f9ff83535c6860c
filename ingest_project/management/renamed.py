"""Older names of options of `manage.py`."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any


class Renamed(argparse.Action):
    """An option under its older name, which is understood for one release and says so."""

    def __init__(self, option_strings: Sequence[str], dest: str, *, now: str) -> None:
        super().__init__(option_strings, dest, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        self._now = now

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *values: Any) -> None:
        """Take the value, and say the newer name on stderr."""
        sys.stderr.write(f"{values[-1]} is now {self._now}; the old name answers until the next release.\n")
        setattr(namespace, self.dest, values[0])

"""The share of the fault matrix that a seed chooses: a twentieth, and of every kind at least one.

`make drills` injects all of it; `make faults`, which CI runs, injects the share, so that over many commits all of it has
been injected. The same seed chooses the same faults.
"""

import random
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import pytest

PART = 20
DATABASES = ("sqlite", "postgres")
T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """The choices of one seed; without one everything is chosen."""

    seed: str = ""

    def chance(self, name: str) -> random.Random:
        """Return the chance that decides about one thing, whatever else is decided before it."""
        return random.Random(f"{self.seed} {name}")

    def choose(self, name: str, values: Sequence[T], *, kind: Callable[[T], Hashable]) -> list[T]:
        """Return the values to inject, in their order: of every kind one, and a twentieth in all."""
        if not self.seed:
            return list(values)
        order = list(range(len(values)))
        self.chance(name).shuffle(order)
        first_of_kind = {kind(values[place]): place for place in reversed(order)}
        chosen = set(first_of_kind.values())
        for place in order:
            if len(chosen) * PART >= len(values):
                break
            chosen.add(place)
        return [values[place] for place in sorted(chosen)]

    def times(self, whole: int, *, least: int) -> int:
        """Return how often to do what the whole drill does `whole` times."""
        return max(least, -(-whole // PART)) if self.seed else whole

    def is_on(self, name: str, database: str) -> bool:
        """Return whether a fault is injected on that database: on one of the two, or, without a seed, on both."""
        return not self.seed or self.chance(name).choice(DATABASES) == database


def share_of(config: pytest.Config) -> Share:
    """Return the share that the command line asked for."""
    return Share(config.getoption("--drill-seed") or "")

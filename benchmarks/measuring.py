"""Costs of processes: CPU seconds and peak memory, of one process and all it started."""

import os
import statistics
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_SAMPLE_S = 0.1


@dataclass(frozen=True)
class Cost:
    """Costs of one round."""

    wall_s: float
    cpu_s: float


def median_cost(costs: Sequence[Cost]) -> Cost:
    """Return the medians of the rounds."""
    return Cost(
        wall_s=statistics.median(cost.wall_s for cost in costs),
        cpu_s=statistics.median(cost.cpu_s for cost in costs),
    )


def interleave(rounds: int, *sides: Callable[[], Cost]) -> list[Cost]:
    """Return the median of each side, measured A B A B: what else the machine does meets all of them alike."""
    costs: list[list[Cost]] = [[] for _ in sides]
    for _ in range(rounds):
        for side, found in zip(sides, costs, strict=True):
            found.append(side())
    return [median_cost(found) for found in costs]


def tree_of(root: int) -> list[int]:
    """Return the process and all that descend from it."""
    children: dict[int, list[int]] = defaultdict(list)
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (fields := _stat(int(folder.name))):
            children[int(fields[1])].append(int(folder.name))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting.extend(children[pid])
    return found


def cpu_of_tree(root: int) -> float:
    """Return the CPU seconds, user and system, that the process and all it ever started and waited for have used."""
    fields = [found for pid in tree_of(root) if (found := _stat(pid))]
    return sum(int(value) for found in fields for value in found[11:15]) * _TICK_S


def peak_bytes_of(pid: int) -> int:
    """Return the process's peak of resident memory; 0 where it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


class PeakWatch:
    """Watches a process tree for as long as the block lasts: the greatest peak of any of its processes."""

    def __init__(self, root: int) -> None:
        """Take the process at the top."""
        self._root = root
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peaks: dict[str, int] = {}
        """By program and process, in bytes."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._look()

    @property
    def greatest(self) -> tuple[str, int]:
        """Return the process that needed most, and how much."""
        return max(self.peaks.items(), key=lambda item: item[1], default=("", 0))

    def _watch(self) -> None:
        while not self._end.wait(_SAMPLE_S):
            self._look()

    def _look(self) -> None:
        for pid in tree_of(self._root):
            if peak := peak_bytes_of(pid):
                self.peaks[f"{_program(pid)} ({pid})"] = peak


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name: state, parent ... user, system, and those of the reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _program(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "gone"
    for word in ("gunicorn", "beat", "worker", "manage.py"):
        if word in words:
            names = [name for name in words if name.startswith("worker-")]
            return names[0].partition("@")[0] if names else word
    return Path(words[0]).name

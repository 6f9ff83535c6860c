"""Named points where a test can kill, pause or break the process; outside tests they cost one comparison.

Armed by a JSON text (setting HEADGATE_FAILPOINTS):

    {"dir": "/tmp/x",                 where hits and used rules are noted, shared by all processes
     "record": true,                  note every hit in <dir>/hits
     "rules": [{"at": "fetch.after_put#2", "do": "kill"}, ...],   each acts once over all processes
     "switches": ["unfenced"]}        parts of the safety net that a control run does without

A hit is named `<point>#<n>`, n counting the hits of that point over all processes, from 1. Actions: `kill`
(SIGKILL), `stop` (SIGSTOP), `sleep:<seconds>`, `raise:<dotted exception>`. Source of the method: kill at the n-th
boundary until nothing is killed (SQLite's test harness).
"""

import fcntl
import json
import os
import signal
import time
from importlib import import_module
from pathlib import Path
from typing import Any

_armed: "Faults | None" = None


def failpoint(name: str) -> None:
    """Act as the armed rule for this hit of `name` says; nothing where none is armed."""
    if _armed is not None:
        _armed.hit(name)


def is_switched(name: str) -> bool:
    """Return whether a control run asked for life without the part called `name`."""
    return _armed is not None and name in _armed.switches


def arm(spec: str) -> None:
    """Arm the rules of a JSON text; an empty one disarms."""
    global _armed  # noqa: PLW0603 (one table a process, set at start)
    _armed = Faults(json.loads(spec)) if spec else None


class Faults:
    """The rules of one test, with their notes in a folder that all processes share."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._folder = Path(spec["dir"])
        self._folder.mkdir(parents=True, exist_ok=True)
        self._records = bool(spec.get("record"))
        self._rules = {rule["at"]: rule["do"] for rule in spec.get("rules", ())}
        self._points = {at.partition("#")[0] for at in self._rules}
        self.switches = frozenset(spec.get("switches", ()))

    def hit(self, name: str) -> None:
        """Count this hit and carry out its rule, if it has one that was not used yet."""
        if not self._records and name not in self._points:
            return
        at = f"{name}#{self._count(name)}"
        action = self._rules.get(at)
        if action is not None and self._is_first(at):
            _carry_out(action, at)

    def _count(self, name: str) -> int:
        with (self._folder / "hits").open("a+") as hits:
            fcntl.flock(hits, fcntl.LOCK_EX)
            hits.seek(0)
            count = 1 + sum(line.rstrip("\n") == name for line in hits)
            hits.write(f"{name}\n")
            hits.flush()
        return count

    def _is_first(self, at: str) -> bool:
        try:
            os.close(os.open(self._folder / f"used-{at}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True


def _carry_out(action: str, at: str) -> None:
    verb, _, detail = action.partition(":")
    if verb == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif verb == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif verb == "sleep":
        time.sleep(float(detail))
    elif verb == "raise":
        module, _, kind = detail.rpartition(".")
        raise getattr(import_module(module), kind)(f"injected at {at}")
    else:
        msg = f"unknown action {action!r}"
        raise ValueError(msg)

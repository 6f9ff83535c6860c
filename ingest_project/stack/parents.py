"""Processes that end when the one that started them is gone."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
# Loaded before any fork: loading a library in a child of a threaded process may hang.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent(death_signal: signal.Signals = signal.SIGKILL) -> None:
    """Ask the kernel to send this process a signal when its parent ends, however that ends (Linux only)."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)


def follower(death_signal: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """Return what a child calls between fork and exec, so that it never outlives this process."""
    parent = os.getpid()

    def follow() -> None:
        die_with_parent(death_signal)
        if os.getppid() != parent:  # it was gone before the kernel was asked
            os._exit(1)

    return follow

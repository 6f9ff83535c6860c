"""A statement that takes long: broken off when the work must stop, and not taken for hung while the server works.

Statements are cut so that one lasts seconds. On a table of a billion rows one may still last minutes, and while it does
this thread can neither hear that the run was cancelled nor say that work goes on. So another one does: it breaks the
statement off within a second of a cancel, and beats only if the server, asked over a connection of its own, says that
it works on our statement. A server that hangs gives no such answer and so looks hung, as it should.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ingestion.ports.context import Context
from ingestion.ports.errors import Signal

POLL_S = 0.5
SERVER_POLL_S = 30.0


@contextmanager
def watchdog(ctx: Context, *, cancel: Callable[[], None], is_working: Callable[[], bool]) -> Iterator[None]:
    """Watch over the block from another thread, as above."""
    end, stopped = threading.Event(), threading.Event()

    def watch() -> None:
        polls = 0
        while not end.wait(POLL_S):
            polls += 1
            # What goes wrong here shows in the statement itself, if it matters.
            try:
                if stopped.is_set():
                    # Until the block has ended: a single one can fall between two statements.
                    cancel()
                elif polls % int(SERVER_POLL_S / POLL_S) == 0 and is_working():
                    ctx.beat()
            except Signal:
                stopped.set()
            except Exception:  # noqa: BLE001, S112 - drivers raise what they like at a connection that just closed
                continue

    thread = threading.Thread(target=watch, name="statement-watchdog", daemon=True)
    thread.start()
    try:
        with ctx.on_stop(lambda _signal: stopped.set()):
            yield
    finally:
        end.set()
        thread.join()

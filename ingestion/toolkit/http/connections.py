"""Sockets that can be cut from another thread, and reads that end at a total deadline.

httpx alone can do neither: its timeouts count from byte to byte, so a server that sends one byte each half second is
never cut, and closing a socket does not wake a thread that waits on it.
"""

import contextlib
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpcore


class OutOfTimeError(Exception):
    """The call's total deadline has passed."""


class Connections:
    """The open sockets of one client, and for each thread the time until which its call may go on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._handles: set[socket.socket] = set()
        self._deadline = threading.local()
        self._is_aborted = False

    @contextlib.contextmanager
    def until(self, deadline_at: float) -> Iterator[None]:
        """Bound every read and write of this thread by a time of `time.monotonic()`."""
        self._deadline.at = deadline_at
        try:
            yield
        finally:
            self._deadline.at = None

    def bound(self, timeout_s: float | None) -> float | None:
        """Return the seconds that one socket call may take; OutOfTimeError where none are left."""
        deadline_at = getattr(self._deadline, "at", None)
        if deadline_at is None:
            return timeout_s
        left_s = float(deadline_at - time.monotonic())
        if left_s <= 0:
            raise OutOfTimeError
        return left_s if timeout_s is None else min(timeout_s, left_s)

    def track(self, sock: socket.socket) -> socket.socket:
        """Return a second handle on the socket's connection, through which `abort` cuts it.

        A duplicate, because TLS takes the descriptor out of the socket object while it still shakes hands.
        """
        handle = sock.dup()
        with self._lock:
            self._handles.add(handle)
            is_aborted = self._is_aborted
        if is_aborted:
            _cut(handle)
        return handle

    def release(self, handle: socket.socket) -> None:
        """Forget and close a handle that `track` gave."""
        with self._lock:
            self._handles.discard(handle)
        handle.close()

    def abort(self) -> None:
        """Cut every connection, now and from now on; threads that wait on one wake up with an error."""
        with self._lock:
            self._is_aborted = True
            handles = list(self._handles)
            for handle in handles:
                _cut(handle)


def _cut(handle: socket.socket) -> None:
    # Not close: a thread inside poll() or recv() is woken by a shutdown only. Not connected (any more) is fine.
    with contextlib.suppress(OSError):
        handle.shutdown(socket.SHUT_RDWR)


class BoundedStream(httpcore.NetworkStream):
    """One TCP or TLS connection whose every wait is bounded by its client's `Connections`."""

    def __init__(self, sock: socket.socket, *, handle: socket.socket, connections: Connections) -> None:
        self._sock = sock
        self._handle = handle
        self._connections = connections

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return the next bytes, at most `max_bytes`; empty at the end."""
        self._sock.settimeout(self._connections.bound(timeout))
        try:
            return self._sock.recv(max_bytes)
        except TimeoutError as error:
            self._connections.bound(timeout)
            raise httpcore.ReadTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of the buffer."""
        view = memoryview(buffer)
        try:
            while view:
                self._sock.settimeout(self._connections.bound(timeout))
                view = view[self._sock.send(view) :]
        except TimeoutError as error:
            self._connections.bound(timeout)
            raise httpcore.WriteTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    def close(self) -> None:
        """Close the connection and forget it."""
        self._sock.close()
        self._connections.release(self._handle)

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """Return the same connection with TLS on top."""
        try:
            self._sock.settimeout(self._connections.bound(timeout))
            secured = ssl_context.wrap_socket(self._sock, server_hostname=server_hostname)
        except TimeoutError as error:
            self.close()
            self._connections.bound(timeout)
            raise httpcore.ConnectTimeout(str(error)) from error
        except OSError as error:
            self.close()
            raise httpcore.ConnectError(str(error)) from error
        return BoundedStream(secured, handle=self._handle, connections=self._connections)

    def get_extra_info(self, info: str) -> Any:
        """Return what httpcore asks about the connection, or None."""
        match info:
            case "ssl_object" if isinstance(self._sock, ssl.SSLSocket):
                return self._sock
            case "client_addr":
                return self._sock.getsockname()
            case "server_addr":
                return self._sock.getpeername()
            case "socket":
                return self._sock
            case "is_readable":
                return _is_readable(self._sock)
        return None


def _is_readable(sock: socket.socket) -> bool:
    if sock.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def open_connection(address: str, port: int, *, timeout_s: float | None, connections: Connections) -> BoundedStream:
    """Return a connection to an address that is already checked; httpcore's connect errors where there is none."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    handle = connections.track(sock)
    stream = BoundedStream(sock, handle=handle, connections=connections)
    try:
        sock.settimeout(connections.bound(timeout_s))
        sock.connect((address, port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except TimeoutError as error:
        stream.close()
        connections.bound(timeout_s)
        raise httpcore.ConnectTimeout(str(error)) from error
    except OSError as error:
        stream.close()
        raise httpcore.ConnectError(str(error)) from error
    return stream

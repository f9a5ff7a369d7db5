"""Connections of redis-py whose every wait ends with the operation's deadline.

redis-py knows one limit for each wait on a socket. A command may wait often: to connect, to say who it is, for a reply
that comes in pieces, in a cluster for the positions of the slots. Here each of these waits takes what is left of the
deadline that is in force, and never more than redis-py's own limit. Without a deadline nothing differs.

For the blocking half only: an await is cancelled at the deadline from outside.
"""

from __future__ import annotations

import math
import select
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from contextvars import copy_context
from ipaddress import ip_address
from typing import Any, Final

import redis
import redis.sentinel
from redis.exceptions import ClusterDownError, MasterDownError, ResponseError, TryAgainError

from aicache._deadline import time_left
from aicache._errors import StoreTimeoutError

__all__ = [
    "BoundedLock",
    "ClusterConnection",
    "ClusterTlsConnection",
    "PrimaryConnection",
    "PrimaryTlsConnection",
    "TcpConnection",
    "TlsConnection",
    "UnixConnection",
]


_AT_ONCE: Final = 1e-6
"""Seconds: the shortest limit that is not 0, which would mean not to wait at all, and another error."""


def _within(limit: float | None) -> float | None:
    """The limit of a wait, cut to what is left of the deadline; None is endless, 0 does not wait.

    Raises:
        TimeoutError: nothing is left. redis-py closes the connection on this one, as on any timeout of a socket.
    """
    if limit == 0:
        return limit
    try:
        left = time_left(math.inf if limit is None else limit)
    except StoreTimeoutError:
        raise TimeoutError("the operation's time is over") from None
    return None if left == math.inf else left


class _PolledSocket:
    """A socket, each wait of which is cut to the deadline; `settimeout` gives the limit it has besides.

    The socket itself never waits: telling it anew how long it may costs a call of the system each time, and so does the
    look it takes, with a limit, before it sends.
    """

    __slots__ = ("_limit", "_readable", "_receive", "_send", "_socket", "_writable")

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._limit = connected.gettimeout()
        connected.settimeout(0)
        self._readable, self._writable = select.poll(), select.poll()
        self._readable.register(connected, select.POLLIN)
        self._writable.register(connected, select.POLLOUT)
        self._receive, self._send = connected.recv, connected.send

    def settimeout(self, limit: float | None) -> None:
        self._limit = limit

    def gettimeout(self) -> float | None:
        return self._limit

    def recv(self, *arguments: Any) -> bytes:
        while True:
            if self._limit != 0:
                self._wait(self._readable)
            try:
                return self._receive(*arguments)
            except BlockingIOError:
                if self._limit == 0:
                    raise

    def recv_into(self, *arguments: Any) -> int:
        while True:
            if self._limit != 0:
                self._wait(self._readable)
            try:
                return self._socket.recv_into(*arguments)
            except BlockingIOError:
                if self._limit == 0:
                    raise

    def sendall(self, content: bytes) -> None:
        rest: bytes | memoryview = content
        while True:
            try:
                sent = self._send(rest)
            except BlockingIOError:
                self._wait(self._writable)
            else:
                if sent == len(rest):
                    return
                rest = memoryview(rest)[sent:]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def _wait(self, ready: select.poll) -> None:
        """Until the socket is ready.

        Raises:
            TimeoutError: the limit or the deadline came first.
        """
        seconds = _within(self._limit)
        if not ready.poll(None if seconds is None else 1000 * seconds):
            raise TimeoutError("timed out")


class _TimedSocket:
    """The same for a socket that speaks TLS or is about to (Python asks for its timeout before it shakes hands), and on
    Windows, which has no `poll`."""

    __slots__ = ("_limit", "_set", "_socket")

    def __init__(self, connected: Any) -> None:
        self._socket = connected
        self._limit: float | None = connected.gettimeout()
        self._set = self._limit

    def settimeout(self, limit: float | None) -> None:
        self._limit = limit

    def gettimeout(self) -> float | None:
        # Python asks when half of the TLS socket is made, where an exception would leave the connection open.
        with suppress(TimeoutError):
            return _within(self._limit)
        return _AT_ONCE

    def recv(self, *arguments: Any) -> bytes:
        self._cut()
        received: bytes = self._socket.recv(*arguments)
        return received

    def recv_into(self, *arguments: Any) -> int:
        self._cut()
        count: int = self._socket.recv_into(*arguments)
        return count

    def sendall(self, content: bytes | memoryview) -> None:
        rest = memoryview(content)
        while rest:  # A TLS socket's own `sendall` would wait anew for each part.
            self._cut()
            rest = rest[self._socket.send(rest) :]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def _cut(self) -> None:
        wanted = _within(self._limit)
        if wanted != self._set:
            self._socket.settimeout(wanted)
            self._set = wanted


class _Timed:
    """Mixed into a connection of redis-py: gives it a `_TimedSocket`, and cuts the waits for getting one.

    The two limits are properties because redis-py reads them for each address it tries and again before it agrees on
    TLS; elsewhere, too, where they must not depend on the moment.
    """

    def __init__(self, **settings: Any) -> None:
        self._connecting = False
        self._for_reply: float | None = settings.get("socket_timeout")
        self._for_connection: float | None = settings.get("socket_connect_timeout", self._for_reply)
        super().__init__(**settings)

    @property
    def socket_timeout(self) -> float | None:
        """Seconds to wait for a reply."""
        return _within(self._for_reply) if self._connecting else self._for_reply

    @socket_timeout.setter
    def socket_timeout(self, seconds: float | None) -> None:
        self._for_reply = seconds

    @property
    def socket_connect_timeout(self) -> float | None:
        """Seconds to wait for a connection."""
        return _within(self._for_connection) if self._connecting else self._for_connection

    @socket_connect_timeout.setter
    def socket_connect_timeout(self, seconds: float | None) -> None:
        self._for_connection = seconds

    def _connect(self) -> Any:
        self._connecting = True
        try:
            connect = super()._connect  # type: ignore[misc]  # of the connection this is mixed into
            # No limit of a socket ends the search for a name's address, which may take many seconds.
            connected = _in_time(connect) if _is_name(getattr(self, "host", None)) else connect()
        finally:
            self._connecting = False
        connected.settimeout(self._for_reply)
        if type(connected) is socket.socket and hasattr(select, "poll"):
            return _PolledSocket(connected)
        return _TimedSocket(connected)


def _is_name(host: object) -> bool:
    if not isinstance(host, str) or host == "localhost":
        return False
    try:
        ip_address(host)
    except ValueError:
        return True
    return False


def _in_time(connect: Callable[[], Any]) -> Any:
    """A socket connected in another thread, which nobody waits for beyond the deadline; one that comes later is closed.

    Raises:
        TimeoutError: there is none in time.
    """
    left = _within(None)
    if left is None:
        return connect()
    attempt: Future[Any] = Future()
    context = copy_context()

    def act() -> None:
        try:
            connected = context.run(connect)
        except BaseException as error:  # noqa: BLE001 - belongs to the one who waits
            attempt.set_exception(error)
        else:
            attempt.set_result(connected)

    threading.Thread(target=act, name="aicache-connect", daemon=True).start()
    try:
        return attempt.result(left)
    except FutureTimeoutError:
        if attempt.done() and attempt.exception() is not None:
            raise  # The connection's own.
        attempt.add_done_callback(_close_late)
        raise TimeoutError("the address of the server was not found in time") from None


def _close_late(attempt: Future[Any]) -> None:
    if attempt.exception() is None:
        with suppress(OSError):
            attempt.result().close()


class _TimedBelow(redis.Connection):
    """Follows a connection with TLS: gives it a `_TimedSocket` to speak TLS over."""

    def _connect(self) -> Any:
        return _TimedSocket(super()._connect())  # type: ignore[no-untyped-call]  # redis-py


class TcpConnection(_Timed, redis.Connection):
    """To a single server, or a Sentinel."""


class TlsConnection(_Timed, redis.SSLConnection, _TimedBelow):
    """The same with TLS."""


class UnixConnection(_Timed, redis.UnixDomainSocketConnection):
    """To a server on this machine."""


class _Emptied:
    """Mixed into a Sentinel's connection: redis-py would keep it open, its reply unread, after an interrupt."""

    def read_response(self, *arguments: Any, **options: Any) -> Any:
        return super().read_response(*arguments, **(options | {"disconnect_on_error": True}))  # type: ignore[misc]


class PrimaryConnection(_Timed, _Emptied, redis.sentinel.SentinelManagedConnection):
    """To the primary that the Sentinels name."""


class PrimaryTlsConnection(_Timed, _Emptied, redis.sentinel.SentinelManagedSSLConnection, _TimedBelow):
    """The same with TLS."""


class _Prompt:
    """Mixed into a cluster's connection: two replies arrive as errors that redis-py's cluster does not sleep upon.

    It would sleep 0.25 s before it hands on the first, which no deadline can interrupt, and would retry the second.
    """

    def read_response(self, *arguments: Any, **options: Any) -> Any:
        try:
            return super().read_response(*arguments, **options)  # type: ignore[misc]
        except ClusterDownError as error:
            down = "MASTERDOWN" if isinstance(error, MasterDownError) else "CLUSTERDOWN"
            raise ResponseError(down) from None
        except TryAgainError:
            raise ResponseError("TRYAGAIN") from None


class ClusterConnection(_Timed, _Prompt, redis.Connection):
    """To a node of a cluster."""


class ClusterTlsConnection(_Timed, _Prompt, redis.SSLConnection, _TimedBelow):
    """The same with TLS."""


class BoundedLock:
    """A lock of the thread that holds it, for which others wait no longer than their deadline, nor than a limit.

    redis-py has one around asking where the slots are: it waits without limit for another thread that asks.
    """

    __slots__ = ("_limit", "_lock")

    def __init__(self, limit: float) -> None:
        self._lock = threading.RLock()
        self._limit = limit

    def __enter__(self) -> None:
        with suppress(StoreTimeoutError):
            if self._lock.acquire(timeout=time_left(self._limit)):
                return
        # Of redis-py's kind, as after any wait: the caller then knows that the slots may be others by now.
        raise redis.TimeoutError("another thread asks where the slots are")

    def __exit__(self, *_: object) -> None:
        self._lock.release()

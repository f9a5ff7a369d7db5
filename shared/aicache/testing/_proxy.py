"""A TCP proxy that does to a connection what networks and dying servers do to it.

It runs an event loop in a thread of its own, so the code under test may be sync or async, and it speaks no protocol, so
the server may be any.
"""

from __future__ import annotations

import asyncio
import math
import random
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal, TypeAlias, get_args

__all__ = ["FaultMode", "FaultProxy"]

FaultMode: TypeAlias = Literal["pass", "latency", "rate", "blackhole", "refuse", "reset", "truncate", "corrupt"]
"""What a `FaultProxy` does; its docstring explains each."""

_OPTIONS: Final[dict[str, frozenset[str]]] = {
    "latency": frozenset({"ms", "jitter"}),
    "rate": frozenset({"bytes_per_second"}),
    "truncate": frozenset({"keep"}),
    "corrupt": frozenset({"share"}),
}
_REQUIRED: Final = {"latency": "ms", "rate": "bytes_per_second"}

_CHUNK: Final = 64 * 1024
_HELD_CHUNKS: Final = 64
"""Chunks a direction holds back before it stops reading: the sender then blocks, as on a dead network."""
_ANSWER_WITHIN: Final = 10.0
"""Seconds the proxy's thread may take to carry out an order; more is a fault of the proxy."""


@dataclass(frozen=True, slots=True)
class _Fault:
    """A mode with its options."""

    mode: FaultMode = "pass"
    ms: float = 0.0
    jitter: float = 0.0
    bytes_per_second: float = math.inf
    keep: int | None = None
    share: float = 0.0

    def delay(self, *, reply: bool, draw: float) -> float:
        """Seconds a chunk is held back; infinite while nothing passes. `draw` is from [-1, 1]."""
        if self.mode == "blackhole":
            return math.inf
        if self.mode == "latency" and reply:
            return max(0.0, self.ms + self.jitter * draw) / 1000
        return 0.0

    def piece(self) -> int:
        """The most bytes that pass at once: about 20 ms worth of a limited rate."""
        return _CHUNK if self.mode != "rate" else max(1, min(_CHUNK, int(self.bytes_per_second / 50)))

    def damage(self, chunk: bytes, rng: random.Random) -> bytes:
        """The chunk with some bytes flipped, at least one."""
        wrong = bytearray(chunk)
        chosen = [place for place in range(len(wrong)) if rng.random() < self.share]
        for place in chosen or [rng.randrange(len(wrong))]:
            wrong[place] ^= rng.randrange(1, 256)
        return bytes(wrong)


class _Cut(Exception):  # noqa: N818 - an event, not an error
    """A reply was cut: the connection ends here."""


class FaultProxy:
    """A TCP proxy between a client and a server, with faults that can be switched while connections are open.

        with FaultProxy("127.0.0.1", 6379) as proxy:
            client = redis.Redis.from_url(proxy.url)
            proxy.set("latency", ms=50)

    It listens when the constructor returns. `set` may be called from any thread; when it returns, the mode holds for
    open connections too:

    - `pass`: nothing is changed.
    - `latency`: each reply comes `ms` later, give or take up to `jitter` ms. Replies keep their order.
    - `rate`: each direction carries at most `bytes_per_second`.
    - `blackhole`: connections are accepted, and nothing passes, either way. What was sent meanwhile arrives when the
      mode ends, as when a partition heals: a client that gave up and goes on with the connection reads old replies.
    - `refuse`: connecting is refused, and open connections are reset: the server is gone.
    - `reset`: open connections are reset (RST), and so are new ones as soon as they are accepted.
    - `truncate`: the next reply of each connection ends after `keep` bytes (by default, half of what came at once),
      then the connection is closed.
    - `corrupt`: about this `share` of a reply's bytes is flipped, at least one in what came at once.

    `connections`, `bytes_to_server`, `bytes_to_client` and `round_trips` count since the start. A round trip is a
    request after a reply: exact while each request arrives in one piece and replies come only to requests.

    Jitter and corruption are drawn from `seed` and the number of the connection, so a run can be repeated.
    POSIX systems only.
    """

    def __init__(self, host: str, port: int, *, seed: int = 0) -> None:
        self.connections = 0
        self.bytes_to_server = 0
        self.bytes_to_client = 0
        self.round_trips = 0
        self._server_address = (host, port)
        self._seed = seed
        self._fault = _Fault()
        # Bound and never listening: keeps the port ours while connections to it are refused.
        self._reservation = _bound_socket(0)
        self._port: int = self._reservation.getsockname()[1]
        self._open: set[_Connection] = set()
        self._listener: asyncio.Server | None = None
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=f"fault-proxy-{self._port}", daemon=True)
        self._thread.start()
        try:
            self._in_loop(lambda: self._switch(self._fault))
        except BaseException:
            self.close()
            raise

    @property
    def port(self) -> int:
        """The port it listens on, at 127.0.0.1; the same for its whole life."""
        return self._port

    @property
    def url(self) -> str:
        """The proxy as a Redis server's address."""
        return f"redis://127.0.0.1:{self._port}/0"

    @property
    def open_connections(self) -> int:
        """Connections that are open now."""
        return len(self._open)

    def set(
        self,
        mode: FaultMode,
        *,
        ms: float | None = None,
        jitter: float | None = None,
        bytes_per_second: float | None = None,
        keep: int | None = None,
        share: float | None = None,
    ) -> None:
        """Switch to another mode, with its options.

        Raises:
            ValueError: there is no such mode, or an option is missing, out of range or another mode's.
        """
        given: dict[str, Any] = {
            name: value
            for name, value in {
                "ms": ms,
                "jitter": jitter,
                "bytes_per_second": bytes_per_second,
                "keep": keep,
                "share": share,
            }.items()
            if value is not None
        }
        _check(mode, given)
        if mode == "corrupt":
            given.setdefault("share", 0.05)
        self._in_loop(lambda: self._switch(_Fault(mode, **given)))

    def drop(self) -> None:
        """Reset the connections that are open now; the mode stays."""
        self._in_loop(self._drop)

    def route(self, host: str, port: int) -> None:
        """Lead to another server from now on, as a name does that changed; open connections are reset."""
        self._server_address = (host, port)
        self.drop()

    def close(self) -> None:
        """End all connections, free the port and stop the thread; a second call does nothing."""
        if self._closed:
            return
        try:
            self._in_loop(self._shut)
        finally:
            self._closed = True
            self._thread.join(_ANSWER_WITHIN)
            self._reservation.close()

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------------------------ in the proxy's thread

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        await self._ended.wait()

    def _in_loop(self, order: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self._closed:
            raise RuntimeError("The proxy is closed; make another one.")
        asyncio.run_coroutine_threadsafe(order(), self._loop).result(_ANSWER_WITHIN)

    async def _switch(self, fault: _Fault) -> None:
        self._fault = fault
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if fault.mode == "refuse":
            self._stop_listening()
        elif self._listener is None:
            self._listener = await asyncio.start_server(self._accept, sock=_bound_socket(self._port))
        if fault.mode in {"refuse", "reset"}:
            await self._drop()

    async def _drop(self) -> None:
        await asyncio.gather(*(connection.reset() for connection in tuple(self._open)))

    async def _shut(self) -> None:
        self._stop_listening()
        await self._drop()
        self._ended.set()

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self._fault.mode in {"refuse", "reset"} or self._listener is None:
            _abort(writer)
            return
        rng = random.Random(f"{self._seed}/{self.connections}")  # noqa: S311 - repeatable faults, no secret
        connection = _Connection(self, reader, writer, rng)
        self._open.add(connection)
        connection.task.add_done_callback(lambda _: self._open.discard(connection))


class _Connection:
    """One client's connection and the proxy's own to the server, with a pump in each direction."""

    def __init__(
        self,
        proxy: FaultProxy,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        rng: random.Random,
    ) -> None:
        self._proxy = proxy
        self._reader = reader
        self._writer = writer
        self._rng = rng
        self._asking = False
        self._ends = [writer]
        self._finish = _abort
        self.task = asyncio.get_running_loop().create_task(self._run())
        # Not in a `finally` of the task: one that is cancelled before its first step runs none.
        self.task.add_done_callback(self._end)

    async def reset(self) -> None:
        """End the connection with an RST to both sides."""
        self.task.cancel()
        await asyncio.wait((self.task,))

    def _end(self, _task: asyncio.Task[None]) -> None:
        for end in self._ends:
            self._finish(end)

    async def _run(self) -> None:
        try:
            await self._let_through(asyncio.get_running_loop().time(), 0.0, reply=False)
            server_reader, server_writer = await asyncio.open_connection(*self._proxy._server_address)
            self._ends.append(server_writer)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(self._reader, server_writer, reply=False))
                pumps.create_task(self._pump(server_reader, self._writer, reply=True))
            self._finish = _close
        except* _Cut:
            self._finish = _close
        except* OSError:
            pass  # One side is gone, or there is no server: the other side is reset.

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, reply: bool) -> None:
        """Carry one direction to its end, noting when each chunk came so that a delay does not add up."""
        came: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_HELD_CHUNKS)
        loop = asyncio.get_running_loop()

        async def read() -> None:
            chunk = b"-"
            while chunk:
                chunk = await reader.read(_CHUNK)
                await came.put((loop.time(), chunk))

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(read())
            while True:
                at, chunk = await came.get()
                await self._deliver(at, chunk, writer, reply=reply)
                if not chunk:
                    break

    async def _deliver(self, at: float, chunk: bytes, writer: asyncio.StreamWriter, *, reply: bool) -> None:
        """Pass a chunk on, or the end of the stream if it is empty, as the mode in force says."""
        draw = self._rng.uniform(-1, 1)
        fault, changed = await self._let_through(at, draw, reply=reply)
        if not chunk:
            writer.write_eof()
        while chunk:
            piece, chunk = chunk[: fault.piece()], chunk[fault.piece() :]
            if reply and fault.mode == "truncate":
                keep = len(piece) // 2 if fault.keep is None else fault.keep
                await self._write(piece[:keep], writer, reply=True)
                raise _Cut
            if reply and fault.mode == "corrupt":
                piece = fault.damage(piece, self._rng)
            await self._write(piece, writer, reply=reply)
            if fault.mode == "rate":
                await _wait(changed, len(piece) / fault.bytes_per_second)
            fault, changed = await self._let_through(at, draw, reply=reply)

    async def _write(self, piece: bytes, writer: asyncio.StreamWriter, *, reply: bool) -> None:
        if reply:
            self._proxy.bytes_to_client += len(piece)
        else:
            self._proxy.bytes_to_server += len(piece)
            self._proxy.round_trips += not self._asking
        self._asking = not reply
        writer.write(piece)
        await writer.drain()

    async def _let_through(self, at: float, draw: float, *, reply: bool) -> tuple[_Fault, asyncio.Event]:
        """Wait until a chunk that came at this time may pass; a change of mode is heeded at once."""
        while True:
            fault, changed = self._proxy._fault, self._proxy._changed
            left = at + fault.delay(reply=reply, draw=draw) - asyncio.get_running_loop().time()
            if left <= 0:
                return fault, changed
            await _wait(changed, left)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(None if math.isinf(seconds) else seconds):
            await event.wait()
    except TimeoutError:
        pass


def _check(mode: str, given: dict[str, Any]) -> None:
    if mode not in get_args(FaultMode):
        raise ValueError(f"mode: give one of {', '.join(get_args(FaultMode))}; got {mode!r}")
    foreign = given.keys() - _OPTIONS.get(mode, frozenset())
    if foreign:
        raise ValueError(f"{min(foreign)}: mode {mode!r} has no such option")
    if mode in _REQUIRED and _REQUIRED[mode] not in given:
        raise ValueError(f"{_REQUIRED[mode]}: mode {mode!r} needs it")
    for name, value in given.items():
        too_small = value <= 0 if name == "bytes_per_second" else value < 0
        if too_small or not math.isfinite(value) or (name == "share" and value > 1):
            raise ValueError(f"{name}: out of range: {value!r}")


def _bound_socket(port: int) -> socket.socket:
    # With the protocol named: only then does asyncio switch off the delay of small writes (40 ms) for what it accepts.
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(("127.0.0.1", port))
    except BaseException:
        bound.close()
        raise
    return bound


def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()


def _abort(writer: asyncio.StreamWriter) -> None:
    """Close with an RST, unsent bytes dropped: what SO_LINGER with no time does."""
    end = writer.get_extra_info("socket")
    if end is not None:
        with suppress(OSError):  # It is closed already: the other side was faster.
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()

"""The clients of the Redis store: made at the first use, one for each program, and for async one for each event loop.

redis-py's own retries are off: it would try ten times, and a hung server would stall a lookup for seconds.
`_redis_run` tries once more, where that helps.

A given client is used as it is: its own limits hold, and whatever retries it makes.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.cluster
from redis.client import NEVER_DECODE
from redis.exceptions import RedisClusterException

from aicache._deadline import time_left
from aicache._errors import StoreError
from aicache.stores._redis_making import ASYNC, SYNC, ClusterNode, Limits, aclose_client, close_client, make_client
from aicache.stores._redis_plan import Command
from aicache.stores._redis_url import Address, Topology

__all__ = ["CLOSED", "AsyncClients", "Clients", "Limits"]

CLOSED: Final = "The store is closed; make a new one."
_AGAIN: Final = 0.02
"""Seconds between two cuts of connections that closing did not end."""
_ALL_IN_USE: Final = "All connections to Redis are in use: allow more with max_connections."


class Clients:
    """The sync client. Safe from any thread, and in a forked child, which makes one of its own."""

    def __init__(self, address: Address | None, limits: Limits, given: Any | None) -> None:
        self._address = address
        self._limits = limits
        self._given = None if given is None else _Client(given)
        self._made: dict[int, _Client] = {}
        self._closed = False
        self.is_cluster = _is_cluster(address) if given is None else isinstance(given, redis.cluster.RedisCluster)

    def use(self) -> _Turn:
        """A block with the client of this program, which no more than `max_connections` threads use at a time.

        Raises:
            StoreError: there is none, the store is closed, or nobody has finished with it in time.
        """
        return _Turn(self)

    def enter(self) -> _Client:
        """Begins the block."""
        self._check_open()
        if self._given is not None:
            return self._given
        held = self._made.get(os.getpid()) or self._begin()
        # redis-py's pools refuse at once when all connections are in use, but for one kind that is slow.
        if not held.gate.acquire(timeout=time_left(self._limits.timeout)):
            raise StoreError(CLOSED if self._closed else _ALL_IN_USE)
        try:
            self._check_open()  # Again: it may have been closed meanwhile.
            if held.doubtful:
                self._learn(held)
        except BaseException as error:
            self.leave(held, type(error))
            raise
        return held

    def leave(self, held: _Client, failed: type[BaseException] | None) -> None:
        """Ends the block, which failed in this way."""
        if held is self._given:
            return
        if failed is not None and issubclass(failed, (redis.TimeoutError, RedisClusterException)):
            held.doubtful = self.is_cluster
        held.gate.release()
        if held.cut:  # This thread may have connected after that.
            close_client(held.client)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(CLOSED)

    def _begin(self) -> _Client:
        # Two threads may both make one: no lock, for a fork could inherit it held.
        created = _Client(make_client(SYNC, self._address, self._limits), _Gate(self._limits.max_connections))
        kept = self._made.setdefault(os.getpid(), created)
        if kept is not created:
            close_client(created.client)
        if self._closed:  # Meanwhile.
            self.close()
        return kept

    def _learn(self, held: _Client) -> None:
        """Ask where the slots are now, in one thread at a time; the others go by what is known."""
        if not held.learning.acquire(blocking=False):
            return
        try:
            nodes = held.client.nodes_manager
            if not nodes.startup_nodes and self._address is not None:  # redis-py 6 forgets those that failed.
                nodes.populate_startup_nodes([ClusterNode(*host) for host in self._address.hosts])
            nodes.initialize()
            held.doubtful = False
        finally:
            held.learning.release()

    @property
    def closed(self) -> bool:
        """Whether it was closed; what was under way then may fail in any way."""
        return self._closed

    def options(self, client: Any, command: Command) -> dict[str, Any]:
        """How redis-py is to treat the command: replies as bytes, and in a cluster, where it goes."""
        return _options(client, command) if self.is_cluster else {NEVER_DECODE: True}

    async def aclose(self) -> None:
        """As `close`, without blocking the event loop while it waits."""
        self._closed = True
        if os.getpid() in self._made:
            await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Close this program's client, unless it was given. What is under way has a moment to end."""
        self._closed = True
        made = self._made.pop(os.getpid(), None)
        if made is None:
            return
        until = time.monotonic() + self._limits.parting
        taken = 0  # Whoever uses the client has one of as many.
        while taken < self._limits.max_connections:
            if not made.gate.acquire(timeout=max(0.0, until - time.monotonic())):
                break
            taken += 1
        made.cut = True
        close_client(made.client)
        if taken:
            made.gate.release(taken)  # For those who still wait for their turn: they find the store closed.


class _Turn:
    """A block with a client. A class, for every call has one: as a generator it takes 2 us longer."""

    __slots__ = ("_clients", "_held")

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def __enter__(self) -> Any:
        self._held = self._clients.enter()
        return self._held.client

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        self._clients.leave(self._held, kind)


class _Gate:
    """Lets so many in at a time. Python's semaphore takes a microsecond longer."""

    __slots__ = ("_free",)

    def __init__(self, places: int = 1) -> None:
        self._free: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.release(places)

    def acquire(self, *, timeout: float) -> bool:
        """Whether a place was free in time."""
        try:
            self._free.get(timeout=timeout)
        except queue.Empty:
            return False
        return True

    def release(self, count: int = 1) -> None:
        """Give places back."""
        for _ in range(count):
            self._free.put(None)


@dataclass(slots=True)
class _Client:
    client: Any
    gate: _Gate = field(default_factory=_Gate)
    learning: threading.Lock = field(default_factory=threading.Lock)
    cut: bool = False
    """The connections were closed, whoever used them."""
    doubtful: bool = False
    """A node of the cluster did not answer in time: others may have taken over its slots. redis-py asks at once, but
    there is no time left for it then."""


class AsyncClients:
    """The async clients, one for each event loop: a connection belongs to the loop it was opened in."""

    def __init__(self, address: Address | None, limits: Limits, given: Any | None) -> None:
        self._address = address
        self._limits = limits
        self._given = None if given is None else _LoopClient(given)
        self._pid = os.getpid()
        self._made: dict[asyncio.AbstractEventLoop, _LoopClient] = {}
        self._closed = False
        self.is_cluster = (
            _is_cluster(address) if given is None else isinstance(given, redis.asyncio.cluster.RedisCluster)
        )
        self.usable = address is not None or given is not None
        """False where there is a sync client only."""

    def use(self) -> _AsyncTurn:
        """A block with the client of the running loop, which no more than `max_connections` tasks use at a time.

        Raises:
            StoreError: there is none, the store is closed, or nobody has finished with it in time.
        """
        return _AsyncTurn(self)

    async def enter(self) -> tuple[_LoopClient, float]:
        """Begins the block; also says when."""
        self._check_open()
        if self._given is not None:
            if self.is_cluster:
                await self._given.client.initialize()
            return self._given, 0.0
        loop = asyncio.get_running_loop()
        held = self._made.get(loop) if self._pid == os.getpid() else None
        if held is None:
            held = await self._begin(loop)
        await self._enter(held.gate)
        began = loop.time()
        try:
            self._check_open()  # Again: it may have been closed meanwhile.
            if self.is_cluster and (held.doubtful or getattr(held.client, "_initialize", True)):
                await self._learn(held)
        except BaseException as error:
            self.leave(held, began, type(error))
            raise
        return held, began

    def leave(self, held: _LoopClient, began: float, failed: type[BaseException] | None) -> None:
        """Ends the block, which failed in this way."""
        if held is self._given:
            return
        if failed is not None and self.is_cluster and self._casts_doubt(failed, began):
            held.doubtful = True
        held.gate.release()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(CLOSED)

    def _casts_doubt(self, failed: type[BaseException], began: float) -> bool:
        if issubclass(failed, (redis.TimeoutError, asyncio.CancelledError)):
            # Many that are cancelled have only just begun, and say nothing of the server.
            return asyncio.get_running_loop().time() - began > self._limits.timeout / 2
        # redis-py itself does not ask for the slots where they come out of a pipeline.
        return issubclass(failed, (redis.ConnectionError, RedisClusterException))

    async def _enter(self, gate: asyncio.Semaphore) -> None:
        if not gate.locked():
            await gate.acquire()
            return
        try:
            async with asyncio.timeout(self._limits.timeout):
                await gate.acquire()
        except TimeoutError:
            raise StoreError(CLOSED if self._closed else _ALL_IN_USE) from None

    async def refresh(self, commands: Sequence[Command]) -> None:
        """Disconnect what is idle at these commands' servers: one stale connection is seldom the only one.

        In a cluster only: redis-py tries a connection before it uses it, but not those of an async cluster.
        """
        held = self._made.get(asyncio.get_running_loop())
        if held is None or not self.is_cluster:
            return
        with suppress(redis.RedisError, RedisClusterException, OSError):
            nodes = [held.client.get_node_from_key(command.key) for command in commands]
            for node in {node.name: node for node in nodes}.values():
                for connection in tuple(getattr(node, "_free", ())):
                    # Without waiting for the other end: until then another task might have taken it into use.
                    await connection.disconnect(nowait=True)

    async def _learn(self, held: _LoopClient) -> None:
        """Ask for the nodes of the cluster and where the slots are, in one task that outlives its callers.

        Else one node that hangs and is asked first would use up the time of each of them.
        """
        if held.learning is None or held.learning.done():
            held.learning = asyncio.create_task(_learned(held))
            # Its callers may all have left when it fails; asked for, the exception is not reported as lost.
            held.learning.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            await asyncio.shield(held.learning)
        except asyncio.CancelledError:
            if held.learning.cancelled() and self._closed:
                raise StoreError(CLOSED) from None
            raise

    async def _begin(self, loop: asyncio.AbstractEventLoop) -> _LoopClient:
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._made.clear()
        for other in [one for one in self._made if one.is_closed()]:
            self._made.pop(other, None)
        client = make_client(ASYNC, self._address, self._limits)
        gate = asyncio.Semaphore(self._limits.max_connections)
        held = _LoopClient(client, gate)
        held.life = self._live(loop, held)
        self._made[loop] = held
        await anext(held.life)
        return held

    async def _live(self, loop: asyncio.AbstractEventLoop, held: _LoopClient) -> AsyncGenerator[None, None]:
        """Closes the client before its loop ends: `asyncio.run` first closes the async generators that it has seen
        begin, and there is no other sign of a loop's end."""
        try:
            yield
        finally:
            self._made.pop(loop, None)
            while held.learning is not None and not held.learning.done():
                held.learning.cancel()  # Before Python 3.12, redis-py may miss one.
                await asyncio.wait([held.learning], timeout=0.01)
            wanted = self._limits.max_connections  # Whoever uses the client has one of these.
            taken = await _taken(held.gate, wanted, self._limits.parting)
            until = loop.time() + self._limits.connect_timeout + self._limits.parting
            while taken < wanted and loop.time() < until:
                # Those who read fail now; some go on to connect, and redis-py cannot cut those before they have.
                await aclose_client(held.client)
                taken += await _taken(held.gate, wanted - taken, _AGAIN)
            await aclose_client(held.client)
            for _ in range(taken):
                held.gate.release()  # For those who still wait for their turn: they find the store closed.

    @property
    def closed(self) -> bool:
        """Whether it was closed; what was under way then may fail in any way."""
        return self._closed

    def options(self, client: Any, command: Command) -> dict[str, Any]:
        """How redis-py is to treat the command: replies as bytes, and in a cluster, where it goes."""
        return _options(client, command) if self.is_cluster else {NEVER_DECODE: True}

    async def aclose(self) -> None:
        """Close the client of the running loop, and order those of other running loops closed."""
        self._closed = True
        held = self._made.get(asyncio.get_running_loop())
        if held is not None:
            await held.life.aclose()
        self.close()

    def close(self) -> None:
        """Order the clients of running loops closed; one of a loop that stands still is closed as that loop ends."""
        self._closed = True
        if self._pid != os.getpid():
            return
        for loop, held in list(self._made.items()):
            if loop.is_running():
                with suppress(RuntimeError):  # The loop has ended meanwhile.
                    asyncio.run_coroutine_threadsafe(_end(held.life), loop)


class _AsyncTurn:
    """As `_Turn`."""

    __slots__ = ("_began", "_clients", "_held")

    def __init__(self, clients: AsyncClients) -> None:
        self._clients = clients

    async def __aenter__(self) -> Any:
        self._held, self._began = await self._clients.enter()
        return self._held.client

    async def __aexit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        self._clients.leave(self._held, self._began, kind)


@dataclass(slots=True)
class _LoopClient:
    client: Any
    gate: asyncio.Semaphore = field(default_factory=asyncio.Semaphore)
    life: AsyncGenerator[None, None] = field(init=False)
    learning: asyncio.Task[None] | None = None
    doubtful: bool = False
    """As of `_Client`."""


async def _learned(held: _LoopClient) -> None:
    again = held.doubtful and not getattr(held.client, "_initialize", False)
    await held.client.initialize()  # Does nothing once the nodes are known.
    if again:
        await held.client.nodes_manager.initialize()
    held.doubtful = False


async def _taken(gate: asyncio.Semaphore, wanted: int, seconds: float) -> int:
    """How many of those it could get in this time."""
    count = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while count < wanted:
                await gate.acquire()
                count += 1
    return count


async def _end(life: AsyncGenerator[None, None]) -> None:
    with suppress(RuntimeError):  # The loop is ending it at the same time.
        await life.aclose()


def _is_cluster(address: Address | None) -> bool:
    return address is not None and address.topology is Topology.CLUSTER


def _options(client: Any, command: Command) -> dict[str, Any]:
    """With its node named: else redis-py asks a server for the position of the keys, each time."""
    return {NEVER_DECODE: True, "target_nodes": [client.get_node_from_key(command.key)]}

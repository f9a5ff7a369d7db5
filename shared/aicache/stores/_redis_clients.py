"""The clients of the Redis store: made at the first use, one for each program, and for async one for each event loop.

redis-py's own retries are off: it would try ten times, and a hung server would stall a lookup for seconds. The cache
above retries once, within its deadline.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.asyncio.sentinel
import redis.cluster
import redis.sentinel
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.client import NEVER_DECODE
from redis.retry import Retry

from aicache._errors import StoreError
from aicache.stores._redis_plan import Command
from aicache.stores._redis_url import Address, Topology

__all__ = ["AsyncClients", "Clients", "Limits"]

_CLIENT_NAME: Final = "aicache"
_CLOSED: Final = "The store is closed; make a new one."
_ALL_IN_USE: Final = "All connections to Redis are in use: allow more with max_connections."
_PROTOCOL: Final = 2
"""RESP2: the commands used here say no less in it, and a connection opens with fewer commands."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the store's own clients get besides an address."""

    timeout: float
    connect_timeout: float
    max_connections: int

    def settings(self) -> dict[str, Any]:
        """Arguments for a connection."""
        return {
            "socket_timeout": self.timeout,
            "socket_connect_timeout": self.connect_timeout,
            "client_name": _CLIENT_NAME,
            "protocol": _PROTOCOL,
        }


class Clients:
    """The sync client. Safe from any thread, and in a forked child, which makes one of its own."""

    def __init__(self, address: Address | None, limits: Limits, given: Any | None) -> None:
        self._address = address
        self._limits = limits
        self._given = given
        self._made: dict[int, tuple[Any, threading.Semaphore]] = {}
        self._closed = False
        self.is_cluster = _is_cluster(address) if given is None else isinstance(given, redis.cluster.RedisCluster)

    @contextmanager
    def use(self) -> Iterator[Any]:
        """The client of this program, which no more than `max_connections` threads use at a time.

        Raises:
            StoreError: there is none, the store is closed, or nobody has finished with it in time.
        """
        if self._closed:
            raise StoreError(_CLOSED)
        if self._given is not None:
            yield self._given
            return
        client, gate = self._made.get(os.getpid()) or self._begin()
        # redis-py's pools refuse at once when all connections are in use, but for one kind that is slow.
        if not gate.acquire(timeout=self._limits.timeout):
            raise StoreError(_ALL_IN_USE)
        try:
            yield client
        finally:
            gate.release()

    def _begin(self) -> tuple[Any, threading.Semaphore]:
        # Two threads may both make one: no lock, for a fork could inherit it held.
        made = (_made(_SYNC, self._address, self._limits), threading.Semaphore(self._limits.max_connections))
        kept = self._made.setdefault(os.getpid(), made)
        if kept is not made:
            _close(made[0])
        return kept

    def options(self, client: Any, command: Command) -> dict[str, Any]:
        """How redis-py is to treat the command: replies as bytes, and in a cluster, where it goes."""
        return _options(client, command) if self.is_cluster else {NEVER_DECODE: True}

    def close(self) -> None:
        """Close this program's client, unless it was given."""
        self._closed = True
        made = self._made.pop(os.getpid(), None)
        if made is not None:
            _close(made[0])


class AsyncClients:
    """The async clients, one for each event loop: a connection belongs to the loop it was opened in."""

    def __init__(self, address: Address | None, limits: Limits, given: Any | None) -> None:
        self._address = address
        self._limits = limits
        self._given = given
        self._pid = os.getpid()
        self._made: dict[asyncio.AbstractEventLoop, _LoopClient] = {}
        self._closed = False
        self.is_cluster = (
            _is_cluster(address) if given is None else isinstance(given, redis.asyncio.cluster.RedisCluster)
        )

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Any]:
        """The client of the running loop, which no more than `max_connections` tasks use at a time.

        Raises:
            StoreError: there is none, the store is closed, or nobody has finished with it in time.
        """
        if self._closed:
            raise StoreError(_CLOSED)
        if self._given is not None:
            if self.is_cluster:
                await self._given.initialize()
            yield self._given
            return
        loop = asyncio.get_running_loop()
        held = self._made.get(loop) if self._pid == os.getpid() else None
        if held is None:
            held = await self._begin(loop)
        await self._enter(held.gate)
        try:
            if self.is_cluster:
                await held.client.initialize()  # Does nothing once the nodes are known.
            yield held.client
        finally:
            held.gate.release()

    async def _enter(self, gate: asyncio.Semaphore) -> None:
        if not gate.locked():
            await gate.acquire()
            return
        try:
            await asyncio.wait_for(gate.acquire(), self._limits.timeout)
        except TimeoutError:
            raise StoreError(_ALL_IN_USE) from None

    async def _begin(self, loop: asyncio.AbstractEventLoop) -> _LoopClient:
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._made.clear()
        for other in [one for one in self._made if one.is_closed()]:
            self._made.pop(other, None)
        client = _made(_ASYNC, self._address, self._limits)
        held = _LoopClient(client, asyncio.Semaphore(self._limits.max_connections), self._live(loop, client))
        self._made[loop] = held
        await anext(held.life)
        return held

    async def _live(self, loop: asyncio.AbstractEventLoop, client: Any) -> AsyncGenerator[None, None]:
        """Closes the client before its loop ends: `asyncio.run` first closes the async generators that it has seen
        begin, and there is no other sign of a loop's end."""
        try:
            yield
        finally:
            self._made.pop(loop, None)
            await _aclose(client)

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


@dataclass(frozen=True, slots=True)
class _LoopClient:
    client: Any
    gate: asyncio.Semaphore
    life: AsyncGenerator[None, None]


async def _end(life: AsyncGenerator[None, None]) -> None:
    with suppress(RuntimeError):  # The loop is ending it at the same time.
        await life.aclose()


def _is_cluster(address: Address | None) -> bool:
    return address is not None and address.topology is Topology.CLUSTER


def _options(client: Any, command: Command) -> dict[str, Any]:
    """With its node named: else redis-py asks a server for the position of the keys, each time."""
    return {NEVER_DECODE: True, "target_nodes": [client.get_node_from_key(command.key)]}


# ------------------------------------------------------------------------------------------------ making


@dataclass(frozen=True, slots=True)
class _Library:
    """The classes of one half of redis-py, which are called the same in both. Not all of them are typed."""

    client: Any
    pool: Any
    secure: Any
    unix: Any
    sentinel: Any
    cluster: Any
    node: Any
    retry: Any


_SYNC: Final = _Library(
    redis.Redis,
    redis.ConnectionPool,
    redis.SSLConnection,
    redis.UnixDomainSocketConnection,
    redis.sentinel.Sentinel,
    redis.cluster.RedisCluster,
    redis.cluster.ClusterNode,
    Retry,
)
_ASYNC: Final = _Library(
    redis.asyncio.Redis,
    redis.asyncio.ConnectionPool,
    redis.asyncio.SSLConnection,
    redis.asyncio.UnixDomainSocketConnection,
    redis.asyncio.sentinel.Sentinel,
    redis.asyncio.cluster.RedisCluster,
    redis.asyncio.cluster.ClusterNode,
    AsyncRetry,
)


def _made(library: _Library, address: Address | None, limits: Limits) -> Any:
    if address is None:
        raise StoreError("The store was given a client of the other kind only (sync or async): give both, or a URL.")
    settings = limits.settings() | address.settings
    retry = library.retry(NoBackoff(), 0)
    match address.topology:
        case Topology.SINGLE:
            named = settings.pop("connection_class", None)
            if named is redis.SSLConnection:
                settings["connection_class"] = library.secure
            elif named is redis.UnixDomainSocketConnection:
                settings["connection_class"] = library.unix
            return library.client.from_pool(library.pool(retry=retry, **settings))
        case Topology.SENTINEL:
            own = limits.settings() | {"retry": retry} | address.sentinel_settings
            sentinel = library.sentinel(list(address.hosts), sentinel_kwargs=own)
            return sentinel.master_for(address.service, retry=retry, **settings)
        case Topology.CLUSTER:
            cluster = library.cluster(
                startup_nodes=[library.node(*host) for host in address.hosts],
                # Else one lost shard would keep the healthy ones from being used.
                require_full_coverage=False,
                retry=retry,
                max_connections=2 * limits.max_connections,  # Those that look for the nodes come on top.
                **settings,
            )
            # A slot that moves may answer MOVED and then ASK. Beyond that redis-py sleeps, 16 times.
            cluster.RedisClusterRequestTTL = 3
            return cluster


def _sentinels(client: Any) -> list[Any]:
    """The clients of the Sentinels that a client asks for its primary."""
    asked = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
    return list(getattr(asked, "sentinels", ()))


def _close(client: Any) -> None:
    for each in (client, *_sentinels(client)):
        with suppress(redis.RedisError, OSError):
            each.close()


async def _aclose(client: Any) -> None:
    for each in (client, *_sentinels(client)):
        with suppress(redis.RedisError, OSError):
            await each.aclose()

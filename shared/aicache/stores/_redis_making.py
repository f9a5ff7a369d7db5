"""Making the clients of the Redis store out of an address, and ending them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import suppress
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
from redis.retry import Retry

from aicache._errors import StoreError
from aicache.stores import _redis_waits as waits
from aicache.stores._redis_url import Address, Topology

__all__ = ["ASYNC", "SYNC", "ClusterNode", "Limits", "aclose_client", "close_client", "make_client"]

_CLIENT_NAME: Final = "aicache"
_PROTOCOL: Final = 2
"""RESP2: the commands used here say no less in it, and a connection opens with fewer commands."""
_ENDLESS: Final = 2**31 - 1
_PARTING: Final = 0.25
"""Seconds that closing waits for what is under way, at most, before it cuts the connections."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the store's own clients get besides an address."""

    timeout: float
    connect_timeout: float
    max_connections: int

    @property
    def parting(self) -> float:
        """Seconds that closing waits for what is under way: no longer than that would wait itself."""
        return min(self.timeout, _PARTING)

    def settings(self) -> dict[str, Any]:
        """Arguments for a connection."""
        return {
            "socket_timeout": self.timeout,
            "socket_connect_timeout": self.connect_timeout,
            "client_name": _CLIENT_NAME,
            "protocol": _PROTOCOL,
        }


@dataclass(frozen=True, slots=True)
class _Library:
    """The classes of one half of redis-py, which are called the same in both. Not all of them are typed."""

    client: Any
    pool: Any
    plain: Any
    secure: Any
    unix: Any
    sentinel: Any
    primary: Any
    secure_primary: Any
    retry: Any
    cluster: Callable[..., Any]
    mend: Callable[[Any, Limits], None]
    """Changes a client of a cluster by names that are not public. Where redis-py has none of the name, nothing: each
    only saves time."""


ClusterNode: Final[Callable[..., Any]] = redis.cluster.ClusterNode
"""Not typed."""


def _cluster(hosts: Sequence[tuple[str, int]], *, ssl: bool = False, **settings: Any) -> redis.cluster.RedisCluster:
    """redis-py takes a kind of connection for a cluster only together with a URL, which here holds an address only."""
    # One that hangs must not be the first of those asked in each attempt.
    (host, port), *others = random.sample(hosts, len(hosts))
    return redis.cluster.RedisCluster(
        url=f"redis://[{host}]:{port}" if ":" in host else f"redis://{host}:{port}",
        startup_nodes=[ClusterNode(*other) for other in others],
        connection_class=waits.ClusterTlsConnection if ssl else waits.ClusterConnection,
        **settings,
    )


def _async_cluster(hosts: Sequence[tuple[str, int]], **settings: Any) -> redis.asyncio.cluster.RedisCluster:
    nodes = [redis.asyncio.cluster.ClusterNode(*host) for host in hosts]
    # Before redis-py 8, a call that is cancelled as it connects or sends counts as a connection in use for ever. The
    # number of callers is limited without it.
    settings["max_connections"] = _ENDLESS
    return redis.asyncio.cluster.RedisCluster(startup_nodes=nodes, **settings)


_LOCK: Final = "_initialization_lock"
"""redis-py 6 has none: its threads ask for the slots side by side."""


def _mend(cluster: redis.cluster.RedisCluster, limits: Limits) -> None:
    if hasattr(cluster.nodes_manager, _LOCK):
        setattr(cluster.nodes_manager, _LOCK, waits.BoundedLock(limits.timeout))


class _FirstKey:
    """In place of what finds a command's keys in redis-py: which, each time it asks for the nodes, also has one of them
    list all commands, whose 38 ms of reading no other task can interrupt."""

    async def initialize(self, node: Any = None) -> None:
        """There is nothing to ask for."""

    async def get_keys(self, *words: Any) -> tuple[Any, ...] | None:
        """One key, for all keys of a command here are in one slot; None if there is none.

        redis-py asks once a slot has moved, to find its node again.
        """
        first = 3 if words[0] in ("EVAL", "EVALSHA") else 1
        return words[first : first + 1] or None


def _mend_async(cluster: redis.asyncio.cluster.RedisCluster, _: Limits) -> None:
    if hasattr(cluster, "commands_parser"):
        cluster.commands_parser = _FirstKey()  # type: ignore[assignment]


SYNC: Final = _Library(
    redis.Redis,
    redis.ConnectionPool,
    waits.TcpConnection,
    waits.TlsConnection,
    waits.UnixConnection,
    redis.sentinel.Sentinel,
    waits.PrimaryConnection,
    waits.PrimaryTlsConnection,
    Retry,
    _cluster,
    _mend,
)
ASYNC: Final = _Library(
    redis.asyncio.Redis,
    redis.asyncio.ConnectionPool,
    redis.asyncio.Connection,
    redis.asyncio.SSLConnection,
    redis.asyncio.UnixDomainSocketConnection,
    redis.asyncio.sentinel.Sentinel,
    redis.asyncio.sentinel.SentinelManagedConnection,
    redis.asyncio.sentinel.SentinelManagedSSLConnection,
    AsyncRetry,
    _async_cluster,
    _mend_async,
)


def make_client(library: _Library, address: Address | None, limits: Limits) -> Any:
    """A client of that half for the address. Connects to nothing yet, but for the sync client of a cluster.

    Raises:
        StoreError: there is no address.
    """
    if address is None:
        raise StoreError("The store was given a client of the other kind only (sync or async): give both, or a URL.")
    settings = limits.settings() | address.settings
    retry = library.retry(NoBackoff(), 0)
    match address.topology:
        case Topology.SINGLE:
            kinds = {redis.SSLConnection: library.secure, redis.UnixDomainSocketConnection: library.unix}
            kind = kinds.get(settings.pop("connection_class", None), library.plain)
            return library.client.from_pool(library.pool(kind, retry=retry, **settings))
        case Topology.SENTINEL:
            own = limits.settings() | {"retry": retry} | address.sentinel_settings
            sentinel = library.sentinel([])
            sentinel.sentinels = [
                library.client.from_pool(library.pool(library.plain, host=host, port=port, **own))
                for host, port in address.hosts
            ]
            kind = library.secure_primary if settings.pop("ssl", False) else library.primary
            return sentinel.master_for(address.service, connection_class=kind, retry=retry, **settings)
        case Topology.CLUSTER:
            cluster = library.cluster(
                address.hosts,
                # Else one lost shard would keep the healthy ones from being used.
                require_full_coverage=False,
                retry=retry,
                # A slot that has moved is noted by itself. Every fifth would have all nodes asked again, and in an
                # async client all connections closed, those in use as well.
                reinitialize_steps=0,
                max_connections=2 * limits.max_connections,  # Those that look for the nodes come on top.
                **settings,
            )
            # A slot that moves may answer MOVED and then ASK. Beyond that redis-py sleeps, 16 times.
            cluster.RedisClusterRequestTTL = 3
            library.mend(cluster, limits)
            return cluster


def _sentinels(client: Any) -> list[Any]:
    """The clients of the Sentinels that a client asks for its primary."""
    asked = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
    return list(getattr(asked, "sentinels", ()))


def _pools(client: Any) -> list[Any]:
    """Of a sync client of a cluster, which leaves open what it connects through pools of a kind it was given."""
    if not isinstance(client, redis.cluster.RedisCluster):
        return []
    nodes = [*client.nodes_manager.nodes_cache.values(), *client.nodes_manager.startup_nodes.values()]
    return [node.redis_connection.connection_pool for node in nodes if node.redis_connection is not None]


def close_client(client: Any) -> None:
    """Close its connections, those in use too, and those to Sentinels; it may be closed already."""
    for each in (*_pools(client), client, *_sentinels(client)):
        with suppress(redis.RedisError, OSError):
            each.close()


async def aclose_client(client: Any) -> None:
    """As `close_client`."""
    for each in (client, *_sentinels(client)):
        with suppress(redis.RedisError, OSError):
            await each.aclose()

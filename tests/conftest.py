"""Real servers for the integration tests: each starts when a test first asks for it, and ends with the session."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:  # Most integration tests need no redis.
    from redis_servers import Cluster, Node, SentinelSet


@contextlib.contextmanager
def _server(kind: str, *options: str) -> Iterator[Any]:
    """A started server of `redis_servers`; where there is none, CI fails and others skip."""
    stack = contextlib.ExitStack()
    refuse = pytest.fail if os.environ.get("CI") else pytest.skip
    try:
        import redis_servers
    except ModuleNotFoundError as error:
        if error.name != "redis":
            raise
        refuse("The Python package redis is not installed: pip install redis")
    try:
        server = stack.enter_context(getattr(redis_servers, kind)(*options))
    except redis_servers.ServerMissingError as error:
        refuse(str(error))
    with stack:
        yield server


StartRedis = Callable[..., contextlib.AbstractContextManager[Any]]


@pytest.fixture(scope="session")
def start_redis() -> StartRedis:
    """Starts a server of one's own: `with start_redis("standalone", "--maxmemory", "5mb") as server`."""
    return _server


@pytest.fixture(scope="session")
def redis_standalone() -> Iterator[Node]:
    """Redis 8."""
    with _server("standalone") as server:
        yield server


@pytest.fixture(scope="session")
def redis_7() -> Iterator[Node]:
    """Redis 7, which has no vector sets."""
    with _server("redis7") as server:
        yield server


@pytest.fixture(scope="session")
def redis_search() -> Iterator[Node]:
    """Redis 8 with RediSearch."""
    with _server("redisearch") as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[Cluster]:
    """Six servers, three of them primaries."""
    with _server("cluster") as group:
        yield group


@pytest.fixture(scope="session")
def redis_sentinel() -> Iterator[SentinelSet]:
    """A primary, two replicas, three Sentinels."""
    with _server("sentinel") as group:
        yield group

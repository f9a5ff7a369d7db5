"""What the tests of the Redis store share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from aicache.stores._redis_layout import Keys
from aicache.stores.redis import RedisStore
from aicache.testing import make_vector

__all__ = ["EAST", "FUTURE", "KEYS", "NORTH", "PATIENT", "SPACE", "keys_of", "opened"]

PATIENT: dict[str, Any] = {"timeout": 10.0, "connect_timeout": 10.0}
"""For a server that shares two busy cores with the tests."""
EAST, NORTH = make_vector(1, 0), make_vector(0, 1)
SPACE = "fake/2"
FUTURE = 4e9
KEYS = Keys("aicache", "Q8")


@contextlib.contextmanager
def opened(server: Any, **options: Any) -> Iterator[RedisStore]:
    """A store on the server, closed at the end of the block."""
    store = RedisStore(server.url, **(PATIENT | options))
    try:
        yield store
    finally:
        store.close()


def keys_of(server: Any) -> set[str]:
    """The store's keys but for the count of changes."""
    return {key for key in server.command("KEYS", "aicache:*") if "{epoch}" not in key}

"""What the tests of the Redis store share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, ClassVar

import redis
import redis.asyncio

from aicache.stores._redis_layout import Keys
from aicache.stores.redis import RedisStore
from aicache.testing import make_vector

__all__ = [
    "DIALECTS",
    "EAST",
    "FUTURE",
    "KEYS",
    "NORTH",
    "PATIENT",
    "SPACE",
    "Counting",
    "CountingAsync",
    "keys_of",
    "opened",
]

DIALECTS = ["vector sets", "search", "plain"]

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


class Counting(redis.Connection):
    """A connection that notes what is sent: one item a round trip."""

    sent: ClassVar[list[bytes]] = []

    def send_packed_command(self, command: Any, check_health: bool = True) -> Any:
        self.sent.append(b"".join(command) if not isinstance(command, bytes) else command)
        return super().send_packed_command(command, check_health)  # type: ignore[no-untyped-call]


class CountingAsync(redis.asyncio.Connection):
    """The same for async clients."""

    sent: ClassVar[list[bytes]] = []

    async def send_packed_command(self, command: Any, check_health: bool = True) -> Any:
        self.sent.append(b"".join(command) if not isinstance(command, bytes) else command)
        return await super().send_packed_command(command, check_health)

"""Stores: the tiers below L1, and how a URL becomes one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from aicache._codec import Codec
from aicache._errors import ConfigurationError
from aicache._model import Search
from aicache.stores.base import Store

__all__ = ["Search", "Store", "open_store"]

REDIS_SCHEMES: Final = frozenset({"redis", "rediss", "unix", "redis+cluster", "rediss+cluster", "redis+sentinel"})


def open_store(url: str | None, *, eviction: str | None = None, codec: Codec | None = None, **bounds: Any) -> Store:
    """The store a URL names; None is the SQLite file in the user's cache folder.

    `memory://`, `sqlite:///relative.db`, `sqlite:////absolute/path.db`, and the URLs of `RedisStore`. `eviction` is
    what `memory://` forgets first; `codec` compresses and encrypts what any other store holds; `bounds` are
    `max_entries` and `max_bytes`.

    Raises:
        ConfigurationError: no store has such a URL, or a bound is wrong.
        MissingExtraError: the package of the store is not installed.
    """
    if url == "memory://":
        from aicache.stores.memory import MemoryStore

        if codec is not None:
            raise ConfigurationError(
                "store", "memory:// keeps objects, not bytes: nothing is there to compress or encrypt; leave that out"
            )
        if eviction is not None:
            bounds["eviction"] = eviction
        return MemoryStore(**bounds)
    if url is None or url.startswith("sqlite://"):
        from aicache.stores.sqlite import SqliteStore, default_path

        return SqliteStore(default_path() if url is None else _sqlite_path(url), codec=codec, **bounds)
    scheme = url.partition("://")[0] if "://" in url else "(no scheme)"
    if scheme in REDIS_SCHEMES:
        for name in bounds:
            raise ConfigurationError(name, "a Redis is bounded by its own maxmemory; leave this out")
        from aicache.stores.redis import RedisStore

        return RedisStore(url, codec=codec)
    # Only the scheme is quoted: the rest may hold a password.
    raise ConfigurationError("store", f"give memory://, sqlite:///path.db or redis://...; got a URL of scheme {scheme}")


def _sqlite_path(url: str) -> Path:
    """What follows `sqlite:///`; `sqlite:////x` is absolute, `~` is the home folder."""
    rest = url.removeprefix("sqlite://")
    if not rest.startswith("/") or rest == "/":
        raise ConfigurationError("store", "give the file after three slashes, as in sqlite:///answers.db")
    return Path(rest[1:]).expanduser()

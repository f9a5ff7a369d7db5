"""How old an entry is and when it expires. Pure: the time is passed in."""

from __future__ import annotations

from aicache._model import CacheKey, Entry

__all__ = ["age_of", "is_expired", "life_of"]


def age_of(entry: Entry, now: float) -> float:
    """Seconds since the entry was written; never negative, for clocks of two hosts differ."""
    return max(0.0, now - entry.created)


def is_expired(entry: Entry, now: float) -> bool:
    """True from the moment the entry's life ends, that moment included."""
    return entry.expires is not None and entry.expires <= now


def life_of(key: CacheKey, ttl: float | None, jitter: float) -> float | None:
    """Seconds that an entry with this TTL lives; None for no limit.

    The jitter shortens the life by up to `jitter * ttl`. Its share is read off the key's hash instead of a random
    source: uniform over keys, so that entries written together part, and the same on every host.
    """
    if ttl is None:
        return None
    share = int.from_bytes(key.digest[-4:], "big") / 2**32
    return ttl * (1.0 - jitter * share)

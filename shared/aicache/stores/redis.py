"""The shared store: a Redis that all processes of an application use, and see each other's answers in.

docs/redis.md says how to point it at a server, what it keeps there, what each operation costs and what it needs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aicache._codec import Codec
from aicache._errors import ConfigurationError, MissingExtraError
from aicache._model import (
    CacheKey,
    Candidate,
    Entry,
    Listed,
    Search,
    Selection,
    Space,
    StoreSize,
    Vector,
)

try:
    import redis  # noqa: F401 - say what to install before anything below needs it
    import tenacity  # noqa: F401 - the same
except ImportError as error:
    raise MissingExtraError("RedisStore", "redis") from error

from aicache.stores._redis_clients import AsyncClients, Clients, Limits
from aicache.stores._redis_known import Known, ServerClock
from aicache.stores._redis_layout import Keys
from aicache.stores._redis_lessons import Logs
from aicache.stores._redis_operations import Operations
from aicache.stores._redis_run import run, run_async
from aicache.stores._redis_search import DIALECTS
from aicache.stores._redis_selecting import Selecting
from aicache.stores._redis_session import Session
from aicache.stores._redis_url import read_url
from aicache.stores._redis_writing import Writing
from aicache.stores.base import Fetched, Lessons, Nearby

__all__ = ["RedisStore"]


class RedisStore:
    """A store on a Redis: a single server, a cluster, or a primary that Sentinels name. Both halves, and lessons.

    Nothing is connected before the first use. No trouble leaves as anything but `StoreError`, whose text quotes neither
    credentials nor questions. Every operation is written once, for both halves.

    Entries expire by themselves on the server, by its clock: times are translated, so that programs whose clocks are
    wrong agree about them. Questions and answers are there in clear, unless `codec` encrypts them.

    Args:
        url: `redis://`, `rediss://`, `unix://`, `redis+cluster://`, `rediss+cluster://` or `redis+sentinel://`.
        client: in place of a URL, a `redis.Redis` or `redis.RedisCluster`; not closed by `close`.
        async_client: the same of `redis.asyncio`, for the one event loop it belongs to.
        prefix: what the names of all keys begin with; stores with different ones share nothing.
        dialect: `vector sets`, `search` or `plain`; by default the server is asked what it speaks, once.
        quantisation: of vector sets: `Q8`, one byte a number, or `NOQUANT`, four. Scores are exact either way: they are
            computed from the entries. Stores with different ones do not find each other's entries by meaning.
        timeout: seconds to wait for a reply, or for a free connection.
        connect_timeout: seconds to wait for a connection.
        keep_expired: seconds an entry stays on the server after it has expired, at least; until then a lookup can say
            so.
        max_connections: of each program and event loop; to each node of a cluster.
        wall: this host's clock, seconds since the epoch.
        codec: what turns entries into bytes: compresses and encrypts them.

    Raises:
        ConfigurationError: an argument makes no sense.
        MissingExtraError: the package redis is not installed; from `write`, `nearest` and `similar`
            with a vector, numpy.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        client: Any | None = None,
        async_client: Any | None = None,
        prefix: str = "aicache",
        dialect: str | None = None,
        quantisation: str = "Q8",
        timeout: float = 0.1,
        connect_timeout: float = 0.1,
        keep_expired: float = 60.0,
        max_connections: int = 64,
        wall: Callable[[], float] = time.time,
        codec: Codec | None = None,
    ) -> None:
        if (url is None) == (client is None and async_client is None):
            raise ConfigurationError("store", "give either a URL, or `client`, `async_client` or both")
        if quantisation not in ("Q8", "NOQUANT"):
            raise ConfigurationError("quantisation", "give Q8 or NOQUANT")
        if dialect is not None and dialect not in DIALECTS:
            raise ConfigurationError("dialect", f"give one of {', '.join(DIALECTS)}; got {dialect!r}")
        limits = Limits(
            _seconds("timeout", timeout),
            _seconds("connect_timeout", connect_timeout),
            _count("max_connections", max_connections),
        )
        address = None if url is None else read_url(url)
        self._clients = Clients(address, limits, client)
        self._async_clients = AsyncClients(address, limits, async_client)
        self._known = Known(ServerClock(wall))
        session = Session(
            keys=Keys(prefix, quantisation),
            codec=codec or Codec(),
            known=self._known,
            wanted=dialect,
            grace=math.ceil(_seconds("keep_expired", keep_expired) * 1000),
            cluster=self._clients.is_cluster or self._async_clients.is_cluster,
        )
        self._prefix = prefix
        self._operations = Operations(session)
        self._writing = Writing(session)
        self._selecting = Selecting(session)
        self._logs = Logs(session.keys)

    def __repr__(self) -> str:
        return f"RedisStore(prefix={self._prefix!r}, dialect={self.dialect!r})"

    @property
    def name(self) -> str:
        """`redis`."""
        return "redis"

    @property
    def native(self) -> bool:
        """Whether async callers get the async half; a store made from a sync client only has none to use."""
        return self._async_clients.usable

    @property
    def blocking(self) -> bool:
        """True: calls wait for the network."""
        return True

    @property
    def dialect(self) -> str | None:
        """`vector sets`, `search` or `plain`; None until the server was asked."""
        return None if self._known.dialect is None else self._known.dialect.name

    @property
    def reason(self) -> str | None:
        """Why the dialect is `plain` and nothing is matched by meaning, or None."""
        return self._known.reason

    @property
    def facts(self) -> Mapping[str, str]:
        """The dialect, and the reason if it is `plain`; nothing until the server was asked."""
        known = self._known
        if known.dialect is None:
            return {}
        return {"dialect": known.dialect.name} | ({} if known.reason is None else {"reason": known.reason})

    @property
    def seen_epoch(self) -> int | None:
        """The epoch as the last reply brought it along, without asking. A cluster's replies bring none."""
        return self._known.epoch

    # ------------------------------------------------------------------------------------------ sync

    def fetch(self, key: CacheKey) -> Entry | None:
        """The entry of exactly this key, or None. One round trip."""
        return run(self._operations.fetch(key), self._clients)

    def fetch_many(self, keys: Sequence[CacheKey]) -> Sequence[Fetched]:
        """As `fetch` of each, in the same order; 256 in one round trip to each node."""
        return run(self._operations.fetch_many(keys), self._clients)

    def nearest(self, search: Search) -> Sequence[Candidate]:
        """At most `k` entries of the partition and space, nearest first, with true cosines. One round trip.

        Empty where the dialect is `plain`; `reason` says why.
        """
        return run(self._operations.nearest(search), self._clients)

    def nearest_many(self, searches: Sequence[Search]) -> Sequence[Nearby]:
        """As `nearest` of each, in the same order; 64 in one round trip to each node."""
        return run(self._operations.nearest_many(searches), self._clients)

    def write(self, entry: Entry) -> None:
        """Store the entry in place of any earlier one with its key. One round trip; two where a cluster replaces."""
        run(self._writing.write(entry), self._clients)

    def write_many(self, entries: Sequence[Entry]) -> None:
        """As `write` of each, in the same order; 128, or as many as are 900 KB, in one round trip to each node."""
        run(self._writing.write_many(entries), self._clients)

    def touch(self, key: CacheKey, expires: float | None) -> None:
        """Set when the entry expires; nothing happens if it is gone."""
        run(self._operations.touch(key, expires), self._clients)

    def remove(self, keys: Sequence[CacheKey], *, dry_run: bool = False) -> int:
        """Remove these entries with their vectors, a hundred at a time; how many there were. `dry_run` only counts."""
        return run(self._operations.remove(keys, dry_run=dry_run), self._clients)

    def clear(self, selection: Selection, *, dry_run: bool = False) -> int:
        """Remove what is there of the selection, some hundred entries at a time; how many there were.

        `dry_run` only counts; an index that grows meanwhile may have it count an entry twice.
        """
        return run(self._selecting.clear(selection, dry_run=dry_run), self._clients)

    def similar(self, selection: Selection, space: Space, vector: Vector, min_score: float) -> Sequence[Listed]:
        """Every entry of the selection and space, of whatever partition, whose cosine is at least `min_score`.

        In every dialect. Each vector of the selection comes over the network, a megabyte at a time.
        """
        return run(self._selecting.similar(selection, space, vector, min_score), self._clients)

    def entries(self, selection: Selection) -> Sequence[Entry]:
        """Every entry of the selection that can be read, in no order, expired ones too; a megabyte at a time."""
        return run(self._selecting.entries(selection), self._clients)

    def block(self, asker: CacheKey, entry: CacheKey) -> None:
        """Never again return this entry from `nearest` for this asker. Kept until the server loses it."""
        run(self._operations.block(asker, entry), self._clients)

    def sweep(self, now: float, limit: int) -> int:
        """Remove at most `limit` entries with `expires <= now`; how many were removed.

        Also drops what is left of some entries that Redis has evicted or expired, a bucket at a time.
        """
        return run(self._operations.sweep(now, limit), self._clients)

    def size(self) -> StoreSize:
        """The number of entries, and their bytes estimated from some of each bucket.

        An entry that Redis has evicted or expired counts until a sweep has come by.
        """
        return run(self._operations.size(), self._clients)

    def epoch(self) -> int:
        """Differs when another program has removed or replaced entries, or when the server lost its data."""
        return run(self._operations.epoch(), self._clients)

    # ---------------------------------------------------------------------------------------- learning

    def append_lessons(self, log: bytes, lessons: Sequence[bytes]) -> int:
        """Append them, in one step and one round trip; how many the log has ever had, after it.

        Less than before where the server has lost the log: positions then begin anew.
        """
        return run(self._logs.append(log, lessons), self._clients)

    def lessons(self, log: bytes, after: int) -> Lessons:
        """Those behind position `after`, as far as they are still there; a thousand in one round trip."""
        return run(self._logs.lessons(log, after), self._clients)

    def keep_summary(self, log: bytes, position: int, summary: bytes) -> None:
        """Keep a summary of the log up to a position, unless there is one of a higher position it has reached."""
        run(self._logs.keep_summary(log, position, summary), self._clients)

    def summary(self, log: bytes) -> tuple[int, bytes] | None:
        """The position and the summary kept last, or None."""
        return run(self._logs.summary(log), self._clients)

    def forget_lessons(self, log: bytes) -> None:
        """Remove the log and its summary; positions begin anew."""
        run(self._logs.forget(log), self._clients)

    def join(self, key: CacheKey, cluster: bytes) -> None:
        """Make an entry one of the cluster; nothing happens if the entry is gone."""
        run(self._operations.join(key, cluster), self._clients)

    def close(self) -> None:
        """Close the connections; a second call does nothing, any other call afterwards raises `StoreError`."""
        self._clients.close()
        self._async_clients.close()

    # ------------------------------------------------------------------------------------------ async

    async def afetch(self, key: CacheKey) -> Entry | None:
        """As `fetch`."""
        return await run_async(self._operations.fetch(key), self._async_clients)

    async def afetch_many(self, keys: Sequence[CacheKey]) -> Sequence[Fetched]:
        """As `fetch_many`."""
        return await run_async(self._operations.fetch_many(keys), self._async_clients)

    async def anearest(self, search: Search) -> Sequence[Candidate]:
        """As `nearest`."""
        return await run_async(self._operations.nearest(search), self._async_clients)

    async def anearest_many(self, searches: Sequence[Search]) -> Sequence[Nearby]:
        """As `nearest_many`."""
        return await run_async(self._operations.nearest_many(searches), self._async_clients)

    async def awrite(self, entry: Entry) -> None:
        """As `write`."""
        await run_async(self._writing.write(entry), self._async_clients)

    async def awrite_many(self, entries: Sequence[Entry]) -> None:
        """As `write_many`."""
        await run_async(self._writing.write_many(entries), self._async_clients)

    async def atouch(self, key: CacheKey, expires: float | None) -> None:
        """As `touch`."""
        await run_async(self._operations.touch(key, expires), self._async_clients)

    async def aremove(self, keys: Sequence[CacheKey], *, dry_run: bool = False) -> int:
        """As `remove`."""
        return await run_async(self._operations.remove(keys, dry_run=dry_run), self._async_clients)

    async def aclear(self, selection: Selection, *, dry_run: bool = False) -> int:
        """As `clear`."""
        return await run_async(self._selecting.clear(selection, dry_run=dry_run), self._async_clients)

    async def asimilar(self, selection: Selection, space: Space, vector: Vector, min_score: float) -> Sequence[Listed]:
        """As `similar`."""
        return await run_async(self._selecting.similar(selection, space, vector, min_score), self._async_clients)

    async def aentries(self, selection: Selection) -> Sequence[Entry]:
        """As `entries`."""
        return await run_async(self._selecting.entries(selection), self._async_clients)

    async def ablock(self, asker: CacheKey, entry: CacheKey) -> None:
        """As `block`."""
        await run_async(self._operations.block(asker, entry), self._async_clients)

    async def asweep(self, now: float, limit: int) -> int:
        """As `sweep`."""
        return await run_async(self._operations.sweep(now, limit), self._async_clients)

    async def asize(self) -> StoreSize:
        """As `size`."""
        return await run_async(self._operations.size(), self._async_clients)

    async def aepoch(self) -> int:
        """As `epoch`."""
        return await run_async(self._operations.epoch(), self._async_clients)

    async def aclose(self) -> None:
        """As `close`."""
        await self._clients.aclose()
        await self._async_clients.aclose()


def _seconds(parameter: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        raise ConfigurationError(parameter, f"give seconds above 0; got {value!r}")
    return float(value)


def _count(parameter: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(parameter, f"give a whole number of at least 1; got {value!r}")
    return value

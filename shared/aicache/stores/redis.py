"""The shared store: a Redis that all processes of an application use, and see each other's answers in.

docs/redis.md says how to point it at a server, what it keeps there, what each operation costs and what it needs.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any, Final, TypeVar

from aicache._errors import ConfigurationError, MissingExtraError
from aicache._model import CacheKey, Candidate, Entry, Partition, Selection, Space, StoreSize, Vector

try:
    import redis  # noqa: F401 - say what to install before anything below needs it
except ImportError as error:
    raise MissingExtraError("RedisStore", "redis") from error

from aicache.stores._redis_clients import AsyncClients, Clients, Limits
from aicache.stores._redis_dialect import DIALECTS, Dialect, Found, choose
from aicache.stores._redis_known import Known
from aicache.stores._redis_layout import BUCKETS, NO_SHELF, Keys, expiry_field, group_id, name_of, tag_id, unpack
from aicache.stores._redis_plan import Command, Operation, ask, call, integer, list_of
from aicache.stores._redis_run import run, run_async
from aicache.stores._redis_scripts import AS_STRINGS, Script
from aicache.stores._redis_url import read_url

__all__ = ["RedisStore"]

R = TypeVar("R")

_AT_ONCE: Final = 16
"""Buckets in one round trip of `clear`."""
_TAGGED_AT_ONCE: Final = 2
"""The same where entries are looked at one by one and each found costs 0.2 ms: within the time limit of a reply."""
_CLEARED_AT_ONCE: Final = 100
"""Entries of a bucket looked at in one call of the script, about. Dropping their vectors takes up to 20 ms."""
_SWEPT_AT_ONCE: Final = 50
_AUDITED_AT_ONCE: Final = 200
_WEIGHED: Final = 3
"""Entries of a bucket whose bytes are measured for `size`."""

_log = logging.getLogger("aicache")


class RedisStore:
    """A `Store` and `AsyncStore` on a Redis: a single server, a cluster, or a primary that Sentinels name.

    Nothing is connected before the first use. No trouble leaves as anything but `StoreError`, whose text quotes neither
    credentials nor questions. Every operation is written once, for both halves.

    Entries expire by themselves on the server. Questions and answers are there in clear.

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

    Raises:
        ConfigurationError: an argument makes no sense.
        MissingExtraError: the package redis is not installed; from `write` and `nearest` with a vector, numpy.
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
        self._grace = math.ceil(_seconds("keep_expired", keep_expired) * 1000)
        address = None if url is None else read_url(url)
        self._keys = Keys(prefix, quantisation)
        self._clients = Clients(address, limits, client)
        self._async_clients = AsyncClients(address, limits, async_client)
        self._cluster = self._clients.is_cluster or self._async_clients.is_cluster
        self._wanted = dialect
        self._known = Known()

    def __repr__(self) -> str:
        return f"RedisStore(prefix={self._keys.prefix!r}, dialect={self.dialect!r})"

    @property
    def name(self) -> str:
        """`redis`."""
        return "redis"

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
    def seen_epoch(self) -> int | None:
        """The epoch as the last reply brought it along, without asking. A cluster's replies bring none."""
        return self._known.epoch

    # ------------------------------------------------------------------------------------------ sync

    def fetch(self, key: CacheKey) -> Entry | None:
        """The entry of exactly this key, or None. One round trip."""
        return run(self._fetch(key), self._clients)

    def nearest(self, partition: Partition, space: Space, vector: Vector, k: int) -> Sequence[Candidate]:
        """At most `k` entries of this partition and space, nearest first, with true cosines. One round trip.

        Empty where the dialect is `plain`; `reason` says why.
        """
        return _scored(run(self._nearest(partition, space, vector, k), self._clients), vector, k)

    def write(self, entry: Entry) -> None:
        """Store the entry in place of any earlier one with its key. One round trip; two where a cluster replaces."""
        run(self._write(entry, _is_searchable(entry)), self._clients)

    def touch(self, key: CacheKey, expires: float | None) -> None:
        """Set when the entry expires; nothing happens if it is gone."""
        run(self._touch(key, expires), self._clients)

    def remove(self, keys: Sequence[CacheKey]) -> int:
        """Remove these entries with their vectors; how many there were."""
        return run(self._remove(keys), self._clients)

    def clear(self, selection: Selection) -> int:
        """Remove what is there of the selection, some hundred entries at a time; how many there were."""
        return run(self._clear(selection), self._clients)

    def sweep(self, now: float, limit: int) -> int:
        """Remove at most `limit` entries with `expires <= now`; how many were removed.

        Also drops what is left of some entries that Redis has evicted or expired, a bucket at a time.
        """
        return run(self._sweep(now, limit), self._clients)

    def size(self) -> StoreSize:
        """The number of entries, and their bytes estimated from some of each bucket.

        An entry that Redis has evicted or expired counts until a sweep has come by.
        """
        return run(self._size(), self._clients)

    def epoch(self) -> int:
        """Differs when another program has removed or replaced entries, or when the server lost its data."""
        return run(self._ask_epoch(), self._clients)

    def close(self) -> None:
        """Close the connections; a second call does nothing, any other call afterwards raises `StoreError`."""
        self._clients.close()
        self._async_clients.close()

    # ------------------------------------------------------------------------------------------ async

    async def afetch(self, key: CacheKey) -> Entry | None:
        """As `fetch`."""
        return await run_async(self._fetch(key), self._async_clients)

    async def anearest(self, partition: Partition, space: Space, vector: Vector, k: int) -> Sequence[Candidate]:
        """As `nearest`."""
        return _scored(await run_async(self._nearest(partition, space, vector, k), self._async_clients), vector, k)

    async def awrite(self, entry: Entry) -> None:
        """As `write`."""
        await run_async(self._write(entry, _is_searchable(entry)), self._async_clients)

    async def atouch(self, key: CacheKey, expires: float | None) -> None:
        """As `touch`."""
        await run_async(self._touch(key, expires), self._async_clients)

    async def aremove(self, keys: Sequence[CacheKey]) -> int:
        """As `remove`."""
        return await run_async(self._remove(keys), self._async_clients)

    async def aclear(self, selection: Selection) -> int:
        """As `clear`."""
        return await run_async(self._clear(selection), self._async_clients)

    async def asweep(self, now: float, limit: int) -> int:
        """As `sweep`."""
        return await run_async(self._sweep(now, limit), self._async_clients)

    async def asize(self) -> StoreSize:
        """As `size`."""
        return await run_async(self._size(), self._async_clients)

    async def aepoch(self) -> int:
        """As `epoch`."""
        return await run_async(self._ask_epoch(), self._async_clients)

    async def aclose(self) -> None:
        """As `close`."""
        self._clients.close()
        await self._async_clients.aclose()

    # ------------------------------------------------------------------------------------------ operations

    def _fetch(self, key: CacheKey) -> Operation[Entry | None]:
        dialect = yield from self._dialect()
        value, generation, epoch = yield from dialect.fetch(key)
        self._note_epoch(epoch)
        return None if value is None else unpack(key, value, generation)

    def _nearest(self, partition: Partition, space: Space, vector: Vector, k: int) -> Operation[Found]:
        if k < 1 or not vector or len(vector) % 4:
            return Found([], [])
        dialect = yield from self._dialect()
        found = yield from dialect.nearest(partition, space, vector, k)
        self._note_epoch(found.epochs)
        self._known.note_dead(self._keys.bucket(partition), found.dead)
        return found

    def _write(self, entry: Entry, searchable: bool) -> Operation[None]:  # noqa: FBT001 - internal
        dialect = yield from self._dialect()
        partition = entry.key.partition
        shelf = NO_SHELF
        if searchable and entry.space is not None and entry.vector is not None:
            shelf = self._keys.shelf(partition, entry.space, len(entry.vector) // 4)
        bucket = self._keys.bucket(partition)
        reaping = self._reaping(dialect, bucket, self._known.take_dead(bucket))
        replaced = yield from dialect.write(entry, shelf, self._grace, reaping)
        if replaced and self._cluster:
            yield from self._announce(dialect)

    def _touch(self, key: CacheKey, expires: float | None) -> Operation[None]:
        dialect = yield from self._dialect()
        keys = (self._keys.index(self._keys.bucket(key.partition)), self._keys.entry(key))
        changed = expiry_field(key, expires)
        until = "inf" if expires is None else repr(float(expires))
        yield from ask(call(dialect.scripts.touch, keys, name_of(key), changed, until, self._grace))

    def _remove(self, keys: Sequence[CacheKey]) -> Operation[int]:
        if not keys:
            return 0
        dialect = yield from self._dialect()
        named: dict[str, list[str]] = {}
        for key in keys:
            named.setdefault(self._keys.bucket(key.partition), []).append(name_of(key))
        commands = [
            call(dialect.scripts.remove, (self._keys.index(bucket), *dialect.epochs), *names)
            for bucket, names in named.items()
        ]
        replies = yield from ask(*commands)
        removed = sum(map(integer, replies))
        if removed and self._cluster:
            yield from self._announce(dialect)
        return removed

    def _clear(self, selection: Selection) -> Operation[int]:
        dialect = yield from self._dialect()
        groups = (selection.namespace, selection.tenant, selection.model)
        wanted = [b"" if group is None else group_id(group) for group in groups]
        wanted.append(b"" if selection.tag is None else tag_id(selection.tag))
        cursors = dict.fromkeys(BUCKETS, 0)
        removed = 0
        # Announced first, and whatever is found: what is gone here may still be in another program's L1, and a reply
        # that comes too late must not leave the others untold.
        yield from self._announce(dialect)
        at_once = _AT_ONCE if selection.tag is None else _TAGGED_AT_ONCE
        while cursors:
            some = list(cursors)[:at_once]
            replies = yield from ask(
                *(
                    call(dialect.scripts.clear, (self._keys.index(one),), cursors[one], _CLEARED_AT_ONCE, *wanted)
                    for one in some
                )
            )
            count = 0
            for bucket, reply in zip(some, replies, strict=True):
                gone, cursor = map(integer, list_of(reply, 2))
                count += gone
                cursors[bucket] = cursor
                if cursor == 0:
                    del cursors[bucket]
            if count:
                # After each part: if a later one fails, others have heard of what is gone.
                yield from self._announce(dialect)
            removed += count
        return removed

    def _sweep(self, now: float, limit: int) -> Operation[int]:
        if limit <= 0:
            return 0
        dialect = yield from self._dialect()
        removed, expired_before = 0, math.inf
        while removed < limit:
            replies = yield from self._over_buckets(dialect.scripts.due, now)
            due = [integer(count) for reply in replies for count in list_of(reply)]
            commands = self._sweeping(dialect, due, now, min(limit - removed, _SWEPT_AT_ONCE))
            # Nothing to do, or nothing came of it: not tried for ever.
            if not commands or sum(due) >= expired_before:
                break
            expired_before = sum(due)
            removed += sum(map(integer, (yield from ask(*commands))))
        yield from self._audit(dialect)
        return removed

    def _sweeping(self, dialect: Dialect, due: Sequence[int], now: float, limit: int) -> list[Command]:
        """Commands that remove as many entries as are due in each bucket, at most `limit` together."""
        commands = []
        for bucket, count in zip(BUCKETS, due, strict=False):
            if count > 0 and limit > 0:
                commands.append(call(dialect.scripts.sweep, (self._keys.index(bucket),), now, min(count, limit)))
                limit -= count
        return commands

    def _audit(self, dialect: Dialect) -> Operation[None]:
        """Drop what is left of entries that are gone: in some part of one bucket, and where a search has seen it."""
        number, cursor = self._known.audit_at
        index = self._keys.index(BUCKETS[number])
        commands = [call(dialect.scripts.audit, (index,), cursor, _AUDITED_AT_ONCE)]
        for bucket in self._known.dead_buckets():
            commands += self._reaping(dialect, bucket, self._known.take_dead(bucket))
        reply, *_ = yield from ask(*commands)
        _, cursor = map(integer, list_of(reply, 2))
        self._known.audit_at = (number, cursor) if cursor else ((number + 1) % len(BUCKETS), 0)

    def _size(self) -> Operation[StoreSize]:
        dialect = yield from self._dialect()
        replies = yield from self._over_buckets(dialect.scripts.size, _WEIGHED)
        totals = [tuple(map(integer, list_of(reply, 2))) for reply in replies]
        return StoreSize(sum(total[0] for total in totals), sum(total[1] for total in totals))

    def _ask_epoch(self) -> Operation[int]:
        yield from self._dialect()  # It begins the count.
        names = self._keys.epochs(self._known.author())
        read = Command(("MGET", *names), names[0])
        (reply,) = yield from ask(read)
        if list_of(reply, 2)[0] is None:
            # The server lost its data since: begin the count anew, so that this and the next loss are noticed.
            yield from ask(call(AS_STRINGS.begin, names[:1]), tolerate=True)
            (reply,) = yield from ask(read)
        return self._note_epoch(list_of(reply, 2)) or 0

    # ------------------------------------------------------------------------------------------ parts of them

    def _dialect(self) -> Operation[Dialect]:
        """What the server speaks; the first operation asks, and says it in the log."""
        known = self._known
        if known.dialect is None or known.author_changed():
            epochs = self._keys.epochs(known.author())
            together = () if self._cluster else epochs
            dialect, reason = yield from choose(self._keys, together, self._wanted, cluster=self._cluster)
            # From now on FLUSHALL is a change that others notice. A user who may only read need not begin it.
            yield from ask(call(AS_STRINGS.begin, epochs[:1]), tolerate=True)
            said = known.dialect is not None
            known.dialect, known.reason = dialect, reason
            if not said:
                without = "" if reason is None else f"; nothing is matched by meaning, because {reason}"
                _log.info("Redis store: dialect %s%s.", dialect.name, without)
        assert known.dialect is not None
        return known.dialect

    def _over_buckets(self, script: Script, *arguments: str | float) -> Operation[list[Any]]:
        """The script's reply for all buckets; in a cluster one for each, since they are on different nodes."""
        indexes = [self._keys.index(bucket) for bucket in BUCKETS]
        apart = [(index,) for index in indexes] if self._cluster else [tuple(indexes)]
        return (yield from ask(*(call(script, names, *arguments) for names in apart)))

    def _reaping(self, dialect: Dialect, bucket: str, members: Sequence[str]) -> list[Command]:
        return [call(dialect.scripts.reap, (self._keys.index(bucket),), *members)] if members else []

    def _announce(self, dialect: Dialect) -> Operation[None]:
        """Let other programs know that entries were removed or replaced."""
        yield from ask(call(dialect.scripts.announce, self._keys.epochs(self._known.author())))

    def _note_epoch(self, numbers: Sequence[object]) -> int | None:
        """The changes by others, out of all and one's own: both are read at once, so that they fit each other."""
        if numbers:
            everybody, own = (0 if number is None else integer(number) for number in numbers)
            self._known.epoch = everybody - own
        return self._known.epoch


def _is_searchable(entry: Entry) -> bool:
    """Whether the entry has a vector that may be compared: finite, of length 1.

    Raises:
        MissingExtraError: it has one, and numpy is not installed.
    """
    if entry.vector is None or entry.space is None:
        return False
    from aicache.stores._vectors import is_vector

    return is_vector(entry.vector)


def _scored(found: Found, vector: Vector, k: int) -> list[Candidate]:
    """The k nearest of the entries, with exact scores: the vectors came with them, the server's scores are rounded."""
    if not found.entries:
        return []
    from aicache.stores._vectors import cosines

    entries = [entry for entry in found.entries if entry.vector is not None and len(entry.vector) == len(vector)]
    scores = cosines(vector, [entry.vector for entry in entries if entry.vector is not None])
    candidates = [Candidate(*pair) for pair in zip(entries, scores, strict=True)]
    candidates.sort(key=lambda candidate: -candidate.score)
    return candidates[:k]


def _seconds(parameter: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        raise ConfigurationError(parameter, f"give seconds above 0; got {value!r}")
    return float(value)


def _count(parameter: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(parameter, f"give a whole number of at least 1; got {value!r}")
    return value

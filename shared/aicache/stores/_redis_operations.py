"""The operations of the Redis store on single entries, and its upkeep; each is written once, for both halves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from aicache._errors import UnreadableEntryError, WrongKeyError
from aicache._model import CacheKey, Candidate, Entry, Search, StoreSize, Vector
from aicache.stores._redis_dialect import Dialect, Found
from aicache.stores._redis_layout import BUCKETS, cluster_field, expiry_field, name_of, unpack
from aicache.stores._redis_plan import (
    Command,
    Missed,
    Operation,
    Unreached,
    ask,
    ask_apart,
    ask_groups,
    call,
    integer,
    list_of,
)
from aicache.stores._redis_scripts import AS_STRINGS
from aicache.stores._redis_session import Session, accepted
from aicache.stores.base import Fetched, Nearby

__all__ = ["Operations"]

_READ_AT_ONCE: Final = 256
_REMOVED_AT_ONCE: Final = 100
"""Each takes the server 0.2 ms if it has a vector: within the time limit of a reply."""
_SWEPT_AT_ONCE: Final = 50
_AUDITED_AT_ONCE: Final = 200
_WEIGHED: Final = 3
"""Entries of a bucket whose bytes are measured for `size`."""


class Operations:
    """What `RedisStore` does, but for what it does with selections."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._keys = session.keys
        self._known = session.known

    # ------------------------------------------------------------------------------------------ reading

    def fetch(self, key: CacheKey) -> Operation[Entry | None]:
        """The entry of exactly this key."""
        dialect = yield from self._session.dialect()
        value = dialect.read((yield from ask(*dialect.reading(key), tolerate=True)))
        self._session.note_epoch(value.epochs)
        return self._session.entry(key, value)

    def fetch_many(self, keys: Sequence[CacheKey]) -> Operation[list[Fetched]]:
        """The entries of these keys, and an error for one that cannot be read."""
        dialect = yield from self._session.dialect()
        replies = yield from ask_groups([dialect.reading(key) for key in keys], _READ_AT_ONCE, tolerate=True)
        fetched: list[Fetched] = []
        for number, (key, reply) in enumerate(zip(keys, replies, strict=True)):
            try:
                value = dialect.read(reply)
                if number == 0:
                    # The epoch from before the others were read: a change since then will show.
                    self._session.note_epoch(value.epochs)
                fetched.append(self._session.entry(key, value))
            except UnreadableEntryError as error:
                fetched.append(error)
        return fetched

    def nearest(self, search: Search) -> Operation[Sequence[Candidate]]:
        """The nearest entries with their cosines."""
        (near,) = yield from self.nearest_many((search,))
        if isinstance(near, UnreadableEntryError):
            raise near
        return near

    def nearest_many(self, searches: Sequence[Search]) -> Operation[list[Nearby]]:
        """The nearest entries of each, and an error where all there are is encrypted with a foreign key."""
        usable = [search for search in searches if _is_usable(search)]
        if not usable:
            return [[] for _ in searches]
        dialect = yield from self._session.dialect()
        found = yield from dialect.nearest(usable)
        # As in `fetch_many`.
        self._session.note_epoch(found[0].epochs)
        for search, one in zip(usable, found, strict=True):
            self._known.note_dead(self._keys.bucket(search.partition), one.dead)
        rest = iter(found)
        return [self._read(search, next(rest)) if _is_usable(search) else [] for search in searches]

    def _read(self, search: Search, found: Found) -> Nearby:
        """The k nearest of the values, scored; what is damaged or of another space is left out."""
        entries: list[tuple[Entry, int]] = []
        foreign: WrongKeyError | None = None
        sizes = found.sizes or [1] * len(found.values)
        for (name, value), size in zip(found.values, sizes, strict=True):
            try:
                key = CacheKey(search.partition, bytes.fromhex(name.decode("ascii")))
                entry = unpack(key, value, found.generation, self._session.codec, self._session.shift)
            except WrongKeyError as error:
                foreign = error
            except (UnreadableEntryError, ValueError):
                continue
            else:
                if entry is not None and entry.space == search.space and entry.vector:
                    entries.append((entry, max(1, integer(size)) if entry.cluster else 1))
        if not entries and foreign is not None:
            return foreign
        return _scored(entries, search.vector)[: search.k]

    # ------------------------------------------------------------------------------------------ changing

    def touch(self, key: CacheKey, expires: float | None) -> Operation[None]:
        """Set when the entry expires."""
        dialect = yield from self._session.dialect()
        keys = (self._keys.index(self._keys.bucket(key.partition)), self._keys.entry(key))
        changed = expiry_field(key, self._session.in_server_time(expires))
        until, grace = self._session.until(expires), self._session.grace
        yield from ask(call(dialect.scripts.touch, keys, name_of(key), changed, until, grace))

    def join(self, key: CacheKey, cluster: bytes) -> Operation[None]:
        """Make the entry one of the cluster."""
        dialect = yield from self._session.dialect()
        keys = (self._keys.index(self._keys.bucket(key.partition)), self._keys.entry(key))
        yield from ask(call(dialect.scripts.join, keys, name_of(key), cluster_field(key, cluster)))

    def block(self, asker: CacheKey, entry: CacheKey) -> Operation[None]:
        """Never again have the entry near for the asker."""
        # Beside the entry, where the search will be, wherever the asker's own prompt belongs.
        blocked = self._keys.blocked(self._keys.bucket(entry.partition), asker)
        yield from ask(call(AS_STRINGS.block, (blocked,), name_of(entry)))

    def remove(self, keys: Sequence[CacheKey], *, dry_run: bool) -> Operation[int]:
        """Remove these entries, or count them."""
        if not keys:
            return 0
        dialect = yield from self._session.dialect()
        removed, missed = 0, Missed()
        named = sorted({(self._keys.bucket(key.partition), name_of(key)) for key in keys})
        apart = self._session.cluster and not dry_run
        for start in range(0, len(named), _REMOVED_AT_ONCE):
            by_bucket: dict[str, list[str]] = {}
            for bucket, name in named[start : start + _REMOVED_AT_ONCE]:
                by_bucket.setdefault(bucket, []).append(name)
            commands = [
                call(dialect.scripts.remove, (self._keys.index(bucket), *dialect.epochs), int(dry_run), *names)
                for bucket, names in by_bucket.items()
            ]
            if apart:
                # Where the script cannot announce it: sent before anybody knows whether the replies come in time.
                replies = (yield from ask_apart(missed, self._session.announcement(dialect), *commands))[1:]
            else:
                replies = yield from ask_apart(missed, *commands)
            count = _sum(replies)
            if apart and count:
                # Once more: somebody may have read the entry again between the announcement and its removal.
                yield from ask_apart(missed, self._session.announcement(dialect))
            removed += count
        missed.complain()
        return removed

    # ------------------------------------------------------------------------------------------ upkeep

    def sweep(self, now: float, limit: int) -> Operation[int]:
        """Remove expired entries, and some of what is left of entries that are gone."""
        if limit <= 0:
            return 0
        dialect = yield from self._session.dialect()
        now += self._session.shift
        removed, expired_before, missed = 0, math.inf, Missed()
        while removed < limit:
            replies = yield from self._session.over_buckets(dialect.scripts.due, now, missed=missed)
            due = [
                integer(count)
                for reply in replies
                for count in ([0] if isinstance(reply, Unreached) else list_of(reply))
            ]
            commands = self._sweeping(dialect, due, now, min(limit - removed, _SWEPT_AT_ONCE))
            # Nothing to do, or nothing came of it: not tried for ever.
            if not commands or sum(due) >= expired_before:
                break
            expired_before = sum(due)
            removed += _sum((yield from ask_apart(missed, *commands)))
        yield from self._audit(dialect, missed)
        missed.complain()
        return removed

    def _sweeping(self, dialect: Dialect, due: Sequence[int], now: float, limit: int) -> list[Command]:
        """Commands that remove as many entries as are due in each bucket, at most `limit` together."""
        commands = []
        for bucket, count in zip(BUCKETS, due, strict=False):
            if count > 0 and limit > 0:
                commands.append(call(dialect.scripts.sweep, (self._keys.index(bucket),), now, min(count, limit)))
                limit -= count
        return commands

    def _audit(self, dialect: Dialect, missed: Missed) -> Operation[None]:
        """Drop what is left of entries that are gone: in some part of one bucket, and where a search has seen it."""
        number, cursor = self._known.audit_at
        index = self._keys.index(BUCKETS[number])
        commands = [call(dialect.scripts.audit, (index,), cursor, _AUDITED_AT_ONCE)]
        for bucket in self._known.dead_buckets():
            commands += self._session.reaping(dialect, bucket, self._known.take_dead(bucket))
        reply, *_ = yield from ask_apart(missed, *commands)
        _, cursor = (0, 0) if isinstance(reply, Unreached) else map(integer, list_of(reply, 2))
        self._known.audit_at = (number, cursor) if cursor else ((number + 1) % len(BUCKETS), 0)

    def size(self) -> Operation[StoreSize]:
        """The number of entries, and their bytes, estimated."""
        dialect = yield from self._session.dialect()
        replies = yield from self._session.over_buckets(dialect.scripts.size, _WEIGHED)
        totals = [tuple(map(integer, list_of(reply, 2))) for reply in replies]
        return StoreSize(sum(total[0] for total in totals), sum(total[1] for total in totals))

    def epoch(self) -> Operation[int]:
        """The changes by other programs."""
        yield from self._session.dialect()  # It begins the count.
        names = self._keys.epochs(self._known.author())
        read = Command(("MGET", *names), names[0])
        reply = accepted((yield from self._session.ask_with_time(read)))
        if list_of(reply, 2)[0] is None:
            # The server lost its data since: begin the count anew, so that this and the next loss are noticed.
            yield from ask(call(AS_STRINGS.begin, names[:1]), tolerate=True)
            (reply,) = yield from ask(read)
        return self._session.note_epoch(list_of(reply, 2)) or 0


def _sum(replies: Sequence[Any]) -> int:
    return sum(integer(reply) for reply in replies if not isinstance(reply, Unreached))


def _is_usable(search: Search) -> bool:
    return search.k > 0 and bool(search.vector) and len(search.vector) % 4 == 0


def _scored(entries: Sequence[tuple[Entry, int]], vector: Vector) -> list[Candidate]:
    """Entries and the sizes of their clusters, scored: the vectors came with them, the server's scores are rounded."""
    if not entries:
        return []
    from aicache.stores._vectors import cosines

    near = [(*one, held) for one in entries if (held := one[0].vector) and len(held) == len(vector)]
    scores = cosines(vector, [one for _, _, one in near])
    candidates = [Candidate(entry, score, size) for (entry, size, _), score in zip(near, scores, strict=True)]
    candidates.sort(key=lambda candidate: -candidate.score)
    return candidates

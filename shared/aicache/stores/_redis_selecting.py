"""The operations of the Redis store on selections: they walk the indexes of all buckets, some of each at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final

from aicache._errors import UnreadableEntryError
from aicache._model import CacheKey, Entry, Listed, Selection, Space, Vector
from aicache.stores._redis_dialect import Dialect
from aicache.stores._redis_layout import BUCKETS, key_in, selecting
from aicache.stores._redis_plan import (
    Command,
    Missed,
    Operation,
    Unreached,
    Word,
    ask,
    ask_apart,
    ask_groups,
    call,
    integer,
    list_of,
)
from aicache.stores._redis_scripts import Script
from aicache.stores._redis_session import Session

__all__ = ["Selecting"]

_AT_ONCE: Final = 16
"""Buckets in one round trip."""
_ONE_BY_ONE_AT_ONCE: Final = 2
"""The same where each entry found costs 0.2 ms: within the time limit of a reply."""
_LOOKED_AT: Final = 100
"""Entries of a bucket looked at in one call of a script, about. Dropping their vectors takes up to 20 ms."""
_BYTES: Final = 2**20
"""Of entries in one round trip, about."""
_DOUBT: Final = 1e-3
"""By how much a first score may be off: it is of a vector that may be replaced before its entry is read."""


class Selecting:
    """What `RedisStore` does with selections."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def clear(self, selection: Selection, *, dry_run: bool) -> Operation[int]:
        """Remove the selection, or count it."""
        dialect = yield from self._session.dialect()
        wanted: tuple[Word, ...] = (*selecting(selection, self._session.shift), int(dry_run))
        whole = dry_run or not (selection.tags or selection.written_before is not None)
        at_once = _AT_ONCE if whole else _ONE_BY_ONE_AT_ONCE
        missed = Missed()
        if not dry_run:
            # Announced first, and whatever is found: what is gone here may still be in another program's L1, and a
            # reply that comes too late must not leave the others untold.
            yield from ask_apart(missed, self._session.announcement(dialect))
        walk, removed = _Walk(), 0
        while walk.remains:
            count = 0
            some = walk.some(at_once)
            replies = yield from ask_apart(missed, *self._steps(some, dialect.scripts.clear, _LOOKED_AT, *wanted))
            for reply, (bucket, _) in zip(replies, some, strict=True):
                gone, cursor = (0, 0) if isinstance(reply, Unreached) else map(integer, list_of(reply, 2))
                walk.move(bucket, cursor)
                count += gone
            if count and not dry_run:
                # After each part: if a later one fails, others have heard of what is gone.
                yield from ask_apart(missed, self._session.announcement(dialect))
            removed += count
        missed.complain()
        return removed

    def similar(self, selection: Selection, space: Space, vector: Vector, min_score: float) -> Operation[list[Listed]]:
        """The entries of the selection and space whose cosine is at least `min_score`, nearest first."""
        from aicache.stores._vectors import is_vector

        if not is_vector(vector):
            return []
        dialect = yield from self._session.dialect()
        wanted: tuple[Word, ...] = (*selecting(selection, self._session.shift), len(vector))
        looked_at = max(1, min(_LOOKED_AT, _BYTES // (_AT_ONCE * len(vector))))
        walk = _Walk()
        # By key: an index that grows meanwhile may show an entry twice.
        listed: dict[CacheKey, Listed] = {}
        while walk.remains:
            near: list[tuple[CacheKey, int]] = []
            for reply, bucket in (yield from self._step(walk, _AT_ONCE, dialect.scripts.similar, looked_at, *wanted)):
                cursor, found = list_of(reply, 2)
                walk.move(bucket, integer(cursor))
                near += _promising(list_of(found), vector, min_score - _DOUBT)
            for keys in _in_parts(near):
                for one in (yield from self._listed(dialect, keys, space, vector)):
                    if one.score >= min_score:
                        listed[one.key] = one
        return sorted(listed.values(), key=lambda one: -one.score)

    def entries(self, selection: Selection) -> Operation[list[Entry]]:
        """The entries of the selection, but for those that cannot be read."""
        dialect = yield from self._session.dialect()
        wanted = selecting(selection, self._session.shift)
        walk = _Walk()
        # By key: an index that grows meanwhile may show an entry twice.
        listed: dict[CacheKey, Entry] = {}
        while walk.remains:
            named: list[tuple[CacheKey, int]] = []
            for reply, bucket in (yield from self._step(walk, _AT_ONCE, dialect.scripts.list, _LOOKED_AT, *wanted)):
                cursor, found = list_of(reply, 2)
                walk.move(bucket, integer(cursor))
                named += _named(list_of(found))
            for keys in _in_parts(named):
                for entry in (yield from self._read(dialect, keys)):
                    # Again: it may have been replaced since it was listed.
                    if selection.covers(entry):
                        listed[entry.key] = entry
        return list(listed.values())

    def _step(
        self, walk: _Walk, at_once: int, script: Script, looked_at: int, *arguments: Word
    ) -> Operation[list[tuple[object, str]]]:
        """The replies of the script for some buckets."""
        some = walk.some(at_once)
        replies = yield from ask(*self._steps(some, script, looked_at, *arguments))
        return [(reply, bucket) for reply, (bucket, _) in zip(replies, some, strict=True)]

    def _steps(
        self, some: Sequence[tuple[str, int]], script: Script, looked_at: int, *arguments: Word
    ) -> Iterator[Command]:
        index = self._session.keys.index
        return (call(script, (index(bucket),), cursor, looked_at, *arguments) for bucket, cursor in some)

    def _listed(
        self, dialect: Dialect, keys: Sequence[CacheKey], space: Space, vector: Vector
    ) -> Operation[list[Listed]]:
        """The entries behind these keys, read, verified and scored; without those of another space."""
        from aicache.stores._vectors import cosines

        entries = [
            (entry, entry.vector)
            for entry in (yield from self._read(dialect, keys))
            if entry.space == space and entry.vector and len(entry.vector) == len(vector)
        ]
        scores = cosines(vector, [one for _, one in entries])
        return [
            Listed(entry.key, entry.query, score, entry.created)
            for (entry, _), score in zip(entries, scores, strict=True)
        ]

    def _read(self, dialect: Dialect, keys: Sequence[CacheKey]) -> Operation[list[Entry]]:
        """The entries behind these keys, verified; without those that are gone or cannot be read."""
        entries: list[Entry] = []
        replies = yield from ask_groups([dialect.reading(key) for key in keys], len(keys), tolerate=True)
        for key, reply in zip(keys, replies, strict=True):
            try:
                entry = self._session.entry(key, dialect.read(reply))
            except UnreadableEntryError:
                continue
            if entry is not None:
                entries.append(entry)
        return entries


class _Walk:
    """How far each bucket's index has been read."""

    def __init__(self) -> None:
        self._cursors = dict.fromkeys(BUCKETS, 0)

    @property
    def remains(self) -> bool:
        """Whether there is more to read."""
        return bool(self._cursors)

    def some(self, at_once: int) -> list[tuple[str, int]]:
        """So many buckets, and where to go on in each."""
        return list(self._cursors.items())[:at_once]

    def move(self, bucket: str, cursor: int) -> None:
        """Go on at this cursor; 0 is the end."""
        self._cursors[bucket] = cursor
        if cursor == 0:
            del self._cursors[bucket]


def _promising(found: Sequence[object], vector: Vector, min_score: float) -> list[tuple[CacheKey, int]]:
    """Of names, heads, vectors and lengths the keys and lengths of those that are near enough."""
    from aicache.stores._vectors import cosines

    rows = [row for one in found if len((row := list_of(one, 4))[2]) == len(vector)]
    near: list[tuple[CacheKey, int]] = []
    for (name, head, _, length), score in zip(rows, cosines(vector, [row[2] for row in rows]), strict=True):
        if score >= min_score:
            try:
                near.append((key_in(head, name), integer(length)))
            except UnreadableEntryError:
                continue
    return near


def _named(found: Sequence[object]) -> Iterator[tuple[CacheKey, int]]:
    """Of names, heads and lengths the keys and lengths; without those that make no sense."""
    for one in found:
        name, head, length = list_of(one, 3)
        with suppress(UnreadableEntryError):
            yield key_in(head, name), integer(length)


def _in_parts(near: Sequence[tuple[CacheKey, int]]) -> Iterator[list[CacheKey]]:
    """The keys in lists whose entries have some bytes together."""
    part: list[CacheKey] = []
    room = _BYTES
    for key, length in near:
        part.append(key)
        room -= length
        if room <= 0:
            yield part
            part, room = [], _BYTES
    if part:
        yield part

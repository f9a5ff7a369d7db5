"""The operations of the Redis store that write entries: one, or many in few round trips."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aicache._errors import StoreError
from aicache._model import Entry
from aicache.stores._redis_dialect import Dialect, Place
from aicache.stores._redis_layout import NO_SHELF, Parts, name_of, pack
from aicache.stores._redis_plan import Command, Operation, Refusal, ask, integer
from aicache.stores._redis_session import Session, accepted

__all__ = ["Writing"]

_WRITTEN_AT_ONCE: Final = 128
"""Each takes the server 2 ms if it has a vector, and is answered by itself: the time limit is for one reply."""
_BYTES_AT_ONCE: Final = 900_000
_BESIDE: Final = 500
"""Bytes that an entry's commands have besides the entry, about."""


@dataclass(frozen=True, slots=True)
class _Packed:
    """An entry ready to be sent."""

    entry: Entry
    parts: Parts
    shelf: str

    @property
    def bytes(self) -> int:
        # Where vectors are apart, the vector is sent twice.
        return len(self.parts.head) + 2 * len(self.parts.vector) + len(self.parts.content) + _BESIDE


class Writing:
    """How `RedisStore` writes."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def write(self, entry: Entry) -> Operation[None]:
        """Store the entry in place of any earlier one with its key."""
        searchable = _is_searchable(entry)
        dialect = yield from self._session.dialect()
        yield from self._write(dialect, [self._packed(entry, searchable=searchable)])

    def write_many(self, entries: Sequence[Entry]) -> Operation[None]:
        """As `write` of each, a part in one round trip to each node. One that has no bytes does not cost the others."""
        if not entries:
            return
        searchable = [_is_searchable(entry) for entry in entries]
        dialect = yield from self._session.dialect()
        refused: list[StoreError] = []

        def packed() -> Iterator[_Packed]:
            for entry, one in zip(entries, searchable, strict=True):
                try:
                    yield self._packed(entry, searchable=one)
                except StoreError as error:
                    refused.append(error)

        for part in _in_parts(packed()):
            yield from self._write(dialect, part)
        if refused:
            raise refused[0]

    def _packed(self, entry: Entry, *, searchable: bool) -> _Packed:
        session, shelf = self._session, NO_SHELF
        if searchable and entry.space is not None and entry.vector is not None:
            shelf = session.keys.shelf(entry.key.partition, entry.space, len(entry.vector) // 4)
        return _Packed(entry, pack(entry, shelf, session.codec, session.shift), shelf)

    def _write(self, dialect: Dialect, part: Sequence[_Packed]) -> Operation[None]:
        """Send the commands of all, and with them those that drop vectors without an entry."""
        session = self._session
        yield from dialect.prepare(one.parts.vector for one in part if one.shelf != NO_SHELF)
        groups = [self._commands(dialect, one) for one in part]
        buckets = dict.fromkeys(session.keys.bucket(one.entry.key.partition) for one in part)
        dead = {bucket: session.known.take_dead(bucket) for bucket in buckets}
        others = [command for bucket in buckets for command in session.reaping(dialect, bucket, dead[bucket])]
        try:
            replies = yield from ask(*(command for group in groups for command in group), *others, tolerate=True)
            if session.cluster and _replaced(groups, replies):
                # Before anything is said of a refusal: another one may have replaced what others still hold.
                yield from ask(session.announcement(dialect))
            for reply in replies:
                accepted(reply)
        except BaseException:
            for one in part:
                if dialect.apart and one.shelf != NO_SHELF:
                    # Perhaps its vector is there now, and it is not. If it is, reaping sees that and drops nothing.
                    dead[session.keys.bucket(one.entry.key.partition)].append(name_of(one.entry.key) + one.shelf)
            for bucket, members in dead.items():
                session.known.note_dead(bucket, members)
            raise

    def _commands(self, dialect: Dialect, one: _Packed) -> tuple[Command, ...]:
        place = Place(one.shelf, self._session.until(one.entry.expires), self._session.grace)
        return dialect.writing(one.entry, one.parts, place)


def _replaced(groups: Iterable[Sequence[Command]], replies: Sequence[Any]) -> bool:
    """Whether any of the groups has replaced an entry that was alive: the reply to its last command says."""
    rest, replaced = iter(replies), False
    for group in groups:
        *_, last = [next(rest) for _ in group]
        replaced |= not isinstance(last, Refusal) and integer(last) == 1
    return replaced


def _in_parts(packed: Iterable[_Packed]) -> Iterator[list[_Packed]]:
    """Parts of one round trip each, by number and bytes; an entry that has more bytes alone is one."""
    part: list[_Packed] = []
    room = _BYTES_AT_ONCE
    for one in packed:
        if part and (len(part) == _WRITTEN_AT_ONCE or room < one.bytes):
            yield part
            part, room = [], _BYTES_AT_ONCE
        part.append(one)
        room -= one.bytes
    if part:
        yield part


def _is_searchable(entry: Entry) -> bool:
    """Whether the entry has a vector that may be compared: finite, of length 1.

    Raises:
        MissingExtraError: it has one, and numpy is not installed.
    """
    if entry.vector is None or entry.space is None:
        return False
    from aicache.stores._vectors import is_vector

    return is_vector(entry.vector)

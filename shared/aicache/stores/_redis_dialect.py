"""The dialects of Redis: what a server offers for vectors, and the operations that depend on it.

Vector sets (Redis 8 and newer): a set for each shelf, searched by a script that returns the entries with the names.
Plain: exact matching only. RediSearch is in `_redis_search`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, NamedTuple

from aicache._errors import StoreError
from aicache._model import CacheKey, Entry, Search, Vector
from aicache.stores._redis_layout import NO_SHELF, Keys, Parts, name_of
from aicache.stores._redis_plan import (
    Command,
    Operation,
    Refusal,
    ask_groups,
    call,
    complaint,
    list_of,
)
from aicache.stores._redis_scripts import AS_STRINGS, AS_STRINGS_WITH_SETS, EFFORT, Scripts

__all__ = [
    "ROUNDED",
    "SEARCHED_AT_ONCE",
    "Dialect",
    "Found",
    "Place",
    "Plain",
    "Value",
    "VectorSets",
    "accepted",
    "bytes_in",
    "sizes_in",
]

SEARCHED_AT_ONCE: Final = 64
"""Searches in one round trip: in a partition of 10,000 each takes the server a millisecond."""
ROUNDED: Final = 0.004
"""By how much a cosine of the server's may be off at most: eight sigmas of Q8."""


class Value(NamedTuple):
    """What the server holds of an entry. A tuple, for every exact hit makes one."""

    raw: object
    """The bytes that `unpack` reads, or None."""
    generation: object
    """Of its bucket."""
    epochs: list[Any]
    """The numbers of the epoch, if they came along."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search brought: values by name, their clusters' sizes, and the members whose entry is gone."""

    values: list[tuple[bytes, object]] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    generation: object = None
    epochs: list[Any] = field(default_factory=list)
    sizes: list[Any] = field(default_factory=list)
    """Of the cluster of each value; empty where all are 1."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an entry goes, and for how long."""

    shelf: str
    expires: str
    """By the server's clock, as Redis reads a number."""
    grace: int
    """Milliseconds it stays after that."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """A way to speak to a server. This one keeps vectors in the entries only: nothing is near."""

    keys: Keys
    epochs: tuple[str, ...]
    """The keys of the epoch, where a command may name them beside those of a bucket: not in a cluster."""
    indexed: set[int] = field(default_factory=set)
    """Dimensions that are known to have an index of RediSearch's."""
    noticed: set[str] = field(default_factory=set)
    """What else RediSearch was seen to do."""
    scripts: ClassVar[Scripts] = AS_STRINGS
    name: ClassVar[str] = "plain"
    apart: ClassVar[bool] = False
    """Whether vectors are kept beside the entries, so that one may be left without the other."""

    def reading(self, key: CacheKey) -> tuple[Command, ...]:
        """The commands that read an entry, sent together; `read` reads their replies."""
        generation = self.keys.generation(self.keys.bucket(key.partition))
        entry = self.keys.entry(key)
        return (Command(("MGET", entry, generation, *self.epochs), entry),)

    def read(self, replies: Sequence[Any]) -> Value:
        """What the replies to `reading` say.

        Raises:
            UnreadableEntryError: something else is in the entry's place.
        """
        (reply,) = accepted(replies)
        value, held, *numbers = list_of(reply, 2 + len(self.epochs))
        return Value(value, held, numbers)

    def prepare(self, vectors: Iterable[Vector]) -> Operation[None]:  # noqa: ARG002 - for RediSearch
        """What must be there before entries with such vectors are written."""
        yield from ()

    def writing(self, entry: Entry, parts: Parts, place: Place) -> tuple[Command, ...]:
        """The commands that write an entry, sent together. The last one says 1 if it replaced one that was alive."""
        return (self._script(entry, place, parts.head + parts.vector + parts.content),)

    def nearest(self, searches: Sequence[Search]) -> Operation[list[Found]]:
        """For each search the values of the nearest, unscored; in one round trip, if they are not too many."""
        yield from ()
        return [Found() for _ in searches]

    def _script(self, entry: Entry, place: Place, *parts: str | bytes) -> Command:
        index = self.keys.index(self.keys.bucket(entry.key.partition))
        keys = (index, self.keys.entry(entry.key), *self.epochs)
        name = name_of(entry.key)
        return call(self.scripts.write, keys, name, place.shelf, place.expires, *parts, place.grace)


class Plain(Dialect):
    """A server without vectors."""

    __slots__ = ()


class VectorSets(Dialect):
    """A server with VADD and VSIM."""

    __slots__ = ()
    scripts: ClassVar[Scripts] = AS_STRINGS_WITH_SETS
    name: ClassVar[str] = "vector sets"
    apart: ClassVar[bool] = True

    def writing(self, entry: Entry, parts: Parts, place: Place) -> tuple[Command, ...]:
        """The vector, and then the script."""
        script = self._script(entry, place, parts.head + parts.vector + parts.content)
        if place.shelf == NO_SHELF:
            return (script,)
        bucket = self.keys.bucket(entry.key.partition)
        vectors, shelves = self.keys.vectors(bucket, place.shelf), self.keys.shelves(bucket)
        # CAS: the place in the graph is found in a thread of the server's. Without, and so in a script, every other
        # client waits for the 1.6 ms it takes. Hence two commands. A search between them leaves the vector out, for it
        # has no entry yet. What is removed between them keeps its entry from being near, until that is written again.
        # The other way round, a removal would leave a vector for ever unless a third command looked for that.
        vector = ("VADD", vectors, "FP32", parts.vector, name_of(entry.key), "CAS", self.keys.quantisation)
        # The name of the shelf first: whatever becomes of the rest, a sweep finds the vector.
        named = Command(("SADD", shelves, place.shelf), shelves)
        return named, Command((*vector, "EF", EFFORT), vectors), script

    def nearest(self, searches: Sequence[Search]) -> Operation[list[Found]]:
        """One script for each: the search, and the values of what it finds."""
        replies = yield from ask_groups([(self._finding(search),) for search in searches], SEARCHED_AT_ONCE)
        return [self._found(search, reply) for search, (reply,) in zip(searches, replies, strict=True)]

    def _finding(self, search: Search) -> Command:
        bucket = self.keys.bucket(search.partition)
        vectors = self.keys.vectors(bucket, self._shelf(search))
        asker = "" if search.asker is None else name_of(search.asker)
        keys = (self.keys.index(bucket), vectors, *self.epochs)
        floor = (1 + search.floor - ROUNDED) / 2
        return call(self.scripts.nearest, keys, search.vector, search.k, asker, floor)

    def _found(self, search: Search, reply: object) -> Found:
        generation, everybody, own, pairs, dead, sizes = list_of(reply, 6)
        pairs = list_of(pairs)
        values = [(bytes_in(name), value) for name, value in zip(pairs[::2], pairs[1::2], strict=False)]
        members: list[str] = []
        if list_of(dead):
            shelf = self._shelf(search)
            members = [bytes_in(name).decode("ascii", "replace") + shelf for name in dead]
        return Found(values, members, generation, [everybody, own] if self.epochs else [], sizes_in(sizes, len(values)))

    def _shelf(self, search: Search) -> str:
        return self.keys.shelf(search.partition, search.space, len(search.vector) // 4)


# ------------------------------------------------------------------------------------------------ reading


def accepted(replies: Sequence[Any]) -> Sequence[Any]:
    """The replies, if none of them is a refusal.

    Raises:
        StoreError: one of them is.
    """
    for reply in replies:
        if isinstance(reply, Refusal):
            raise complaint(reply)
    return replies


def sizes_in(reply: object, count: int) -> list[Any]:
    """The sizes of the clusters of so many values; an empty list if none has one.

    Raises:
        StoreError: the reply is no such list.
    """
    return list_of(reply, count) if reply else []


def bytes_in(name: object) -> bytes:
    """A reply that is bytes.

    Raises:
        StoreError: it is not.
    """
    if isinstance(name, bytes):
        return name
    raise StoreError("Redis gave a reply that makes no sense.")

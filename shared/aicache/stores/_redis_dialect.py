"""The dialects of Redis: what a server offers for vectors, and the operations that depend on it.

Vector sets (Redis 8 and newer): a set for each shelf, searched by a script that returns the entries with the names.
RediSearch (Redis Stack, Redis Cloud, Valkey with its search module, ...): entries are hashes, an index for each
dimension finds them by shelf and vector. Plain: exact matching only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, NamedTuple

from aicache._errors import StoreError, UnreadableEntryError
from aicache._model import CacheKey, Entry, Search
from aicache.stores._redis_layout import NO_SHELF, Keys, Parts, name_of
from aicache.stores._redis_plan import (
    Command,
    Operation,
    Refusal,
    Word,
    ask,
    ask_groups,
    call,
    complaint,
    integer,
    list_of,
)
from aicache.stores._redis_scripts import AS_HASHES, AS_STRINGS, AS_STRINGS_WITH_SETS, EFFORT, Scripts

__all__ = ["DIALECTS", "Dialect", "Found", "Place", "Plain", "RediSearch", "Value", "VectorSets", "choose"]

_SEARCHED_AT_ONCE: Final = 64
"""Searches in one round trip: in a partition of 10,000 each takes the server a millisecond."""
_SPARE: Final = 2
"""Entries asked for beyond `k` by RediSearch, in case some of the nearest are never to be near for the asker."""
_ROUNDED: Final = 0.004
"""By how much a cosine of the server's may be off at most: eight sigmas of Q8."""
_RANGED_ABOVE: Final = 0.5
"""With a floor above this RediSearch is asked for what is within a radius, and not for the nearest: on a shelf of
10,000 questions it answers in 0.4 ms where KNN behind a filter takes 1.8 to 3.6. Radii up to 0.4 were measured."""
_BEYOND: Final = 0.2
"""The share of the radius by which RediSearch looks beyond it (`EPSILON`).

With its default of 0.01 the nearest of 600 was found 539 times, with 0.1 593 times, with this 597 times and no oftener
with more. (KNN finds all.) It costs nothing but where a vector is as far from one entry as from the next, which that of
no question was: then the whole graph is searched.
"""


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
    """What a search brought: values by name, and the members whose entry is gone."""

    values: list[tuple[bytes, object]] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    generation: object = None
    epochs: list[Any] = field(default_factory=list)


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
        (reply,) = _accepted(replies)
        value, held, *numbers = list_of(reply, 2 + len(self.epochs))
        return Value(value, held, numbers)

    def write(self, entry: Entry, parts: Parts, place: Place, others: Sequence[Command]) -> Operation[bool]:
        """Write the entry, and send the other commands along; whether it replaced one that was alive."""
        script = self._script(entry, place, parts.head + parts.vector + parts.content)
        replies = yield from ask(script, *others)
        return integer(replies[0]) == 1

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

    def write(self, entry: Entry, parts: Parts, place: Place, others: Sequence[Command]) -> Operation[bool]:
        """The vector, and then the script."""
        if place.shelf == NO_SHELF:
            return (yield from super().write(entry, parts, place, others))
        bucket = self.keys.bucket(entry.key.partition)
        vectors, shelves = self.keys.vectors(bucket, place.shelf), self.keys.shelves(bucket)
        # CAS: the place in the graph is found in a thread of the server's. Without, and so in a script, every other
        # client waits for the 1.6 ms it takes. Hence two commands. A search between them leaves the vector out, for it
        # has no entry yet. What is removed between them keeps its entry from being near, until that is written again.
        # The other way round, a removal would leave a vector for ever unless a third command looked for that.
        vector = ("VADD", vectors, "FP32", parts.vector, name_of(entry.key), "CAS", self.keys.quantisation)
        script = self._script(entry, place, parts.head + parts.vector + parts.content)
        # The name of the shelf first: whatever becomes of the rest, a sweep finds the vector.
        named = Command(("SADD", shelves, place.shelf), shelves)
        _, _, replaced, *_ = yield from ask(named, Command((*vector, "EF", EFFORT), vectors), script, *others)
        return integer(replaced) == 1

    def nearest(self, searches: Sequence[Search]) -> Operation[list[Found]]:
        """One script for each: the search, and the values of what it finds."""
        replies = yield from ask_groups([(self._finding(search),) for search in searches], _SEARCHED_AT_ONCE)
        return [self._found(search, reply) for search, (reply,) in zip(searches, replies, strict=True)]

    def _finding(self, search: Search) -> Command:
        bucket = self.keys.bucket(search.partition)
        vectors = self.keys.vectors(bucket, self._shelf(search))
        asker = "" if search.asker is None else name_of(search.asker)
        keys = (self.keys.index(bucket), vectors, *self.epochs)
        floor = (1 + search.floor - _ROUNDED) / 2
        return call(self.scripts.nearest, keys, search.vector, search.k, asker, floor)

    def _found(self, search: Search, reply: object) -> Found:
        generation, everybody, own, pairs, dead = list_of(reply, 5)
        pairs = list_of(pairs)
        values = [(_bytes(name), value) for name, value in zip(pairs[::2], pairs[1::2], strict=False)]
        members: list[str] = []
        if list_of(dead):
            shelf = self._shelf(search)
            members = [_bytes(name).decode("ascii", "replace") + shelf for name in dead]
        return Found(values, members, generation, [everybody, own] if self.epochs else [])

    def _shelf(self, search: Search) -> str:
        return self.keys.shelf(search.partition, search.space, len(search.vector) // 4)


class RediSearch(Dialect):
    """A server with FT.SEARCH."""

    __slots__ = ()
    scripts: ClassVar[Scripts] = AS_HASHES
    name: ClassVar[str] = "search"

    def reading(self, key: CacheKey) -> tuple[Command, ...]:
        """The same from a hash: two commands."""
        generation = self.keys.generation(self.keys.bucket(key.partition))
        entry = self.keys.entry(key)
        return Command(("HGETALL", entry), entry), Command(("MGET", generation, *self.epochs), generation)

    def read(self, replies: Sequence[Any]) -> Value:
        """As for strings; a hash with other fields is unreadable."""
        if isinstance(replies[0], Refusal) and replies[0].code == "WRONGTYPE":
            raise UnreadableEntryError(str(complaint(replies[0])))
        fields, reply = _accepted(replies)
        held, *numbers = list_of(reply, 1 + len(self.epochs))
        value = _joined(fields)
        if value is None and fields:
            raise UnreadableEntryError("The stored value is no hash of bytes; the entry is ignored.")
        return Value(value, held, numbers)

    def write(self, entry: Entry, parts: Parts, place: Place, others: Sequence[Command]) -> Operation[bool]:
        """The script; RediSearch indexes the hash by itself. The vector is in a field of its own, and nowhere else."""
        vectors = "v"
        if place.shelf != NO_SHELF:
            dimension = len(parts.vector) // 4
            vectors = _vector_field(dimension)
            # Before the first entry: an index that comes later is filled in the background.
            if dimension not in self.indexed:
                yield from ask(self._make_index(dimension), tolerate=True)
                self.indexed.add(dimension)
        script = self._script(entry, place, parts.head, parts.content, vectors, parts.vector)
        replies = yield from ask(script, *others)
        return integer(replies[0]) == 1

    def nearest(self, searches: Sequence[Search]) -> Operation[list[Found]]:
        """FT.SEARCH for each; with it the generation, and what is never to be near.

        Another round trip where there is no index of this dimension yet, so that it is made, or where more of the
        nearest are not to be near than were asked for to spare.
        """
        replies = yield from self._ask_all([self._finding(search, _SPARE) for search in searches])
        missing = {
            len(search.vector) // 4
            for search, (found, *_) in zip(searches, replies, strict=True)
            if isinstance(found, Refusal) and found.unknown_index
        }
        if missing:
            yield from ask(*map(self._make_index, sorted(missing)), tolerate=True)
            replies = yield from self._ask_all([self._finding(search, _SPARE) for search in searches])
        answers = [self._found(search, reply, _SPARE) for search, reply in zip(searches, replies, strict=True)]
        for place, (search, blocked) in enumerate(zip(searches, answers, strict=True)):
            if isinstance(blocked, int):
                (again,) = yield from self._ask_all([self._finding(search, blocked)])
                answer = self._found(search, again, blocked, last=True)
                assert isinstance(answer, Found)
                answers[place] = answer
        return [answer for answer in answers if isinstance(answer, Found)]

    def _ask_all(self, groups: Sequence[tuple[Command, ...]]) -> Operation[list[list[Any]]]:
        return ask_groups(groups, _SEARCHED_AT_ONCE, tolerate=True)

    def _finding(self, search: Search, spare: int) -> tuple[Command, ...]:
        """`spare` counts for a search with an asker only."""
        bucket, dimension = self.keys.bucket(search.partition), len(search.vector) // 4
        field, generation = _vector_field(dimension), self.keys.generation(bucket)
        count = search.k if search.asker is None else search.k + spare
        shelf = f"@s:{{{self.keys.shelf(search.partition, search.space, dimension)}}}"
        options: tuple[Word, ...]
        if search.floor > _RANGED_ABOVE:
            query = f"{shelf} @{field}:[VECTOR_RANGE $r $q]=>{{$YIELD_DISTANCE_AS: d; $EPSILON: {_BEYOND}}}"
            options = ("SORTBY", "d", "PARAMS", 4, "q", search.vector, "r", max(0.0, 1 - search.floor + _ROUNDED))
        else:
            query = f"({shelf})=>[KNN {count} @{field} $q]"
            options = ("PARAMS", 2, "q", search.vector)
        options += ("RETURN", 3, "h", "b", field, "LIMIT", 0, count, "DIALECT", 2)
        find = Command(("FT.SEARCH", self._index(dimension), query, *options), generation)
        numbers = Command(("MGET", generation, *self.epochs), generation)
        if search.asker is None:
            return find, numbers
        blocked = self.keys.blocked(bucket, search.asker)
        return find, numbers, Command(("SMEMBERS", blocked), blocked)

    def _found(self, search: Search, replies: Sequence[Any], spare: int, *, last: bool = False) -> Found | int:
        """What was found; or, where entries that are not to be near took the place of others, how many to spare."""
        found, reply, *rest = _accepted(replies)
        generation, *epochs = list_of(reply, 1 + len(self.epochs))
        blocked = set(map(_bytes, _members(rest[0]))) if rest else set()
        documents = list(_documents(found))
        values = [(name, value) for name, value in documents if name not in blocked]
        if not last and blocked and len(documents) >= search.k + spare and len(values) < search.k:
            return len(blocked)
        return Found(values, [], generation, epochs)

    def _index(self, dimension: int) -> str:
        return f"{self.keys.prefix}:{_vector_field(dimension)}"

    def _make_index(self, dimension: int) -> Command:
        """Refused, and that is well, when it exists."""
        vector = ("VECTOR", "HNSW", 6, "TYPE", "FLOAT32", "DIM", dimension, "DISTANCE_METRIC", "COSINE")
        schema = ("SCHEMA", "s", "TAG", _vector_field(dimension), *vector)
        name = self._index(dimension)
        return Command(("FT.CREATE", name, "ON", "HASH", "PREFIX", 1, f"{self.keys.prefix}:{{", *schema), name)


# ------------------------------------------------------------------------------------------------ choosing

DIALECTS: Final[dict[str, type[Dialect]]] = {one.name: one for one in (VectorSets, RediSearch, Plain)}
"""All of them, by name."""


def choose(
    keys: Keys, epochs: tuple[str, ...], wanted: str | None, *, cluster: bool
) -> Operation[tuple[Dialect, str | None]]:
    """The dialect that is wanted, or the best that the server speaks and this user may use; for `plain` the reason."""
    if wanted is not None:
        yield from ()
        return DIALECTS[wanted](keys, epochs), "the store was told so" if wanted == Plain.name else None
    some = keys.vectors("00", NO_SHELF)
    sets, search = yield from ask(Command(("VCARD", some), some), Command(("FT._LIST",), some), tolerate=True)
    if not isinstance(sets, Refusal):
        return VectorSets(keys, epochs), None
    if not isinstance(search, Refusal):
        if not cluster:
            return RediSearch(keys, epochs), None
        return Plain(
            keys, epochs
        ), "this is a cluster without vector sets, and RediSearch is used on single servers only"
    for refused in (sets, search):
        if not refused.unknown_command and refused.code != "NOPERM":
            raise complaint(refused)
    if "NOPERM" in (sets.code, search.code):
        return Plain(keys, epochs), "the Redis user may not use vector commands (VCARD, VADD, VSIM, VREM)"
    return Plain(keys, epochs), "the server has neither vector sets (Redis 8 or newer) nor RediSearch"


# ------------------------------------------------------------------------------------------------ reading


def _accepted(replies: Sequence[Any]) -> Sequence[Any]:
    """The replies, if none of them is a refusal.

    Raises:
        StoreError: one of them is.
    """
    for reply in replies:
        if isinstance(reply, Refusal):
            raise complaint(reply)
    return replies


def _members(reply: object) -> list[Any]:
    """The members of a set, of which redis-py makes a set."""
    return list(reply) if isinstance(reply, set) else list_of(reply)


def _documents(found: object) -> Iterator[tuple[bytes, object]]:
    """Names and values of what FT.SEARCH found; None for one that has expired at this moment."""
    if isinstance(found, dict):  # RESP3, which a client that was given may speak.
        for each in list_of(found.get(b"results")):
            if isinstance(each, dict):
                yield _name_in(each.get(b"id")), _joined(each.get(b"extra_attributes"))
        return
    documents = list_of(found)[1:]
    for name, values in zip(documents[::2], documents[1::2], strict=False):
        yield _name_in(name), _joined(values)


def _name_in(key: object) -> bytes:
    return key.rpartition(b":")[2] if isinstance(key, bytes) else b""


def _joined(fields: object) -> bytes | None:
    """The fields of a hash as the bytes `unpack` reads; None if they are not those of an entry."""
    if isinstance(fields, list):
        fields = dict(zip(fields[::2], fields[1::2], strict=False))
    if not isinstance(fields, dict):
        return None
    vector = next((value for name, value in fields.items() if isinstance(name, bytes) and name.startswith(b"v")), b"")
    parts = [part for part in (fields.get(b"h"), vector, fields.get(b"b")) if isinstance(part, bytes)]
    return b"".join(parts) if len(parts) == 3 else None


def _vector_field(dimension: int) -> str:
    return f"v{dimension}"


def _bytes(name: object) -> bytes:
    if isinstance(name, bytes):
        return name
    raise StoreError("Redis gave a reply that makes no sense.")

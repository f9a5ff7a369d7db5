"""The dialects of Redis: what a server offers for vectors, and the operations that depend on it.

Vector sets (Redis 8 and newer): a set for each shelf, searched by a script that returns the entries with the names.
RediSearch (Redis Stack, Redis Cloud, Valkey with its search module, ...): entries are hashes, an index for each
dimension finds them by shelf and vector. Plain: exact matching only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from aicache._errors import StoreError, UnreadableEntryError
from aicache._model import CacheKey, Entry, Partition, Space, Vector
from aicache.stores._redis_layout import NO_SHELF, Keys, name_of, pack, unpack
from aicache.stores._redis_plan import Command, Operation, Refusal, ask, call, complaint, integer, list_of
from aicache.stores._redis_scripts import AS_HASHES, AS_STRINGS, AS_STRINGS_WITH_SETS, Scripts

__all__ = ["DIALECTS", "Dialect", "Found", "Plain", "Search", "VectorSets", "choose"]


@dataclass(frozen=True, slots=True)
class Found:
    """What a search brought: entries to score, names without an entry, and the epoch if it came along."""

    entries: list[Entry]
    dead: list[str]
    epochs: list[Any] = field(default_factory=list)
    """The numbers of the epoch, if they came along."""


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

    def fetch(self, key: CacheKey) -> Operation[tuple[object, object, list[Any]]]:
        """The value of the entry, the generation of its bucket, and the numbers of the epoch; in one command."""
        generation = self.keys.generation(self.keys.bucket(key.partition))
        entry = self.keys.entry(key)
        (reply,) = yield from ask(Command(("MGET", entry, generation, *self.epochs), entry))
        value, held, *numbers = list_of(reply, 2 + len(self.epochs))
        return value, held, numbers

    def write(self, entry: Entry, shelf: str, grace: int, others: Sequence[Command]) -> Operation[bool]:
        """Write the entry, and send the other commands along; whether it replaced one that was alive."""
        parts = pack(entry, shelf)
        script = self._script(entry, shelf, grace, parts.head + parts.vector + parts.content)
        replies = yield from ask(script, *others)
        return integer(replies[0]) == 1

    def nearest(
        self,
        partition: Partition,  # noqa: ARG002
        space: Space,  # noqa: ARG002
        vector: Vector,  # noqa: ARG002
        k: int,  # noqa: ARG002
    ) -> Operation[Found]:
        """The entries of the nearest vectors, unscored, and the members whose entry is gone; in one round trip."""
        yield from ()
        return Found([], [])

    def _script(self, entry: Entry, shelf: str, grace: int, *parts: str | bytes) -> Command:
        index = self.keys.index(self.keys.bucket(entry.key.partition))
        expires = "inf" if entry.expires is None else repr(float(entry.expires))
        keys = (index, self.keys.entry(entry.key), *self.epochs)
        return call(self.scripts.write, keys, name_of(entry.key), shelf, expires, *parts, grace)


class Plain(Dialect):
    """A server without vectors."""

    __slots__ = ()


class VectorSets(Dialect):
    """A server with VADD and VSIM."""

    __slots__ = ()
    scripts: ClassVar[Scripts] = AS_STRINGS_WITH_SETS
    name: ClassVar[str] = "vector sets"

    def write(self, entry: Entry, shelf: str, grace: int, others: Sequence[Command]) -> Operation[bool]:
        """The script, the vector, and a last look whether the entry is still there."""
        if shelf != NO_SHELF:
            assert entry.vector is not None
            bucket = self.keys.bucket(entry.key.partition)
            name, vectors = name_of(entry.key), self.keys.vectors(bucket, shelf)
            # CAS: the place in the graph is found in a thread of the server's. Without, and so in a script, every
            # other client waits for the 2 ms it takes. Hence two commands, and between them somebody may remove the
            # entry: the vector that then comes too late goes again with the third.
            others = (
                Command(("VADD", vectors, "FP32", entry.vector, name, "CAS", self.keys.quantisation), vectors),
                call(self.scripts.reap, (self.keys.index(bucket),), name + shelf),
                *others,
            )
        return (yield from super().write(entry, shelf, grace, others))

    def nearest(self, partition: Partition, space: Space, vector: Vector, k: int) -> Operation[Found]:
        """One script: the search, and the values of what it finds."""
        bucket = self.keys.bucket(partition)
        shelf = self.keys.shelf(partition, space, len(vector) // 4)
        keys = (self.keys.index(bucket), self.keys.vectors(bucket, shelf), *self.epochs)
        (reply,) = yield from ask(call(self.scripts.nearest, keys, vector, k))
        generation, everybody, own, pairs, dead = list_of(reply, 5)
        pairs = list_of(pairs)
        entries = [
            entry
            for name, value in zip(pairs[::2], pairs[1::2], strict=True)
            if (entry := _entry(partition, space, name, value, generation)) is not None
        ]
        members = [_text(name) + shelf for name in list_of(dead)]
        return Found(entries, members, [everybody, own] if self.epochs else [])


class Search(Dialect):
    """A server with FT.SEARCH."""

    __slots__ = ()
    scripts: ClassVar[Scripts] = AS_HASHES
    name: ClassVar[str] = "search"

    def fetch(self, key: CacheKey) -> Operation[tuple[object, object, list[Any]]]:
        """The same from a hash: two commands, sent together."""
        generation = self.keys.generation(self.keys.bucket(key.partition))
        entry = self.keys.entry(key)
        fields, reply = yield from ask(
            Command(("HGETALL", entry), entry), Command(("MGET", generation, *self.epochs), generation)
        )
        held, *numbers = list_of(reply, 1 + len(self.epochs))
        value = _joined(fields)
        if value is None and fields:
            raise UnreadableEntryError("The stored value is no hash of bytes; the entry is ignored.")
        return value, held, numbers

    def write(self, entry: Entry, shelf: str, grace: int, others: Sequence[Command]) -> Operation[bool]:
        """The script; RediSearch indexes the hash by itself. The vector is in a field of its own, and nowhere else."""
        parts, field = pack(entry, shelf), "v"
        if shelf != NO_SHELF:
            dimension = len(parts.vector) // 4
            field = _vector_field(dimension)
            # Before the first entry: an index that comes later is filled in the background.
            if dimension not in self.indexed:
                yield from ask(self._make_index(dimension), tolerate=True)
                self.indexed.add(dimension)
        script = self._script(entry, shelf, grace, parts.head, parts.content, field, parts.vector)
        replies = yield from ask(script, *others)
        return integer(replies[0]) == 1

    def nearest(self, partition: Partition, space: Space, vector: Vector, k: int) -> Operation[Found]:
        """FT.SEARCH, and the generation with it. The index of this dimension is made when there is none yet."""
        bucket, dimension = self.keys.bucket(partition), len(vector) // 4
        field, generation_key = _vector_field(dimension), self.keys.generation(bucket)
        query = f"(@s:{{{self.keys.shelf(partition, space, dimension)}}})=>[KNN {k} @{field} $q]"
        options = ("RETURN", 3, "h", "b", field, "PARAMS", 2, "q", vector, "LIMIT", 0, k, "DIALECT", 2)
        find = Command(("FT.SEARCH", self._index(dimension), query, *options), generation_key)
        numbers = Command(("MGET", generation_key, *self.epochs), generation_key)
        found, reply = yield from ask(find, numbers, tolerate=True)
        if isinstance(found, Refusal) and found.unknown_index:
            yield from ask(self._make_index(dimension), tolerate=True)
            found, reply = yield from ask(find, numbers, tolerate=True)
        for one in (found, reply):
            if isinstance(one, Refusal):
                raise complaint(one)
        generation, *epochs = list_of(reply, 1 + len(self.epochs))
        entries = [
            entry
            for name, value in _documents(found)
            if (entry := _entry(partition, space, name, value, generation)) is not None
        ]
        return Found(entries, [], epochs)

    def _index(self, dimension: int) -> str:
        return f"{self.keys.prefix}:{_vector_field(dimension)}"

    def _make_index(self, dimension: int) -> Command:
        """Refused, and that is well, when it exists."""
        vector = ("VECTOR", "HNSW", 6, "TYPE", "FLOAT32", "DIM", dimension, "DISTANCE_METRIC", "COSINE")
        schema = ("SCHEMA", "s", "TAG", _vector_field(dimension), *vector)
        name = self._index(dimension)
        return Command(("FT.CREATE", name, "ON", "HASH", "PREFIX", 1, f"{self.keys.prefix}:{{", *schema), name)


# ------------------------------------------------------------------------------------------------ choosing

DIALECTS: Final[dict[str, type[Dialect]]] = {one.name: one for one in (VectorSets, Search, Plain)}
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
            return Search(keys, epochs), None
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


def _entry(partition: Partition, space: Space, name: object, value: object, generation: object) -> Entry | None:
    """The entry, or None if it is damaged, of another space or without a vector: it is left out."""
    try:
        entry = unpack(CacheKey(partition, bytes.fromhex(_text(name))), value, generation)
    except (UnreadableEntryError, ValueError):
        return None
    return entry if entry is not None and entry.space == space and entry.vector is not None else None


def _documents(found: object) -> Iterator[tuple[object, object]]:
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


def _text(name: object) -> str:
    if isinstance(name, bytes):
        return name.decode("ascii", "replace")
    raise StoreError("Redis gave a reply that makes no sense.")

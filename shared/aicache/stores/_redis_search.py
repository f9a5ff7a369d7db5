"""The dialect of Redis for RediSearch, and the choice among the dialects.

RediSearch (Redis Stack, Redis Cloud, Valkey with its search module, ...): entries are hashes, an index for each
dimension finds them by shelf and vector.

The sizes of clusters come in the same round trip, from a script that has the search carried out. As long as no entry
with a cluster was seen there is no script: not every server allows a search in one. Where it is refused, and the first
time that clusters are seen, the sizes are asked for after the search.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Final, NamedTuple

from aicache._errors import UnreadableEntryError
from aicache._model import CacheKey, Entry, Search, Vector
from aicache.stores._redis_dialect import (
    ROUNDED,
    SEARCHED_AT_ONCE,
    Dialect,
    Found,
    Place,
    Plain,
    Value,
    VectorSets,
    accepted,
    bytes_in,
    sizes_in,
)
from aicache.stores._redis_layout import NO_SHELF, Keys, Parts, is_clustered
from aicache.stores._redis_plan import (
    Command,
    Operation,
    Refusal,
    Word,
    ask,
    ask_groups,
    call,
    complaint,
    list_of,
)
from aicache.stores._redis_scripts import AS_HASHES, Scripts

__all__ = ["DIALECTS", "RediSearch", "choose"]

_SPARE: Final = 2
"""Entries asked for beyond `k`, in case some of the nearest are never to be near for the asker."""
_RANGED_ABOVE: Final = 0.5
"""With a floor above this RediSearch is asked for what is within a radius, and not for the nearest: on a shelf of
10,000 questions it answers in 0.4 ms where KNN behind a filter takes 1.8 to 3.6. Radii up to 0.4 were measured."""
_BEYOND: Final = 0.2
"""The share of the radius by which RediSearch looks beyond it (`EPSILON`).

With its default of 0.01 the nearest of 600 was found 539 times, with 0.1 593 times, with this 597 times and no oftener
with more. (KNN finds all.) It costs nothing but where a vector is as far from one entry as from the next, which that of
no question was: then the whole graph is searched.
"""
_CLUSTERS: Final = "entries with clusters"
_NO_SCRIPTS: Final = "no search in scripts"


class _Reply(NamedTuple):
    """What came of one search: replies, any of which may be a `Refusal`."""

    found: object
    numbers: object
    blocked: object
    sizes: object
    """None where they did not come along."""


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
        fields, reply = accepted(replies)
        held, *numbers = list_of(reply, 1 + len(self.epochs))
        value = _joined(fields)
        if value is None and fields:
            raise UnreadableEntryError("The stored value is no hash of bytes; the entry is ignored.")
        return Value(value, held, numbers)

    def prepare(self, vectors: Iterable[Vector]) -> Operation[None]:
        """The index of each dimension. Before the first entry: one that comes later is filled in the background."""
        missing = {len(vector) // 4 for vector in vectors} - self.indexed
        if missing:
            yield from ask(*map(self._make_index, sorted(missing)), tolerate=True)
            self.indexed.update(missing)

    def writing(self, entry: Entry, parts: Parts, place: Place) -> tuple[Command, ...]:
        """The script; RediSearch indexes the hash by itself. The vector is in a field of its own, and nowhere else."""
        vectors = "v" if place.shelf == NO_SHELF else _vector_field(len(parts.vector) // 4)
        return (self._script(entry, place, parts.head, parts.content, vectors, parts.vector),)

    # ------------------------------------------------------------------------------------------ searching

    def nearest(self, searches: Sequence[Search]) -> Operation[list[Found]]:
        """FT.SEARCH for each; with it the generation, and what is never to be near.

        Another round trip where there is no index of this dimension yet, so that it is made, or where more of the
        nearest are not to be near than were asked for to spare.
        """
        replies = yield from self._search(searches, _SPARE)
        missing = {
            len(search.vector) // 4
            for search, reply in zip(searches, replies, strict=True)
            if isinstance(reply.found, Refusal) and reply.found.unknown_index
        }
        if missing:
            yield from ask(*map(self._make_index, sorted(missing)), tolerate=True)
            replies = yield from self._search(searches, _SPARE)
        answers = [self._found(search, reply, _SPARE) for search, reply in zip(searches, replies, strict=True)]
        for place, (search, blocked) in enumerate(zip(searches, answers, strict=True)):
            if isinstance(blocked, int):
                (again,) = yield from self._search((search,), blocked)
                answer = self._found(search, again, blocked, last=True)
                assert isinstance(answer, Found)
                answers[place] = answer
        return (yield from self._counted(searches, [answer for answer in answers if isinstance(answer, Found)]))

    def _search(self, searches: Sequence[Search], spare: int) -> Operation[list[_Reply]]:
        """Each search in a script if that is of use, else with commands beside it."""
        if _CLUSTERS in self.noticed and _NO_SCRIPTS not in self.noticed:
            replies = yield from self._search_in_scripts(searches, spare)
            if replies is not None:
                return replies
        groups = [self._finding(search, spare) for search in searches]
        answered = yield from ask_groups(groups, SEARCHED_AT_ONCE, tolerate=True)
        return [_Reply(found, numbers, rest[0] if rest else [], None) for found, numbers, *rest in answered]

    def _search_in_scripts(self, searches: Sequence[Search], spare: int) -> Operation[list[_Reply] | None]:
        """None where the server refuses a search there for another reason than a missing index."""
        commands = [(self._finding_in_script(search, spare),) for search in searches]
        answered = yield from ask_groups(commands, SEARCHED_AT_ONCE, tolerate=True)
        replies = []
        for (reply,) in answered:
            if isinstance(reply, Refusal):
                if not reply.unknown_index:
                    if reply.code == "ERR":
                        self.noticed.add(_NO_SCRIPTS)
                    return None
                replies.append(_Reply(reply, [], [], []))
            else:
                replies.append(_Reply(*list_of(reply, 4)))
        return replies

    def _finding(self, search: Search, spare: int) -> tuple[Command, ...]:
        generation = self._generation(search)
        find = Command(self._words(search, spare), generation)
        numbers = Command(("MGET", generation, *self.epochs), generation)
        if search.asker is None:
            return find, numbers
        blocked = self.keys.blocked(self.keys.bucket(search.partition), search.asker)
        return find, numbers, Command(("SMEMBERS", blocked), blocked)

    def _finding_in_script(self, search: Search, spare: int) -> Command:
        bucket = self.keys.bucket(search.partition)
        blocked = () if search.asker is None else (self.keys.blocked(bucket, search.asker),)
        keys = (self.keys.generation(bucket), *self.epochs, *blocked)
        return call(self.scripts.searched, keys, len(self.epochs), *self._words(search, spare)[1:])

    def _words(self, search: Search, spare: int) -> tuple[Word, ...]:
        """`spare` counts for a search with an asker only."""
        dimension = len(search.vector) // 4
        field = _vector_field(dimension)
        count = search.k if search.asker is None else search.k + spare
        shelf = f"@s:{{{self.keys.shelf(search.partition, search.space, dimension)}}}"
        options: tuple[Word, ...]
        if search.floor > _RANGED_ABOVE:
            query = f"{shelf} @{field}:[VECTOR_RANGE $r $q]=>{{$YIELD_DISTANCE_AS: d; $EPSILON: {_BEYOND}}}"
            options = ("SORTBY", "d", "PARAMS", 4, "q", search.vector, "r", max(0.0, 1 - search.floor + ROUNDED))
        else:
            query = f"({shelf})=>[KNN {count} @{field} $q]"
            options = ("PARAMS", 2, "q", search.vector)
        options += ("RETURN", 3, "h", "b", field, "LIMIT", 0, count, "DIALECT", 2)
        return "FT.SEARCH", self._index(dimension), query, *options

    def _found(self, search: Search, reply: _Reply, spare: int, *, last: bool = False) -> Found | int:
        """What was found; or, where entries that are not to be near took the place of others, how many to spare."""
        found, numbers, members = accepted(reply[:3])
        generation, *epochs = list_of(numbers, 1 + len(self.epochs))
        blocked = set(map(bytes_in, _members(members)))
        documents = list(_documents(found))
        near = [place for place, (name, _) in enumerate(documents) if name not in blocked]
        if not last and blocked and len(documents) >= search.k + spare and len(near) < search.k:
            return len(blocked)
        sizes = sizes_in(reply.sizes, len(documents))
        return Found(
            [documents[place] for place in near], [], generation, epochs, [sizes[place] for place in near if sizes]
        )

    def _counted(self, searches: Sequence[Search], found: list[Found]) -> Operation[list[Found]]:
        """The same with the sizes of clusters, where there are some and they did not come along."""
        bare = [
            place for place, one in enumerate(found) if not one.sizes and any(is_clustered(v) for _, v in one.values)
        ]
        if bare:
            self.noticed.add(_CLUSTERS)
            groups = [
                (call(self.scripts.counts, (self._generation(searches[place]),), *(n for n, _ in found[place].values)),)
                for place in bare
            ]
            replies = yield from ask_groups(groups, SEARCHED_AT_ONCE)
            for place, (sizes,) in zip(bare, replies, strict=True):
                found[place].sizes.extend(sizes_in(sizes, len(found[place].values)))
        return found

    def _generation(self, search: Search) -> str:
        return self.keys.generation(self.keys.bucket(search.partition))

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

"""`MemoryStore`: a store in the process's own memory, gone when the process ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Final, TypeAlias

from aicache._fork import in_forked_child
from aicache._model import CacheKey, Candidate, Entry, Listed, Search, Selection, Space, StoreSize, Vector
from aicache.stores._logs import Logs
from aicache.stores._table import EntryTable
from aicache.stores.base import Lessons

if TYPE_CHECKING:
    from aicache.stores._vectors import VectorIndex

__all__ = ["MemoryStore"]

_Place: TypeAlias = tuple[bytes, Space, int]

_SMALL: Final = 64
"""Entries of a shelf up to which their own vectors are scanned. Each conversation is a partition, so there may be
as many shelves as entries, and an index of its own would weigh more than most of them."""

_COMPARED_AT_ONCE: Final = 1024
"""Entries whose vectors `similar` copies side by side: 1.5 MiB at 384 dimensions."""

_SLACK: Final = 1e-6
"""How much lower a cosine of float32 numbers may come out: an equal vector must be found at `min_score=1.0`."""

_BLOCKED_PAIRS: Final = 10_000
"""Pairs that are kept blocked: about 300 bytes each."""


class MemoryStore:
    """Entries in memory, bounded in number and bytes, with an index of their vectors for each partition and space.

    It never waits for anything, so async callers use it directly. When it is full the eviction policy chooses who
    leaves; an entry larger than `max_bytes` is not kept. The nearest entry of a question counts as used, whether
    or not it is served.

    Of the pairs that were blocked the last 10,000 are kept, and of each log the last 4,096 lessons; older ones are
    forgotten, as all is when the process ends. Lessons count towards neither bound.

    Vectors are kept as float32 in the entries; `max_bytes` counts those. Large partitions have a float16 graph
    besides, about 1,000 bytes an entry at 384 dimensions, which it does not count.

    A forked child has a store of its own, with what its parent's held; an empty one if another thread was at work in it
    at that moment.

    Args:
        max_entries: entries kept, at least 1.
        max_bytes: sum of their `Entry.weight`, at least 1.
        eviction: `lru`, `lfu`, `arc` or `w-tinylfu`.

    Raises:
        ConfigurationError: at construction, naming the parameter.
        MissingExtraError: from `write` and `nearest` with a vector, when numpy is not installed.
    """

    def __init__(
        self, *, max_entries: int = 100_000, max_bytes: int = 512 * 2**20, eviction: str = "w-tinylfu"
    ) -> None:
        self._table = EntryTable(
            max_entries=max_entries, max_bytes=max_bytes, eviction_name=eviction, on_removed=self._unshelve
        )
        # Held by whatever changes entries, so that table and shelves change together. Readers take it never:
        # they may find a digest whose entry has just left, and skip it.
        self._lock = Lock()
        self._shelves: dict[_Place, _Shelf] = {}
        self._left: dict[_Place, _Shelf] = {}  # what a forked child does not use
        self._blocked = _Blocked()
        self._logs = Logs()
        in_forked_child(self._recover)  # after the table's own

    @property
    def name(self) -> str:
        """`memory`."""
        return "memory"

    @property
    def blocking(self) -> bool:
        """Always False."""
        return False

    def fetch(self, key: CacheKey) -> Entry | None:
        """The entry of exactly this key, or None."""
        return self._table.get(key.digest)

    def nearest(self, search: Search) -> Sequence[Candidate]:
        """At most `k` entries of the partition and space that are not blocked, nearest first, with true cosines."""
        shelf = self._shelves.get((search.partition.id, search.space, len(search.vector) // 4))
        if shelf is None or search.k < 1 or not _is_usable(search.vector):
            return []
        blocked = self._blocked.of(search.asker)
        if shelf.index is None:
            digests = list(shelf.digests.values())
        else:
            labels = shelf.index.search(search.vector, search.k + len(blocked))
            digests = [digest for label, _ in labels if (digest := shelf.digests.get(label)) is not None]
        if blocked:
            digests = [digest for digest in digests if digest not in blocked]
        scored = self._scored(digests, search.space, search.vector)[: search.k]
        if scored:
            self._table.get(scored[0][0].key.digest)
        return [Candidate(entry, score, self._table.cluster_size(entry.cluster)) for entry, score in scored]

    def write(self, entry: Entry) -> None:
        """Store the entry in place of any earlier one with its key."""
        self.write_many((entry,))

    def write_many(self, entries: Sequence[Entry]) -> None:
        """Store these entries, each in place of any earlier one with its key."""
        if any(entry.vector is not None for entry in entries):
            import aicache.stores._vectors  # noqa: F401 - without numpy, fail before anything is stored
        for entry in entries:
            with self._lock:
                if self._table.put(entry) and entry.vector is not None and entry.space is not None:
                    self._shelve(entry, entry.space, entry.vector)

    def entries(self, selection: Selection) -> Sequence[Entry]:
        """Every entry of the selection, expired ones too."""
        return self._table.select(selection)

    def touch(self, key: CacheKey, expires: float | None) -> None:
        """Set when the entry expires; nothing happens if it is gone."""
        self._table.touch(key.digest, expires)

    def remove(self, keys: Sequence[CacheKey], *, dry_run: bool = False) -> int:
        """Remove these entries with their vectors, or with `dry_run` none; how many there were."""
        digests = [key.digest for key in keys]
        if dry_run:
            return self._table.count(digests)
        with self._lock:
            return self._table.remove(digests)

    def clear(self, selection: Selection, *, dry_run: bool = False) -> int:
        """Remove all entries of the selection, or with `dry_run` none; how many there were."""
        if dry_run:
            return len(self._table.select(selection))
        with self._lock:
            return self._table.clear(selection)

    def similar(self, selection: Selection, space: Space, vector: Vector, min_score: float) -> Sequence[Listed]:
        """Every entry of the selection and space whose cosine is at least `min_score`, nearest first.

        Compares all of them, about a microsecond each, and holds up nobody meanwhile.
        """
        if not vector or not _is_usable(vector):
            return []
        listed: list[Listed] = []
        entries = [
            entry
            for entry in self._table.select(selection)
            if entry.space == space and entry.vector is not None and len(entry.vector) == len(vector)
        ]
        for start in range(0, len(entries), _COMPARED_AT_ONCE):
            listed += _listed(entries[start : start + _COMPARED_AT_ONCE], vector, min_score)
        listed.sort(key=lambda one: -one.score)
        return listed

    def block(self, asker: CacheKey, entry: CacheKey) -> None:
        """Never again return this entry from `nearest` for this asker, as long as the pair is among the last 10,000."""
        with self._lock:
            self._blocked.add(asker, entry)

    def join(self, key: CacheKey, cluster: bytes) -> None:
        """Make the entry one of the cluster; nothing happens if it is gone."""
        self._table.join(key.digest, cluster)

    def append_lessons(self, log: bytes, lessons: Sequence[bytes]) -> int:
        """Append lessons to a log; how many it has ever had."""
        return self._logs.append(log, lessons)

    def lessons(self, log: bytes, after: int) -> Lessons:
        """The lessons of a log behind this position that are still there."""
        return self._logs.read(log, after)

    def keep_summary(self, log: bytes, position: int, summary: bytes) -> None:
        """Keep a summary of a log up to this position, unless there is one of a higher position it has reached."""
        self._logs.keep_summary(log, position, summary)

    def summary(self, log: bytes) -> tuple[int, bytes] | None:
        """The position and the summary of a log that was kept last, or None."""
        return self._logs.summary(log)

    def forget_lessons(self, log: bytes) -> None:
        """Remove the log and its summary."""
        self._logs.forget(log)

    def sweep(self, now: float, limit: int) -> int:
        """Remove at most `limit` entries with `expires <= now`; how many were removed."""
        with self._lock:
            return self._table.sweep(now, limit)

    def size(self) -> StoreSize:
        """The number of entries and the sum of their weights."""
        return self._table.size()

    def epoch(self) -> int:
        """Always 0: no other process can reach this store."""
        return 0

    def close(self) -> None:
        """Forget everything."""
        self.clear(Selection())
        with self._lock:
            self._blocked = _Blocked()
        self._logs.clear()

    def _recover(self) -> None:
        """In a forked child: keep what is there if nobody was at work in it, else begin anew."""
        torn, self._lock = self._lock.locked(), Lock()
        for shelf in self._shelves.values():
            if shelf.index is not None and not shelf.index.recover():
                torn = True
        # A table that was torn has emptied itself.
        if torn or not self._table.size().entries:
            self._table.restart()
            # Not freed: a graph is C++, and may be torn too.
            self._left, self._shelves = self._shelves, {}

    # ------------------------------------------------------------------------------ vectors

    def _scored(self, digests: Sequence[bytes], space: Space, vector: Vector) -> list[tuple[Entry, float]]:
        """These entries with exact scores, nearest first."""
        from aicache.stores._vectors import cosines

        entries, vectors = [], []
        for digest in digests:
            entry = self._table.peek(digest)
            # An entry replaced a moment ago may be in another space now.
            if entry is not None and entry.space == space and entry.vector is not None:
                entries.append(entry)
                vectors.append(entry.vector)
        scored = list(zip(entries, cosines(vector, vectors), strict=True))
        scored.sort(key=lambda pair: -pair[1])
        return scored

    def _shelve(self, entry: Entry, space: Space, vector: Vector) -> None:
        """Make the entry findable by its vector. Under the lock."""
        from aicache.stores._vectors import VectorIndex

        if not _is_usable(vector):
            return  # The answer is good for exact matches all the same.
        dimension = len(vector) // 4
        shelf = self._shelves.setdefault((entry.key.partition.id, space, dimension), _Shelf())
        label = _label(entry.key.digest)
        if label in shelf.digests:
            return  # Two digests with 63 equal bits: the second is matched exactly only.
        shelf.digests[label] = entry.key.digest
        if shelf.index is not None:
            shelf.index.add(label, vector)
        elif len(shelf.digests) > _SMALL:
            index = VectorIndex(dimension)
            for other, digest in shelf.digests.items():
                held = self._table.peek(digest)
                assert held is not None
                assert held.vector is not None
                index.add(other, held.vector)
            shelf.index = index

    def _unshelve(self, entry: Entry) -> None:
        """Drop the vector of an entry that leaves, and its shelf if it was the last. Under both locks."""
        if entry.vector is None or entry.space is None:
            return
        place = entry.key.partition.id, entry.space, len(entry.vector) // 4
        shelf = self._shelves.get(place)
        label = _label(entry.key.digest)
        if shelf is None or shelf.digests.get(label) != entry.key.digest:
            return
        del shelf.digests[label]
        if not shelf.digests:
            del self._shelves[place]
        elif shelf.index is not None:
            shelf.index.discard(label)


@dataclass(slots=True)
class _Shelf:
    """The entries of one partition that have vectors of one space and dimension."""

    digests: dict[int, bytes] = field(default_factory=dict)
    index: VectorIndex | None = None
    """None while there are few."""


class _Blocked:
    """The pairs that were reported wrong, by digests; the oldest go beyond the bound.

    Readers take no lock: the set of an asker is replaced, never changed. A change cut short by a fork leaves at worst
    its own pair half there, which does no harm.
    """

    __slots__ = ("_by_asker", "_pairs")

    def __init__(self) -> None:
        self._by_asker: dict[bytes, frozenset[bytes]] = {}
        self._pairs: dict[tuple[bytes, bytes], None] = {}  # the oldest first

    def of(self, asker: CacheKey | None) -> frozenset[bytes]:
        """The digests of the entries that this asker must not get."""
        return _NOTHING if asker is None else self._by_asker.get(asker.digest, _NOTHING)

    def add(self, asker: CacheKey, entry: CacheKey) -> None:
        """Block the pair. One caller at a time."""
        self._pairs[asker.digest, entry.digest] = None
        self._by_asker[asker.digest] = self.of(asker) | {entry.digest}
        if len(self._pairs) > _BLOCKED_PAIRS:
            oldest, digest = next(iter(self._pairs))
            del self._pairs[oldest, digest]
            left = self._by_asker.get(oldest, _NOTHING) - {digest}
            if left:
                self._by_asker[oldest] = left
            else:
                self._by_asker.pop(oldest, None)


_NOTHING: Final[frozenset[bytes]] = frozenset()


def _listed(entries: Sequence[Entry], vector: Vector, min_score: float) -> list[Listed]:
    """Those of the entries that are near enough. They have vectors of one dimension, though maybe damaged ones."""
    from aicache.stores._vectors import are_vectors, cosines

    vectors = [entry.vector or b"" for entry in entries]
    scored = zip(entries, cosines(vector, vectors), are_vectors(vectors), strict=True)
    return [
        Listed(entry.key, entry.query, score, entry.created)
        for entry, score, usable in scored
        if usable and score >= min_score - _SLACK
    ]


def _is_usable(vector: Vector) -> bool:
    from aicache.stores._vectors import is_vector

    return is_vector(vector)


def _label(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "little") >> 1

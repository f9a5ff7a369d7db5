"""Nearest entries of the embedded store: a scan of the rows for few, an index in memory for many.

Most partitions are conversations with a handful of entries: reading those rows each time is as fast as any index,
needs no memory, and cannot be out of date. A larger partition is read into a `VectorIndex` once. Ids grow
with every write of any program, so `id > last seen` finds what is new; what was removed is noticed when its row is
not there, or, when many are gone at once, by comparing ids.

A damaged file may hold any bits. A vector is compared only if its checksum is right and its length is 1, both when it
is read into an index and when the final scores are computed; a row where that is not so is passed over for good.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from aicache._codec import Codec
from aicache._errors import WrongKeyError
from aicache._model import Candidate, Partition, Search, Space, Vector
from aicache.stores._sqlite_rows import checksum, read_blocked, read_entries, read_totals, space_bytes

if TYPE_CHECKING:
    from aicache.stores._vectors import VectorIndex

__all__ = ["Neighbours", "sound"]

_Scope: TypeAlias = tuple[bytes, bytes, int]
"""Partition, space, and bytes of a vector: what may be compared."""

_Row: TypeAlias = tuple[int, Vector, int]
"""Id, vector, checksum of the vector; in a damaged file the last one may be anything."""

_SCANNED: Final = 32
"""Entries up to which the rows are read anew each time: 32 of 384 dimensions take 70 us, an index 30."""

_LOADED_AT_ONCE: Final = 4096
_SETTLED_AT_ONCE: Final = 4
"""Vectors moved into the graph while searches wait: 1 ms each at 100,000."""
_TURN: Final = 0.0005
"""Seconds given to searches in between: a lock taken again at once would never reach one that waits."""

_LOOKED_AT: Final = 512
"""Entries, about, that one lookup reads before it makes do with what it has. Only where most are damaged or encrypted
with foreign keys does it come to that, and each lookup leaves fewer of them to the next."""

_ROUNDED: Final = 0.01
"""By how much the index may be wrong about a cosine: it keeps vectors in half precision."""

_LABEL_BYTES: Final = 70
"""Bytes of memory of an id in a set: measured, CPython 3.11."""

_SCOPE: Final = "v.partition = ? AND v.space = (SELECT id FROM spaces WHERE name = ?)"
_VECTORS: Final = (
    f"SELECT v.id, v.vector, v.checksum FROM vectors v WHERE {_SCOPE} "  # noqa: S608 - constants
    "AND length(v.vector) = ? AND typeof(v.vector) = 'blob'"
)
_FEW: Final = f"{_VECTORS} LIMIT ?"
_NEW: Final = f"{_VECTORS} AND v.id > ? ORDER BY v.id"
_IDS: Final = f"SELECT v.id FROM vectors v WHERE {_SCOPE}"  # noqa: S608 - constants


class _Wanted(NamedTuple):
    """What is looked for."""

    partition: Partition
    space: Space
    vector: Vector
    k: int
    blocked: frozenset[bytes]
    """Digests of the entries that were reported wrong for this question."""
    floor: float

    @property
    def scope(self) -> _Scope:
        """Where it may be."""
        return self.partition.id, space_bytes(self.space), len(self.vector)


class _Found(NamedTuple):
    """What became of the labels that were looked at."""

    candidates: list[tuple[int, Candidate]]
    """At most `k`, nearest first."""
    looked_at: int
    lost: set[int]
    """Gone, or damaged."""
    foreign: set[int]
    """Encrypted with a key that is not ours."""

    @property
    def only_foreign(self) -> bool:
        """Whether there was no other one, not even one that is blocked."""
        return bool(self.foreign) and self.looked_at == len(self.lost) + len(self.foreign)


class Neighbours:
    """The loaded partitions of one session, bounded in bytes: those searched longest ago go first."""

    def __init__(self, index_bytes: int, codec: Codec) -> None:
        self._index_bytes = index_bytes
        self._codec = codec
        self._lock = threading.Lock()
        self._loaded: OrderedDict[_Scope, _Loaded] = OrderedDict()
        self._bytes = 0
        self._closing = threading.Event()
        self._settling: threading.Thread | None = None

    def find(self, connection: sqlite3.Connection, search: Search) -> list[tuple[int, Candidate]]:
        """At most `k` ids with their entries and exact scores, nearest first, without those blocked for the asker.

        Raises:
            WrongKeyError: there are entries, and all of them are encrypted with foreign keys.
        """
        vector = search.vector
        blocked = read_blocked(connection, search.asker)
        wanted = _Wanted(search.partition, search.space, vector, search.k, blocked, search.floor)
        scope = wanted.scope
        loaded = self._known(scope)
        if loaded is None:
            rows = connection.execute(_FEW, (*scope, _SCANNED + 1)).fetchall()
            if not rows or not _is_usable(vector):
                return []
            if len(rows) <= _SCANNED:
                return _scan(connection, rows, wanted, self._codec)
            loaded = self._add(scope)
        elif not _is_usable(vector):
            return []
        if loaded.refresh(connection):
            self._account(scope, loaded)
        return loaded.find(connection, wanted, self._codec)

    def close(self) -> None:
        """End the background work and give the memory back."""
        self._closing.set()
        with self._lock:
            self._loaded.clear()
            self._bytes = 0
            thread = self._settling
        if thread is not None:
            thread.join(timeout=1.0)

    def _known(self, scope: _Scope) -> _Loaded | None:
        with self._lock:
            loaded = self._loaded.get(scope)
            if loaded is not None:
                self._loaded.move_to_end(scope)
            return loaded

    def _add(self, scope: _Scope) -> _Loaded:
        with self._lock:
            if scope not in self._loaded:
                self._loaded[scope] = _Loaded(scope)
            return self._loaded[scope]

    def _account(self, scope: _Scope, loaded: _Loaded) -> None:
        """Count the bytes of an index that changed, and drop what no longer fits or is small again."""
        nbytes = loaded.nbytes
        with self._lock:
            if self._loaded.get(scope) is not loaded:
                return
            self._bytes += nbytes - loaded.counted
            loaded.counted = nbytes
            if len(loaded) <= _SCANNED // 2:
                self._bytes -= self._loaded.pop(scope).counted
            # The newest stays even if it alone is too large: without it there is no answer at all.
            while self._bytes > self._index_bytes and len(self._loaded) > 1:
                _, oldest = self._loaded.popitem(last=False)
                self._bytes -= oldest.counted
            if loaded.index.pending and self._settling is None and not self._closing.is_set():
                self._settling = threading.Thread(target=self._settle, name="aicache-index", daemon=True)
                self._settling.start()

    def _settle(self) -> None:
        """Build the graphs of large partitions while searches scan what is not in them yet."""
        while (index := self._unsettled()) is not None:
            while not self._closing.is_set() and index.settle(_SETTLED_AT_ONCE, threads=1):
                time.sleep(_TURN)

    def _unsettled(self) -> VectorIndex | None:
        with self._lock:
            if not self._closing.is_set():
                for loaded in self._loaded.values():
                    if loaded.index.pending:
                        return loaded.index
            self._settling = None
            return None


class _Loaded:
    """The index of one scope, with the ids in it."""

    def __init__(self, scope: _Scope) -> None:
        from aicache.stores._vectors import VectorIndex

        self.counted = 0
        self.index = VectorIndex(scope[2] // 4)
        self._scope = scope
        self._lock = threading.Lock()
        self._labels: set[int] = set()
        self._foreign: set[int] = set()
        self._seen = 0
        self._gone = -1

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def nbytes(self) -> int:
        """Bytes of memory, about."""
        return self.index.nbytes + _LABEL_BYTES * len(self._labels)

    def refresh(self, connection: sqlite3.Connection) -> bool:
        """Take in what was written since the last time; whether anything changed."""
        with self._lock:
            # Read before the rows: a removal in between is then counted as not yet noticed.
            gone = read_totals(connection).gone
            cursor = connection.execute(_NEW, (*self._scope, self._seen))
            changed = False
            while rows := cursor.fetchmany(_LOADED_AT_ONCE):
                self._take(rows)
                changed = True
            if self._gone < 0:
                self._gone = gone
            if gone - self._gone > 64 + len(self._labels) // 8:
                self._compare(connection, gone)
                changed = True
            return changed

    def find(self, connection: sqlite3.Connection, wanted: _Wanted, codec: Codec) -> list[tuple[int, Candidate]]:
        """As `Neighbours.find`. What cannot be returned leaves the index, and the search begins again, wider."""
        asked = wanted.k + len(wanted.blocked)
        looked_at = 0
        while True:
            near = self.index.search(wanted.vector, asked)
            # The nearest may turn out to be lost: the next one must then be at hand.
            labels = [
                label for place, (label, score) in enumerate(near) if place < 2 or score >= wanted.floor - _ROUNDED
            ]
            found = _gather(connection, labels, wanted, codec)
            looked_at += found.looked_at
            if found.lost or found.foreign:
                self._drop(connection, found)
            complete = len(found.candidates) == wanted.k or not (found.lost or found.foreign)
            if complete or looked_at >= _LOOKED_AT:
                break
            asked = max(asked, min(2 * asked, _LOOKED_AT))
        if (found.only_foreign or not found.looked_at) and self._any_foreign(connection):
            raise _wrong_key()
        return found.candidates

    def _drop(self, connection: sqlite3.Connection, found: _Found) -> None:
        """Take what cannot be returned out of the index.

        It still counts as a label until ids are compared: a partition of which little can be read, because its entries
        are encrypted or should be, would else be taken for a small one, and be read again and again.
        """
        with self._lock:
            if 2 * len(found.lost) > found.looked_at:
                self._compare(connection, read_totals(connection).gone)
            for label in found.lost | found.foreign:
                self.index.discard(label)
            self._foreign |= found.foreign & self._labels

    def _any_foreign(self, connection: sqlite3.Connection) -> bool:
        """Whether one of the entries that are encrypted with foreign keys is still there."""
        with self._lock:
            while self._foreign:
                label = next(iter(self._foreign))
                if connection.execute("SELECT 1 FROM vectors WHERE id = ?", (label,)).fetchone() is not None:
                    return True
                self._discard((label,))
            return False

    def _take(self, rows: Sequence[_Row]) -> None:
        usable = sound(rows)
        if len(usable) <= _SCANNED:
            for label, vector in usable:
                self.index.add(label, vector)
        else:
            import numpy as np

            matrix = np.frombuffer(b"".join(vector for _, vector in usable), dtype="<f4")
            self.index.load([label for label, _ in usable], matrix.reshape(len(usable), -1))
        # The damaged ones count as seen: they are not read again, and the partition is not taken for a small one.
        self._labels.update(row[0] for row in rows)
        self._seen = rows[-1][0]

    def _compare(self, connection: sqlite3.Connection, gone: int) -> None:
        alive = {number for (number,) in connection.execute(_IDS, self._scope[:2])}
        self._discard(self._labels - alive)
        self._gone = gone

    def _discard(self, labels: Iterable[int]) -> None:
        for label in labels:
            self.index.discard(label)
            self._labels.discard(label)
            self._foreign.discard(label)


def _is_usable(vector: Vector) -> bool:
    from aicache.stores._vectors import is_vector

    return is_vector(vector)


def sound(rows: Sequence[_Row]) -> list[tuple[int, Vector]]:
    """The ids and vectors of the rows that hold what was written, and can be compared."""
    from aicache.stores._vectors import are_vectors

    intact = [(number, vector) for number, vector, check in rows if check == checksum(number, vector)]
    return [pair for pair, usable in zip(intact, are_vectors([vector for _, vector in intact]), strict=True) if usable]


def _scan(
    connection: sqlite3.Connection, rows: Sequence[_Row], wanted: _Wanted, codec: Codec
) -> list[tuple[int, Candidate]]:
    usable = sound(rows)
    if not usable:
        return []
    from aicache.stores._vectors import cosines

    scores = cosines(wanted.vector, [vector for _, vector in usable])
    ranked = [number for _, number in sorted((-score, pair[0]) for pair, score in zip(usable, scores, strict=True))]
    found = _gather(connection, ranked, wanted, codec)
    if found.only_foreign:
        raise _wrong_key()
    return found.candidates


def _gather(connection: sqlite3.Connection, ranked: Sequence[int], wanted: _Wanted, codec: Codec) -> _Found:
    """The first `k` of these labels that may be returned, with their exact scores."""
    found: list[tuple[int, Candidate]] = []
    looked_at = 0
    lost: set[int] = set()
    foreign: set[int] = set()
    while len(found) < wanted.k and looked_at < len(ranked):
        some = ranked[looked_at : looked_at + wanted.k - len(found)]
        looked_at += len(some)
        candidates, strange = _candidates(connection, some, wanted, codec)
        foreign |= strange
        lost.update(set(some).difference(strange, (number for number, _ in candidates)))
        found += [pair for pair in candidates if pair[1].entry.key.digest not in wanted.blocked]
    found.sort(key=lambda pair: (-pair[1].score, pair[0]))
    return _Found(found, looked_at, lost, foreign)


def _candidates(
    connection: sqlite3.Connection, labels: Sequence[int], wanted: _Wanted, codec: Codec
) -> tuple[list[tuple[int, Candidate]], set[int]]:
    """The entries of these ids with their exact scores, without those gone or damaged; and the foreign ones' ids."""
    from aicache.stores._vectors import are_vectors, cosines

    entries, sizes, foreign = read_entries(connection, wanted.partition, labels, codec)
    read = [
        (number, entry, entry.vector)
        for number, entry in entries.items()
        # What the entry itself says of its space is covered by its checksum, the column is not.
        if entry.vector is not None
        and (wanted.partition.id, space_bytes(entry.space), len(entry.vector)) == wanted.scope
    ]
    usable = are_vectors([vector for _, _, vector in read])
    sound = [each for each, good in zip(read, usable, strict=True) if good]
    scores = cosines(wanted.vector, [vector for _, _, vector in sound])
    return [
        (number, Candidate(entry, score, sizes[number]))
        for (number, entry, _), score in zip(sound, scores, strict=True)
    ], foreign


def _wrong_key() -> WrongKeyError:
    return WrongKeyError("All stored entries of this kind are encrypted with keys that are not among ours")

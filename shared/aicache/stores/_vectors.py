"""Nearest vectors under labels: an exact scan for few of them, a graph (HNSW) for many.

New vectors wait in float32 blocks that every search scans in full. Beyond `exact_limit` of them, each `add`
moves a few into a usearch graph, where they are kept as float16 only. So no call ever builds a large graph
while somebody waits, and a search is complete at every moment: graph plus scan of what still waits.

float16 rounds each component by at most 2**-11 of itself, so a score from the graph is off by less than
2**-11 = 0.0005 for unit vectors, the query being rounded too by less than 0.001 (measured: 0.00011 at most among
20,000 scores over 100,000 real vectors, benchmarks/vectors.py). A store that has the float32 vector of an entry at
hand makes the score exact with `cosines`; keeping float32 here as well would double the memory for nothing.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, Final, TypeAlias

from aicache._errors import ConfigurationError, MissingExtraError
from aicache._model import Vector

try:
    import numpy as np
    from numpy.typing import NDArray
except ImportError as error:
    raise MissingExtraError("semantic matching", "onnx") from error

__all__ = ["EXACT_LIMIT", "VectorIndex", "are_vectors", "cosines", "is_vector"]

_Rows: TypeAlias = "NDArray[np.float32]"
_Labels: TypeAlias = "NDArray[np.int64]"

EXACT_LIMIT: Final = 4096
"""Vectors up to which a scan is as fast as a graph search, and needs no building."""

_BLOCK_NUMBERS: Final = 2**18
"""Numbers in a full block of rows: 1 MiB. A product of this size stays on one thread in OpenBLAS; from about 400,000
numbers on it wakes all cores, and a scan of 2,000 vectors then took 8 ms instead of 0.08 on a busy machine. Growing
copies no more than a block, so that no add stalls."""
_LOAD_CHUNK: Final = 4096
"""Rows checked at once in `load`; bounds the memory of the copy."""
_MOVES: Final = 4
"""Vectors an `add` moves into the graph: a backlog shrinks by three an add, and no add takes long."""
_SETTLE_CHUNK: Final = 64
"""Vectors moved under one hold of the lock in `settle`, about 10 ms, so that searches get their turn."""
_SEED: Final = 2048
"""Vectors a graph gets from one thread before others help: those that several threads add to a small graph miss
each other, and 3 in 1,000 were then not found by their own vector."""

# Measured on 100,000 real vectors, 2,500 real questions as queries (benchmarks/vectors.py): recall@1 0.987, and above
# 0.999 where the nearest has a cosine over 0.85. Connectivity 24 and 32 gain 0.006 for a third more memory and time;
# expansion_add 256 gains 0.003 for twice the building.
_CONNECTIVITY: Final = 16
_EXPANSION_ADD: Final = 128
_EXPANSION_SEARCH: Final = 48

_ROUNDING: Final = 0.01
"""By how much the square of a vector's length may differ from 1: whatever an embedder rounds to, with room."""

_SPARSE: Final = 4
"""A graph in which fewer than one node in four is alive is dropped: a search walks over the dead ones."""

_log = logging.getLogger("aicache")


def cosines(vector: Vector, others: Sequence[Vector]) -> list[float]:
    """The cosine of `vector` with each of `others`, from float32, in [-1, 1]. All of one dimension, and `is_vector`.

    Where that is not so and the product is one that no two unit vectors have, the score is NaN.
    """
    query = np.frombuffer(vector, dtype="<f4")
    at_once = max(1, _BLOCK_NUMBERS // len(query))
    scores: list[float] = []
    for start in range(0, len(others), at_once):
        some = others[start : start + at_once]
        matrix = np.frombuffer(b"".join(some), dtype="<f4").reshape(len(some), len(query))
        with np.errstate(all="ignore"):
            products = matrix @ query
        scores += map(_bounded, products.tolist())
    return scores


def _bounded(product: float) -> float:
    # Here and not in NumPy, whose calls take longer than a few numbers do. So written because no comparison with NaN
    # is true.
    return min(1.0, max(-1.0, product)) if abs(product) < 1.0 + _ROUNDING else math.nan


def is_vector(vector: Vector) -> bool:
    """Whether these bytes are a vector: float32 numbers, all finite, of length 1 up to rounding."""
    if not vector or len(vector) % 4:
        return False
    row = np.frombuffer(vector, dtype="<f4")
    # Any bits may come from a damaged file: NumPy would warn, and where warnings are errors, raise.
    with np.errstate(all="ignore"):
        return abs(float(row @ row) - 1.0) < _ROUNDING  # False for NaN.


def are_vectors(several: Sequence[Vector]) -> list[bool]:
    """Whether each of these is a vector as `is_vector` says; all have the same number of bytes, a multiple of 4."""
    if not several:
        return []
    flags: list[bool] = _are_units(np.frombuffer(b"".join(several), dtype="<f4").reshape(len(several), -1)).tolist()
    return flags


def _are_units(rows: _Rows) -> NDArray[np.bool_]:
    with np.errstate(all="ignore"):
        units: NDArray[np.bool_] = np.abs(np.einsum("ij,ij->i", rows, rows) - 1.0) < _ROUNDING
    return units


class VectorIndex:
    """Unit vectors of one dimension under whole-number labels (0 and above). Safe from any thread."""

    def __init__(self, dimension: int, *, exact_limit: int = EXACT_LIMIT) -> None:
        if dimension < 1:
            raise ConfigurationError("dimension", f"give a whole number of at least 1; got {dimension!r}")
        if exact_limit < 0:
            raise ConfigurationError("exact_limit", f"give a whole number of at least 0; got {exact_limit!r}")
        self._dimension = dimension
        self._exact_limit = exact_limit
        self._lock = threading.Lock()
        self._waiting = _Blocks(dimension)
        self._graph: _Graph | None = None

    @property
    def dimension(self) -> int:
        """Components of a vector."""
        return self._dimension

    @property
    def pending(self) -> int:
        """Vectors beyond the exact limit that still wait for `add` or `settle` to move them into the graph."""
        with self._lock:
            return len(self._waiting) if self._overfull() else 0

    @property
    def nbytes(self) -> int:
        """Bytes of memory the vectors, labels and graph take."""
        with self._lock:
            return self._waiting.nbytes + (self._graph.nbytes if self._graph is not None else 0)

    def recover(self) -> bool:
        """In a forked child: take a fresh lock; False if a thread was at work in it, so that it is of no use here."""
        torn, self._lock = self._lock.locked(), threading.Lock()
        return not torn

    def __len__(self) -> int:
        with self._lock:
            return self._count()

    def add(self, label: int, vector: Vector) -> None:
        """Put the vector under the label, in place of an earlier one.

        Raises:
            ValueError: the vector has another dimension or is not finite and of length 1.
        """
        row = self._row(vector)
        if not is_vector(vector):
            raise ValueError("the vector is not of length 1, or not finite")
        with self._lock:
            self._drop(label)
            self._waiting.append(label, row)
            if self._overfull():
                self._move(_MOVES)

    def discard(self, label: int) -> None:
        """Remove the label and its vector; nothing happens if it is not there."""
        with self._lock:
            if self._drop(label) and self._graph is not None and self._graph.sparse:
                self._abandon_graph()

    def search(self, vector: Vector, k: int) -> list[tuple[int, float]]:
        """At most `k` labels with the cosine to `vector`, nearest first; see the module on its precision.

        Raises:
            ValueError: the vector has another dimension.
        """
        row = self._row(vector)
        if k < 1:
            return []
        with self._lock:
            found = self._waiting.nearest(row, k)
            if self._graph is not None:
                found += self._graph.nearest(row, k)
        found.sort(key=lambda pair: (-pair[1], pair[0]))
        return found[:k]

    def load(self, labels: Sequence[int] | _Labels, matrix: _Rows) -> None:
        """Add many vectors, one a row, without building a graph: `settle` or later `add` calls do that.

        A label that is there already, or comes twice, ends with the last vector given. Rows that are not finite
        and of length 1 are left out, their labels too.

        Raises:
            ValueError: the shapes do not fit.
        """
        if matrix.shape != (len(labels), self._dimension):
            raise ValueError(f"{len(labels)} labels of dimension {self._dimension} need a matrix of that shape")
        with self._lock:
            for start in range(0, len(labels), _LOAD_CHUNK):
                rows = matrix[start : start + _LOAD_CHUNK].astype(np.float32)
                usable = _are_units(rows).tolist()
                for label, row, good in zip(labels[start : start + _LOAD_CHUNK], rows, usable, strict=True):
                    self._drop(int(label))
                    if good:
                        self._waiting.append(int(label), row)

    def settle(self, limit: int | None = None, *, threads: int = 0) -> int:
        """Move up to `limit` pending vectors (None: all) into the graph; how many are still pending.

        Uses `threads` cores (0: all of them). Searches and adds from other threads get in between.
        """
        left = float("inf") if limit is None else limit
        while left > 0:
            with self._lock:
                if not self._overfull():
                    return 0
                moved = self._move(int(min(left, _SETTLE_CHUNK)), threads=threads)
            left -= moved
        return self.pending

    def build(self, labels: Sequence[int] | _Labels, matrix: _Rows) -> None:
        """Load many vectors and build the graph for them with all cores before returning."""
        self.load(labels, matrix)
        self.settle()

    # The lock is held in all that follows.

    def _row(self, vector: Vector) -> _Rows:
        row = np.frombuffer(vector, dtype="<f4")
        if len(row) != self._dimension:
            raise ValueError(f"the vector has {len(row)} components, the index {self._dimension}")
        return row

    def _count(self) -> int:
        return len(self._waiting) + (len(self._graph) if self._graph is not None else 0)

    def _overfull(self) -> bool:
        """Whether waiting vectors belong into the graph: there is one, or it is time for one."""
        if not len(self._waiting):
            return False
        if self._graph is not None:
            return True
        return len(self._waiting) > self._exact_limit and _usearch() is not None

    def _move(self, number: int, *, threads: int = 1) -> int:
        if self._graph is None:
            self._graph = _Graph(self._dimension)
        if len(self._graph) < _SEED:
            threads = 1
        labels, rows = self._waiting.pop(number)
        self._graph.add(labels, rows, threads=threads)
        return len(labels)

    def _drop(self, label: int) -> bool:
        if self._waiting.discard(label):
            return True
        return self._graph is not None and self._graph.discard(label)

    def _abandon_graph(self) -> None:
        assert self._graph is not None
        for labels, rows in self._graph.contents():
            for label, row in zip(labels, rows, strict=True):
                self._waiting.append(int(label), row)
        self._graph = None


class _Blocks:
    """Labelled float32 rows without gaps, in blocks; scanned in full by each search."""

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension
        self._full = max(1, _BLOCK_NUMBERS // dimension)
        self._rows: list[_Rows] = []
        self._labels: list[int] = []
        self._place: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def nbytes(self) -> int:
        # 8 for the list slot, about 100 for the dict slot: measured, CPython 3.11, with the number itself.
        return sum(block.nbytes for block in self._rows) + 108 * len(self._labels)

    def append(self, label: int, row: _Rows) -> None:
        place = len(self._labels)
        block, offset = divmod(place, self._full)
        if block == len(self._rows):
            # The first block starts with one row: a partition of one entry is common.
            self._rows.append(np.empty((self._full if block else 1, self._dimension), dtype=np.float32))
        elif offset == len(self._rows[block]):
            grown = np.empty((min(2 * offset, self._full), self._dimension), dtype=np.float32)
            grown[:offset] = self._rows[block]
            self._rows[block] = grown
        self._rows[block][offset] = row
        self._labels.append(label)
        self._place[label] = place

    def discard(self, label: int) -> bool:
        """Remove a row; the last one takes its place."""
        place = self._place.pop(label, None)
        if place is None:
            return False
        last = len(self._labels) - 1
        if place != last:
            self._at(place)[:] = self._at(last)
            self._labels[place] = self._labels[last]
            self._place[self._labels[place]] = place
        self._labels.pop()
        self._release()
        return True

    def pop(self, number: int) -> tuple[_Labels, _Rows]:
        """Take out the last rows, at most `number`."""
        start = max(0, len(self._labels) - number)
        labels = self._labels[start:]
        rows = np.stack([self._at(place) for place in range(start, start + len(labels))])
        for label in labels:
            del self._place[label]
        del self._labels[start:]
        self._release()
        return np.array(labels, dtype=np.int64), rows

    def nearest(self, query: _Rows, k: int) -> list[tuple[int, float]]:
        if not self._labels:
            return []
        scores = np.empty(len(self._labels), dtype=np.float32)
        for number, block in enumerate(self._rows):
            part = scores[number * self._full : (number + 1) * self._full]
            np.dot(block[: len(part)], query, out=part)
        best = np.argpartition(scores, -k)[-k:] if k < len(scores) else np.arange(len(scores))
        return [
            (self._labels[place], score)
            for place, score in zip(best.tolist(), np.clip(scores[best], -1.0, 1.0).tolist(), strict=True)
        ]

    def _at(self, place: int) -> _Rows:
        row: _Rows = self._rows[place // self._full][place % self._full]
        return row

    def _release(self) -> None:
        """Give back blocks that hold nothing, but one: the next row would only bring it back."""
        needed = -(-len(self._labels) // self._full)
        del self._rows[needed + 1 :]


class _Graph:
    """A usearch index of float16 vectors. A removed one stays as a dead node until an add reuses it."""

    def __init__(self, dimension: int) -> None:
        make = _usearch()
        assert make is not None
        self._index: Any = make(
            ndim=dimension,
            # The vectors have length 1: the inner product is the cosine and needs no norms.
            metric="ip",
            dtype="f16",
            connectivity=_CONNECTIVITY,
            expansion_add=_EXPANSION_ADD,
            expansion_search=_EXPANSION_SEARCH,
        )
        self._dead = 0

    def __len__(self) -> int:
        return len(self._index)

    @property
    def nbytes(self) -> int:
        return int(self._index.memory_usage)

    @property
    def sparse(self) -> bool:
        return len(self) < (len(self) + self._dead) // _SPARSE

    def add(self, labels: _Labels, rows: _Rows, *, threads: int) -> None:
        self._index.add(labels.astype(np.uint64), rows, threads=threads)
        self._dead = max(0, self._dead - len(labels))

    def discard(self, label: int) -> bool:
        if not self._index.remove(label, threads=1):
            return False
        self._dead += 1
        return True

    def nearest(self, query: _Rows, k: int) -> list[tuple[int, float]]:
        found = self._index.search(query, k, threads=1)
        scores = np.clip(1.0 - found.distances, -1.0, 1.0)
        return list(zip(found.keys.tolist(), scores.tolist(), strict=True))

    def contents(self) -> Iterator[tuple[_Labels, _Rows]]:
        if len(self):
            labels = np.asarray(self._index.keys[: len(self)], dtype=np.uint64)
            yield labels.astype(np.int64), np.asarray(self._index.get(labels), dtype=np.float32)


@cache
def _usearch() -> Any | None:
    """The class of usearch indexes, or None, said once, when the package is not installed."""
    # usearch 2.26.1 and later crash the interpreter when onnxruntime is imported after them, by us or the application.
    with suppress(Exception):
        import onnxruntime  # noqa: F401
    try:
        from usearch.index import Index
    except ImportError:
        _log.warning(
            "Semantic matching is slow for large partitions because the package usearch is not installed: "
            "pip install 'aicache[onnx]'."
        )
        return None
    return Index

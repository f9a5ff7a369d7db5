"""All entries near a vector, whatever their partition: a comparison with every vector of a selection.

For people who look for answers to take away, not for lookups: no index spans partitions, and a graph would miss some.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from aicache._codec import Codec
from aicache._errors import UnreadableEntryError, WrongKeyError
from aicache._model import Listed, Space, Vector
from aicache.stores._sqlite_nearest import sound
from aicache.stores._sqlite_rows import read_whole, space_bytes

__all__ = ["COMPARED_AT_ONCE", "Comparison"]

COMPARED_AT_ONCE: Final = 250
"""Vectors of one step, which is one read: memory and log do not grow with the file, and others get their turn."""

_SLACK: Final = 1e-6
"""How much lower a cosine of float32 numbers may come out: an equal vector must be found at `min_score=1.0`."""

_VECTORS: Final = (
    "SELECT id, vector, checksum FROM vectors WHERE space = (SELECT id FROM spaces WHERE name = ?) "
    "AND length(vector) = ? AND typeof(vector) = 'blob' AND id IN "
)


class Comparison:
    """A vector on its way through a file. For one thread.

    Raises:
        MissingExtraError: at construction, when numpy is not installed.
    """

    def __init__(self, space: Space, vector: Vector, min_score: float, codec: Codec) -> None:
        from aicache.stores._vectors import is_vector

        self._usable = is_vector(vector)
        self._space = space
        self._vector = vector
        self._min_score = min_score - _SLACK
        self._codec = codec
        self._found: list[Listed] = []
        self._foreign = False

    def go_on(self, connection: sqlite3.Connection, ids: Sequence[int]) -> None:
        """Compare with the entries of these ids, at most `COMPARED_AT_ONCE`."""
        if not self._usable:
            return
        query = f"{_VECTORS}({','.join('?' * len(ids))})"
        rows = connection.execute(query, (space_bytes(self._space), len(self._vector), *ids)).fetchall()
        near = [self._read(connection, number, score) for number, score in self._near(rows)]
        # Only when all is done: after an error the whole step is carried out again.
        self._found += [one for one in near if one is not None]

    def listed(self) -> Sequence[Listed]:
        """What was near enough, nearest first."""
        if self._foreign and not self._found:
            raise WrongKeyError("All stored entries near it are encrypted with keys that are not among ours")
        return sorted(self._found, key=lambda one: -one.score)

    def _near(self, rows: Sequence[tuple[int, Vector, int]]) -> list[tuple[int, float]]:
        from aicache.stores._vectors import cosines

        intact = sound(rows)
        scores = cosines(self._vector, [vector for _, vector in intact])
        pairs = zip(intact, scores, strict=True)
        return [(number, score) for (number, _), score in pairs if score >= self._min_score]

    def _read(self, connection: sqlite3.Connection, number: int, score: float) -> Listed | None:
        """The entry of this id; None if it is gone or cannot be read."""
        found = read_whole(connection, (number,))
        if not found:
            return None
        try:
            entry = found[0].entry(self._codec)
        except WrongKeyError:
            self._foreign = True
            return None
        except UnreadableEntryError:
            return None
        # What the entry itself says of its space is covered by its checksum, the column is not.
        if entry.space != self._space:
            return None
        return Listed(entry.key, entry.query, score, entry.created)

"""The nearest cached questions of a question, exactly, from all vectors of a stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from aicache._evaluation._streams import Stream

if TYPE_CHECKING:
    from numpy import float32, int32
    from numpy.typing import NDArray

    Matrix = NDArray[float32]
    Row = NDArray[float32]
    Numbers = NDArray[int32]

__all__ = ["Nearest", "Search"]

_LISTED: Final = 400
"""Neighbours listed for each question; where too few of them are cached, all cached ones are compared."""


@dataclass(frozen=True, slots=True, eq=False)
class Nearest:
    """For each question other questions of the stream, nearest first. Computed once for all runs."""

    vectors: Matrix = field(repr=False)
    numbers: Sequence[Numbers] = field(repr=False)
    scores: Sequence[Row] = field(repr=False)
    complete: bool = False
    """True when every question that may be found at all is listed."""

    @staticmethod
    def of(stream: Stream, vectors: Any) -> Nearest:
        """From one vector a question. Of pairs only those questions are listed whose relation the file tells."""
        import numpy

        rows = numpy.asarray(vectors, numpy.float32)
        rows = rows / numpy.maximum(numpy.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        found = _nearest_of_all(rows) if stream.different is None else _nearest_known(stream, rows)
        return Nearest(rows, *found, complete=stream.different is not None)


def _nearest_of_all(rows: Matrix) -> tuple[list[Numbers], list[Row]]:
    import numpy

    count = min(_LISTED, len(rows) - 1)
    numbers, scores = [], []
    for start in range(0, len(rows), 1000):
        block = rows[start : start + 1000] @ rows.T
        at = numpy.arange(len(block))
        block[at, start + at] = -2  # A question is not its own neighbour.
        found = numpy.argpartition(-block, count - 1, axis=1)[:, :count]
        order = numpy.argsort(-numpy.take_along_axis(block, found, 1), axis=1, kind="stable")
        found = numpy.take_along_axis(found, order, 1).astype(numpy.int32)
        numbers += list(found)
        scores += list(numpy.take_along_axis(block, found, 1))
    return numbers, scores


def _nearest_known(stream: Stream, rows: Matrix) -> tuple[list[Numbers], list[Row]]:
    import numpy

    members: dict[int, list[int]] = {}
    for question, name in enumerate(stream.classes):
        members.setdefault(name, []).append(question)
    unlike: dict[int, list[int]] = {}
    for x, y in stream.different or ():
        unlike.setdefault(x, []).append(y)
        unlike.setdefault(y, []).append(x)
    numbers, scores = [], []
    for question, name in enumerate(stream.classes):
        known = [other for kind in (name, *unlike.get(name, ())) for other in members[kind] if other != question]
        listed = numpy.array(known, numpy.int32)
        cosines = rows[listed] @ rows[question]
        order = numpy.argsort(-cosines, kind="stable")
        numbers.append(listed[order])
        scores.append(cosines[order])
    return numbers, scores


class Search:
    """The cached questions of one run."""

    def __init__(self, nearest: Nearest) -> None:
        """Nothing is cached at first."""
        import numpy

        self._near = nearest
        self._cached = numpy.zeros(len(nearest.vectors), bool)
        self._added: list[int] = []

    def add(self, question: int) -> None:
        """From now on it is found."""
        self._cached[question] = True
        self._added.append(question)

    def find(self, question: int, k: int) -> list[tuple[int, float]]:
        """At most k cached questions with their cosines, nearest first."""
        import numpy

        listed = self._near.numbers[question]
        at = numpy.flatnonzero(self._cached[listed])[:k]
        if self._near.complete or len(at) >= min(k, len(self._added)):
            return list(zip(listed[at].tolist(), self._near.scores[question][at].tolist(), strict=True))
        cached = numpy.array(self._added)
        scores = self._near.vectors[cached] @ self._near.vectors[question]
        best = numpy.argsort(-scores, kind="stable")[:k]
        return list(zip(cached[best].tolist(), scores[best].tolist(), strict=True))

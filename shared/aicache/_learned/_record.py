"""What came of the last labels of each cluster: what neither the words nor the neighbours can tell.

Wrong answers come in runs. A cluster whose answer has changed, or that a new topic is mistaken for, is wrong many
times before weights fitted now and then can know. Its own last labels say so at once.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from math import log, log1p
from typing import Final

from aicache._learned._label import UNKNOWN, Label

__all__ = ["RECORDS", "UNRECORDED", "Records"]

RECORDS: Final = ("excess", "evidence", "idle", "lately")
"""Names of the numbers that `Records.of` gives."""
UNRECORDED: Final = (0.0,) * len(RECORDS)
"""Those of a cluster without labels, while nothing is known of others either."""
_FADE: Final = 0.9
"""By what a label of a cluster counts less after each later one: half after 7."""
_FADE_ALL: Final = 0.95
"""The same for the labels of all clusters: half after 14."""
_KEPT: Final = 10_000
"""Clusters remembered; the one that was longest without a label goes first."""


@dataclass(frozen=True, slots=True)
class _Count:
    """Labels, fading: how many, how many of them wrong, and how many were predicted to be."""

    labels: float = 0.0
    wrong: float = 0.0
    predicted: float = 0.0
    last: int = 0
    """Number of the last label."""

    def after(self, label: Label, fade: float, number: int) -> _Count:
        """With one more."""
        wrong, predicted = fade * self.wrong + (not label.ok), fade * self.predicted + label.risk
        return _Count(fade * self.labels + 1, wrong, predicted, number)

    @property
    def excess(self) -> float:
        """Logarithm of wrong over predicted, after one label that went as predicted."""
        return log((1 + self.wrong) / (1 + self.predicted))


_NOTHING: Final = _Count()


class Records:
    """A fold over the end of the log: of each cluster the last labels count."""

    def __init__(self) -> None:
        """Nothing is known."""
        self._clusters: OrderedDict[bytes, _Count] = OrderedDict()
        self._all = _NOTHING
        self._unseen: dict[bytes, int] = {}

    def add(self, label: Label) -> None:
        """One more label with features."""
        number = self._all.last + 1
        self._all = self._all.after(label, _FADE_ALL, number)
        if label.cluster == UNKNOWN:
            return
        self._unseen.pop(label.cluster, None)
        self._clusters[label.cluster] = self._clusters.pop(label.cluster, _NOTHING).after(label, _FADE, number)
        if len(self._clusters) > _KEPT:
            self._clusters.popitem(last=False)

    def of(self, cluster: bytes) -> tuple[float, float, float, float]:
        """How the cluster's labels went against prediction, how many, how long ago the last, how all went lately."""
        count, every = self._clusters.get(cluster, _NOTHING), self._all
        idle = log1p(every.last - count.last) / 3 if count.labels else 0.0
        return count.excess, log1p(count.labels) / 2, idle, every.excess

    def served(self, cluster: bytes) -> None:
        """One more answer was served without a label."""
        if len(self._unseen) >= _KEPT:
            self._unseen.clear()
        self._unseen[cluster] = self._unseen.get(cluster, 0) + 1

    def unseen(self, cluster: bytes) -> int:
        """Answers served since the cluster's last label."""
        return self._unseen.get(cluster, 0)

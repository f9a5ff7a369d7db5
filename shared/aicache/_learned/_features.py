"""A query and its nearest entries as numbers: the score, the words, and what the answers say.

The answers of the neighbours carry most of the signal: ten near entries with one answer are better evidence than one
very near entry. Token-level similarity, |u - v| and a cross-encoder were measured and added nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from math import exp, log1p
from struct import pack
from typing import Final

from aicache._guards import DEFAULT_GUARDS, Guard, Parsed
from aicache._guards._lexicon import FUNCTION_WORDS
from aicache._learned._record import RECORDS, UNRECORDED

__all__ = ["FeatureSet", "Neighbour", "guard_places"]

_VERSION: Final = 2
"""To be raised when a feature changes its meaning: labels and weights of another version are not read."""

_HINGES: Final = (0.7, 0.8, 0.9, 0.95)
"""Cosines at which the weight of the score may change; between them log odds are linear in it."""

_SHARPNESS: Final = 0.05
"""Difference of cosine at which a neighbour's vote falls by a factor of e."""

_ASKERS: Final = frozenset({"what", "who", "whom", "which", "when", "where", "why", "how"})

_LEXICAL: Final = (
    "one_sided",
    "jaccard",
    "containment",
    "unmatched_query",
    "unmatched_entry",
    "length",
    "exact",
    "order",
    "substitution",
    "asker",
)
_NEIGHBOURS: Final = ("margin", "agree", "cluster", "density")


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One of the nearest entries, as far as a decision needs it. A cluster is a set of entries with one answer."""

    score: float
    """Cosine with the query, higher is closer."""
    question: Parsed | None = field(repr=False)
    """Needed of the nearest one only: parsing is the dearest part of a decision."""
    cluster: bytes
    """The cluster of its answer."""
    size: int
    """Entries in that cluster, at least 1."""


def guard_places(count: int) -> slice:
    """Which of so many numbers are those of the guards."""
    return slice(2 + len(_HINGES), count - len(_LEXICAL) - len(_NEIGHBOURS) - len(RECORDS))


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """Turns a query and its neighbours into one row of numbers about "the nearest entry's answer is right"."""

    guards: tuple[Guard, ...] = DEFAULT_GUARDS

    @property
    def names(self) -> tuple[str, ...]:
        """What each number is, in order."""
        hinges = tuple(f"cosine_above_{hinge}" for hinge in _HINGES)
        vetoes = tuple(f"guard_{guard.name}" for guard in self.guards)
        return ("bias", "cosine", *hinges, *vetoes, *_LEXICAL, *_NEIGHBOURS, *RECORDS)

    @property
    def signature(self) -> bytes:
        """Eight bytes that differ when rows cannot be compared: other guards, or another version of the features."""
        return sha256(" ".join((str(_VERSION), *self.names)).encode()).digest()[:8]

    @property
    def count(self) -> int:
        """How many numbers a row has."""
        return 2 + len(_HINGES) + len(self.guards) + len(_LEXICAL) + len(_NEIGHBOURS) + len(RECORDS)

    def row(self, query: Parsed, near: Sequence[Neighbour], record: Sequence[float] = UNRECORDED) -> bytes:
        """The features, float32, little-endian. `near` is sorted by score, nearest first, and not empty.

        `record` is what `Records` knows of the nearest one's cluster.
        """
        nearest = near[0]
        if nearest.question is None:
            raise ValueError("the nearest entry's question is missing")
        score = nearest.score
        hinges = (max(0.0, score - hinge) / 0.1 for hinge in _HINGES)
        numbers = (
            1.0,
            (score - 0.8) / 0.1,
            *hinges,
            *_lexical(query, nearest.question, self.guards),
            *_neighbourhood(near),
            *record,
        )
        return pack(f"<{len(numbers)}f", *numbers)


def _lexical(a: Parsed, b: Parsed, guards: Sequence[Guard]) -> list[float]:
    """One number a guard, and how the words of the two texts overlap. `a` is the query."""
    row: list[float] = []
    one_sided = 0.0
    for guard in guards:
        conflict = guard.conflict(a, b)
        row.append(0.0 if conflict is None else 1.0)
        if conflict is not None and (conflict.left in _NOTHING or conflict.right in _NOTHING):
            one_sided = 1.0
    left, right = a.bag - FUNCTION_WORDS, b.bag - FUNCTION_WORDS
    common = len(left & right)
    only_left, only_right = len(left) - common, len(right) - common
    shorter, either = min(len(left), len(right)), common + only_left + only_right
    same_words = a.words == b.words
    row += (
        one_sided,
        common / either if either else 1.0,
        common / shorter if shorter else 1.0,
        min(only_left, 5) / 3,
        min(only_right, 5) / 3,
        abs(len(a.words) - len(b.words)) / max(len(a.words), len(b.words), 1),
        1.0 if same_words else 0.0,
        1.0 if a.bag == b.bag and not same_words else 0.0,
        1.0 if only_left == only_right == 1 else 0.0,
        1.0 if (a.bag & _ASKERS) != (b.bag & _ASKERS) else 0.0,
    )
    return row


_NOTHING: Final = frozenset({"", "-"})
"""How a guard writes the side that has nothing."""


def _neighbourhood(near: Sequence[Neighbour]) -> tuple[float, float, float, float]:
    """Margin to the nearest other answer, agreement, cluster size, density."""
    nearest = near[0]
    other = near[-1].score - 0.02
    votes = total = scores = 0.0
    for neighbour in reversed(near):
        vote = exp((neighbour.score - nearest.score) / _SHARPNESS)
        total += vote
        scores += neighbour.score
        if neighbour.cluster == nearest.cluster:
            votes += vote
        else:
            other = neighbour.score
    return (
        (nearest.score - other) / 0.1,
        votes / total,
        log1p(max(0, nearest.size - 1)) / 2,
        (scores / len(near) - 0.6) / 0.1,
    )

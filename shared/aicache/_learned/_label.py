"""One lesson: what a lookup saw, and whether the nearest answer would have been right."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

__all__ = ["Label"]

_FORMAT: Final = 2
_HEAD: Final = struct.Struct("<BBdddII8s")
_LARGEST: Final = 1000.0
"""No feature comes near it. One that were larger would outweigh all other labels in a fit."""
_HEAVIEST: Final = 4.0
"""Most that one audit counts in a fit: a rare audit stands for many requests, but its noise must not."""


UNKNOWN: Final = bytes(8)
"""The cluster of a label without one."""


@dataclass(frozen=True, slots=True)
class Label:
    """A fact to append to the log. Everything that is learned is a fold over these, so nothing else need be shared."""

    row: bytes = field(repr=False)
    """The features, float32, little-endian; empty for a label that only brings `requests` and `hits`."""
    ok: bool
    """The comparator called the fresh answer and the nearest entry's answer the same."""
    chance: float
    """Probability with which this request was given to the model: 1 for a miss, less for an audit."""
    audit: bool
    risk: float
    """The upper estimate of the probability of a wrong answer at the time of the lookup."""
    predicted: float
    """The same after correction by the audits so far, in [0, 1]."""
    requests: int = 0
    """Lookups of the sending process since its last label."""
    hits: int = 0
    """Answers it has served meanwhile."""
    cluster: bytes = UNKNOWN
    """The first eight bytes of the nearest entry's cluster."""
    close: bool = False
    """A miss that was nearly accepted, so that it tells something of what is."""

    @property
    def weight(self) -> float:
        """How much it counts in a fit."""
        return min(_HEAVIEST, 1 / self.chance)

    def to_bytes(self) -> bytes:
        """The label as some 200 bytes."""
        flags = self.ok | self.audit << 1 | self.close << 2
        numbers = (self.chance, self.risk, self.predicted, self.requests, self.hits, self.cluster)
        return _HEAD.pack(_FORMAT, flags, *numbers) + self.row

    @staticmethod
    def from_bytes(stored: bytes) -> Label | None:
        """The label, or None for damaged bytes or another format: a bad label never ends learning."""
        if len(stored) < _HEAD.size or stored[0] != _FORMAT:
            return None
        _, flags, chance, risk, predicted, requests, hits, cluster = _HEAD.unpack_from(stored)
        row = stored[_HEAD.size :]
        if len(row) % 4 or not (0 < chance <= 1 and 0 <= risk <= 1 and 0 <= predicted <= 1):
            return None
        if not all(-_LARGEST < number < _LARGEST for (number,) in struct.iter_unpack("<f", row)):  # NaN is neither.
            return None
        ok, audit, close = bool(flags & 1), bool(flags & 2), bool(flags & 4)
        return Label(row, ok, chance, audit, risk, predicted, requests, hits, cluster, close)

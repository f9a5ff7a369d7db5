"""Ledger and weights as bytes, with a version: what a process starts from, so that it need not read a long log."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

import orjson

from aicache._learned._certificate import Certificate
from aicache._learned._fit import Weights
from aicache._learned._ledger import Ledger

__all__ = ["Snapshot"]

_FORMAT: Final = 2


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """The ledger at a position of the log, and the newest weights at that time.

    Two snapshots of one position hold the same ledger, so a store may keep either of them; of two positions it keeps
    the higher.
    """

    ledger: Ledger
    weights: Weights

    def to_bytes(self) -> bytes:
        """The snapshot as JSON, about 25 KB for 33 features."""
        return orjson.dumps(
            {
                "format": _FORMAT,
                "ledger": asdict(self.ledger),
                "version": self.weights.version,
                "mean": self.weights.mean.tolist(),
                "covariance": self.weights.covariance.tolist(),
            }
        )

    @staticmethod
    def from_bytes(stored: bytes, features: int) -> Snapshot | None:
        """The snapshot, or None for damaged bytes, another format or another number of features."""
        import numpy

        try:
            read = orjson.loads(stored)
            if read["format"] != _FORMAT:
                return None
            mean = numpy.array(read["mean"], numpy.float64)
            covariance = numpy.array(read["covariance"], numpy.float64)
            ledger = _ledger(read["ledger"])
            version = int(read["version"])
        except (ValueError, TypeError, KeyError):
            return None
        if mean.shape != (features,) or covariance.shape != (features, features):
            return None
        weights = Weights(version, mean, covariance)
        return Snapshot(ledger, weights) if weights.usable else None


def _ledger(read: dict[str, object]) -> Ledger:
    certificate = read.pop("certificate")
    recent = read.pop("recent")
    if not isinstance(certificate, dict) or not isinstance(recent, list):
        raise TypeError
    if not all(isinstance(number, int | float) and number >= 0 for number in read.values()):
        raise TypeError
    costs = tuple(float(cost) for cost in certificate["costs"])
    if len(costs) != len(Certificate().costs):
        raise ValueError
    return Ledger(
        **read,  # type: ignore[arg-type]  # An unknown or missing field raises TypeError: another format.
        certificate=Certificate(costs),
        recent=tuple((bool(wrong), float(risk)) for wrong, risk in recent),
    )

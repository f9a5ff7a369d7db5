"""A bound on the wrong answers served so far that holds at any time and under any traffic.

Derivation: docs/learned.md. In short: every accepted request is audited with a probability `e` of at least
`EXPLORE`, fixed before an independent coin. For a constant eta > 0 with exp(-eta) > 1 - e, the product over the
accepted requests of

    exp(eta)                        wrong and served
    (1 - (1 - e) exp(eta)) / e      wrong and audited
    1                               right

has mean 1, whatever picks the requests. So it exceeds 1/alpha at any time with probability alpha at most (Ville), and
what it would take to exceed it bounds the number of wrong answers served.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log, log1p
from typing import Final

__all__ = ["ALPHA", "EXPLORE", "Certificate"]

ALPHA: Final = 0.05
"""The probability that the bound is ever broken."""
EXPLORE: Final = 0.1
"""The least audit probability under a certificate."""
_SHARES: Final = ((0.1, 0.1), (0.25, 0.1), (0.5, 0.2), (0.75, 0.2), (0.9, 0.4))
"""(eta as a share of its limit, its part of the mixture). Small etas are better where many audits were wrong, large
ones while few were; the large ones weigh more because they decide when the first answer is served."""
_ETAS: Final = tuple(-log1p(-EXPLORE) * share for share, _ in _SHARES)
_PARTS: Final = tuple(log(part) for _, part in _SHARES)


@dataclass(frozen=True, slots=True)
class Certificate:
    """What the wrong audits so far cost, for each eta."""

    costs: tuple[float, ...] = (0.0,) * len(_ETAS)
    """-log of the product's factors of wrong audits."""

    def charged(self, chance: float) -> Certificate:
        """After one more audit that was wrong and had this probability.

        Raises:
            ValueError: the probability was below `EXPLORE`; no bound follows then.
        """
        if not EXPLORE <= chance <= 1:
            raise ValueError(f"an audit under a certificate has a probability in [{EXPLORE}, 1]; got {chance!r}")
        paid = (-log((1 - (1 - chance) * exp(eta)) / chance) for eta in _ETAS)
        return Certificate(tuple(cost + more for cost, more in zip(self.costs, paid, strict=True)))

    def bound(self) -> float:
        """No more than this many wrong answers have been served, with probability 1 - ALPHA for all times at once.

        The largest N for which the mixture of the products is at most 1/ALPHA, by bisection.
        """
        terms = zip(self.costs, _PARTS, _ETAS, strict=True)
        low, high = 0.0, min((cost - part - log(ALPHA)) / eta for cost, part, eta in terms)
        for _ in range(40):
            middle = (low + high) / 2
            if self.evidence(middle) <= 1 / ALPHA:
                low = middle
            else:
                high = middle
        return high

    def evidence(self, wrong: float) -> float:
        """The mixture of the products if so many had been served wrongly; beyond 1/ALPHA it is not believed."""
        return sum(exp(part + eta * wrong - cost) for part, eta, cost in zip(_PARTS, _ETAS, self.costs, strict=True))

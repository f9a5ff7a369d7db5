"""All that is counted, as a fold over the log of labels: processes that read the same log count the same."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from aicache._learned._budget import poisson_tail
from aicache._learned._certificate import EXPLORE, Certificate
from aicache._learned._label import Label

__all__ = ["WINDOW", "Ledger"]

WINDOW: Final = 4000
"""Labels that a fit uses; older ones tell of other traffic, and a fit should stay a matter of milliseconds."""
_FADE: Final = 0.998
"""By what an audit counts less after each later one: half after 350."""
_RECENT: Final = 60
_SPANS: Final = (10, 30, 60)
"""Numbers of last audits in which drift is looked for: a sudden change shows in the last 10, a slow one in 60."""
_UNLIKELY: Final = 2e-4
"""Probability of as many wrong audits by chance below which the alarm goes off."""
_SLACK: Final = 0.05
"""Wrong audits expected beyond the predicted ones, so that one wrong audit of a tiny risk is no alarm."""
_KEPT: Final = 200
"""Labels kept after an alarm: the ones from before it that are most like what comes."""
_REST: Final = 100
"""Labels to wait for before answers are served, at the start and after an alarm."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """The counters of the learned matcher. `Ledger().after(label).after(label)...` is the only way it changes."""

    position: int = 0
    """Labels of the log that were read."""
    lessons: int = 0
    """Those of them that had features."""
    start: int = 0
    """The lessons up to this one are no longer used: an alarm came after them."""
    rest: int = _REST
    """Nothing is served before there are this many lessons."""
    requests: int = 0
    hits: int = 0
    audits: int = 0
    wrong: float = 0.0
    """Wrong audits, fading."""
    predicted: float = 0.0
    """What was predicted for the audits, fading alike."""
    recent: tuple[tuple[bool, float], ...] = ()
    """The last audits: wrong or not, and the corrected prediction."""
    alarms: int = 0
    certificate: Certificate = field(default_factory=Certificate)

    @property
    def usable(self) -> int:
        """Lessons that a fit should use: the last so many."""
        return min(WINDOW, self.lessons - self.start)

    @property
    def resting(self) -> bool:
        """True while too little is known to serve anything."""
        return self.lessons < self.rest

    def after(self, label: Label | None) -> Ledger:
        """With one more label; None for one that could not be read, which only moves the position."""
        if label is None:
            return replace(self, position=self.position + 1)
        counted = replace(
            self,
            position=self.position + 1,
            lessons=self.lessons + bool(label.row),
            requests=self.requests + label.requests,
            hits=self.hits + label.hits,
        )
        return counted._audited(label) if label.audit else counted

    def _audited(self, label: Label) -> Ledger:
        wrong = not label.ok
        charged = wrong and label.chance >= EXPLORE
        counted = replace(
            self,
            audits=self.audits + 1,
            wrong=_FADE * self.wrong + wrong,
            predicted=_FADE * self.predicted + label.risk,
            recent=(*self.recent, (wrong, label.predicted))[-_RECENT:],
            certificate=self.certificate.charged(label.chance) if charged else self.certificate,
        )
        return counted._alarmed() if wrong and counted._drifting() else counted

    def _drifting(self) -> bool:
        """True when the last audits went wrong far more often than predicted."""
        for span in _SPANS:
            last = self.recent[-span:]
            wrong = sum(was_wrong for was_wrong, _ in last)
            if poisson_tail(wrong, sum(risk for _, risk in last) + _SLACK) < _UNLIKELY:
                return True
        return False

    def _alarmed(self) -> Ledger:
        return replace(
            self,
            start=max(self.start, self.lessons - _KEPT),
            rest=self.lessons + _REST,
            wrong=sum(wrong for wrong, _ in self.recent) / 2,
            predicted=sum(risk for _, risk in self.recent) / 2,
            recent=(),
            alarms=self.alarms + 1,
        )

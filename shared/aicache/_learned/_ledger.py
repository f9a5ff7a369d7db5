"""All that is counted, as a fold over the log of labels: processes that read the same log count the same."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import log
from typing import Final

from aicache._learned._certificate import EXPLORE, Certificate
from aicache._learned._label import Label

__all__ = ["WINDOW", "Ledger"]

WINDOW: Final = 4000
"""Labels that a fit uses; older ones tell of other traffic, and a fit should stay a matter of milliseconds."""
_FADE: Final = 0.998
"""By what an audit counts less after each later one: half after 350."""
_RECENT: Final = 60
_CHANGED: Final = 0.2
"""The drift looked for: this share of the answers has changed."""
_SURE: Final = 0.01
"""No prediction below this one is trusted in the search for drift: one wrong audit of a tiny risk is no alarm."""
_ALARM: Final = 7.0
"""Log likelihood ratio of "changed" to "as predicted" at which the alarm goes off: by chance not before some
exp(7) = 1100 audits, which are some 20,000 requests."""
_CONFIRMED: Final = 2.0
"""The same from audits alone, where nearly accepted misses have said as much as an alarm takes."""
_FEW: Final = 4
"""Audits after which every second accepted request is still audited; after ten times as many every eleventh."""
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
    settled: int = 0
    """The audits before the last alarm."""
    wrong: float = 0.0
    """Wrong audits, fading."""
    predicted: float = 0.0
    """What was predicted for the audits, fading alike."""
    recent: tuple[tuple[bool, float], ...] = ()
    """The last audits: wrong or not, and the corrected prediction."""
    surprise: float = 0.0
    """Evidence for drift in the last audits (Page's cumulative sum); 0 where there is none."""
    suspicion: float = 0.0
    """The same in the last audits and in misses that were nearly accepted: it comes sooner, and proves less."""
    alarms: int = 0
    requests_before: int = 0
    """Those before the last alarm."""
    hits_before: int = 0
    certificate: Certificate = field(default_factory=Certificate)

    @property
    def usable(self) -> int:
        """Lessons that a fit should use: the last so many."""
        return min(WINDOW, self.lessons - self.start)

    @property
    def resting(self) -> bool:
        """True while too little is known to serve anything."""
        return self.lessons < self.rest

    @property
    def alert(self) -> float:
        """How near an alarm is, in [0, 1]."""
        return max(self.surprise, self.suspicion) / _ALARM

    @property
    def novelty(self) -> float:
        """How little is known of the quality of what is served, in (0, 1]: 1 before the first audit since an alarm."""
        return _FEW / (_FEW + self.audits - self.settled)

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
        if label.audit:
            counted = counted._audited(label)
        if label.audit or label.close:
            counted = counted._suspecting(label)
        return counted._alarmed() if counted._changed else counted

    def _suspecting(self, label: Label) -> Ledger:
        evidence = _evidence(label.predicted, wrong=not label.ok)
        return replace(self, suspicion=min(_ALARM, max(0.0, self.suspicion + evidence)))

    @property
    def _changed(self) -> bool:
        return self.surprise > _ALARM or (self.surprise > _CONFIRMED and self.suspicion >= _ALARM)

    def _audited(self, label: Label) -> Ledger:
        wrong = not label.ok
        charged = wrong and label.chance >= EXPLORE
        return replace(
            self,
            audits=self.audits + 1,
            wrong=_FADE * self.wrong + wrong,
            predicted=_FADE * self.predicted + label.risk,
            recent=(*self.recent, (wrong, label.predicted))[-_RECENT:],
            surprise=max(0.0, self.surprise + _evidence(label.predicted, wrong=wrong)),
            certificate=self.certificate.charged(label.chance) if charged else self.certificate,
        )

    def _alarmed(self) -> Ledger:
        return replace(
            self,
            start=max(self.start, self.lessons - _KEPT),
            rest=self.lessons + _REST,
            wrong=sum(wrong for wrong, _ in self.recent) / 2,
            predicted=sum(risk for _, risk in self.recent) / 2,
            settled=self.audits,
            recent=(),
            surprise=0.0,
            suspicion=0.0,
            requests_before=self.requests,
            hits_before=self.hits,
            alarms=self.alarms + 1,
        )


def _evidence(predicted: float, *, wrong: bool) -> float:
    """The log likelihood ratio of one audit: a share of the answers has changed, against all is as predicted."""
    before = max(_SURE, predicted)
    after = before + (1 - before) * _CHANGED
    return log(after / before) if wrong else log(1 - _CHANGED)

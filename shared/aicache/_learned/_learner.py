"""One process' view: it decides with the newest weights it has, and turns what happened into labels.

All state that must outlive the process or be shared is in the log of labels. What is kept here beside it is the last
risks (a sample of this process' own traffic), the counts not sent yet, and the audits without a label yet.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Final, TypeAlias

from aicache._guards import Parsed
from aicache._learned._budget import allowance, caution, correction, cutoff, quantile_for
from aicache._learned._certificate import EXPLORE
from aicache._learned._features import FeatureSet, Neighbour
from aicache._learned._fit import Lessons, Weights, prior
from aicache._learned._label import UNKNOWN, Label
from aicache._learned._ledger import WINDOW, Ledger
from aicache._learned._record import Records
from aicache._learned._snapshot import Snapshot
from aicache._learned._target import Target

__all__ = ["Audit", "Decision", "Decline", "Learner", "Serve", "Ticket"]

_MEMORY: Final = 1500
"""Risks from which the cutoff is taken."""
_ENOUGH: Final = 50
"""Risks below which there is no cutoff."""
_EVERY: Final = 16
"""Requests between two cutoffs."""
_LEAST: Final = 0.03
"""Audit probability of the safest request."""
_ALERT: Final = 0.5
"""Audit probability just before an alarm: what looks like drift is looked into at once. Measured: docs/learned.md."""
_UNSEEN: Final = 0.0002
"""What each answer served from a cluster since its last label adds to the audit probability, over the rate allowed (at
least 1 %): wrong ones come in runs. Not under a certificate, where a tenth is audited anyway."""
_CLOSE: Final = 4.0
"""Misses of up to this many times the cutoff tell of drift."""
_SCALE: Final = 0.15
"""Audit probability of a request at the cutoff."""


@dataclass(frozen=True, slots=True, eq=False)
class Ticket:
    """What to bring back with the fresh answer. Two tickets are never equal."""

    row: bytes = field(repr=False)
    risk: float
    predicted: float
    chance: float
    cluster: bytes = UNKNOWN
    audit: bool = False
    close: bool = False


@dataclass(frozen=True, slots=True)
class Serve:
    """The nearest entry's answer may be served."""

    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Audit:
    """It might be served, but the coin asks for a fresh answer to compare with. A miss to the application."""

    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Decline:
    """It may not be served. The fresh answer is a free lesson, where there was anything to compare with."""

    ticket: Ticket | None
    why: str


Decision: TypeAlias = Serve | Audit | Decline


class Learner:
    """Decides, and learns from labels in the order of the log. Safe from any thread; holds no lock for long."""

    def __init__(
        self,
        target: Target,
        features: FeatureSet | None = None,
        snapshot: Snapshot | None = None,
        lessons: Iterable[Label] = (),
    ) -> None:
        """Start from a snapshot and the last labels up to its position (`WINDOW` of them at the most), or anew."""
        self._target = target
        self._features = features or FeatureSet()
        self._ledger = snapshot.ledger if snapshot else Ledger()
        self._weights = snapshot.weights if snapshot else prior(self._features.count)
        self._lessons = deque((label for label in lessons if label.row), WINDOW)
        self._records = Records()
        for label in self._lessons:
            self._records.add(label)
        self._risks: deque[float] = deque(maxlen=_MEMORY)
        self._cutoff = 0.0
        self._seen = 0
        self._unsent = [0, 0]
        self._pending: dict[Ticket, float] = {}
        self._bound: float | None = None
        self._lock = threading.Lock()

    # ------------------------------------------------------------------------------------------------ lookup

    def decide(self, query: Parsed, near: Sequence[Neighbour], coin: float) -> Decision:
        """Serve, audit or decline, given the nearest entries (nearest first) and a uniform number in [0, 1)."""
        row = self._row(query, near)
        risk = self._risk(row)
        with self._lock:
            return self._decide(row, risk, _cluster(near) if near else UNKNOWN, coin)

    def weigh(self, query: Parsed, near: Sequence[Neighbour]) -> tuple[float, float]:
        """The risk of serving the nearest entry, and the present cutoff. Counts and changes nothing."""
        return self._risk(self._row(query, near)), self._cutoff

    def _row(self, query: Parsed, near: Sequence[Neighbour]) -> bytes:
        return self._features.row(query, near, self._records.of(_cluster(near))) if near else b""

    def _risk(self, row: bytes) -> float:
        return self._weights.risk(row, caution(self._target)) if row else 1.0

    def _decide(self, row: bytes, risk: float, cluster: bytes, coin: float) -> Decision:
        self._unsent[0] += 1
        self._risks.append(risk)
        factor = self._factor()
        if self._seen % _EVERY == 0:
            self._cutoff = self._new_cutoff(factor)
        self._seen += 1
        if not row:
            return Decline(None, "nothing stored")
        predicted = min(1.0, factor * risk)
        free = Ticket(row, risk, predicted, 1.0, cluster, close=risk <= _CLOSE * self._cutoff)
        if risk > self._cutoff:
            return Decline(free, "learning" if self._ledger.resting else "risk")
        chance = max(_LEAST, _SCALE * sqrt(risk / self._cutoff), _ALERT * self._ledger.alert)
        if not self._target.certified:
            unseen = self._records.unseen(cluster) * _UNSEEN / max(0.01, self._target.max_error_rate)
            chance = max(chance, self._ledger.novelty, min(_ALERT, unseen))
        else:
            chance = max(chance, EXPLORE)
            if self._is_spent():
                if self._target.per == "requests":
                    return Decline(free, "budget")
                chance = 1.0  # Counts as accepted, which a budget per accepted request needs to ever grow.
        ticket = Ticket(row, risk, predicted, chance, cluster, coin < chance)
        if ticket.audit:
            if self._target.certified:
                self._pending[ticket] = chance
                self._bound = None
            return Audit(ticket)
        self._unsent[1] += 1
        self._records.served(cluster)
        return Serve(ticket)

    def _factor(self) -> float:
        return correction(self._ledger.wrong, self._ledger.predicted, quantile_for(self._target))

    def _new_cutoff(self, factor: float) -> float:
        if self._ledger.resting or len(self._risks) < _ENOUGH:
            return 0.0
        # After an alarm as at the start: how good the new weights are is not known yet.
        requests = self._ledger.requests - self._ledger.requests_before + self._unsent[0]
        hits = self._ledger.hits - self._ledger.hits_before + self._unsent[1]
        return cutoff(self._risks, factor, self._target, allowance(self._target, requests, hits))

    def _counted(self) -> int:
        """What the rate is a share of. Under a certificate per hit an audit counts as a hit: it was accepted."""
        if self._target.per == "requests":
            return self._ledger.requests + self._unsent[0]
        return self._ledger.hits + self._unsent[1] + self._ledger.audits

    @property
    def spent(self) -> bool:
        """Under a certificate: one more answer served could be one too many."""
        with self._lock:
            return self._target.certified and self._is_spent()

    def _is_spent(self) -> bool:
        return self._bound_now() > self._target.max_error_rate * self._counted()

    def _bound_now(self) -> float:
        """Most answers that can have been wrong; an audit without a label yet counts as wrong."""
        if self._bound is None:
            certificate = self._ledger.certificate
            for chance in self._pending.values():
                certificate = certificate.charged(chance)
            self._bound = certificate.bound()
        return min(self._bound, self._ledger.hits + self._unsent[1] + 1)

    # ------------------------------------------------------------------------------------------------ update

    def label(self, ticket: Ticket, *, ok: bool) -> Label:
        """The label to append to the log: was the nearest entry's answer the same as the fresh one?"""
        with self._lock:
            self._release(ticket)
            requests, hits = self._unsent[0], max(0, self._unsent[1])
            self._unsent[0] -= requests
            self._unsent[1] -= hits  # Below 0 after a hit was sent and then withdrawn: the next ones make up for it.
        return Label(
            ticket.row,
            ok,
            ticket.chance,
            ticket.audit,
            ticket.risk,
            ticket.predicted,
            requests,
            hits,
            ticket.cluster,
            ticket.close,
        )

    def forget(self, ticket: Ticket) -> None:
        """The fresh answer never came, or could not be compared: the ticket leaves no trace."""
        with self._lock:
            self._release(ticket)

    def withdraw(self, ticket: Ticket) -> None:
        """What was decided to be served was not, for a verifier refused it: no hit, and the ticket leaves no trace."""
        with self._lock:
            self._release(ticket)
            if not ticket.audit:
                self._unsent[1] -= 1

    def unsent(self, label: Label) -> None:
        """The label could not be appended: its counts go with the next one."""
        with self._lock:
            self._unsent[0] += label.requests
            self._unsent[1] += label.hits

    def _release(self, ticket: Ticket) -> None:
        if self._pending.pop(ticket, None) is not None:
            self._bound = None

    # ------------------------------------------------------------------------------------------------ the log

    def take(self, labels: Iterable[Label | None]) -> None:
        """Learn from the labels that follow `position` in the log, in its order; None for an unreadable one."""
        size = 4 * self._features.count
        with self._lock:
            alarms = self._ledger.alarms
            for label in labels:
                usable = label if label is None or len(label.row) in (0, size) else None
                self._ledger = self._ledger.after(usable)
                if usable is not None and usable.row:
                    self._lessons.append(usable)
                    self._records.add(usable)
            self._bound = None
            if self._ledger.alarms != alarms:
                self._risks.clear()
                self._cutoff = 0.0

    @property
    def position(self) -> int:
        """How far in the log this process has read."""
        return self._ledger.position

    @property
    def ledger(self) -> Ledger:
        """The counters as of `position`."""
        return self._ledger

    # -------------------------------------------------------------------------------------------------- refit

    def due(self) -> Lessons | None:
        """What to fit when it is time to, else None. Cheap; `fit` it off the request path, then `adopt`."""
        with self._lock:
            usable = self._ledger.usable
            new = self._ledger.position - self._weights.version
            if new < max(8, min(100, usable // 16)) or usable == 0:
                return None
            lessons = tuple(self._lessons)[-usable:]
            return Lessons(self._ledger.position, lessons)

    def adopt(self, weights: Weights) -> None:
        """Decide with these weights from now on, unless those at hand are newer."""
        with self._lock:
            if weights.version > self._weights.version and len(weights.mean) == self._features.count and weights.usable:
                self._weights = weights

    def snapshot(self) -> Snapshot:
        """What another process may start from."""
        with self._lock:
            return Snapshot(self._ledger, self._weights)


def _cluster(near: Sequence[Neighbour]) -> bytes:
    """The nearest one's, as labels name it."""
    return near[0].cluster[:8].ljust(8, b"\0")

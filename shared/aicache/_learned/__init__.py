"""The learned matcher: a semantic hit with a bound on the error rate, learned online from the answers of misses.

Pure: no I/O, no clock, no coin of its own. Modules: `_target` (what the user asks for); `_same` (the comparator
port); `_features` (a query and its neighbours as numbers); `_label` (one lesson, and its bytes); `_record` (what came
of each cluster's last labels); `_fit` (labels to weights, numpy); `_budget` (predicted risks to a cutoff);
`_certificate` (the bound valid at any time); `_ledger` (all counters, a fold over the labels); `_snapshot` (ledger and
weights as bytes); `_learner` (one process' view of it all); `_lesson` (what a decision leaves for the update). The
derivation is in docs/learned.md.
"""

from __future__ import annotations

from aicache._learned._certificate import Certificate
from aicache._learned._features import FeatureSet, Neighbour
from aicache._learned._fit import Lessons, Weights, fit
from aicache._learned._label import Label
from aicache._learned._learner import Audit, Decision, Decline, Learner, Serve, Ticket
from aicache._learned._ledger import Ledger
from aicache._learned._lesson import Lesson
from aicache._learned._same import Comparator, Equal, Reading
from aicache._learned._snapshot import Snapshot
from aicache._learned._target import Floor, Target

__all__ = [
    "Audit",
    "Certificate",
    "Comparator",
    "Decision",
    "Decline",
    "Equal",
    "FeatureSet",
    "Floor",
    "Label",
    "Learner",
    "Ledger",
    "Lesson",
    "Lessons",
    "Neighbour",
    "Reading",
    "Serve",
    "Snapshot",
    "Target",
    "Ticket",
    "Weights",
    "fit",
]

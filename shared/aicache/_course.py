"""What is learned in one vector space: a learner and its log in the store. Works in the background, never in a lookup.

All that processes share is the log of labels, appended to atomically; ledger and weights are a fold over it. A summary
(a `Snapshot`) saves a new process from reading it all, and the others from fitting what one of them has fitted.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from hashlib import sha256
from typing import Final

from aicache._fork import in_forked_child
from aicache._learned import FeatureSet, Label, Learner, Snapshot, Target, fit
from aicache._model import Space
from aicache.stores.base import LESSONS_KEPT, LessonStore

__all__ = ["Course", "log_name"]

UNSENT_LABELS: Final = 1_000
"""Labels that wait for the store at the most; the oldest go first."""
LATE_LABELS: Final = 200
"""Labels that wait for the store while answers are served all the same: what they say is not yet acted on."""
FAILURES: Final = 3
"""Failed studies in a row after which no answer is served."""
TAKEN_AT_ONCE: Final = 100
"""Labels folded without a pause, some 1 ms: a decision waits for it."""
SUMMARY_EVERY: Final = 500
"""Positions after which a new summary is worth its 25 KB: an eighth of what a store keeps of the log."""


def log_name(namespace: str, space: Space, target: Target, features: FeatureSet, basis: str = "") -> bytes:
    """The log of those that may learn from each other: 16 bytes.

    The error rate is part of it, for what is audited and when an alarm goes off depends on it; so is the basis, all
    else that changes what a label means.
    """
    parts = (namespace.encode(), space.encode(), repr(target).encode(), features.signature, basis.encode())
    return sha256(b"".join(len(part).to_bytes(4, "little") + part for part in parts)).digest()[:16]


class Course:
    """One learner and its log. `learner` is None until the log has been read.

    `offer` may be called from any thread. `study` does all the rest, by one thread at a time; what it raises is the
    store's, and nothing is lost by it: it goes on where it stopped.
    """

    def __init__(self, log: bytes, store: LessonStore, target: Target, features: FeatureSet) -> None:
        self.learner: Learner | None = None
        self._log = log
        self._store = store
        self._target = target
        self._features = features
        self._labels: deque[Label] = deque(maxlen=UNSENT_LABELS)
        self._unsure = 0
        """The first so many may be in the log all the same: appending them failed, perhaps only in its reply."""
        self._failures = 0
        self._summary_at = 0
        self._lock = threading.Lock()
        in_forked_child(self._begin_anew)

    def _begin_anew(self) -> None:
        """In a forked child: a learner of its own, from the log; what the parent has not sent, the parent sends."""
        self._lock = threading.Lock()
        self._labels.clear()
        self._unsure = 0
        self.learner = None

    @property
    def behind(self) -> bool:
        """True while the log cannot be read or written: nobody would learn of a wrong answer then."""
        return self._failures >= FAILURES or len(self._labels) >= LATE_LABELS

    @property
    def unsent(self) -> int:
        """Labels that wait to be sent."""
        return len(self._labels)

    def offer(self, label: Label) -> None:
        """Append this label with the next `study`."""
        self._labels.append(label)

    def study(self) -> None:
        """Send labels, read what others sent, and fit when it is time to.

        Raises:
            Exception: of the store.
        """
        with self._lock:
            try:
                learner = self.learner or self._start()
                if self._labels:
                    learner = self._send(learner)
                learner = self._read(learner)
            except BaseException:
                self._failures += 1
                raise
            self._failures = 0
            try:
                self._refit(learner)
            finally:
                self.learner = learner
            self._summarise(learner)

    def _start(self) -> Learner:
        """From the newest summary and the labels it was made of, or from all labels there are."""
        kept = self._store.summary(self._log)
        snapshot = None if kept is None else Snapshot.from_bytes(kept[1], self._features.count)
        self._summary_at = 0
        if snapshot is None:
            return Learner(self._target, self._features)
        position = snapshot.ledger.position
        lessons = self._store.lessons(self._log, max(0, position - LESSONS_KEPT))
        if lessons.first + len(lessons.items) <= position:
            # The log was lost, or set back, and the summary was not: its positions mean other labels.
            return Learner(self._target, self._features)
        self._summary_at = position
        known = lessons.items[: max(0, position + 1 - lessons.first)]
        past = [label for label in map(Label.from_bytes, known) if label is not None]
        return Learner(self._target, self._features, snapshot, past)

    def _send(self, learner: Learner) -> Learner:
        """Append the labels; a learner that starts anew if the log has been lost."""
        batch = [self._labels.popleft() for _ in range(len(self._labels))]
        try:
            written = self._not_there([label.to_bytes() for label in batch], learner)
            end = self._store.append_lessons(self._log, written)
        except BaseException:
            # In front of what has come meanwhile. Should that be too many, the newest of it go.
            self._labels.extendleft(reversed(batch))
            self._unsure = len(batch)
            raise
        self._unsure = 0
        # Positions never go back but where the store has lost the log.
        return learner if end >= learner.position + len(written) else self._start()

    def _not_there(self, batch: list[bytes], learner: Learner) -> list[bytes]:
        """Without those that were appended although it seemed to fail."""
        if not self._unsure:
            return batch
        there = Counter(self._store.lessons(self._log, learner.position).items)
        missing = list[bytes]()
        for label in batch[: self._unsure]:
            if there[label]:
                there[label] -= 1
            else:
                missing.append(label)
        return missing + batch[self._unsure :]

    def _read(self, learner: Learner) -> Learner:
        """Take what others sent; a learner that starts anew if it has slept so long that part of it is gone."""
        lessons = self._store.lessons(self._log, learner.position)
        if lessons.first > learner.position + 1:
            learner = self._start()
            lessons = self._store.lessons(self._log, learner.position)
            learner.take([None] * (lessons.first - learner.position - 1))
        for start in range(0, len(lessons.items), TAKEN_AT_ONCE):
            learner.take([Label.from_bytes(item) for item in lessons.items[start : start + TAKEN_AT_ONCE]])
        return learner

    def _refit(self, learner: Learner) -> None:
        due = learner.due()
        if due is None:
            return
        if self._adopt_of_others(learner):
            due = learner.due()
        if due is not None:
            learner.adopt(fit(due, learner.snapshot().weights))

    def _summarise(self, learner: Learner) -> None:
        if learner.snapshot().weights.version == 0:
            return
        if learner.position - self._summary_at >= SUMMARY_EVERY or self._summary_at == 0:
            self._store.keep_summary(self._log, learner.position, learner.snapshot().to_bytes())
            self._summary_at = learner.position

    def _adopt_of_others(self, learner: Learner) -> bool:
        """Whether another process had newer weights."""
        kept = self._store.summary(self._log)
        # One beyond the end of the log is of a log that has been lost.
        if kept is None or not self._summary_at < kept[0] <= learner.position:
            return False
        self._summary_at = kept[0]
        snapshot = Snapshot.from_bytes(kept[1], self._features.count)
        if snapshot is None:
            return False
        learner.adopt(snapshot.weights)
        return True

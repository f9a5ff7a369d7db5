"""What follows a lookup when its fresh answer comes: comparison, lessons, and what shadow mode counts.

A lookup pays for none of it but a note in memory, an update for a comparison that computes (`Comparator.immediate`).
The rest happens in one background thread: answers that a model has to compare, and all that learning asks of the store.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aicache._breaker import Breaker
from aicache._clock import Clock
from aicache._errand import Background, Errand
from aicache._errors import CONTROL
from aicache._fork import in_forked_child
from aicache._learned import Comparator, Label, Learner, Lesson, Reading
from aicache._learning import LearnedMatcher
from aicache._lessons import Finding, Trail, Waiting, compare, lightened
from aicache._memo import Memo
from aicache._model import Answer, CacheKey, Candidate, Hit, Miss, MissReason, Outcome
from aicache._stats import Learned, ShadowCounter
from aicache._upkeep import Chore
from aicache.stores.base import LessonStore

__all__ = ["Noted", "Study", "Studying"]

QUEUE_LENGTH: Final = 1_000
"""Answers that wait to be compared; further ones are not."""
QUEUE_BYTES: Final = 16 * 2**20
"""What they and the entries near them may take together."""
POLL_SECONDS: Final = 1.0
"""How long lessons of other processes may take to get here, while there are lookups."""
CLOSING_SECONDS: Final = 1.0
"""What `close` waits for lessons on their way."""
BATCH: Final = 16
"""Lessons that are sent together while they come fast: a round for each would cost lookups their turns of the
interpreter's lock (median of a lookup 2.2 ms in place of 1.6, benchmarks/learning.py)."""
SERVED_KEPT: Final = 4_096
"""Hits that a report can still teach something about."""


@dataclass(frozen=True, slots=True)
class Studying:
    """What to learn by, and how."""

    comparator: Comparator
    read: Callable[[Answer], Reading]
    """An answer as the comparator reads it."""
    shadow: bool = False
    static: str | None = None
    """Why nothing is learned although the user wanted it."""
    background: Background = "thread"
    owned: bool = False
    """The comparator was made for this cache and is closed with it; else somebody else may go on using it."""


@dataclass(frozen=True, slots=True)
class Noted:
    """A fresh answer and the lesson it belongs to."""

    lesson: Lesson
    key: CacheKey
    answer: Answer
    finding: Finding | None
    """None: to be compared in the background."""

    @property
    def weight(self) -> int:
        """Bytes it keeps alive, about."""
        return self.lesson.weight + len(self.answer.body)

    @property
    def cluster(self) -> bytes | None:
        """The cluster to write the answer with."""
        return None if self.finding is None else self.finding.cluster


class Study:
    """Pairs lookups with their fresh answers, and learns from them. Safe from any thread; its methods do not raise.

    Args:
        comparator: what "wrong" means.
        read: an answer as the comparator reads it.
        matcher: the learned matcher; None if only shadow mode counts.
        store: where clusters and lessons are; None if it keeps none.
        breaker: the store's.
        report: called with what a background task failed with.
        background: where it works.
        owned: the comparator is closed with this.
    """

    def __init__(
        self,
        comparator: Comparator,
        read: Callable[[Answer], Reading],
        *,
        matcher: LearnedMatcher | None,
        shadow: ShadowCounter | None,
        store: LessonStore | None,
        breaker: Breaker,
        clock: Clock,
        report: Callable[[BaseException], None],
        background: Background = "thread",
        owned: bool = False,
    ) -> None:
        self.shadow = shadow
        self.uncompared = 0
        """Answers that could not be compared: nothing was learned from them."""
        self._comparator = comparator
        self._read = read
        self._owned = owned
        self._matcher = matcher
        self._store = store
        self._breaker = breaker
        self._clock = clock
        self._inline = background == "inline"
        # Two threads: while a model is slow to compare, the lessons of other processes come in all the same.
        self._comparing = Errand(self._compare_waiting, report, background)
        self._studying = Errand(self._ask_store, report, background)
        self._waiting = Waiting(self._forget)
        self._served: Memo[str, Lesson] = Memo(SERVED_KEPT // 2)
        self._uncompared: deque[Noted] = deque()
        self._joins: deque[tuple[CacheKey, bytes]] = deque(maxlen=QUEUE_LENGTH)
        self._poll = Chore(POLL_SECONDS, clock.monotonic())
        self._begin_anew()
        in_forked_child(self._begin_anew)
        if matcher is not None:
            matcher.on_new_course = self._studying.wake

    def _begin_anew(self) -> None:
        """At the start and in a forked child: what waits here, waits in the parent."""
        self._lock = threading.Lock()
        self._uncompared.clear()
        self._uncompared_bytes = 0
        self._joins.clear()

    # ------------------------------------------------------------------------------------- after a lookup

    def watch(self, hit: Hit, trail: Trail) -> Miss | None:
        """In shadow mode: the miss that the application sees in place of a hit."""
        if self.shadow is None:
            return None
        self.shadow.seen(hit)
        lesson = trail.lesson
        trail.lesson = Lesson(
            lesson.space if lesson is not None else "",
            (Candidate(hit.entry, hit.score),),
            lesson.ticket if lesson is not None else None,
            accepted=True,
            unserved=hit,
        )
        return Miss(MissReason.SHADOW, f"{hit.match} from {hit.tier}")

    def looked_up(self, key: CacheKey | None, outcome: Outcome, trail: Trail) -> None:
        """A lookup has ended."""
        lesson = trail.lesson
        if lesson is not None and key is not None:
            if isinstance(outcome, Hit):
                # Without the entries: thousands of them are kept.
                self._served.put(outcome.id, Lesson(lesson.space, ticket=lesson.ticket))
            elif lesson.accepted and lesson.unserved is None:
                self._withdraw(lesson)
            else:
                self._waiting.put(key, lightened(lesson), self._clock.monotonic())
        if self._matcher is not None and self._poll.due(self._clock.monotonic()):
            self._studying.wake()

    def broken_off(self, trail: Trail) -> None:
        """A lookup was cancelled: nobody gets what was decided, and no fresh answer follows."""
        if trail.lesson is not None:
            self._withdraw(trail.lesson)

    def _withdraw(self, lesson: Lesson) -> None:
        """Accepted and not served after all: a verifier refused it, it could not be read, or nobody waits for it."""
        learner = self._learner_of(lesson)
        if learner is not None and lesson.ticket is not None:
            learner.withdraw(lesson.ticket)

    # ------------------------------------------------------------------------------------- after an answer

    def answered(self, key: CacheKey, answer: Answer) -> Noted | None:
        """The fresh answer to a lookup has come, if one waits for it."""
        lesson = self._waiting.take(key)
        if lesson is None:
            return None
        noted = Noted(lesson, key, answer, None)
        return self._compared(noted) if self._comparator.immediate else noted

    def unanswered(self, key: CacheKey) -> None:
        """What came is not kept: no answer, or one broken off."""
        self._waiting.drop(key)

    def learn(self, noted: Noted) -> None:
        """Learn from the answer, now that it is written."""
        if noted.finding is not None:
            self._conclude(noted)
            self._send_soon()
        elif self._has_queued(noted):
            self._comparing.wake()
        else:
            self._give_up(noted.lesson)

    def _send_soon(self) -> None:
        """At once if lessons are rare or learned inline; else when some have gathered, or a second has passed."""
        courses = () if self._matcher is None else self._matcher.courses
        if self._inline or self._poll.due(self._clock.monotonic()) or any(one.unsent >= BATCH for one in courses):
            self._studying.wake()

    def _has_queued(self, noted: Noted) -> bool:
        """Whether there was room."""
        with self._lock:
            if len(self._uncompared) >= QUEUE_LENGTH or self._uncompared_bytes + noted.weight > QUEUE_BYTES:
                return False
            self._uncompared.append(noted)
            self._uncompared_bytes += noted.weight
            return True

    def reported(self, hit_id: str, *, wrong: bool) -> None:
        """The application says whether a hit was right: a label like any other, but no audit, for it was not drawn."""
        lesson = self._served.get(hit_id)
        if lesson is None or lesson.ticket is None or self._matcher is None:
            return
        self._served.put(hit_id, Lesson(lesson.space))  # Said twice, it teaches once.
        ticket = lesson.ticket
        label = Label(
            ticket.row,
            not wrong,
            1.0,
            audit=False,
            risk=ticket.risk,
            predicted=ticket.predicted,
            cluster=ticket.cluster,
        )
        self._matcher.course(lesson.space).offer(label)
        self._studying.wake()

    def _compared(self, noted: Noted) -> Noted:
        finding = compare(noted.answer, noted.lesson.near, self._comparator, self._read)
        return Noted(noted.lesson, noted.key, noted.answer, finding)

    def _conclude(self, noted: Noted) -> None:
        lesson, finding = noted.lesson, noted.finding
        assert finding is not None
        if lesson.unserved is not None:
            if self.shadow is not None and finding.ok is not None:
                self.shadow.compared(lesson.unserved, same=finding.ok)
            return
        if finding.joined is not None and finding.cluster is not None:
            self._joins.append((finding.joined.key, finding.cluster))
        learner = self._learner_of(lesson)
        if lesson.ticket is None or learner is None or self._matcher is None:
            return
        if finding.ok is None and not (lesson.ticket.audit and self._matcher.target.certified):
            self._give_up(lesson)
        else:
            # A certificate rests on every audit: one that nobody can tell counts as wrong.
            self._matcher.course(lesson.space).offer(learner.label(lesson.ticket, ok=bool(finding.ok)))

    def _give_up(self, lesson: Lesson) -> None:
        self.uncompared += 1
        self._forget(lesson)

    def _forget(self, lesson: Lesson) -> None:
        learner = self._learner_of(lesson)
        if learner is not None and lesson.ticket is not None:
            learner.forget(lesson.ticket)

    def _learner_of(self, lesson: Lesson) -> Learner | None:
        return None if self._matcher is None or not lesson.space else self._matcher.course(lesson.space).learner

    # ---------------------------------------------------------------------------------- in the background

    def _compare_waiting(self) -> None:
        while (noted := self._next_uncompared()) is not None:
            noted = self._compared(noted)
            assert noted.finding is not None
            self._conclude(noted)
            if noted.finding.cluster is not None and noted.lesson.unserved is None:
                self._joins.append((noted.key, noted.finding.cluster))
            self._send_soon()

    def _next_uncompared(self) -> Noted | None:
        with self._lock:
            if not self._uncompared or self._comparing.ended:
                return None
            noted = self._uncompared.popleft()
            self._uncompared_bytes -= noted.weight
            return noted

    def _ask_store(self) -> None:
        failure: BaseException | None = None
        for course in () if self._matcher is None else self._matcher.courses:
            try:
                with self._breaker.enter():
                    course.study()
            except CONTROL:
                raise
            except BaseException as error:  # noqa: BLE001 - raised once the others have had their turn
                failure = error
        if failure is not None:
            raise failure
        while self._joins and self._store is not None:
            # Once only: an entry that can never be joined must not keep the others waiting.
            key, cluster = self._joins.popleft()
            with self._breaker.enter():
                self._store.join(key, cluster)

    # ------------------------------------------------------------------------------------------- counters

    def learned(self) -> Learned | None:
        """What has been learned so far, in the space that was asked last; None without a learned matcher."""
        if self._matcher is None:
            return None
        courses = self._matcher.courses
        learner = courses[-1].learner if courses else None
        if learner is None:
            return Learned(uncompared=self.uncompared)
        ledger, limit = learner.ledger, self._matcher.limit(courses[-1])
        return Learned(ledger.lessons, ledger.audits, ledger.alarms, limit, self.uncompared)

    def settle(self, seconds: float) -> None:
        """Wait until what there is to learn now has been learned, but no longer than this."""
        self._comparing.settle(seconds / 2)
        self._studying.settle(seconds / 2)

    def close(self) -> None:
        """Learn what can be learned in a second, and end the threads."""
        self._comparing.settle(CLOSING_SECONDS / 2)
        self._comparing.end()
        self._studying.settle(CLOSING_SECONDS / 2)
        self._studying.end()
        close = getattr(self._comparator, "close", None)  # A judge has a loop of its own.
        if self._owned and close is not None:
            close()

    def reset_counts(self) -> None:
        """Count from zero again; what was learned stays."""
        self.uncompared = 0
        if self.shadow is not None:
            self.shadow.reset()

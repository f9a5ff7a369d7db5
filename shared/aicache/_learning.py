"""The learned matcher: serves the nearest entry's answer when it is wrong rarely enough.

What it knows comes from the fresh answers of misses (`aicache._learned`, docs/learned.md). It decides with what is in
memory; labels reach it, and the store, in the background (`aicache._study`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final

from aicache._course import Course, log_name
from aicache._fork import in_forked_child
from aicache._guards import Conflict, Guard, Parser
from aicache._guards._layout import folded, moved
from aicache._learned import Audit, Decline, FeatureSet, Lesson, Neighbour, Serve, Target, Ticket
from aicache._lessons import cluster_of
from aicache._match import Accept, Decision, Judgement, Reject, Verdict, unseen
from aicache._model import Candidate, MissReason, Space
from aicache.stores.base import LessonStore

__all__ = ["LearnedMatcher"]

_ALIKE: Final = 0.99
"""Texts that only differ in white space without meaning have a cosine of 1 but for rounding."""

_REASONS: Final = {
    "nothing stored": MissReason.ABSENT,
    "learning": MissReason.LEARNING,
    "risk": MissReason.RISKY,
    "budget": MissReason.BUDGET,
}


class LearnedMatcher:
    """Decides by an estimate of the risk, learned from the answers of this cache's own misses.

    A learner for each vector space, shared by all processes with the same store, namespace and target. The same text
    but for white space without meaning is served whatever was learned; an entry whose lines or foreign words differ
    where the embedder sees none of it is never served.

    Args:
        target: how many answers may be wrong.
        guards: what the words are compared by; each guard is a feature here, not a veto.
        store: where the log of lessons is.
        namespace: those of another namespace learn apart.
        coin: uniform numbers in [0, 1), independent of the traffic: the certificate rests on it.
        basis: what else a lesson rests on; those with another basis learn apart.
    """

    def __init__(
        self,
        target: Target,
        guards: Sequence[Guard],
        store: LessonStore,
        *,
        namespace: str,
        coin: Callable[[], float],
        basis: str = "",
    ) -> None:
        self.target = target
        self._basis = basis
        self.on_new_course: Callable[[], None] = _nothing
        """Called when there is a log to be read."""
        self._features = FeatureSet(tuple(guards))
        self._store = store
        self._namespace = namespace
        self._coin = coin
        self._parser = Parser()
        self._courses: dict[Space, Course] = {}
        self._lock = threading.Lock()
        in_forked_child(self._renew_lock)

    def _renew_lock(self) -> None:
        """In a forked child: the lock may be held by a thread that is not there."""
        self._lock = threading.Lock()

    @property
    def floor(self) -> float:
        """All neighbours count: how they answer says how likely the nearest is right."""
        return -1.0

    @property
    def courses(self) -> tuple[Course, ...]:
        """What is learned, a course for each space; the newest is last."""
        return tuple(self._courses.values())

    def course(self, space: Space) -> Course:
        """The course of the space; a new one begins to be read."""
        course = self._courses.get(space)
        if course is None:
            with self._lock:
                name = log_name(self._namespace, space, self.target, self._features, self._basis)
                course = self._courses.setdefault(space, Course(name, self._store, self.target, self._features))
            self.on_new_course()
        return course

    def limit(self, course: Course) -> float:
        """The largest risk that is served in this space now."""
        return 0.0 if course.learner is None else course.learner.weigh(self._parser(""), ())[1]

    # ------------------------------------------------------------------------------------------- deciding

    def decide(self, text: str, candidates: Sequence[Candidate], space: Space) -> Decision:
        """Accept the nearest candidate, or say why not; a draw of chance sends some that would do to the model."""
        same = _same_text(text, candidates)
        if same is not None:
            return Accept(same)
        course = self.course(space)
        learner = course.learner
        if learner is None:
            return Reject(MissReason.LEARNING, "the lessons so far are being read")
        # Whoever cannot learn of wrong answers must not give any: everything is an audit then.
        coin = 0.0 if course.behind else self._coin()
        near = _from_the_first_sound(text, candidates)
        decided = learner.decide(self._parser(text), self._neighbours(near), coin)

        def lesson(ticket: Ticket | None, *, accepted: bool = False) -> Lesson | None:
            return None if ticket is None else Lesson(space, tuple(near), ticket, accepted)

        match decided:
            case Serve(ticket):
                return Accept(near[0], lesson(ticket, accepted=True))
            case Audit(ticket):
                return Reject(MissReason.AUDIT, "", lesson(ticket))
            case Decline(ticket, why):
                return Reject(_REASONS[why], _detail(ticket), lesson(ticket))

    def preview(self, text: str, candidates: Sequence[Candidate], space: Space) -> Decision:
        """What `decide` would say without the draw of chance; nothing is counted."""
        for judgement in self.explain(text, candidates, space):
            match judgement.verdict:
                case Verdict.IDENTICAL:
                    return Accept(judgement.candidate)
                case Verdict.CLEAR:
                    return self._unless_spent(judgement.candidate, space)
                case Verdict.RISKY:
                    return Reject(MissReason.RISKY, f"risk {judgement.risk:.4f}, limit {judgement.limit:.4f}")
                case Verdict.LEARNING:
                    return Reject(MissReason.LEARNING)
                case _:
                    continue
        return Reject(MissReason.ABSENT)

    def _unless_spent(self, candidate: Candidate, space: Space) -> Decision:
        """Accepted, but where the certificate has no room for another wrong answer."""
        course = self._courses[space]
        if course.behind:
            return Reject(MissReason.AUDIT, "the store takes no lessons at the moment")
        if course.learner is None or not course.learner.spent:
            return Accept(candidate)
        return Reject(MissReason.BUDGET if self.target.per == "requests" else MissReason.AUDIT)

    def explain(self, text: str, candidates: Sequence[Candidate], space: Space) -> tuple[Judgement, ...]:
        """What is known of each candidate, in the same order; the first that is not vetoed decides."""
        same = _same_text(text, candidates)
        near = _from_the_first_sound(text, [candidate for candidate in candidates if candidate is not same])
        course = self._courses.get(space)
        learner = None if course is None else course.learner
        judgements: list[Judgement] = []
        for candidate in candidates:
            if candidate is same:
                judgements.append(Judgement(candidate, Verdict.IDENTICAL))
            elif candidate not in near:
                judgements.append(Judgement(candidate, Verdict.GUARDED, conflict=_blind(text, candidate)))
            elif candidate is not near[0]:
                judgements.append(Judgement(candidate, Verdict.FARTHER))
            elif learner is None:
                judgements.append(Judgement(candidate, Verdict.LEARNING))
            else:
                risk, limit = learner.weigh(self._parser(text), self._neighbours(near))
                known = Verdict.LEARNING if learner.ledger.resting else Verdict.RISKY
                verdict = Verdict.CLEAR if risk <= limit else known
                seen = self._seen_by_a_guard(text, candidate)
                judgements.append(Judgement(candidate, verdict, conflict=seen, risk=risk, limit=limit))
        return tuple(judgements)

    def _seen_by_a_guard(self, text: str, candidate: Candidate) -> Conflict | None:
        """For people: here a guard weighs in the risk and vetoes nothing."""
        asked, stored = self._parser(text), self._parser(candidate.entry.query)
        conflicts = (guard.conflict(asked, stored) for guard in self._features.guards)
        return next((conflict for conflict in conflicts if conflict is not None), None)

    def _neighbours(self, near: Sequence[Candidate]) -> list[Neighbour]:
        return [
            Neighbour(
                candidate.score,
                self._parser(candidate.entry.query) if candidate is near[0] else None,
                cluster_of(candidate.entry),
                max(1, candidate.cluster_size),
            )
            for candidate in near
        ]


def _same_text(text: str, candidates: Sequence[Candidate]) -> Candidate | None:
    alike = [candidate for candidate in candidates if candidate.score > _ALIKE]
    wanted = folded(text) if alike else ""
    return next((candidate for candidate in alike if folded(candidate.entry.query) == wanted), None)


def _from_the_first_sound(text: str, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
    """The candidates without those in front that look nearer than they are. Farther ones only vote."""
    for place, candidate in enumerate(candidates):
        if _blind(text, candidate) is None:
            return candidates[place:]
    return ()


def _blind(text: str, candidate: Candidate) -> Conflict | None:
    """A difference that no embedder sees, and so no feature: lines and indents, or words of a foreign script."""
    if moved(text, candidate.entry.query):
        return Conflict("layout", "", "")
    return unseen(text, candidate)


def _detail(ticket: Ticket | None) -> str:
    return "" if ticket is None else f"risk {ticket.risk:.4f}"


def _nothing() -> None:
    return None

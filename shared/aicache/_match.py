"""The static matcher: which of the nearest entries, if any, may answer a query.

A candidate is served when its score reaches the threshold, no guard sees a difference that matters, lines and indents
are the same, and no rival is nearly as near. `decide` and `explain` read the same judgements, so they cannot disagree.

Two choices here were made by measurement (`benchmarks/matching.py`, docs/correctness.md):

- A guarded candidate does not end the search. The nearest one that no guard vetoes decides: on every stream this
  gave as many or more hits with no more wrong ones. (A cache holds "weather in Paris" and "weather in Rome"; the
  veto of one says nothing about the other.)
- Not every entry with another answer is a rival. Free-form answers to one question differ in words, so entries
  near each other make each other ambiguous: with the plain rule two thirds of the hits are lost and the rest
  is no cleaner. An entry counts when its answer is given by another candidate too (so it is more than
  wording), or when a guard tells its question from the candidate's; and it does not count when a guard tells it
  from the query, for then it could not be the answer anyway.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

from aicache._guards import DEFAULT_GUARDS, Conflict, Guard, Parser
from aicache._guards._layout import folded, moved
from aicache._learned import Lesson
from aicache._model import Candidate, MissReason, Space

__all__ = ["Accept", "Decision", "Judgement", "Reject", "StaticMatcher", "Verdict", "unseen"]

_NOISE: Final = 1e-6
"""What two float32 cosines of the same texts may differ by; equal texts must pass a threshold of 1."""


_BLIND: Final = 0.9995
"""A cosine no embedder gives two texts whose difference it sees. Rounding of stored half-floats is smaller."""

_LAST_LATIN: Final = "\u024f"
"""The last letter of the block Latin Extended-B."""


class Verdict(StrEnum):
    """What the rules say of one candidate."""

    IDENTICAL = "identical"
    """The same text up to white space without meaning: served whatever the score."""
    CLEAR = "clear"
    """Near enough, no guard against it, no rival: may be served."""
    BELOW_THRESHOLD = "below_threshold"
    """Not near enough."""
    GUARDED = "guarded"
    """A guard saw a difference that matters."""
    AMBIGUOUS = "ambiguous"
    """A rival with another answer is nearly as near."""
    RISKY = "risky"
    """Learned: it would be wrong more often than is allowed."""
    LEARNING = "learning"
    """Learned: too little is known yet."""
    FARTHER = "farther"
    """Learned: only the nearest may be served; the answers of the others say how likely it is right."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """One candidate and what the rules say of it. Quotes words of the prompt: show it, never log it."""

    candidate: Candidate
    verdict: Verdict
    conflict: Conflict | None = None
    """With GUARDED: the guard and the words."""
    rival: Candidate | None = None
    """With AMBIGUOUS: the nearest rival."""
    risk: float | None = None
    """Learned: the probability of a wrong answer, estimated on the safe side."""
    limit: float | None = None
    """Learned: the largest risk that is served now."""


@dataclass(frozen=True, slots=True)
class Accept:
    """This candidate may be served."""

    candidate: Candidate
    lesson: Lesson | None = None
    """What a fresh answer would teach; None where nothing is learned."""


@dataclass(frozen=True, slots=True)
class Reject:
    """No candidate may be served. `detail` has scores or a guard's name, never a word of the prompt."""

    reason: MissReason
    detail: str = ""
    lesson: Lesson | None = None


Decision: TypeAlias = Accept | Reject


@dataclass(frozen=True, slots=True)
class StaticMatcher:
    """Decides by threshold, guards and margin. Pure; safe from any thread.

    `parser` only remembers parsed texts between calls; it never changes a decision.
    """

    threshold: float = 0.97
    """Least cosine of an accepted candidate, in (0, 1]."""
    margin: float = 0.05
    """By how much its score must exceed that of a rival, in [0, 1)."""
    guards: tuple[Guard, ...] = DEFAULT_GUARDS
    """The vetoes, tried in order."""
    parser: Parser = field(default_factory=Parser, repr=False, compare=False)

    @property
    def floor(self) -> float:
        """The score below which candidates no longer count.

        Rivals stand within the margin of a score above the threshold. Those below still tell whether a rival's answer
        is shared by others; beyond another margin none changed a decision on the questions of docs/correctness.md.
        """
        return self.threshold - 2 * self.margin

    def decide(self, text: str, candidates: Sequence[Candidate], space: Space = "") -> Decision:  # noqa: ARG002 - the port's
        """Accept one of the candidates for the query `text`, or say why none will do.

        Candidates are of one partition, nearest first. A rejection names the reason of the nearest candidate,
        except that a clear-cut ambiguity behind guarded ones is reported as what it is.
        """
        nearest: Judgement | None = None
        for judgement in self._judgements(text, candidates):
            nearest = nearest or judgement
            match judgement.verdict:
                case Verdict.IDENTICAL | Verdict.CLEAR:
                    return Accept(judgement.candidate)
                case Verdict.AMBIGUOUS:
                    return self._reject(judgement)
                case Verdict.BELOW_THRESHOLD:
                    break  # All others are farther away.
                case Verdict.GUARDED:
                    continue
        return Reject(MissReason.ABSENT) if nearest is None else self._reject(nearest)

    preview = decide
    """Nothing is counted or learned by a decision, so that looking changes nothing."""

    def explain(self, text: str, candidates: Sequence[Candidate], space: Space = "") -> tuple[Judgement, ...]:  # noqa: ARG002 - the port's
        """What the rules say of each candidate; the first one that is not GUARDED decides."""
        return tuple(self._judgements(text, candidates))

    def _reject(self, judgement: Judgement) -> Reject:
        score = f"{judgement.candidate.score:.4f}"
        if judgement.verdict is Verdict.BELOW_THRESHOLD:
            return Reject(MissReason.BELOW_THRESHOLD, f"{score}, threshold {self.threshold:g}")
        if judgement.conflict is not None:
            return Reject(MissReason.GUARDED, judgement.conflict.guard)
        assert judgement.rival is not None
        return Reject(MissReason.AMBIGUOUS, f"{score} against {judgement.rival.score:.4f}, margin {self.margin:g}")

    def _judgements(self, text: str, candidates: Sequence[Candidate]) -> Iterator[Judgement]:
        """One judgement a candidate, identical texts first, then nearest first; made only as far as read."""
        query = folded(text)
        identical = [candidate for candidate in candidates if folded(candidate.entry.query) == query]
        for candidate in identical:
            yield Judgement(candidate, Verdict.IDENTICAL)
        shared = Counter(candidate.entry.answer.digest for candidate in candidates)
        for candidate in candidates:
            if candidate not in identical:
                yield self._judge(text, candidate, candidates, shared)

    def _judge(
        self, text: str, candidate: Candidate, candidates: Sequence[Candidate], shared: Counter[bytes]
    ) -> Judgement:
        if not candidate.score >= self.threshold - _NOISE:  # Written so that NaN is below.
            return Judgement(candidate, Verdict.BELOW_THRESHOLD)
        question = candidate.entry.query
        conflict = self._conflict(text, question) or unseen(text, candidate)
        if conflict is not None:
            return Judgement(candidate, Verdict.GUARDED, conflict=conflict)
        for rival in candidates:
            if candidate.score - rival.score >= self.margin - _NOISE:
                break
            answer = rival.entry.answer.digest
            if (
                answer != candidate.entry.answer.digest
                and (shared[answer] > 1 or self._conflict(question, rival.entry.query) is not None)
                and self._conflict(text, rival.entry.query) is None
            ):
                return Judgement(candidate, Verdict.AMBIGUOUS, rival=rival)
        return Judgement(candidate, Verdict.CLEAR)

    def _conflict(self, a: str, b: str) -> Conflict | None:
        left, right = self.parser(a), self.parser(b)
        for guard in self.guards:
            conflict = guard.conflict(left, right)
            if conflict is not None:
                return conflict
        return Conflict("layout", "", "") if moved(a, b) else None


def unseen(text: str, candidate: Candidate) -> Conflict | None:
    """A conflict where the embedder sees no difference at all but words outside the Latin script differ.

    A model that lacks a script maps every word of it to one unknown token: MiniLM gives two unrelated Chinese or
    Thai questions a cosine of 1.0. No honest pair of different questions scores that high.
    """
    if candidate.score < _BLIND or text.isascii():
        return None
    left, right = _strange(text), _strange(candidate.entry.query)
    if left == right:
        return None
    return Conflict("unseen", " ".join(sorted(left - right))[:40], " ".join(sorted(right - left))[:40])


def _strange(text: str) -> frozenset[str]:
    """The words with letters or symbols outside the Latin script, without punctuation and case."""
    words = ("".join(c for c in word if unicodedata.category(c)[0] not in "PZC") for word in text.casefold().split())
    return frozenset(word for word in words if any(c > _LAST_LATIN for c in word))

"""Why a prompt is answered from the cache or not, for people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from aicache._match import Judgement
from aicache._model import ExactOnly, Hit, Miss, Opinion, Outcome
from aicache._plans import Journal, Matcher, Request

__all__ = ["Explanation"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a lookup would do now. `str()` prints it. Shows the query's text: meant for people, not for logs."""

    outcome: Outcome
    query: str | None = None
    """The text matched by meaning."""
    exact_only: ExactOnly | None = None
    """Why it is not matched by meaning, if so."""
    partition: str | None = None
    """Hex id of the partition: prompts with the same one may share answers."""
    entry_id: str | None = None
    """Id that the entry of exactly this prompt has."""
    tiers: tuple[tuple[str, str], ...] = ()
    """Tier and what it holds for exactly this prompt: `absent`, `expired`, `fresh`."""
    space: str | None = None
    """Vector space searched."""
    judgements: tuple[Judgement, ...] = ()
    """The nearest entries, nearest first, and what was decided of each."""
    opinion: Opinion | None = None
    """What the verifier said of the entry that would have been served; None where it gave no opinion."""

    @classmethod
    def of_miss(cls, miss: Miss) -> Self:
        """A prompt that was not looked up."""
        return cls(miss)

    @classmethod
    def of_lookup(cls, request: Request, outcome: Outcome, journal: Journal, matcher: Matcher) -> Self:
        """A prompt that was looked up with a journal."""
        return cls(
            outcome,
            query=request.query.text,
            exact_only=request.query.exact_only,
            partition=request.key.partition.id.hex(),
            entry_id=request.key.id,
            tiers=tuple(journal.exact.items()),
            space=journal.space,
            judgements=_judge(matcher, request.query.text, journal),
            opinion=journal.opinion,
        )

    def __str__(self) -> str:
        lines = [_headline(self.outcome)]
        if self.query is not None:
            lines.append(
                f"  query      {self.query!r}" + (f" (exact only: {self.exact_only})" if self.exact_only else "")
            )
            lines.append(f"  partition  {self.partition}   entry {self.entry_id}")
            lines.append("  exact      " + ", ".join(f"{tier}: {state}" for tier, state in self.tiers))
        if self.space is not None:
            lines.append(f"  space      {self.space}")
            lines += [_near(judgement) for judgement in self.judgements] or ["  no entry in this partition"]
        if self.opinion is not None:
            lines.append(f"  verifier   {'yes' if self.opinion.same else 'no'}" + _in_brackets(self.opinion.said))
        return "\n".join(lines)


def _judge(matcher: Matcher, text: str, journal: Journal) -> tuple[Judgement, ...]:
    return matcher.explain(text, journal.candidates, journal.space or "") if journal.candidates else ()


def _near(judgement: Judgement) -> str:
    candidate = judgement.candidate
    line = f"  near       {candidate.score:.4f}  {judgement.verdict:15}  {candidate.entry.query!r}"
    return line + _in_brackets("; ".join(_grounds(judgement))) + f"  entry {candidate.entry.id}"


def _grounds(judgement: Judgement) -> Iterator[str]:
    """Why it was judged so, as far as the verdict does not say it."""
    conflict, rival = judgement.conflict, judgement.rival
    if conflict is not None:
        words = f": {conflict.left!r} against {conflict.right!r}" if conflict.left or conflict.right else ""
        yield f"guard {conflict.guard}{words}"
    if rival is not None:
        yield f"rival {rival.score:.4f} {rival.entry.query!r}"
    if judgement.risk is not None and judgement.limit is not None:
        yield f"risk {judgement.risk:.4f}, limit {judgement.limit:.4f}"


def _headline(outcome: Outcome) -> str:
    match outcome:
        case Hit(entry, tier, how, score, age):
            return f"hit: {how} from {tier}, score {score:.4f}, {age:.0f} s old, entry {entry.id}"
        case Miss(reason, detail):
            return f"miss: {reason}" + _in_brackets(detail)


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""

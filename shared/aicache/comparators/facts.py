"""Answers that state other facts: numbers, names, negations, opposites."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from aicache._errors import ConfigurationError
from aicache._guards import (
    AntonymGuard,
    DirectionGuard,
    Guard,
    IdentifierGuard,
    NameGuard,
    NegationGuard,
    Parsed,
    Parser,
    PrefixGuard,
    SwapGuard,
)
from aicache._guards._lexicon import FUNCTION_WORDS
from aicache._learned import Reading
from aicache.comparators._answer_guards import ClassesDiffer, ComparisonsDiffer, Mutual, NumbersDiffer, YesOrNo
from aicache.comparators._texts import plain, sentences

__all__ = ["SENTENCE_GUARDS", "WHOLE_GUARDS", "Facts"]

WHOLE_GUARDS: Final[tuple[Guard, ...]] = (
    NumbersDiffer(),
    YesOrNo(),
    Mutual(IdentifierGuard()),
    Mutual(NameGuard()),
)
"""What two whole answers are compared with."""

SENTENCE_GUARDS: Final[tuple[Guard, ...]] = (
    NegationGuard(),
    AntonymGuard(),
    ClassesDiffer(),
    DirectionGuard(),
    SwapGuard(),
    PrefixGuard(),
    ComparisonsDiffer(),
)
"""What two sentences about the same are compared with. In whole answers these words stand by chance too often."""

ALIKE: Final = 0.5
"""Share of the words with content (Jaccard) that makes a sentence of one answer the counterpart of one of the other."""

MOST_SENTENCES: Final = 64
"""In longer answers only the whole is looked at: to pair sentences takes the square of their number."""

MOST_LETTERS: Final = 20_000
"""Longer answers are not looked at."""


class Facts:
    """Answers that contradict each other are different; of others it says nothing.

    Layout does not count: Markdown signs, list numbers, the order of the facts. Nor does what only one answer adds.

    Args:
        guards: what each sentence and its counterpart are compared with (see `aicache.guards`).
        whole: what the whole answers are compared with.

    Raises:
        ConfigurationError: one of them is no guard.
    """

    def __init__(self, guards: Iterable[Guard] = SENTENCE_GUARDS, *, whole: Iterable[Guard] = WHOLE_GUARDS) -> None:
        self._guards = _checked("guards", guards)
        self._whole = _checked("whole", whole)
        self._parse = Parser(1024)

    @property
    def immediate(self) -> bool:
        """False: answers of some hundred words take milliseconds."""
        return False

    def same(self, a: Reading, b: Reading, /) -> bool | None:
        """False where they contradict each other, else None."""
        return None if a.digest == b.digest else False if self.conflict(a.text, b.text) else None

    def conflict(self, a: str, b: str) -> str | None:
        """The kind of contradiction between two answers, such as `number`, or None."""
        if max(len(a), len(b)) > MOST_LETTERS:
            return None
        left, right = plain(a), plain(b)
        if left == right or not left or not right:
            return None
        found = _first(self._whole, self._parse(left), self._parse(right))
        if found is None and self._guards:
            found = next(self._contradicted(left, right), None)
        return found

    def _contradicted(self, a: str, b: str) -> Iterator[str]:
        """Kinds of conflict of sentences whose every nearest counterpart conflicts with them."""
        left, right = ([self._parse(one) for one in sentences(text)] for text in (a, b))
        if max(len(left), len(right)) > MOST_SENTENCES:
            return
        for ours, theirs in ((left, right), (right, left)):
            bags = [_content(other) for other in theirs]
            for one in ours:
                found = [_first(self._guards, one, other) for other in _counterparts(one, theirs, bags)]
                kinds = [kind for kind in found if kind is not None]
                if kinds and len(kinds) == len(found):
                    yield kinds[0]


def _checked(parameter: str, guards: Iterable[Guard]) -> tuple[Guard, ...]:
    given = tuple(guards)
    if not all(callable(getattr(guard, "conflict", None)) and not isinstance(guard, type) for guard in given):
        raise ConfigurationError(parameter, "give guards, such as those of aicache.guards")
    return given


def _first(guards: Iterable[Guard], a: Parsed, b: Parsed) -> str | None:
    return next((found.guard for guard in guards if (found := guard.conflict(a, b)) is not None), None)


def _content(text: Parsed) -> frozenset[str]:
    return text.bag - FUNCTION_WORDS


def _counterparts(one: Parsed, others: list[Parsed], bags: list[frozenset[str]]) -> list[Parsed]:
    """The sentences most like this one, if they are alike enough."""
    words = _content(one)
    if not words:
        return []
    shares = [_share(words, bag) for bag in bags]
    best = max(shares, default=0.0)
    return [other for other, share in zip(others, shares, strict=True) if share == best] if best >= ALIKE else []


def _share(a: frozenset[str], b: frozenset[str]) -> float:
    common = len(a & b)
    # In a short sentence one word in the place of another is half of it.
    substitution = common > 0 and len(a) == len(b) == common + 1
    return max(ALIKE, common / len(a | b)) if substitution else common / len(a | b)

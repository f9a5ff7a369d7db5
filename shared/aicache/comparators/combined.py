"""Several comparators as one, and the one that an option names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from aicache._errors import ConfigurationError
from aicache._learned import Comparator, Equal, Reading
from aicache.comparators.facts import Facts
from aicache.comparators.judge import Judge
from aicache.comparators.meaning import Meaning
from aicache.comparators.structural import Structural
from aicache.comparators.words import SameWords
from aicache.embedders.base import Embedder

__all__ = ["ComparatorLike", "InOrder", "default_comparator", "to_comparator"]

ComparatorLike: TypeAlias = Comparator | Callable[[str, str], Awaitable[bool | str | None] | bool | str | None] | Any
"""A comparator, a function of two answers (it may be a coroutine function), or a chat model."""


@dataclass(frozen=True, slots=True, init=False)
class InOrder:
    """Asks one comparator after the other; the first that can tell decides.

    Args:
        comparators: at least one, the cheapest first.

    Raises:
        ConfigurationError: there is none, or one is no comparator.
    """

    comparators: tuple[Comparator, ...]

    def __init__(self, *comparators: Comparator) -> None:
        if not comparators or not all(map(_is_comparator, comparators)):
            raise ConfigurationError("comparators", "give at least one comparator, and nothing else")
        object.__setattr__(self, "comparators", comparators)

    @property
    def immediate(self) -> bool:
        """True when all of them are."""
        return all(comparator.immediate for comparator in self.comparators)

    @property
    def dear(self) -> bool:
        """True when one of them is (see `Judge`)."""
        return any(getattr(comparator, "dear", False) for comparator in self.comparators)

    def same(self, a: Reading, b: Reading, /) -> bool | None:
        """What the first one says that can tell; None where none can."""
        for comparator in self.comparators:
            said = comparator.same(a, b)
            if said is not None:
                return said
        return None

    def close(self) -> None:
        """Close those that can be closed."""
        for comparator in self.comparators:
            close = getattr(comparator, "close", None)
            if close is not None:
                close()


def default_comparator(embedder: Embedder | None, *, bar: float | None = None) -> Comparator:
    """What a cache compares answers with where none is given. It always decides.

    In order: the same words; JSON and tool calls by their values; facts that contradict each other; with an embedder
    the meaning. What none of these can tell counts as different unless the words are the same: to leave such pairs out
    would teach the cache that answers nobody can compare are right.

    Args:
        embedder: for the meaning; without one, reworded answers are different.
        bar: the cosine from which on two answers mean the same (see `Meaning`).

    Raises:
        ConfigurationError: `bar` is no cosine.
    """
    if embedder is None:
        return InOrder(Structural(), Equal())  # Whether facts contradict makes no difference then.
    return InOrder(SameWords(), Structural(), Facts(), Meaning(embedder, bar), Equal())


def to_comparator(given: object, embedder: Embedder | None, *, bar: float | None = None) -> Comparator:
    """The comparator that the option `comparator` means.

    Args:
        given: None for the default; a comparator; a function of two answers, or a chat model, which are asked (`Judge`)
            about answers in different words that call no tools.
        embedder: what the default compares meanings with.
        bar: of the default.

    Raises:
        ConfigurationError: it is none of these.
    """
    if given is None:
        return default_comparator(embedder, bar=bar)
    if _is_comparator(given):
        return cast("Comparator", given)
    try:
        judge = Judge(given)
    except ConfigurationError:
        kind = given.__qualname__ if isinstance(given, type) else type(given).__name__
        raise ConfigurationError(
            "comparator", f"give a comparator, a function of two answers, a chat model, or None; got {kind}"
        ) from None
    return InOrder(SameWords(), Structural(texts=False), judge)


def _is_comparator(given: object) -> bool:
    return not isinstance(given, type) and callable(getattr(given, "same", None)) and hasattr(given, "immediate")

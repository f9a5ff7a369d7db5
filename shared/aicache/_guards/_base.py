"""What a guard is, and what it looks at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple, Never, Protocol, TypeAlias

__all__ = ["NONE", "NOTHING", "Conflict", "Facets", "Guard", "Parsed", "Quantity", "word_set"]

Quantity: TypeAlias = tuple[str, str]
"""A number in canonical decimal digits and its unit (a symbol, a currency code, or empty): `("5", "kg")`."""

Facets: TypeAlias = Mapping[str, frozenset[str]]
"""Members of closed classes a text mentions: `{"day": {"monday"}, "colour": {"red"}}`."""

NONE: Final[frozenset[Never]] = frozenset()
NOTHING: Final[Mapping[str, Never]] = MappingProxyType({})
"""What most texts have of most things: one empty set and one empty mapping for all, as thousands of texts are kept."""


class Parsed(NamedTuple):
    """A text taken apart once, for every guard to look at. Equal texts give equal values.

    A named tuple, for with so many fields a frozen dataclass takes ten times as long to make.
    """

    text: str
    """The text with its white space collapsed; case and punctuation as written."""
    words: tuple[str, ...]
    """Words and numbers in order, lower case, contractions written out (`can't` is `can`, `not`)."""
    bag: frozenset[str]
    """The distinct words."""
    steps: frozenset[tuple[str, str]] = NONE
    """In texts of several clauses the words with content, each with the next one: `{("fever", "fell"), ...}`."""
    quantities: tuple[Quantity, ...] = ()
    """Numbers with their units, in order."""
    identifiers: frozenset[str] = NONE
    """Names that a machine reads: `utf8`, `main.py`, `v1.2.3`, `max_tokens`, `c++`."""
    letters: frozenset[str] = NONE
    """Single letters that are names: `{"c"}` in `vitamin C`; not the words `a` and `I`."""
    operators: tuple[str, ...] = ()
    """Runs of operator characters, in order: `==`, `->`, `+`."""
    names: tuple[tuple[str, ...], ...] = ()
    """Runs of capitalised words inside a sentence, lower case; empty where capitals carry no meaning."""
    english: bool = False
    """True when the text looks English, so that the English word lists apply."""
    facets: Facets = NOTHING
    """Closed-class words by class; of currencies and units in any language, the rest in English only."""
    poles: frozenset[tuple[str, bool]] = NONE
    """Sides of opposites the text takes (English only): `("enable/disable", True)`."""
    links: frozenset[tuple[str, str]] = NONE
    """Ordered pairs that a preposition joins (English only): `("paris", "london")` in `to London from Paris`."""
    parts: Mapping[str, str] = NOTHING
    """The preposition right before a word (English only): `{"london": "to", "paris": "from"}`."""
    scope: Facets = NOTHING
    """Quantifiers, bounds of numbers, how often, what `only` stands before (English only)."""
    mood: Facets = NOTHING
    """Tense and modal verb of the question (English only)."""
    actor: str = ""
    """Who does it: the word behind the first auxiliary (English only)."""
    acts: frozenset[tuple[str, str, bool]] = NONE
    """Verbs beside pronouns that do it or suffer it (English only): `("follow", "i", True)` in `people I follow`."""
    counted: Facets = NOTHING
    """The numbers before each counted thing (English only): `{"order": {"2"}}`."""
    negations: tuple[str, ...] = ()
    """For each negation in order, the word it stands before, or empty (English, and a few other languages)."""
    cases: Mapping[str, tuple[str, ...]] = NOTHING
    """Words whose letter case may tell what they mean, with the cases each occurrence may be meant in."""
    verbatim: tuple[str, ...] = ()
    """Parts in which case is part of a notation, in order: `-r`, `max_tokens`, `"quoted"`."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """A difference that can change the answer. `left` and `right` quote single words: show them, never log them."""

    guard: str
    left: str
    right: str


class Guard(Protocol):
    """A veto on serving the answer of one question for another. Pure and deterministic.

    A guard sees two parsed texts that an embedder finds close, and names a difference that matters or returns
    None. It is symmetric: `conflict(a, b)` is None exactly when `conflict(b, a)` is. A text never conflicts with
    itself.
    """

    @property
    def name(self) -> str:
        """The KIND of difference it finds, in one word; counted and logged."""

    def conflict(self, a: Parsed, b: Parsed) -> Conflict | None:
        """The difference that matters, or None."""


def word_set(text: str) -> frozenset[str]:
    """The words of a list written as one text."""
    return frozenset(text.split())

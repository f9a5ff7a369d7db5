"""Guards that need no word list of a language: numbers, identifiers, operators, currencies, names, exact swaps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from aicache._guards._base import Conflict, Parsed, Quantity, word_set
from aicache._guards._classes import CLASSES, CURRENCIES

__all__ = ["CurrencyGuard", "IdentifierGuard", "NameGuard", "NumberGuard", "OperatorGuard", "SwapGuard"]


def _joined(words: Iterable[str]) -> str:
    return " ".join(words)


@dataclass(frozen=True, slots=True)
class NumberGuard:
    """Vetoes other numbers, other units of a number, or the same numbers in another order.

    Conflict: `in 2023` / `in 2024`; `5 kg` / `5 lb`; `for two people` / `for three people`; `3 to 5` / `5 to 3`;
    `my 2nd order` / `my order`. No conflict: `1,000` / `1000`; `twenty five` / `25`; `5kg` / `5 kilograms`.
    """

    name: str = "number"

    def conflict(self, a: Parsed, b: Parsed) -> Conflict | None:
        """The two texts' numbers, where they differ."""
        if a.quantities == b.quantities:
            return None
        if len(a.quantities) == len(b.quantities) and all(map(_same, a.quantities, b.quantities)):
            return None
        return Conflict(self.name, _quantities(a) or "-", _quantities(b) or "-")


def _same(a: Quantity, b: Quantity) -> bool:
    """Equal, or one text leaves the currency out."""
    return a[0] == b[0] and (a[1] == b[1] or (a[1] in CURRENCIES and not b[1]) or (b[1] in CURRENCIES and not a[1]))


def _quantities(text: Parsed) -> str:
    return _joined(f"{value} {unit}".strip() for value, unit in text.quantities)


@dataclass(frozen=True, slots=True)
class IdentifierGuard:
    """Vetoes an identifier that the other text does not contain.

    Conflict: `utf8` / `utf16`; `read main.py` / `read test.py`; `v1.2.3` / `v1.2.4`; `max_tokens` / `min_tokens`;
    `vitamin C` / `vitamin D`. No conflict: `utf-8` / `utf8`; `JavaScript` / `javascript`.
    """

    name: str = "identifier"

    def conflict(self, a: Parsed, b: Parsed) -> Conflict | None:
        """The identifiers only one text has."""
        if a.letters and b.letters and a.letters - b.letters and b.letters - a.letters:
            return Conflict(self.name, _joined(sorted(a.letters)), _joined(sorted(b.letters)))
        if a.identifiers == b.identifiers:
            return None
        left, right = _missing(a, b), _missing(b, a)
        return Conflict(self.name, left or "-", right or "-") if left or right else None


def _missing(a: Parsed, b: Parsed) -> str:
    """The identifiers of `a` that `b` has neither as such nor as a word, in the singular or plural."""
    left = a.identifiers - b.identifiers - b.bag
    return _joined(sorted(one for one in left if one + "s" not in b.bag and one.removesuffix("s") not in b.bag))


@dataclass(frozen=True, slots=True)
class OperatorGuard:
    """Vetoes other operators, or the same in another order.

    Conflict: `a == b` / `a = b`; `i++` / `++i`; `x < 3` / `x > 3`; `2 + 2` / `2 * 2`. No conflict: dashes, list
    bullets, `and/or`.
    """

    name: str = "operator"

    def conflict(self, a: Parsed, b: Parsed) -> Conflict | None:
        """The two texts' operators, where they differ."""
        if a.operators == b.operators:
            return None
        return Conflict(self.name, _joined(a.operators), _joined(b.operators))


@dataclass(frozen=True, slots=True)
class CurrencyGuard:
    """Vetoes other currencies, by sign in any language and by word in English.

    Conflict: `100 in $` / `100 in €`; `to dollars` / `to euros`. No conflict: `$100` / `100 dollars`.
    """

    name: str = "currency"

    def conflict(self, a: Parsed, b: Parsed) -> Conflict | None:
        """The currencies only one text has."""
        left, right = a.facets.get("currency", _NONE), b.facets.get("currency", _NONE)
        if left == right:
            return None
        return Conflict(self.name, _joined(sorted(left - right)), _joined(sorted(right - left)))


_NONE: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True)
class NameGuard:
    """Vetoes a capitalised name that the other text does not contain in any case.

    Conflict: `flights to Oslo` / `flights to Bergen`; `who founded Apple` / `who founded it`. No conflict: `is Oslo
    big` / `is oslo large`; `Donald Trump` / `Trump` (a longer form of one name); Title Case and ALL CAPS texts,
    whose capitals say nothing.
    """

    name: str = "name"

    def conflict(self, a: Parsed, b: Parsed) -> Conflict | None:
        """The names only one text has."""
        if a.names == b.names:
            return None
        left, right = _unmatched(a, b), _unmatched(b, a)
        return Conflict(self.name, left, right) if left or right else None


def _unmatched(a: Parsed, b: Parsed) -> str:
    """The first name of `a` that `b` does not contain in full or, where both have names, in part."""
    for name in a.names:
        missing = [word for word in name if word not in b.bag and not _respelt(word, b)]
        if missing and (len(missing) == len(name) or any(_strange(other, a) for other in b.names)):
            return _joined(missing)
    return ""


def _respelt(word: str, text: Parsed) -> bool:
    """True where the text has the word in the singular or plural, or a long name with one letter more or less."""
    singular = word[:-1] if word.endswith("s") else word
    if singular in text.bag or word + "s" in text.bag or (text.english and word in CLASSES):
        return True
    return len(word) > 5 and any(
        abs(len(word) - len(other)) == 1 and word[0] == other[0] and _one_letter_more(word, other)
        for name in text.names
        for other in name
    )


def _one_letter_more(a: str, b: str) -> bool:
    longer, shorter = (a, b) if len(a) > len(b) else (b, a)
    return any(longer[:at] + longer[at + 1 :] == shorter for at in range(len(longer)))


def _strange(name: tuple[str, ...], to: Parsed) -> bool:
    return not to.bag.issuperset(name)


_SYMMETRIC: Final = word_set("and or vs versus with between und et y e o oder ou")
"""Words that may stand between two things without giving them different parts to play."""

_LONGEST_SWAP: Final = 64
"""Words in which a swap is looked for; texts that differ in more are no minimal pair, and the search is cubic."""

_LIGHT: Final = word_set(
    """
    a an the is are was were be do does did can could will would should shall may might have has had so very please just
    what which who whom when where why how
    """
)
"""Words whose place in a sentence says little about who does what to whom."""


@dataclass(frozen=True, slots=True)
class SwapGuard:
    """Vetoes two texts that differ only in two parts changing places, light words aside.

    Conflict: `from Paris to London` / `from London to Paris`; `did A buy B` / `did B buy A`;
    `why is tea better than coffee` / `how is coffee better than tea`; `A asks B for A` / `A asks B for B`;
    `pass in A but fail on B` / `pass on B but fail in A`. No conflict: `A and B` / `B and A`; `A vs B` / `B vs A`;
    `what is the price` / `the price is what`.
    """

    name: str = "swap"

    def conflict(self, a: Parsed, b: Parsed) -> Conflict | None:
        """The parts that changed places."""
        if a.words == b.words:
            return None
        if not _LIGHT.issuperset(a.bag ^ b.bag):
            return self._crossed(a, b)
        left, right = (tuple(w for w in text.words if w not in _LIGHT) for text in (a, b))
        swapped = _swapped(left, right) if len(left) == len(right) and left != right else None
        return self._crossed(a, b) if swapped is None else Conflict(self.name, *swapped)

    def _crossed(self, a: Parsed, b: Parsed) -> Conflict | None:
        """Two things that change places in two clauses, whatever else is worded anew: `V X but W Y`, `V Y but W X`."""
        if not (a.steps and b.steps) or not _JOINING.isdisjoint(a.bag | b.bag):
            return None
        left, right = a.steps - b.steps, b.steps - a.steps
        if len(left) < 2 or len(right) < 2 or len(left) > _LONGEST_SWAP:
            return None
        for (v, x), (w, y) in combinations(sorted(left), 2):
            if (v, y) in right and (w, x) in right:
                return Conflict(self.name, f"{v} {x} {w} {y}", f"{v} {y} {w} {x}")
        return None


def _swapped(a: tuple[str, ...], b: tuple[str, ...]) -> tuple[str, str] | None:
    """X and Y, where `a` is `.. X M Y ..`, `b` is `.. Y M X ..`, and M is not a symmetric link.

    Or where one word stands for another that both texts have: `.. X ..` against `.. Y ..`.
    """
    start, end = 0, len(a)
    while a[start] == b[start]:
        start += 1
    while a[end - 1] == b[end - 1]:
        end -= 1
    left, right = a[start:end], b[start:end]
    if len(left) == 1:
        return left[0], right[0]
    if len(left) > _LONGEST_SWAP:
        return None
    for x in range(1, len(left)):
        if right[-x:] != left[:x]:
            continue
        for y in range(1, len(left) - x):
            middle = left[x : len(left) - y]
            if (
                right[:y] == left[-y:]
                and right[y : len(right) - x] == middle
                and not _even(left[:x], middle, left[-y:], a)
            ):
                return _joined(left[:x]), _joined(left[-y:])
    return None


def _even(x: tuple[str, ...], middle: tuple[str, ...], y: tuple[str, ...], text: tuple[str, ...]) -> bool:
    """True where exchanging X and Y changes nothing: symmetric links, whole clauses, adverbials (`in Rome in May`)."""
    if middle == ("but",) and len(x) > 1 and len(y) > 1:
        return True
    if _SYMMETRIC.issuperset(middle) or (not _SYMMETRIC.isdisjoint(middle) and "between" in text):
        return True
    return x[0] in _ADVERBIAL and y[0] in _ADVERBIAL


_JOINING: Final = word_set("and or between vs versus")
_ADVERBIAL: Final = word_set("in on at during for with by since until")

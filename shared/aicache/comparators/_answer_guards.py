"""Guards fit for answers: an answer says more than was asked, so only what contradicts counts, not what is added."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final

from aicache._guards import Conflict, Guard, Parsed, Quantity

__all__ = ["ClassesDiffer", "ComparisonsDiffer", "Mutual", "NumbersDiffer", "YesOrNo"]


@dataclass(frozen=True, slots=True)
class Mutual:
    """A guard whose conflicts count only where each text has something that the other lacks."""

    guard: Guard

    @property
    def name(self) -> str:
        """The guard's."""
        return self.guard.name

    def conflict(self, a: Parsed, b: Parsed) -> Conflict | None:
        """The guard's conflict, unless one side of it is empty."""
        found = self.guard.conflict(a, b)
        return found if found is not None and {found.left, found.right}.isdisjoint({"", "-"}) else None


@dataclass(frozen=True, slots=True)
class NumbersDiffer:
    """Vetoes two texts of which each has a number that the other lacks.

    Conflict: `within 30 days` / `within 14 days`; `5 EUR` / `5 USD`. No conflict: the same numbers in another order; a
    number that only one text has; `28.27` / `28.2743`; `5 to 7 days` / `5 days to 7 days`.
    """

    name: str = "number"

    def conflict(self, a: Parsed, b: Parsed) -> Conflict | None:
        """The numbers that only one text has."""
        left, right = _unmatched(a.quantities, b.quantities), _unmatched(b.quantities, a.quantities)
        return Conflict(self.name, _joined(left), _joined(right)) if left and right else None


def _unmatched(some: Iterable[Quantity], others: tuple[Quantity, ...]) -> list[Quantity]:
    by_value: dict[str, set[str]] = {}
    for value, unit in others:
        by_value.setdefault(value, set()).add(unit)
    return [one for one in dict.fromkeys(some) if not _has(one, by_value)]


def _has(one: Quantity, by_value: dict[str, set[str]]) -> bool:
    value, unit = one
    values = [value] if value in by_value else [other for other in by_value if _rounded(value, other)]
    return any(not unit or not by_value[other].isdisjoint({unit, ""}) for other in values)


def _rounded(a: str, b: str) -> bool:
    """Whether one is the other with fewer decimals; whole numbers are not taken for rounded ones."""
    places = min(len(value.partition(".")[2]) for value in (a, b))
    if places == 0:
        return False
    try:
        x, y = Decimal(a), Decimal(b)
        return abs(x - y) <= Decimal(1).scaleb(-places) / 2
    except InvalidOperation:
        return False


def _joined(found: Iterable[Quantity]) -> str:
    return " ".join(f"{value} {unit}".strip() for value, unit in found)


@dataclass(frozen=True, slots=True)
class ClassesDiffer:
    """Vetoes two texts of which each names a member of a closed class (days, places, ...) that the other lacks.

    Conflict: `closed on Monday` / `closed on Tuesday`. No conflict: `open on Monday` / `open on Monday and Tuesday`.
    """

    name: str = "class"

    def conflict(self, a: Parsed, b: Parsed) -> Conflict | None:
        """The members."""
        for kind in sorted(a.facets.keys() & b.facets.keys()):
            left, right = a.facets[kind] - b.facets[kind], b.facets[kind] - a.facets[kind]
            if left and right:
                return Conflict(self.name, " ".join(sorted(left)), " ".join(sorted(right)))
        return None


_COMPARISONS: Final = frozenset({"<", ">", "<=", ">=", "=<", "=>", "==", "!=", "≤", "≥", "≠", "===", "!=="})


@dataclass(frozen=True, slots=True)
class ComparisonsDiffer:
    """Vetoes other signs of comparison: `x < 3` / `x > 3`."""

    name: str = "operator"

    def conflict(self, a: Parsed, b: Parsed) -> Conflict | None:
        """The signs that only one text has, where each has one."""
        left = _COMPARISONS.intersection(a.operators).difference(b.operators)
        right = _COMPARISONS.intersection(b.operators).difference(a.operators)
        return Conflict(self.name, " ".join(sorted(left)), " ".join(sorted(right))) if left and right else None


_VERDICTS: Final = {
    **dict.fromkeys(("yes", "yeah", "yep", "correct", "true"), True),
    **dict.fromkeys(("no", "nope", "incorrect", "false"), False),
}
_EMPTY_WORDS: Final = frozenset({"problem", "worries", "matter", "doubt"})


@dataclass(frozen=True, slots=True)
class YesOrNo:
    """Vetoes a yes against a no at the beginning."""

    name: str = "verdict"

    def conflict(self, a: Parsed, b: Parsed) -> Conflict | None:
        """The two first words."""
        left, right = _verdict(a), _verdict(b)
        if left is None or right is None or left == right:
            return None
        return Conflict(self.name, a.words[0], b.words[0])


def _verdict(text: Parsed) -> bool | None:
    first, second = [*_first(text.words), "", ""][:2]
    return None if second in _EMPTY_WORDS else _VERDICTS.get(first)


def _first(words: tuple[str, ...]) -> Iterator[str]:
    yield from words[:2]

"""Guards that look words up in English lists. They stay silent unless both texts look English."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Final

from aicache._guards._base import Conflict, Parsed
from aicache._guards._classes import CLASSES, ONE_SIDED

__all__ = ["AntonymGuard", "ClassGuard", "DirectionGuard", "NegationGuard", "PrefixGuard"]


@dataclass(frozen=True, slots=True)
class NegationGuard:
    """Vetoes a text with another number of negations, or with the negation on another word.

    Conflict: `is it safe` / `is it not safe`; `with sugar` / `without sugar`; `not A but B` / `A but not B`.
    No conflict: `I can't log in` / `I cannot log in`. Works for the plain negations of some other languages too:
    `ist es sicher` / `ist es nicht sicher`.
    """

    name: str = "negation"

    def conflict(self, a: Parsed, b: Parsed) -> Conflict | None:
        """The negated words, where they differ."""
        if a.negations == b.negations:
            return None
        if len(a.negations) == len(b.negations) and not ("but" in a.bag and a.bag == b.bag):
            return None
        return Conflict(self.name, " ".join(a.negations) or "-", " ".join(b.negations) or "-")


@dataclass(frozen=True, slots=True)
class AntonymGuard:
    """Vetoes opposites: one text takes one side, the other text the other side.

    Conflict: `buy shares` / `sell shares`; `enable 2FA` / `disable 2FA`; `before lunch` / `after lunch`; `pros and
    cons` / `cons`. No conflict: `activate` / `enable`; texts that both name both sides.
    """

    name: str = "antonym"

    def conflict(self, a: Parsed, b: Parsed) -> Conflict | None:
        """The pair of opposites."""
        if a.poles == b.poles or not a.poles or not b.poles:
            return None
        for axis, _ in sorted(a.poles):
            left, right = _sides(axis, a), _sides(axis, b)
            if right and left != right and (len(left) == len(right) or _lists(a if len(left) > 1 else b)):
                return Conflict(self.name, " ".join(left), " ".join(right))
        return None


def _sides(axis: str, text: Parsed) -> tuple[str, ...]:
    """The sides of an opposite that a text takes: none, one or both."""
    first, second = axis.split("/")
    return ((first,) if (axis, True) in text.poles else ()) + ((second,) if (axis, False) in text.poles else ())


def _lists(text: Parsed) -> bool:
    """True where both sides are probably named side by side, not by chance."""
    return "and" in text.bag or "or" in text.bag


@dataclass(frozen=True, slots=True)
class ClassGuard:
    """Vetoes different members of one closed class: days, months, colours, languages, family, places, ...

    Conflict: `on Monday` / `on Friday`; `my mother` / `my father`; `in French` / `in German`; `when did` / `where did`.
    In classes that a question does not mention idly, a mention in one text only is a conflict too: `flights on
    Monday` / `flights`. No conflict: `mom` / `mother`; `today` / no mention of it.
    """

    name: str = "class"

    def conflict(self, a: Parsed, b: Parsed) -> Conflict | None:
        """The members only one text names."""
        if not (a.english and b.english) or a.facets == b.facets:
            return None
        for kind in sorted(a.facets.keys() | b.facets.keys()):
            left, right = a.facets.get(kind, _NONE), b.facets.get(kind, _NONE)
            if left != right and (kind in ONE_SIDED or (left - right and right - left)):
                return Conflict(self.name, " ".join(sorted(left)) or "-", " ".join(sorted(right)) or "-")
        return None


_NONE: Final[frozenset[str]] = frozenset()


_SYMMETRIC: Final = frozenset({"between", "distance", "far"})


def _pairs(text: str) -> frozenset[frozenset[str]]:
    return frozenset(frozenset(pair.split("/")) for pair in text.split())


_AGAINST: Final = _pairs("to/from into/from out/into out/to")
"""Prepositions that give one thing different parts."""
_AGAINST_TIMES: Final = _pairs(
    "until/from until/since until/after until/on until/in till/from till/since till/after till/on till/in by/after "
    "by/from by/since by/on within/after during/after during/before since/before in/since in/after for/since for/after"
)
"""The same, of a day, a month or a number."""
_TIMES: Final = frozenset(
    word for word, members in CLASSES.items() if not {"day", "month", "moment", "season"}.isdisjoint(dict(members))
)


@dataclass(frozen=True, slots=True)
class DirectionGuard:
    """Vetoes the same two things with their parts exchanged, however the rest is worded.

    Conflict: `fly from Paris to London` / `flights to Paris from London`; `convert miles to km` / `km into miles`;
    `is tea better than coffee` / `why is coffee better than tea`; `by Friday` / `after Friday`. No conflict:
    `from Paris to London` / `to London from Paris`; `distance from A to B` / `distance from B to A`.
    """

    name: str = "direction"

    def conflict(self, a: Parsed, b: Parsed) -> Conflict | None:
        """The two things."""
        if not (a.english and b.english):
            return None
        if not (_SYMMETRIC.isdisjoint(a.bag) and _SYMMETRIC.isdisjoint(b.bag)):
            return None
        for x, y in sorted(a.links) if b.links else ():
            if x != y and (y, x) in b.links and (x, y) not in b.links and (y, x) not in a.links:
                return Conflict(self.name, f"{x} {y}", f"{y} {x}")
        moved = [thing for thing, link in a.parts.items() if b.parts.get(thing, link) != link]
        for thing in moved:
            link, other = a.parts[thing], b.parts[thing]
            if _against(thing, frozenset((link, other))):
                return Conflict(self.name, f"{link} {thing}", f"{other} {thing}")
        return self._exchanged(moved, a.parts, b.parts)

    def _exchanged(self, moved: Sequence[str], a: Mapping[str, str], b: Mapping[str, str]) -> Conflict | None:
        """Two things that have each other's preposition: `for Japan as a German` / `for Germany as a Japanese`."""
        for x, y in combinations(moved, 2):
            if a[x] == b[y] and a[y] == b[x]:
                return Conflict(self.name, f"{a[x]} {x} {a[y]} {y}", f"{b[x]} {x} {b[y]} {y}")
        return None


def _against(thing: str, links: frozenset[str]) -> bool:
    return links in _AGAINST or (links in _AGAINST_TIMES and (thing in _TIMES or thing[0].isdecimal()))


_TURNED: Final = tuple(
    (one, other)
    for pair in _pairs("over/under hyper/hypo pre/post inter/intra in/out in/ex im/ex macro/micro endo/exo up/down")
    for one, other in permutations(sorted(pair))
)
"""Prefixes that turn each other round."""
_TURNED_STARTS: Final = tuple(one for one, _ in _TURNED)
_PREFIXES: Final = ("un", "non", "in", "im", "il", "ir", "dis", "mis", "de", "anti")
_TAIL: Final = 3
"""Letters at the end that a word and the same word with another prefix share at least."""
_LESS: Final = "less"[-_TAIL:]


@dataclass(frozen=True, slots=True)
class PrefixGuard:
    """Vetoes a word against the same word with a prefix that turns it round, in any domain.

    Conflict: `paid` / `unpaid`; `smokers` / `nonsmokers`; `connect` / `disconnect`; `painful` / `painless`;
    `overactive` / `underactive`.
    No conflict: both words in both texts; `informed` / `told`, where no `formed` stands against it.
    """

    name: str = "prefix"

    def conflict(self, a: Parsed, b: Parsed) -> Conflict | None:
        """The word and its opposite."""
        if not (a.english and b.english):
            return None
        left, right = a.bag - b.bag, b.bag - a.bag
        ends, others = {word[-_TAIL:] for word in left}, {word[-_TAIL:] for word in right}
        if ends.isdisjoint(others) and _LESS not in ends and _LESS not in others:
            return None
        return self._found(left, right) or self._found(right, left, turned=True) or self._exchanged(left, right)

    def _exchanged(self, left: frozenset[str], right: frozenset[str]) -> Conflict | None:
        for word in sorted(left):
            if not word.startswith(_TURNED_STARTS):
                continue
            for one, other in _TURNED:
                if word.startswith(one) and len(word) > len(one) + 3 and other + word[len(one) :] in right:
                    return Conflict(self.name, word, other + word[len(one) :])
        return None

    def _found(self, prefixed: frozenset[str], plain: frozenset[str], *, turned: bool = False) -> Conflict | None:
        for word in sorted(prefixed):
            base = _base(word, plain) if word.startswith(_PREFIXES) or word.endswith("less") else ""
            if base:
                return Conflict(self.name, *((base, word) if turned else (word, base)))
        return None


def _base(word: str, plain: frozenset[str]) -> str:
    """The word of `plain` that `word` turns round, or empty."""
    for prefix in _PREFIXES:
        if word.startswith(prefix) and word[len(prefix) :] in plain and len(word) > len(prefix) + 2:
            return word[len(prefix) :]
    if word.endswith("less") and word[:-4] + "ful" in plain:
        return word[:-4] + "ful"
    return ""

"""English guards on little words: how many and how often, whether one may or must, when, and who does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aicache._guards._base import Conflict, Facets, Parsed
from aicache._guards._lexicon import FUNCTION_WORDS

__all__ = ["MoodGuard", "RoleGuard", "ScopeGuard"]

_NONE: Final[frozenset[str]] = frozenset()
_LINKS: Final = frozenset({"and", "or"})
_EITHER: Final = frozenset({"between", "either", "both"})
_BEING: Final = frozenset({"is", "are", "was", "were", "be", "been", "being"})


def _other_members(name: str, a: Facets, b: Facets) -> Conflict | None:
    """The first kind of which each text has a member that the other lacks."""
    for kind in sorted((a.keys() & b.keys()) - {"only"}):
        left, right = a[kind] - b[kind], b[kind] - a[kind]
        if left and right:
            return Conflict(name, " ".join(sorted(left)), " ".join(sorted(right)))
    return None


@dataclass(frozen=True, slots=True)
class ScopeGuard:
    """Vetoes other quantifiers, bounds of numbers or frequencies, and `only` in one text or before another word.

    Conflict: `all my orders` / `some of my orders`; `at least two` / `exactly two`; `over 65` / `65`; `always` /
    `usually`; `only members can` / `members can`; `only I can see` / `I can only see`; `tea and milk` /
    `tea or milk`. No conflict: `all users` / `every user`; `usually` / no mention of it; `what are some` /
    `what are the`.
    """

    name: str = "scope"

    def conflict(self, a: Parsed, b: Parsed) -> Conflict | None:
        """The words that differ."""
        if not (a.english and b.english):
            return None
        if ("or" in a.bag) != ("or" in b.bag) and a.bag ^ b.bag == _LINKS and _EITHER.isdisjoint(a.bag):
            return Conflict(self.name, *(("and", "or") if "and" in a.bag else ("or", "and")))
        if a.scope == b.scope:
            return None
        left, right = a.scope.get("only", _NONE), b.scope.get("only", _NONE)
        if bool(left) != bool(right) or (left != right and left | right <= a.bag & b.bag and _words(left | right)):
            return Conflict(self.name, " ".join(("only", *sorted(left))), " ".join(("only", *sorted(right))))
        left, right = a.scope.get("bound", _NONE), b.scope.get("bound", _NONE)
        if bool(left) != bool(right) and left | right != {"exactly"}:
            return Conflict(self.name, " ".join(sorted(left)) or "-", " ".join(sorted(right)) or "-")
        return _other_members(self.name, a.scope, b.scope)


def _words(found: frozenset[str]) -> bool:
    return not any(word[0].isdecimal() for word in found)  # `got only 20` is `only got 20`.


@dataclass(frozen=True, slots=True)
class MoodGuard:
    """Vetoes a question of the past against one of now or later, and may against should against must.

    Conflict: `when did the sale start` / `when will the sale start`; `did I have to pay` / `do I have to pay`;
    `can I drive` / `should I drive`; `do I have to pay` / `am I allowed to pay`. No conflict: `can I pay` /
    `is it possible to pay`; `how do I pay` / `how can I pay`; `why did it fail` / `why does it fail`.
    """

    name: str = "mood"

    def conflict(self, a: Parsed, b: Parsed) -> Conflict | None:
        """The tenses or moods."""
        if a.mood == b.mood or not (a.english and b.english):
            return None
        return _other_members(self.name, a.mood, b.mood)


@dataclass(frozen=True, slots=True)
class RoleGuard:
    """Vetoes the same words with another one doing it, and the same numbers on other things.

    Conflict: `can I cancel with the airline` / `can the airline cancel`; `two coupons on one order` /
    `one coupon on two orders`; `people I follow` / `people who follow me`; `was Anna invited by Tom` /
    `did Anna invite Tom`. No conflict: `can I cancel` / `can you cancel`; `how do I install numpy` /
    `how can numpy be installed`.
    """

    name: str = "role"

    def conflict(self, a: Parsed, b: Parsed) -> Conflict | None:
        """Who does it, or the number and the thing."""
        if not (a.english and b.english):
            return None
        for thing in sorted(a.counted.keys() & b.counted.keys()) if a.counted != b.counted else ():
            if a.counted[thing].isdisjoint(b.counted[thing]):
                left, right = sorted(a.counted[thing]), sorted(b.counted[thing])
                return Conflict(self.name, f"{left[0]} {thing}", f"{right[0]} {thing}")
        if ("by" in a.bag) != ("by" in b.bag) and _turned(a, b):
            return Conflict(self.name, *(("by", "-") if "by" in a.bag else ("-", "by")))
        for verb, who, does in sorted(a.acts - b.acts) if b.acts else ():
            if (verb, who, not does) in b.acts - a.acts:
                return Conflict(self.name, *((f"{who} {verb}", verb) if does else (verb, f"{who} {verb}")))
        left_actor, right_actor = a.actor, b.actor
        if left_actor == right_actor or not left_actor or not right_actor:
            return None
        nouns = {left_actor, right_actor} - FUNCTION_WORDS
        if nouns and nouns <= a.bag and nouns <= b.bag and FUNCTION_WORDS.issuperset(a.bag ^ b.bag):
            return Conflict(self.name, left_actor, right_actor)
        return None


def _turned(a: Parsed, b: Parsed) -> bool:
    """Whether one text is passive, the other active, and both name the same things in the same order."""
    if "by" not in a.bag:
        a, b = b, a
    if _BEING.isdisjoint(a.bag) or not _BEING.isdisjoint(b.bag):
        return False
    left, right = _stems(a), _stems(b)
    after = a.words[a.words.index("by") + 1 :]
    return len(left) > 2 and left == right and not FUNCTION_WORDS.issuperset(after[:1])


def _stems(text: Parsed) -> list[str]:
    """The words with content, without the common endings of verbs and plurals."""
    return [
        word.removesuffix("ing").removesuffix("ed").removesuffix("s").removesuffix("e")
        for word in text.words
        if word not in FUNCTION_WORDS
    ]

"""What the little words of an English question say: how many, how often, only what, when, whether one may or must, who.

Each function reads the words of a parsed text once and gives what `_scope` compares.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Final

from aicache._guards._base import NONE, NOTHING, Facets, word_set
from aicache._guards._classes import CLASSES, CURRENCIES
from aicache._guards._lexicon import FUNCTION_WORDS

__all__ = ["acted_on", "acting", "counted", "mood", "scope"]


def _by_word(**lists: str) -> Mapping[str, str]:
    return MappingProxyType({word: name for name, words in lists.items() for word in words.split()})


# ---------------------------------------------------------------------------------------------------- scope

_QUANTIFIERS: Final = _by_word(
    all="all every each everyone everybody everything whole entire",
    most="most",
    half="half",
    some="some several few any anyone anybody anything someone somebody something",
    both="both",
    either="either",
)
_FREQUENCIES: Final = _by_word(
    always="always constantly",
    usually="usually normally generally typically often frequently",
    sometimes="sometimes occasionally",
    rarely="rarely seldom",
)
_PERIODS: Final = frozenset(word for word, members in CLASSES.items() if ("time unit", members[0][1]) in members)
_IDLE_BEFORE: Final = word_set("at after are is there me above")
"""Before a quantifier that says nothing: `at all`, `what are some`, `tell me some`."""
_BOUNDS: Final[Mapping[tuple[str, str], str]] = MappingProxyType(
    {
        ("at", "least"): "least",
        ("fewer", "than"): "less",
        ("less", "than"): "less",
        ("more", "than"): "more",
        ("greater", "than"): "more",
        ("at", "most"): "most",
        ("up", "to"): "most",
        ("", "exactly"): "exactly",
        ("", "precisely"): "exactly",
        ("", "over"): "more",
        ("", "under"): "less",
        ("", "above"): "more",
        ("", "below"): "less",
        ("", "within"): "less",
    }
)
_BEFORE_NUMBERS: Final = CURRENCIES | {"rs"}
"""What may stand between a bound and its number: `under INR 500`."""

_TELLING: Final = _QUANTIFIERS.keys() | _FREQUENCIES.keys() | {"only", "one"}


def scope(words: Sequence[str], numbers: Collection[int]) -> Facets:
    """The quantifiers, the bounds of numbers, how often, and what `only` stands before."""
    if not numbers and _TELLING.isdisjoint(words):
        return NOTHING
    found: dict[str, set[str]] = {}
    for at, word in enumerate(words):
        if word in _FREQUENCIES:
            found.setdefault("frequency", set()).add(_FREQUENCIES[word])
        elif word in _QUANTIFIERS and not _is_idle(words, at):
            found.setdefault("quantifier", set()).add(_QUANTIFIERS[word])
        elif word == "only" and words[at - 1 : at] != ["not"]:
            following = next((words[i] for i in range(at + 1, len(words)) if words[i] not in FUNCTION_WORDS), "")
            if following:
                found.setdefault("only", set()).add(following)
        if at in numbers or word == "one":
            end = at - 1 if at and words[at - 1] in _BEFORE_NUMBERS else at
            last, last_but_one = (words[end - 1] if end > 0 else ""), (words[end - 2] if end > 1 else "")
            bound = _BOUNDS.get((last_but_one, last)) or _BOUNDS.get(("", last))
            if bound is not None:
                found.setdefault("bound", set()).add(bound)
    return _frozen(found)


def _frozen(found: Mapping[str, Collection[str]]) -> Facets:
    return MappingProxyType({kind: frozenset(members) for kind, members in found.items()}) if found else NOTHING


def _is_idle(words: Sequence[str], at: int) -> bool:
    """Whether a quantifier says little: `at all`, `are some`, `every day`, `each other`, `the most`."""
    before, after = words[at - 1] if at else "", words[at + 1] if at + 1 < len(words) else ""
    if words[at] == "most":
        return before in {"the", "at", "a"} or not (after in _PLURALS_AFTER_MOST or after.endswith("s"))
    return before in _IDLE_BEFORE or after in _PERIODS or after in {"other", "right"}


_PLURALS_AFTER_MOST: Final = word_set("of people men women children")


# ----------------------------------------------------------------------------------------------------- mood

_POSSIBLE: Final = word_set("can could may might")
_NECESSARY: Final = word_set("required necessary obliged mandatory compulsory obligatory")
_ALLOWED: Final = word_set("allowed able possible permitted")
_ADVISED: Final = word_set("advisable recommended")
_POLITE: Final = word_set("hi hello hey please so and but also ok okay then well")
_FINITE: Final = _POSSIBLE | word_set("is are am was were do does did should must")
"""First verbs of questions that tell tense or mood."""
_REACH: Final = 6
"""Words behind the first verb of a question among which the rest of the verb stands."""


def mood(words: Sequence[str], starts: Sequence[bool]) -> Facets:
    """Whether it asks of the past, of now or of what will be, and whether one may, should or must."""
    found: dict[str, set[str]] = {}
    for at, begins in enumerate(starts):
        if not begins:
            continue
        first = at
        while first < len(words) - 1 and words[first] in _POLITE:
            first += 1
        asked = words[first] in {"when", "who", "where"}
        clause = words[first + asked : first + asked + _REACH]
        if clause and clause[0] in _FINITE:
            for kind, member in _moods(clause, asked=asked):
                found.setdefault(kind, set()).add(member)
    if "will" in words or _going_to(words) or _about_to(words):
        found.setdefault("tense", set()).add("future")
    if "did" in words or "already" in words:
        found.setdefault("tense", set()).add("past")
    return _frozen(found)


def _going_to(words: Sequence[str]) -> bool:
    """Whether something is going to happen; nobody is `going to the bank`."""
    if "going" not in words:
        return False
    following = zip(words, words[1:], words[2:], strict=False)
    return any(a == "going" and b == "to" and c not in _DETERMINERS for a, b, c in following)


def _about_to(words: Sequence[str]) -> bool:
    return "about" in words and ("about", "to") in pairwise(words)


def _moods(clause: Sequence[str], *, asked: bool) -> Iterator[tuple[str, str]]:
    verb, rest = clause[0], clause[1:]
    if verb in {"do", "does", "did"}:
        yield "doing", "past" if verb == "did" else "present"
    elif verb in {"is", "are", "was", "were"} and not asked and "there" not in rest and "it" not in rest:
        yield "being", "past" if verb in {"was", "were"} else "present"
    modal = _modal(verb, rest)
    if modal and "expect" not in rest:
        yield "modal", "must" if asked and modal == "should" else modal


def _modal(verb: str, rest: Sequence[str]) -> str:
    """Whether one may, should or must."""
    being = verb in {"is", "are", "am"}
    if verb in _POSSIBLE or (being and not _ALLOWED.isdisjoint(rest)):
        return "may"
    if verb == "should" or (being and not _ADVISED.isdisjoint(rest)):
        return "should"
    if verb == "must" or (being and not _NECESSARY.isdisjoint(rest)):
        return "must"
    if verb in {"do", "does", "did"} and ("need" in rest[:3] or ("have", "to") in pairwise(rest)):
        return "must"
    return ""


# ----------------------------------------------------------------------------------------------------- role

_AUXILIARIES: Final = word_set("do does did can could may will would should must")
_PASSIVE: Final = word_set("be been being get gets got have has")
_DETERMINERS: Final = word_set("a an the my our your his her their all only")


def acting(words: Sequence[str]) -> str:
    """Who does it: the word behind the first auxiliary of a question, or empty where that is not plain.

    A noun needs an article or the like before it, or is the plural; else it may be a verb: `how do reset it`.
    """
    if _AUXILIARIES.isdisjoint(words[:5]) or not _PASSIVE.isdisjoint(words) or "and" in words:
        return ""
    at = next(at for at, word in enumerate(words) if word in _AUXILIARIES)
    behind = words[at + 1 : at + 4]
    actor = next((word for word in behind if word not in _DETERMINERS), "")
    if actor in {"i", "we", "he", "she"}:
        return actor
    plain = behind[:1] == [actor] and not actor.endswith("s")
    if (
        actor in FUNCTION_WORDS
        or actor == words[-1]
        or len(actor) == 1
        or actor == "one"
        or actor.endswith("ing")
        or plain
    ):
        return ""
    return actor


def counted(words: Sequence[str], numbers: Collection[int]) -> Mapping[str, frozenset[str]]:
    """The numbers that stand before a word: `two coupons on one order` has `{"coupon": {"2"}, "order": {"1"}}`."""
    found: dict[str, frozenset[str]] = {}
    for at, word in enumerate(words[:-1]):
        number = word if at in numbers else "1" if word == "one" else ""
        thing = words[at + 1].removesuffix("s")
        if number and thing.isalpha() and thing not in FUNCTION_WORDS:
            found[thing] = found.get(thing, frozenset()) | {number}
    return MappingProxyType(found) if found else NOTHING


_OBJECTS: Final = MappingProxyType({"me": "i", "us": "we", "him": "he", "them": "they"})
_GIVING: Final = word_set(
    "get find give send show tell help let make buy book need want have take ask keep allow like bring cost lend pay"
)
"""Verbs with `me` for what the speaker gets: `get me a refund` is `I get a refund`."""


def acted_on(words: Sequence[str]) -> frozenset[tuple[str, str, bool]]:
    """Each verb beside a pronoun, with the pronoun and whether it does (`I follow`) or suffers it (`follow me`)."""
    if _PRONOUNS.isdisjoint(words):
        return NONE
    found = set()
    for before, one, other in zip(("", *words), words, words[1:], strict=False):
        if one in _SUBJECTS and other not in FUNCTION_WORDS and other not in _GIVING:
            found.add((other.removesuffix("s"), one, before not in {"was", "were"}))  # `was I charged`
        elif other in _OBJECTS and one not in FUNCTION_WORDS and one not in _GIVING:
            found.add((one.removesuffix("s"), _OBJECTS[other], False))
    return frozenset(found)


_SUBJECTS: Final = frozenset(_OBJECTS.values())
_PRONOUNS: Final = _SUBJECTS | _OBJECTS.keys()

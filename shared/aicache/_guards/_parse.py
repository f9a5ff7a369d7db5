"""Text -> Parsed: one pass over the words and dictionary look-ups."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from types import MappingProxyType
from typing import Final, TypedDict

from aicache._guards._base import NONE, NOTHING, Facets, Parsed, word_set
from aicache._guards._classes import CLASSES
from aicache._guards._clauses import acted_on, acting, counted, mood, scope
from aicache._guards._code import verbatim
from aicache._guards._language import FOREIGN_NEGATIONS, looks_english
from aicache._guards._lexicon import CLAUSE_WORDS, FUNCTION_WORDS, NEGATIONS
from aicache._guards._numerals import attach_units, read_number_words
from aicache._guards._opposites import POLES
from aicache._guards._scan import Scan, scanned
from aicache._guards._spelling import cases

__all__ = ["Parser", "collapsed", "parse"]


def collapsed(text: str) -> str:
    """The text in Unicode normal form C with every run of white space as one blank."""
    return " ".join((text if text.isascii() else unicodedata.normalize("NFC", text)).split())


# ------------------------------------------------------------------------------------------------- capitals


_EXCLAIMED: Final = word_set("ok okay asap fyi pls hi hello thanks")
"""Words that people write with capitals and that name nothing."""


def _names(text: str, scan: Scan) -> tuple[tuple[str, ...], ...]:
    """Runs of capitalised words inside sentences, unless the writing makes every word a capital one."""
    rest = text[1:]
    if "." not in text:  # Initials count as capitals, however they are written.
        rest = rest.replace(" I ", " ")
    if rest.islower():
        return ()
    capital, small = 0, 0
    run: list[str] = []
    runs: list[tuple[str, ...]] = []
    for word, raw, starts in zip(scan.words, scan.raw, scan.starts, strict=True):
        if word in FUNCTION_WORDS and not (raw.isupper() and len(raw) > 1):
            if not starts and word != "i":
                capital, small = capital + raw[0].isupper(), small + raw[0].islower()
        elif raw[0].isupper() and word not in _EXCLAIMED and (not starts or (raw.isupper() and len(raw) > 1)):
            run.append(word)
            continue
        if run:
            runs.append(tuple(run))
            run = []
    if run:
        runs.append(tuple(run))
    return tuple(runs) if small > capital or (small == capital == 0 and len(runs) < 2) else ()


# --------------------------------------------------------------------------------------------------- parse


_AMBIGUOUS_MONTHS: Final = frozenset({"march", "may"})
_DEICTIC: Final = frozenset({"this", "next", "last"})
_PERIODS: Final = frozenset(
    word
    for word, members in CLASSES.items()
    if any(kind in {"day", "month", "season", "time unit", "daypart"} for kind, _ in members)
)
_UNIT_CLASSES: Final = frozenset({"unit", "currency", "time unit"})
_QUESTION_AMOUNTS: Final = word_set("many much long far often old fast tall big")
_ACRONYM_PLACES: Final = MappingProxyType({"US": "usa", "UK": "uk", "USA": "usa", "UAE": "dubai"})


def _name_countries(scan: Scan) -> None:
    """Write the country of `US` and `United Kingdom` in one way."""
    words = scan.words
    if not _ACRONYM_PLACES.keys().isdisjoint(scan.raw):
        for at, raw in enumerate(scan.raw):
            words[at] = _ACRONYM_PLACES.get(raw, words[at])
    if "united" in words:
        at = words.index("united")
        country = {"states": "usa", "kingdom": "uk"}.get((*words[at + 1 : at + 2], "")[0])
        if country:
            words[at : at + 2] = [country]
            del scan.raw[at], scan.starts[at]
            scan.quantities = {(i - 1 if i > at else i): q for i, q in scan.quantities.items()}


_FACET_WORDS: Final = CLASSES.keys() | _AMBIGUOUS_MONTHS | _DEICTIC | {"how"}


def _english_facets(scan: Scan) -> dict[str, frozenset[str]]:
    words, quantities = scan.words, scan.quantities
    found: dict[str, set[str]] = {}
    for at, word in enumerate(words):
        if word not in _FACET_WORDS:
            continue
        for name, member in CLASSES.get(word, ()):
            if name in _UNIT_CLASSES and (at - 1 in quantities or (at + 1 in quantities and name == "currency")):
                continue  # It belongs to the number beside it.
            if name == "asker" and not (scan.starts[at] or words[at - 1] in {"and", "me", "know"}):
                continue  # "... when I pay" asks nothing.
            if member == "your" and "you" in words[:at]:
                continue  # "How do you keep your ..." asks for anybody's.
            found.setdefault(name, set()).add(member)
        if word in _AMBIGUOUS_MONTHS and (at - 1 in quantities or at + 1 in quantities):
            found.setdefault("month", set()).add(word)
        if word in _DEICTIC and at + 1 < len(words) and words[at + 1] in _PERIODS:
            found.setdefault("moment", set()).add(f"{word}-{words[at + 1]}")
        if word == "how" and at + 1 < len(words) and words[at + 1] in _QUESTION_AMOUNTS:
            asked = words[at + 1] if words[at + 2 : at + 3] not in (["time"], ["longer"]) else "long"
            found.setdefault("amount asked", set()).add(f"how-{asked}")
    return {name: frozenset(members) for name, members in found.items()}


_PARTICLES: Final = MappingProxyType(
    {
        form: (base, word_set(particles))
        for forms, particles in (
            ("turn turns turned turning", "on off"),
            ("switch switches switched switching", "on off"),
            ("power powers powered powering", "on off"),
            ("sign signs signed signing", "in out up"),
            ("log logs logged logging", "in out"),
            ("opt opts opted opting", "in out"),
            ("check checks checked checking", "in out"),
        )
        for base in (forms.split()[0],)
        for form in forms.split()
    }
)
"""Verbs whose meaning lies in the particle: inflected form -> the verb, its particles."""
_PARTICLE_REACH: Final = 4
"""Words after the verb among which the particle may stand: `turn the weekly email reports off`."""


def _poles(words: Sequence[str]) -> frozenset[tuple[str, bool]]:
    told: set[str] = POLES.keys() & words
    if not _PARTICLES.keys().isdisjoint(words):
        told |= POLES.keys() & _particle_verbs(words)
    return NONE.union(*[POLES[word] for word in told]) or NONE


def _particle_verbs(words: Sequence[str]) -> Iterator[str]:
    """`turn-off` for `turn ... off`."""
    for at, word in enumerate(words):
        if word in _PARTICLES:
            verb, particles = _PARTICLES[word]
            found = next((after for after in words[at + 1 : at + 2 + _PARTICLE_REACH] if after in particles), None)
            if found is not None:
                yield f"{verb}-{found}"


def _negations(words: Sequence[str], negators: frozenset[str]) -> tuple[str, ...]:
    """For each negation the next word with content."""
    if negators.isdisjoint(words):
        return ()
    scopes = []
    for at, word in enumerate(words):
        if word in negators and not _idle(words, at):
            after = (words[i] for i in range(at + 1, len(words)) if words[i] not in FUNCTION_WORDS)
            scopes.append(next(after, ""))
    return tuple(scopes)


_ASKERS: Final = word_set("what where who why when how which if")


def _idle(words: Sequence[str], at: int) -> bool:
    """True for a negation that asks the same question: `... or not`, `why not`, `I don't know how`, `not only`."""
    before, after, next_but_one = words[at - 1] if at else "", *(*words[at + 1 : at + 3], "", "")[:2]
    return (
        (before == "or" and after in {"", "why"})
        or before == "why"
        or after == "only"
        or (after in {"know", "understand", "sure"} and next_but_one in _ASKERS)
    )


_PREPOSITIONS: Final = word_set(
    """
    to into from for as in of by on at with than over before after against until till since within during
    """
)
_ARTICLES: Final = word_set("a an the my your our his her their")
_PLACES: Final = MappingProxyType(
    {word: member for word, members in CLASSES.items() for kind, member in members[::-1] if kind == "place"}
)
"""The one name of each place: `german` and `germany`."""
_ORDERING: Final = frozenset({"to", "into", "than", "over", "before", "after", "from"})


def _relations(words: Sequence[str]) -> tuple[frozenset[tuple[str, str]], Mapping[str, str]]:
    """What the prepositions say, in one pass: pairs and parts.

    A pair (from, to) for each ordering link between two words with content, `to X from Y` turned round. A part for
    each word right behind a preposition, articles aside: the word (places by their one name) and the preposition.
    """
    if _PREPOSITIONS.isdisjoint(words):
        return NONE, NOTHING
    pairs: set[tuple[str, str]] = set()
    parts: dict[str, str] = {}
    last = link = ordering = before = ""
    for word in words:
        if word in _PREPOSITIONS:
            link = "out" if word == "of" and before == "out" else word
            ordering = word if word in _ORDERING and last else ordering
        elif word not in _ARTICLES:
            if link:
                parts[_PLACES.get(word, word)] = link
                link = ""
            if word not in FUNCTION_WORDS:
                if ordering:
                    pairs.add((word, last) if ordering == "from" else (last, word))
                    ordering = ""
                last = word
        before = word
    return frozenset(pairs) or NONE, MappingProxyType(parts)


def parse(text: str) -> Parsed:
    """Take a text apart for the guards. Pure; some tens of microseconds for a question of 12 words."""
    text = collapsed(text)
    scan = scanned(text)
    _name_countries(scan)
    english = looks_english(scan.words)
    facets: dict[str, frozenset[str]] = {}
    if english:
        read_number_words(scan)
        attach_units(scan)
        facets = _english_facets(scan)
    if scan.currencies:
        facets["currency"] = facets.get("currency", NONE) | frozenset(scan.currencies)
    words = tuple(scan.words)
    links, parts = _relations(words) if english else (NONE, NOTHING)
    little = _little_words(scan) if english else {}
    return Parsed(
        text=text,
        words=words,
        bag=frozenset(words),
        quantities=tuple(scan.quantities.values()),
        identifiers=frozenset(scan.identifiers) or NONE,
        steps=_steps(words),
        letters=_letters(scan) if english else NONE,
        operators=_operators(scan, english=english),
        names=_names(text, scan),
        english=english,
        facets=MappingProxyType(facets) if facets else NOTHING,
        poles=_poles(words) if english else NONE,
        links=links,
        parts=parts,
        negations=_negations(words, NEGATIONS if english else FOREIGN_NEGATIONS),
        cases=cases(text, english=english),
        verbatim=verbatim(text),
        **little,
    )


def _steps(words: Sequence[str]) -> frozenset[tuple[str, str]]:
    if CLAUSE_WORDS.isdisjoint(words):
        return NONE  # Nobody asks.
    content = [word.removesuffix("ly") for word in words if word not in FUNCTION_WORDS]
    return frozenset(pairwise(content))


def _letters(scan: Scan) -> frozenset[str]:
    """Single letters that name something. `s` and `t` are what is left of `it s` and `don t`."""
    found = {word for word in scan.words if len(word) == 1 and word.isalpha()} - _NO_LETTERS
    if "a" in found and not any(raw == "A" and not starts for raw, starts in zip(scan.raw, scan.starts, strict=True)):
        found.remove("a")
    return frozenset(found) or NONE


_NO_LETTERS: Final = frozenset("ist")


class _LittleWords(TypedDict, total=False):
    scope: Facets
    mood: Facets
    actor: str
    acts: frozenset[tuple[str, str, bool]]
    counted: Facets


def _little_words(scan: Scan) -> _LittleWords:
    words, numbers = scan.words, scan.quantities
    return {
        "scope": scope(words, numbers),
        "mood": mood(words, scan.starts),
        "actor": acting(words),
        "acts": acted_on(words),
        "counted": counted(words, numbers) if numbers else NOTHING,
    }


_OPERATOR_WORDS: Final = MappingProxyType({"plus": "+", "minus": "-", "times": "*"})


def _operators(scan: Scan, *, english: bool) -> tuple[str, ...]:
    """The operators in order, `2 plus 2` read as `2 + 2`, and a lone dash only where numbers surround it."""
    numbers = scan.quantities
    if not scan.operators and not numbers:
        return ()
    found = [(at, sign) for at, sign in scan.operators if sign != "-" or (at in numbers and at - 1 in numbers)]
    if english and numbers and not _OPERATOR_WORDS.keys().isdisjoint(scan.words):
        for at, word in enumerate(scan.words):
            if word in _OPERATOR_WORDS and at - 1 in numbers and at + 1 in numbers:
                found.append((at, _OPERATOR_WORDS[word]))
    return tuple(sign for _, sign in sorted(found))


class Parser:
    """`parse` with the last results kept, least recently used first out. Safe from any thread.

    It belongs to the matcher that uses it; the texts it keeps are those of the last lookups and their candidates.
    """

    __slots__ = ("_kept",)

    def __init__(self, size: int = 2048) -> None:
        self._kept = lru_cache(maxsize=size)(parse)

    def __call__(self, text: str) -> Parsed:
        """The text, parsed."""
        return self._kept(text)

"""Guards against differences that an uncased embedder cannot see: letter case and accents.

Models such as MiniLM lower-case a text and drop its accents, so `use it` and `use IT` have a cosine of 1. Most
differences of case mean nothing, for many people type everything in lower case. A difference counts only where the
word is known to change its meaning with its case, or where case is part of a notation.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from aicache._guards._base import NOTHING, Conflict, Parsed, word_set
from aicache._guards._code import CODE_WORDS, about_code, writes_small

__all__ = ["AccentGuard", "CaseGuard", "cases"]

_ACRONYMS: Final = word_set(
    """
    it us who aids am or me hi la ma pa al oh co de un eu eta cat pet sat act ram rest soap dos mac sap sec sip gap map
    mad fat fed nice ice ira pip pop era ace aim arc bar cap care cart dare dart ear fit gate hope lamp pal pep rip sad
    salt san seal smart spa star swat tap tar tin top van war wasp win wine zip apt age ada ms mp
    """
)
"""Acronyms that are other words in lower case. Left out: words one shouts (`ALL`, `NOW`), and `PIN`, `ID` or `OK`,
which people write in either case and mean the same."""

_CAPITONYMS: Final = word_set(
    """
    polish turkey china march may august job nice reading rich mark bill frank grace rose jack hope faith joy dawn
    windows word excel office teams slack square target shell go rust swift ruby dart oracle mercury lent mass natal
    ares sue pat drew art gene guy miles herb dale cliff brook will chase chuck rob josh wade wales lima cork bath
    mobile jersey guinea tangier cologne bologna jordan chad mali rugby scone titan ford dodge mini fiat lotus galaxy
    """
)
"""Names that are other words in lower case: `Polish` and `polish`, `May` and `may`."""

_PREFIXED: Final = word_set("mw mwh mv ma mj mg ms mm ml mn mpa mhz mbar mohm mol nm pa")
"""Units whose first letter's case is a factor (`mW`, `MW`) or another unit."""
_BITS: Final = frozenset(
    f"{prefix}{unit}" for prefix in ("k", "m", "g", "t", "p", "ki", "mi", "gi", "ti") for unit in ("b", "bps", "bit/s")
)
"""Amounts of bits or bytes, told apart by the `b`: `Mb`, `MB`. All lower case may be either."""

_LETTERS: Final = re.compile(r"[^\W\d_]+")
_LETTERS_DOTTED: Final = re.compile(rf"(?:[^\W\d_]\.){{2,}}|{_LETTERS.pattern}")
"""The same in a text with points, where initials are one word."""
_ENDS: Final = ".!?:…。！？\n"
_SHOUTED: Final = 3
"""Words from which on a text without a small letter is shouted; `WHO` and `AIDS test` may be acronyms."""

_TELLING: Final = _ACRONYMS | _CAPITONYMS | _PREFIXED | _BITS
_ALWAYS_CODE: Final = frozenset({"none"})
_NO_NAMES: Final = frozenset("ik")
"""Letters that are written in either case and mean the same."""
_JOINT: Final = re.compile(r"['’-]")
"""What joins a single letter to a longer word."""

LOWER: Final = "l"
TITLE: Final = "T"
UPPER: Final = "U"


def cases(text: str, *, english: bool) -> Mapping[str, tuple[str, ...]]:
    """The words whose case may tell, and for each occurrence the ways it is perhaps meant.

    A way is `l` (small), `T` (capital first) or `U` (all capitals; of letters and units, a capital that tells). A
    capital that begins a sentence may stand for a small letter, and so may those of a shouted or a Title Case text.
    """
    words = _words(text).findall(text)
    keys = [word.casefold() for word in words]
    code = _code_words(keys)
    telling: Sequence[int] = [
        at for at, key in enumerate(keys) if key in _TELLING or key in code or (len(key) == 1 and key not in _NO_NAMES)
    ]
    foreign = not english and not text.islower()  # Perhaps every word tells.
    if not telling and not foreign:
        return NOTHING
    loose, shouted = [False] * len(words), False
    if foreign or not all(words[at].islower() for at in telling):
        every, loose, shouted = _by_capitals(text, english=english)
        telling = range(len(words)) if every else telling
    if _JOINT.search(text):
        spans = [match.span() for match in _words(text).finditer(text)]
        telling = [at for at in telling if len(words[at]) > 1 or not _is_part(text, *spans[at])]
    kept: dict[str, list[str]] = {}
    for at in telling:
        word, key = words[at], keys[at]
        if "." in word:
            continue
        way = _ways(word, key, loose=loose[at], shouted=shouted)
        if key in code and key not in _TELLING:
            way = LOWER + TITLE if way == UPPER or writes_small(text, keys) else way  # `NULL` is `null`.
        kept.setdefault(key, []).append(way)
    return MappingProxyType({key: tuple(ways) for key, ways in kept.items()}) if kept else NOTHING


def _words(text: str) -> re.Pattern[str]:
    return _LETTERS_DOTTED if "." in text else _LETTERS


def _by_capitals(text: str, *, english: bool) -> tuple[bool, list[bool], bool]:
    """Whether every word tells, in which words a capital may stand for a small letter, whether the text is shouted."""
    found = [(match.group(), match.start()) for match in _words(text).finditer(text)]
    first = [word[0].isupper() and _begins(text, start) for word, start in found]
    shouted = len(found) >= _SHOUTED and text.isupper()
    inner = [word for (word, _), begins in zip(found, first, strict=True) if not begins and word not in {"I", "i"}]
    capitals = sum(word[0].isupper() for word in inner)
    # German nouns have capitals, so elsewhere than in English all words must.
    titled = len(inner) > 1 and (capitals * 2 > len(inner) if english else capitals == len(inner))
    every = not english and 0 < capitals < len(inner)  # A writer who uses capitals.
    return every, [shouted or titled or (len(found) > 1 and begins) for begins in first], shouted


def _code_words(keys: Collection[str]) -> Collection[str]:
    """The words whose case tells because the text is about code. `None` inside a sentence always is."""
    return CODE_WORDS if about_code(keys) else _ALWAYS_CODE


def _begins(text: str, start: int) -> bool:
    """Whether a word that starts here begins a sentence."""
    near = max(0, start - 8)  # A window, so that a long text takes linear time.
    before = text[near:start].rstrip(" \"'“”‘’«»`([{¿¡*_-")
    return before[-1] in _ENDS if before else near == 0


def _is_part(text: str, start: int, end: int) -> bool:
    """Whether a single letter is part of a longer word: `t-shirt`, `l'eau`, `that's`."""
    return (
        (text[end : end + 1] in {"-", "'", "’"} and text[end + 1 : end + 2].isalpha())
        or text[start - 1 : start] in {"'", "’"}
        or (text[start - 1 : start] == "-" and text[start - 2 : start - 1].isalpha())
    )


def _ways(word: str, key: str, *, loose: bool, shouted: bool) -> str:
    if shouted:
        return LOWER + (UPPER if len(word) == 1 or key in _PREFIXED or key in _BITS else TITLE)
    if len(word) == 1 or key in _PREFIXED:
        # The first letter alone counts.
        upper = word[0].isupper()
        return (LOWER + UPPER if loose else UPPER) if upper else LOWER
    if key in _BITS:
        return LOWER + UPPER if word.islower() else (UPPER if "B" in word else LOWER)
    if word.isupper():
        return UPPER
    if word[0].isupper():
        return LOWER + TITLE if loose else TITLE
    return LOWER


@dataclass(frozen=True, slots=True)
class CaseGuard:
    """Vetoes the same word in another case, where its case tells what it means.

    Conflict: `use it` / `use IT`; `in Polish` / `in polish`; `ls -r` / `ls -R`; `Mb` / `MB`; `5 mW` / `5 MW`;
    `print "a"` / `print "A"`; `getValue` / `getvalue`; `./Build` / `./build`; `return None` / `return none`; `$HOME`
    / `$home`. No conflict: `reset my PIN` / `reset my pin`; `is Oslo big` / `is oslo big`; `JavaScript` /
    `javascript`; the capital that begins a sentence; Title Case and ALL CAPS texts, whose capitals say nothing.
    """

    name: str = "case"

    def conflict(self, a: Parsed, b: Parsed) -> Conflict | None:
        """The first word whose case differs."""
        if a.text == b.text:
            return None
        if a.verbatim or b.verbatim:
            found = _respelt(a, b)
            if found is not None:
                return Conflict(self.name, *found)
        for key, left in a.cases.items():
            right = b.cases.get(key)
            if right is not None and left != right and _differ(key, left, right):
                return Conflict(self.name, _shown(key, left), _shown(key, right))
        return None


def _respelt(a: Parsed, b: Parsed) -> tuple[str, str] | None:
    """A part of one text that the other has in another case only."""
    if [part.casefold() for part in a.verbatim] == [part.casefold() for part in b.verbatim]:
        found = next(((one, other) for one, other in zip(a.verbatim, b.verbatim, strict=True) if one != other), None)
        if found is not None:
            return found
    for part in a.verbatim:
        if part not in b.text and (other := _anywhere(part, b.text)):
            return part, other
    for part in b.verbatim:
        if part not in a.text and (other := _anywhere(part, a.text)):
            return other, part
    return None


def _anywhere(part: str, text: str) -> str:
    """The place of a text that is `part` in another case and no piece of a longer word, or empty."""
    at = text.lower().find(part.lower())
    end = at + len(part)
    if at < 0 or text[at - 1 : at].isalnum() or (part[-1].isalnum() and text[end : end + 1].isalnum()):
        return ""
    return text[at:end]


def _differ(key: str, a: Sequence[str], b: Sequence[str]) -> bool:
    if len(a) == len(b):
        return any(_apart(key, one, other) for one, other in zip(a, b, strict=True))
    return any(all(_apart(key, one, other) for other in b) for one in a) or any(
        all(_apart(key, one, other) for other in a) for one in b
    )


def _apart(key: str, one: str, other: str) -> bool:
    """Whether two occurrences cannot mean the same word."""
    if not set(one).isdisjoint(other):
        return False
    if len(key) == 1 or key in _PREFIXED or key in _BITS or key in _ACRONYMS:
        return (one == UPPER) != (other == UPPER) or key in _CAPITONYMS
    # Capitals for emphasis are no other word than a name's one capital.
    return not (UPPER in one and TITLE in other) and not (TITLE in one and UPPER in other)


def _shown(key: str, ways: Iterable[str]) -> str:
    return " ".join(key.upper() if way == UPPER else key.title() if way == TITLE else key for way in ways)


# -------------------------------------------------------------------------------------------------- accents


@dataclass(frozen=True, slots=True)
class AccentGuard:
    """Vetoes the same letters with other accents or marks.

    Conflict: `drucken` / `drücken`; `pêcher` / `pécher`; `años` / `anos`. No conflict: the same word composed in
    another way (`é` as one or two characters); `Über` / `über`.
    """

    name: str = "accent"

    def conflict(self, a: Parsed, b: Parsed) -> Conflict | None:
        """The first word whose accents differ."""
        if (a.text.isascii() and b.text.isascii()) or a.text == b.text:
            return None
        left, right = _by_letters(a.text), _by_letters(b.text)
        for key, forms in left.items():
            others = right.get(key)
            if others is None or forms == others:
                continue
            if len(forms) == len(others) or set(forms) != set(others):
                return Conflict(self.name, " ".join(forms), " ".join(others))
        return None


def _by_letters(text: str) -> dict[str, list[str]]:
    """The words of a text by their bare letters."""
    found: dict[str, list[str]] = {}
    for word in _chunks(text.casefold()):
        key = word if word.isascii() else _bare(word)
        found.setdefault(key, []).append(word)
    return found


def _chunks(text: str) -> Iterator[str]:
    """The words of a text, marks included, punctuation not."""
    for chunk in unicodedata.normalize("NFC", text).replace("’", " ").replace("'", " ").split():
        word = "".join(c for c in chunk if unicodedata.category(c)[0] not in "PS")
        if word:
            yield word


def _bare(word: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", word) if unicodedata.category(c) != "Mn")

"""Opposites of English by word, from the list in `_opposite_pairs`.

A side lists base forms; `_inflected` adds the regular endings once, at import, so that parsing a text is dictionary
look-ups only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

from aicache._guards._opposite_pairs import OPPOSITE_PAIRS

__all__ = ["POLES", "Pole"]

Pole: TypeAlias = tuple[str, bool]
"""An axis, named by the first words of its sides, and whether it is the first side: `("buy/sell", True)`."""


def _inflected(word: str) -> Iterator[str]:
    """The word and its regular forms; a form that is no word does no harm, for nobody writes it."""
    yield word
    if not word.isalpha() or len(word) < 3:
        return
    if word.endswith("y") and word[-2] not in "aeiou":
        yield from (word[:-1] + "ies", word[:-1] + "ied", word + "ing")
    elif word.endswith("e"):
        yield from (word + "s", word + "d", word[:-1] + "ing")
    else:
        yield from (word + ("es" if word.endswith(("s", "x", "z", "ch", "sh")) else "s"), word + "ed", word + "ing")
        if word[-1] in "bdglmnprt" and word[-2] in "aeiou" and word[-3] not in "aeiou":
            yield from (word + word[-1] + "ed", word + word[-1] + "ing")


_IRREGULAR: Final[Mapping[str, str]] = MappingProxyType(
    {
        "bought": "buy",
        "sold": "sell",
        "began": "begin",
        "begun": "begin",
        "grew": "grow",
        "grown": "grow",
        "rose": "rise",
        "fell": "fall",
        "lost": "lose",
        "won": "win",
        "left": "left",
        "sent": "send",
        "lent": "lend",
        "gave": "give",
        "given": "give",
        "took": "take",
        "taken": "take",
        "taught": "teach",
        "learnt": "learn",
        "froze": "freeze",
        "frozen": "freeze",
        "hid": "hide",
        "wrote": "write",
        "written": "write",
    }
)


def _sides() -> Mapping[str, tuple[Pole, ...]]:
    found: dict[str, tuple[Pole, ...]] = {}
    for line in OPPOSITE_PAIRS.strip().splitlines():
        halves = [half.split() for half in line.split("|")]
        axis = f"{halves[0][0]}/{halves[1][0]}"
        for side, words in zip((True, False), halves, strict=True):
            for form in (form for word in words for form in _inflected(word)):
                if (axis, side) not in found.get(form, ()):
                    found[form] = (*found.get(form, ()), (axis, side))
    for form, base in _IRREGULAR.items():
        found[form] = tuple(dict.fromkeys((*found.get(form, ()), *found.get(base, ()))))
    return MappingProxyType(found)


POLES: Final = _sides()
"""Word -> the sides of opposites it takes: `"sold" -> (("buy/sell", False),)`."""

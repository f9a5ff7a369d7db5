"""Numbers in English words, and the units behind numbers."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from aicache._guards._base import Quantity
from aicache._guards._classes import CURRENCIES, UNIT_WORDS
from aicache._guards._lexicon import NUMBER_WORDS, ORDINAL_WORDS, SCALE_WORDS
from aicache._guards._scan import Scan, canonical

__all__ = ["attach_units", "read_number_words"]


_NUMERALS: Final = NUMBER_WORDS.keys() | ORDINAL_WORDS.keys() | SCALE_WORDS.keys()


def read_number_words(scan: Scan) -> None:
    """Turn number words into quantities, in place: `twenty five` -> 25, `2 million` -> 2000000, `third` -> 3."""
    words = scan.words
    if _NUMERALS.isdisjoint(words):
        return
    old, scan.words = words, []
    raw, scan.raw = scan.raw, []
    starts, scan.starts = scan.starts, []
    known, scan.quantities = scan.quantities, {}
    at = 0
    while at < len(old):
        value, unit, end = _number_at(old, known, at)
        if end == at:
            scan.words.append(old[at])
            scan.raw.append(raw[at])
            at += 1
        else:
            scan.quantities[len(scan.words)] = (value, unit)
            scan.words.append(value)
            scan.raw.append(value)
            at = end
        scan.starts.append(starts[at - 1])


def _number_at(words: Sequence[str], known: dict[int, Quantity], at: int) -> tuple[str, str, int]:
    """The number that begins at a word: its value, its unit, and where it ends (`at` if there is none)."""
    end, total, current = at, Decimal(0), None
    unit = ""
    while end < len(words):
        word = words[end]
        if end in known and end == at:
            if not words[at].replace(".", "").isdecimal():
                return (*known[at], at + 1)
            current, unit = Decimal(words[at]), known[at][1]
        elif word in NUMBER_WORDS and (current is None or _continues(current, NUMBER_WORDS[word])):
            if word == "one" and not _counts(words, end, current):
                break
            current = (current or Decimal(0)) + NUMBER_WORDS[word]
        elif word in ORDINAL_WORDS and _ranks(words, end, current):
            current = (current or Decimal(0)) + ORDINAL_WORDS[word]
            end += 1
            break
        elif word in SCALE_WORDS and (current is not None or words[end - 1 : end] == ["a"]):
            current = (current or Decimal(1)) * SCALE_WORDS[word]
            if SCALE_WORDS[word] >= 1000:
                total, current = total + current, Decimal(0)
        elif word != "and" or not _goes_on(words, end, current):
            break
        end += 1
    if current is None:
        return "", "", at
    return canonical(format(total + current, "f")), unit, end


def _continues(current: Decimal, value: int) -> bool:
    """True where a number word goes on the number before it: `twenty` `five`, `hundred` `ten`, not `two` `three`."""
    if current == 0:
        return True
    return (current % 100 == 0 and value < 100) or (current % 10 == 0 and current % 100 >= 20 and value < 10)


def _goes_on(words: Sequence[str], at: int, current: Decimal | None) -> bool:
    """True for the `and` of `one hundred and twenty`."""
    follows = words[at + 1] if at + 1 < len(words) else ""
    return bool(current) and current is not None and current % 100 == 0 and follows in NUMBER_WORDS


def _counts(words: Sequence[str], at: int, current: Decimal | None) -> bool:
    """True where `one` is the number: before a unit or a scale, or behind tens; not in `which one`."""
    follows = words[at + 1] if at + 1 < len(words) else ""
    return current is not None or follows in UNIT_WORDS or follows in SCALE_WORDS


def _ranks(words: Sequence[str], at: int, current: Decimal | None) -> bool:
    """True where an ordinal is one: `a second`, `second` as time and `at first` are not."""
    if current is not None:
        return _continues(current, ORDINAL_WORDS[words[at]])
    before = words[at - 1] if at else ""
    return before not in {"a", "per", "at", "every", "each"}


def attach_units(scan: Scan) -> None:
    """Give each bare number the unit behind it or the currency before it: `5` `kilos` -> ("5", "kg")."""
    for at, (value, unit) in scan.quantities.items():
        if not unit:
            after = UNIT_WORDS.get(scan.words[at + 1], "") if at + 1 < len(scan.words) else ""
            before = UNIT_WORDS.get(scan.words[at - 1], "") if at else ""
            scan.quantities[at] = (value, after or (before if before in CURRENCIES else ""))

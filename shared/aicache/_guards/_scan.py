"""Text -> words, numbers, identifiers and operators, in one pass; no word list of a language but short forms."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import Final

from aicache._guards._base import Quantity
from aicache._guards._classes import UNIT_WORDS
from aicache._guards._lexicon import CONTRACTIONS, FUNCTION_WORDS

__all__ = ["Scan", "canonical", "scaled", "scanned"]

_LEADING: Final = "\"'“”‘’«»`([{¿¡*_"
_TRAILING: Final = "\"'“”‘’«»`)]}.,;:!?…*_"
_TRAILING_BLANK: Final = _TRAILING + " "
_ENDS_SENTENCE: Final = frozenset(".!?:…")

_CURRENCY_SIGNS: Final = MappingProxyType(
    {"$": "usd", "€": "eur", "£": "gbp", "¥": "jpy", "₹": "inr", "₽": "rub", "₩": "krw", "฿": "thb", "₺": "try"}
)
_SIGNS: Final = re.escape("".join(_CURRENCY_SIGNS))

_LATIN: Final = "A-Za-z\u00c0-\u024f"
"""Letters that make an identifier with digits; other scripts write numbers inside a sentence without blanks."""

_PIECE: Final = re.compile(
    rf"""
      (?P<address> https?://\S+ | [\w.+-]+@[\w-]+\.[\w.-]+ )
    | (?P<date>    \d{{4}}-\d\d?-\d\d?(?!\w) | \d\d?[/.]\d\d?[/.]\d{{4}}(?!\w) )
    | (?P<clock>   \d\d?:\d\d(?!\d) )
    | (?P<version> v?\d+(?:\.\d+){{2,}}\w* | v\d+(?:\.\d+)*(?!\w) )
    | (?P<minus>   \A [-\u2212] (?=\d) )
    | (?P<number>  (?<![{_LATIN}]) [{_SIGNS}]? \d++ (?:[,.'’]\d++)*+ (?: st | nd | rd | th )?
                   (?![{_LATIN}_]) [{_SIGNS}]? )
    | (?P<amount>  (?<![{_LATIN}]) \d++ (?:[.,]\d++)*+ -?
                   (?i: [ap]m | [kmgt]b | [kmcg]?m | [km]?g | m?l | [kmg]?hz | k?w | ft | lbs? | oz | hrs? | h | mins?
                      | usd | eur | gbp | inr | rs | k ) (?![{_LATIN}\d_]) )
    | (?P<rupees>  [Rr]s\.? (?=\d) )
    | (?P<initials> (?: [^\W\d_]\. )+ [^\W\d_] (?!\w) )
    | (?P<code>    --[\w-]+
                 | [@#]\w+
                 | (?: [^\W_] (?: \+\+ | \# ) ) (?!\w)
                 | (?=\d*[^\W\d]) \w++(?:\.\w++)++
                 | \w+_\w+ )
    | (?P<mixed>   [{_LATIN}]+ (?: -?\d+ [{_LATIN}\d]* )+ | \d+ [{_LATIN}] [{_LATIN}\d]* )
    | (?P<word>    [^\W\d_]+ (?: ['’] [^\W\d_]+ )? )
    | (?P<sign>    [{_SIGNS}%°] )
    | (?P<operator> [=+*/<>&|^~\\-]+ | !=+ | :: | := )
    """,
    re.VERBOSE,
)

_LONGEST: Final = 500
"""A chunk without blanks that is longer is an identifier as a whole (base64, a token); it is not taken apart."""

_CAMEL: Final = re.compile(r"[a-z][A-Z]")
_GROUPED: Final = re.compile(r"\d{1,3}(?:[,.'’]\d{3})+")


@dataclass(slots=True)
class Scan:
    """What one pass over a text has found so far."""

    words: list[str] = field(default_factory=list)
    raw: list[str] = field(default_factory=list)
    starts: list[bool] = field(default_factory=list)
    quantities: dict[int, Quantity] = field(default_factory=dict)
    identifiers: list[str] = field(default_factory=list)
    operators: list[tuple[int, str]] = field(default_factory=list)
    """Each with the number of words before it."""
    currencies: list[str] = field(default_factory=list)
    fresh: bool = True
    """True where the next word begins a sentence."""
    negative: bool = False
    """True where a minus sign stands before the next number."""

    def word(self, raw: str) -> None:
        """Take a word as it is written."""
        self.words.append(raw.lower())
        self.raw.append(raw)
        self.starts.append(self.fresh)
        self.fresh = self.negative = False

    def quantity(self, value: str, unit: str = "") -> None:
        """Take a number in canonical digits; it counts as a word too."""
        if self.negative:
            value, self.negative = f"-{value}", False
        self.quantities[len(self.words)] = (value, unit)
        self.word(value)

    def identifier(self, raw: str) -> None:
        """Take a name that a machine reads; it counts as a word too."""
        self.identifiers.append(raw.lower())
        self.word(raw.lower())


def canonical(digits: str) -> str:
    """The one way to write a number: no separators, a point, no idle zeros.

    Groups of exactly three behind a separator are thousands (`1,000`, `1.000`, `1'000`); a last group of another
    length behind a comma or a point is a fraction. `1.000` alone is read as a thousand: both readings of both texts
    are then the same, which is all that matters here.
    """
    if digits.isascii() and digits.isdecimal():
        return digits.lstrip("0") or "0"
    body, fraction = digits, ""
    last = max(digits.rfind("."), digits.rfind(","))
    if last >= 0 and not (_GROUPED.fullmatch(digits) and not digits.startswith("0")):
        body, fraction = digits[:last], digits[last + 1 :]
    whole = "".join(str(int(c)) for c in body if c.isdecimal()).lstrip("0") or "0"
    part = "".join(str(int(c)) for c in fraction if c.isdecimal()).rstrip("0")
    return f"{whole}.{part}" if part else whole


def scaled(value: str, factor: int) -> str:
    """A canonical number times a factor, canonical."""
    return canonical(format(Decimal(value) * factor, "f"))


def _take_number(scan: Scan, piece: str) -> None:
    unit = "".join(_CURRENCY_SIGNS.get(c, "") for c in piece)
    if piece[-1].isalpha():
        piece = piece[:-2]
    scan.quantity(canonical(piece.strip("".join(_CURRENCY_SIGNS))), unit)


def _take_amount(scan: Scan, piece: str) -> None:
    digits = piece.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-")
    unit = piece[len(digits) :].lstrip("-").lower()
    value = canonical(digits)
    if unit == "k":
        scan.quantity(scaled(value, 1000))
    else:
        scan.quantity(value, UNIT_WORDS.get(unit, unit))


def _take_sign(scan: Scan, piece: str) -> None:
    unit = _CURRENCY_SIGNS.get(piece)
    at = len(scan.words) - 1
    if unit is None and at in scan.quantities:
        scan.quantities[at] = (scan.quantities[at][0], "degree" if piece == "°" else "%")
    elif unit is None:
        scan.words.append("percent" if piece == "%" else "degree")
        scan.raw.append(piece)
        scan.starts.append(False)
    else:
        scan.currencies.append(unit)


def _take_clock(scan: Scan, piece: str) -> None:
    hours, minutes = piece.split(":")
    scan.quantity(canonical(hours) if minutes == "00" else f"{canonical(hours)}:{minutes}")


def _take_operator(scan: Scan, piece: str, *, alone: bool, chunk: str) -> None:
    if piece == "&":
        scan.word("and")
        return
    dash = piece in {"-", "--", "---", "~"} and not (alone and len(scan.words) - 1 in scan.quantities)
    if dash or (piece == "/" and not alone) or (set(piece) <= {"*"} and chunk.endswith(piece) and not alone):
        return  # Dashes, and/or and emphasis: writing, not operators.
    scan.operators.append((len(scan.words), piece))


def _take_minus(scan: Scan, _: str) -> None:
    scan.negative = len(scan.words) - 1 not in scan.quantities  # Behind a number it is a dash: `5 -10`.


def _take_code(scan: Scan, piece: str) -> None:
    parts = piece.split(".")
    if len(parts) > 1 and any(part.lower() in FUNCTION_WORDS for part in parts):
        for part in parts:  # Two sentences without a blank between them: `late.Can`.
            _take_word(scan, part)
            scan.fresh = True
        scan.fresh = False
    else:
        scan.identifier(piece)


_TAKE: Final[dict[str, Callable[[Scan, str], None]]] = {
    "address": _take_code,
    "date": lambda scan, piece: scan.identifier(re.sub(r"[/.]", "-", piece)),
    "clock": _take_clock,
    "version": lambda scan, piece: scan.identifier(piece.lower().lstrip("v")),
    "minus": _take_minus,
    "number": _take_number,
    "amount": _take_amount,
    "initials": lambda scan, piece: scan.word(piece.replace(".", "").upper()),
    "code": _take_code,
    "mixed": lambda scan, piece: scan.identifier(piece.replace("-", "")),
    "sign": _take_sign,
    "rupees": lambda scan, _: scan.word("rs"),
}


def _take_word(scan: Scan, piece: str) -> None:
    lower = piece.lower().replace("’", "'")
    parts = CONTRACTIONS.get(lower)
    if parts is not None:
        for part in parts:
            scan.word(part)
        return
    if lower.endswith("'s"):
        piece = piece[:-2]
    elif _CAMEL.search(piece):
        scan.identifiers.append(piece.lower())
    scan.word(piece)


def _take_odd(scan: Scan, chunk: str) -> None:
    """Take apart a chunk that is not letters only."""
    for found in _PIECE.finditer(chunk):
        kind, piece = found.lastgroup or "", found.group()
        if kind == "word":
            _take_word(scan, piece)
        elif kind == "operator":
            _take_operator(scan, piece, alone=piece == chunk, chunk=chunk)
        else:
            _TAKE[kind](scan, piece)


def scanned(text: str) -> Scan:
    """The words, numbers and other parts of a text whose white space is single blanks."""
    return _plain(text) or _scanned(text)


def _plain(text: str) -> Scan | None:
    """The scan of one sentence of nothing but words, as most questions are, or None."""
    text = text.rstrip(_TRAILING_BLANK)
    raw = text.split(" ")
    if not "".join(raw).isalpha() or _CAMEL.search(text):
        return None
    words = text.lower().split(" ")
    if not CONTRACTIONS.keys().isdisjoint(words):
        return None
    return Scan(words, raw, [True] + [False] * (len(words) - 1))


def _scanned(text: str) -> Scan:
    scan = Scan()
    word, contractions = scan.word, CONTRACTIONS
    for chunk in text.split(" "):
        core = chunk if chunk.isalpha() else chunk.lstrip(_LEADING).rstrip(_TRAILING)
        if core.isalpha():
            if core.lower() in contractions or not (core.islower() or core.istitle() or core.isupper()):
                _take_word(scan, core)
            else:
                word(core)
        elif core.isdecimal():
            scan.quantity(canonical(core))
        elif core.lower() in contractions:
            _take_word(scan, core)
        elif len(core) > _LONGEST:
            scan.identifier(core)
        elif core:
            _take_odd(scan, core)
        elif chunk.strip(_TRAILING + _LEADING):
            _take_odd(scan, chunk)
        if chunk[-1:] in _ENDS_SENTENCE:
            scan.fresh = True
    return scan

"""White space that may carry meaning: lines, indents, tabs, and blanks in quoted text.

Embedders see no white space at all. Dedenting one line of a Python program gives a cosine of 1 and another program.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

__all__ = ["folded", "moved"]

_SPACE: Final = re.compile(r"\s+")
_LINE_END: Final = re.compile(r"[ \t]*(?:\r\n?|\n)")
_QUOTE: Final = re.compile(r"[\"`“”«»„‘]|(?<!\w)['’]|['’](?!\w)")
"""A quotation mark or a backtick, and not the apostrophe inside a word."""


def folded(text: str) -> str:
    """The text in Unicode normal form C without the white space that means nothing.

    That is white space around the text and at the ends of lines, and runs of blanks inside a line, unless the text
    has quotes or backticks. Line breaks, the indent behind them, and tabs are kept.
    """
    text = unicodedata.normalize("NFC", text).strip()
    if "  " not in text and text.isprintable():
        return text
    quoted = _QUOTE.search(text) is not None
    text = _LINE_END.sub("\n", text)
    return _SPACE.sub(lambda run: run[0] if _counts(run[0], quoted=quoted) else " ", text)


def moved(a: str, b: str) -> bool:
    """Whether two texts have other line breaks, indents, tabs or quoted blanks.

    Of texts with as many words the places count too: `x = 1 <break> y z` and `x = 1 y <break> z` differ.
    """
    one, other = _layout(a), _layout(b)
    if one == other:
        return False
    if one[0] == other[0]:
        return True
    return [run for _, run in one[1]] != [run for _, run in other[1]]


def _layout(text: str) -> tuple[int, tuple[tuple[int, str], ...]]:
    """The number of words, and each run of white space that counts with the number of words before it."""
    text = folded(text)
    if text.isprintable() and "  " not in text:
        return 0, ()
    quoted = _QUOTE.search(text) is not None
    runs = _SPACE.findall(text)
    return len(runs) + 1, tuple((at, run) for at, run in enumerate(runs, 1) if _counts(run, quoted=quoted))


def _counts(run: str, *, quoted: bool) -> bool:
    """Whether a run of white space may carry meaning; one blank of any width never does."""
    if quoted and len(run) > 1:
        return True
    return any(unicodedata.category(c) != "Zs" for c in run)

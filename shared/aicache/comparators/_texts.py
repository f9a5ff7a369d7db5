"""An answer's text without its layout: lists and sentences then read alike."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

__all__ = ["plain", "sentences", "without_pictures"]

_FENCE: Final = re.compile(r"^\s*(?:```|~~~)\w*\s*$")
_HEADING: Final = re.compile(r"^\s*(?:#{1,6}|>)\s+")
_BULLET: Final = re.compile(r"^\s*[-*+•–]\s+")
_NUMBERED: Final = re.compile(r"^\s*(?:\(?\d{1,2}[.)]|step \d{1,2}[.:)])\s+(?=\S)", re.IGNORECASE)
_STRONG: Final = re.compile(r"(?<![\w)\]])\*\*(?=\S)(.{1,200}?)(?<=\S)\*\*(?![\w(])")
_LINK: Final = re.compile(r"\[([^\[\]]+)\]\([^()\s]+\)")
_ENDS: Final = (".", "!", "?", ":", ";", ",", "。", "！", "？")
_BETWEEN_SENTENCES: Final = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")

_TOLD: Final = {
    **dict.fromkeys("✅✓✔☑👍", " yes "),
    **dict.fromkeys("❌✗✘🚫👎", " no "),
}
"""Pictures that say something."""


def plain(text: str) -> str:
    """The text in one line, without Markdown's signs and the numbers of list items; each line ends a sentence."""
    lines = [line for line in text.splitlines() if line.strip() and not _FENCE.match(line)]
    numbered = sum(_NUMBERED.match(line) is not None for line in lines) > 1
    cleaned = [_plain_line(line, numbered=numbered) for line in lines]
    ended = [line if line.endswith(_ENDS) else line + "." for line in cleaned[:-1] if line]
    return " ".join([*ended, *cleaned[-1:]])


def _plain_line(line: str, *, numbered: bool) -> str:
    line = _BULLET.sub("", _HEADING.sub("", line))
    if numbered:  # A single one may be a name or a date: `1. FC Köln`.
        line = _NUMBERED.sub("", line)
    line = _LINK.sub(r"\1", _STRONG.sub(r"\1", line))
    return " ".join(line.replace("`", "").split())


def sentences(text: str) -> list[str]:
    """The sentences of a plain text, in order. A cut too many (`e.g. this`) does little harm."""
    return [part for part in _BETWEEN_SENTENCES.split(text) if part.strip()]


def without_pictures(text: str) -> str:
    """The text with pictures removed; those that stand for a yes or a no become that word."""
    kept = (_TOLD.get(sign, "" if _is_picture(sign) else sign) for sign in text)
    return " ".join("".join(kept).split())


def _is_picture(sign: str) -> bool:
    return not sign.isascii() and (unicodedata.category(sign) in {"So", "Sk", "Cf"} or "\ufe00" <= sign <= "\ufe0f")

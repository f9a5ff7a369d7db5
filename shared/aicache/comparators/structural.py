"""Answers that a program reads: tool calls and JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from aicache._learned import Reading

__all__ = ["Structural"]

_FENCE: Final = "```"


@dataclass(frozen=True, slots=True)
class Structural:
    """Tool calls and JSON are the same when their values are; of other answers it says nothing.

    The order of keys and the way a number is written (`1`, `1.0`) do not count, the order in a list and every letter of
    a text do. Of an answer that calls tools only the calls are compared. An answer with a structure and one without
    are different.

    Args:
        texts: whether texts that are a JSON object or array, alone or in one code block, are compared; else only calls.
    """

    texts: bool = True

    @property
    def immediate(self) -> bool:
        """True."""
        return True

    def same(self, a: Reading, b: Reading, /) -> bool | None:
        """Whether the structures are equal; None where neither answer has one, or one says nothing at all."""
        if a.calls or b.calls:
            return _calls(a, b)
        if not self.texts or not (_may_be_json(a.text) or _may_be_json(b.text)):
            return None
        left, right = _json(a.text), _json(b.text)
        if left is None and right is None:
            return None
        if left is None or right is None:
            return False if a.text.strip() and b.text.strip() else None
        return _equal(left, right)


def _calls(a: Reading, b: Reading) -> bool | None:
    if not a.calls or not b.calls:
        return False if (a.calls or a.text.strip()) and (b.calls or b.text.strip()) else None
    if a.calls == b.calls:
        return True
    left, right = _parsed(a.calls.decode("utf-8", "replace")), _parsed(b.calls.decode("utf-8", "replace"))
    return left is not None and right is not None and _equal(left, right)


def _may_be_json(text: str) -> bool:
    return text.lstrip()[:1] in {"{", "[", "`"}


def _json(text: str) -> Any:
    """The object or array that the text is, or None."""
    text = text.strip()
    if text.startswith(_FENCE) and text.endswith(_FENCE):
        first, _, rest = text.partition("\n")
        if first[len(_FENCE) :].strip().casefold() in {"", "json"}:
            text = rest.removesuffix(_FENCE)
    value = _parsed(text)
    return value if isinstance(value, dict | list) else None


def _parsed(text: str) -> Any:
    try:
        # Decimal reads numbers of any size exactly, and 1.0 equals 1.
        value = json.loads(text, parse_int=Decimal, parse_float=Decimal, parse_constant=_refuse)
        _equal(value, value)  # Too deep for a comparison is too deep.
    except (ValueError, ArithmeticError, RecursionError):
        return None
    return value


def _refuse(name: str) -> None:
    raise ValueError(name)  # NaN is no JSON, and not equal to itself.


def _equal(a: Any, b: Any) -> bool:
    if type(a) is not type(b):  # True is 1 to Python, but not to JSON.
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(value, b[key]) for key, value in a.items())
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    return bool(a == b)

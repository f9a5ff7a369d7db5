"""The comparator port: do two answers say the same?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from aicache._model import Answer

__all__ = ["Comparator", "Equal"]


class Comparator(Protocol):
    """Says whether two answers to about the same question say the same. It defines what "wrong" means.

    Symmetric, and an answer is the same as itself. A comparator that cannot tell returns None: no label is taken then.
    """

    def same(self, a: Answer, b: Answer, /) -> bool | None:
        """True, False, or None where it cannot tell."""


@dataclass(frozen=True, slots=True)
class Equal:
    """Answers are the same when their normalised texts are equal. Right where answers come from a fixed list."""

    def same(self, a: Answer, b: Answer, /) -> bool | None:
        """True when the digests are equal."""
        return a.digest == b.digest

"""The comparator port: do two answers say the same? It defines what "wrong" means."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["Comparator", "Equal", "Reading"]


@dataclass(frozen=True, slots=True)
class Reading:
    """An answer as it is compared; the adapter that wrote the answer reads it so."""

    digest: bytes
    """`Answer.digest`: equal for answers that say the same in the same words."""
    text: str = field(default="", repr=False)
    """What the answer says; of several generations the first."""
    calls: bytes = field(default=b"", repr=False)
    """Canonical JSON of its tool calls, `[[name, arguments], ...]` sorted; empty if it calls none."""


class Comparator(Protocol):
    """Says whether two answers to about the same question say the same.

    Symmetric, and an answer is the same as itself. One that cannot tell returns None: no label is taken then.
    """

    @property
    def immediate(self) -> bool:
        """True: it computes, in well under a millisecond, and never waits; else it is asked in the background."""

    def same(self, a: Reading, b: Reading, /) -> bool | None:
        """True, False, or None where it cannot tell. What it raises counts as None."""


@dataclass(frozen=True, slots=True)
class Equal:
    """Answers are the same when their normalised texts are equal. Right where answers come from a fixed list."""

    @property
    def immediate(self) -> bool:
        """True."""
        return True

    def same(self, a: Reading, b: Reading, /) -> bool | None:
        """True when the digests are equal."""
        return a.digest == b.digest

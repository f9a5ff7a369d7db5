"""The verifier port: whether two questions that look alike have one answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias, runtime_checkable

from aicache._model import Opinion

__all__ = ["Verifier", "VerifierLike"]


@runtime_checkable
class Verifier(Protocol):
    """Says whether the answer to the stored question answers the asked one. Safe to call from any thread.

    It sees the two questions and not the answer: whether a model once answered well is not what is in doubt here, and
    the core does not read answers. All else (history, system prompt, model, tenant) is equal where it is asked.

    A verifier may also have `async def averify(self, asked, stored)`, the same without blocking; else async callers run
    `verify` in a worker thread.
    """

    def verify(self, asked: str, stored: str, /) -> bool | Opinion:
        """True, or an `Opinion` that says so, to serve the stored answer; anything that is no yes or no is a failure.

        Raises:
            VerifierError: it could not tell; its text must quote neither question.
        """


VerifierLike: TypeAlias = Verifier | Callable[[str, str], bool | Opinion | Awaitable[bool | Opinion]]
"""A verifier, or a function of the asked and the stored question; it may be a coroutine function."""

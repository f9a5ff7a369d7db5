"""What stands between the drivers and an embedder: memo, validation, deadline."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeAlias

from aicache._clock import Clock, SystemClock
from aicache._errors import (
    ConfigurationError,
    EmbedderError,
    EmbedderTimeoutError,
    MissingExtraError,
)
from aicache._memo import Memo
from aicache._steps import Embedded
from aicache.embedders._deadline import DeadlineThreads, Rest
from aicache.embedders._installed import is_installed
from aicache.embedders._vectors import to_vectors
from aicache.embedders.base import Embedder

__all__ = ["Embedding"]

NativeEmbed: TypeAlias = Callable[[list[str]], Awaitable[Any]]

OURS: Final = (EmbedderError, ConfigurationError, MissingExtraError)
"""Exceptions whose texts are ours; they pass as they are."""


class Embedding:
    """The vector of a text, from memory or from an embedder within a deadline.

    A lookup and the update that follows it need the same vector, hence the memo. The embedder runs in a thread of its
    own (or, awaited, through its `aembed`): a caller waits until the deadline and goes on without a vector, while the
    late result still reaches the memo. Once every thread is held by a call past its deadline, further calls fail
    without waiting, until one comes back.

    Args:
        embedder: what makes the vectors.
        memo_entries: texts whose vectors are remembered, at most; 0 for none.
        timeout: seconds to wait for a vector, above 0; None for no limit.
        workers: threads in which the embedder runs, at least 1.
        clock: where time comes from.

    Raises:
        ConfigurationError: an argument is out of range.
        MissingExtraError: numpy is not installed.
    """

    def __init__(
        self,
        embedder: Embedder,
        *,
        memo_entries: int = 4096,
        timeout: float | None = 2.0,
        workers: int = 2,
        clock: Clock | None = None,
    ) -> None:
        if memo_entries < 0:
            raise ConfigurationError("memo_entries", f"give a whole number, 0 or more; got {memo_entries!r}")
        if timeout is not None and not (timeout > 0 and math.isfinite(timeout)):
            raise ConfigurationError("timeout", f"give seconds above 0, or None for no limit; got {timeout!r}")
        if workers < 1:
            raise ConfigurationError("workers", f"give a whole number of at least 1; got {workers!r}")
        if not is_installed("numpy"):
            raise MissingExtraError("matching by meaning", "onnx")
        self._embedder = embedder
        # A memo of size n holds up to 2 n keys.
        self._memo: Memo[str, Embedded] | None = Memo(max(1, memo_entries // 2)) if memo_entries else None
        self._timeout = timeout
        clock = clock or SystemClock()
        self._threads = DeadlineThreads(workers, timeout, clock)
        self._rest = Rest(workers, clock)
        self._dimension: int | None = None

    @property
    def overdue(self) -> int:
        """How many calls of the embedder run now although their deadline has passed."""
        return self._threads.overdue

    def embed(self, text: str, /) -> Embedded:
        """The vector of the text, and its space.

        Raises:
            QueryTooLongError: the text is longer than the embedder takes.
            EmbedderTimeoutError: the deadline passed, or earlier calls still hold all threads.
            EmbedderError: the embedder failed, or what it returned is not a usable vector.
        """
        if (known := self.recall(text)) is not None:
            return known
        if self._timeout is None:
            return self._compute(text)
        future = self._threads.submit(partial(self._compute, text))
        try:
            return future.result(self._timeout)
        except TimeoutError:
            # `_compute` lets nothing but EmbedderError out, so this is the deadline and not the embedder's own.
            raise self._too_slow() from None
        finally:
            future.cancel()  # Where it still waits for a thread, nobody needs it any more.

    async def aembed(self, text: str, /) -> Embedded:
        """As `embed`, without blocking the event loop."""
        if (known := self.recall(text)) is not None:
            return known
        native: NativeEmbed | None = getattr(self._embedder, "aembed", None)
        if native is None:
            return await self._within_deadline(self._in_thread(partial(self._compute, text)))
        self._rest.check()
        try:
            embedded = await self._within_deadline(self._compute_natively(native, text))
        except EmbedderTimeoutError:
            self._rest.late()
            raise
        self._rest.in_time()
        return embedded

    def close(self) -> None:
        """Release the threads and forget the vectors; a second call does nothing."""
        self._threads.close()
        if self._memo is not None:
            self._memo.clear()

    def recall(self, text: str, /) -> Embedded | None:
        """The vector if it is remembered; the embedder is not asked."""
        return None if self._memo is None else self._memo.get(text)

    async def _within_deadline(self, waiting: Awaitable[Embedded]) -> Embedded:
        try:
            async with asyncio.timeout(self._timeout):
                return await waiting
        except TimeoutError:
            raise self._too_slow() from None

    async def _in_thread(self, act: Callable[[], Embedded]) -> Embedded:
        return await asyncio.wrap_future(self._threads.submit(act))

    def _compute(self, text: str) -> Embedded:
        try:
            return self._keep(text, self._embedder.embed([text]))
        except OURS:
            raise
        except Exception as error:
            raise _foreign(error) from error

    async def _compute_natively(self, native: NativeEmbed, text: str) -> Embedded:
        try:
            returned = await native([text])
            if self._dimension is None:
                # The first time numpy is imported and the fingerprint is made: too long for the loop.
                return await self._in_thread(partial(self._keep, text, returned))
            return self._keep(text, returned)
        except OURS:
            raise
        except Exception as error:
            raise _foreign(error) from error

    def _keep(self, text: str, returned: Any) -> Embedded:
        (vector,) = to_vectors(returned, 1)
        dimension = len(vector) // 4
        if self._dimension is None:
            self._dimension = dimension
        elif dimension != self._dimension:
            raise EmbedderError(f"the embedder returned {dimension} numbers where it returned {self._dimension} before")
        embedded = Embedded(f"{self._embedder.fingerprint}/{dimension}", vector)
        if self._memo is not None:
            self._memo.put(text, embedded)
        return embedded

    def _too_slow(self) -> EmbedderTimeoutError:
        return EmbedderTimeoutError(f"the embedder gave no vector within {self._timeout:g} s")


def _foreign(error: Exception) -> EmbedderError:
    # The text of a foreign exception may quote the question; its type does not.
    return EmbedderError(f"the embedder raised {type(error).__name__}")

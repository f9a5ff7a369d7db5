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
    MissingExtraError,
)
from aicache._memo import Memo
from aicache._steps import Embedded
from aicache.embedders._deadline import DeadlineThreads
from aicache.embedders._installed import is_installed
from aicache.embedders._vectors import to_vectors
from aicache.embedders.base import Embedder

__all__ = ["Embedding"]

NativeEmbed: TypeAlias = Callable[[list[str]], Awaitable[Any]]

OURS: Final = (EmbedderError, ConfigurationError, MissingExtraError)
"""Exceptions whose texts are ours; they pass as they are."""

ENDS: Final = (KeyboardInterrupt, SystemExit, GeneratorExit)
"""What ends a program or a coroutine; it passes. Any other exception is a fault of the embedder, also one that derives
from BaseException: the panic of a Rust extension (tokenizers, orjson) does."""


class Embedding:
    """The vector of a text, from memory or from an embedder within a deadline.

    A lookup and the update that follows it need the same vector, hence the memo. The embedder runs in a thread of its
    own (or, awaited, through its `aembed`): a caller waits until the deadline and goes on without a vector, while the
    late result still reaches the memo. Who asks for a text that is being embedded shares that call, or fails at once if
    it is late already. After two late calls in a row, and while every thread is held by a late one, further calls fail
    without waiting; ten seconds later one is let through to see.

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
        self._threads: DeadlineThreads[Embedded] = DeadlineThreads(workers, timeout, clock or SystemClock())
        self._dimension: int | None = None

    @property
    def overdue(self) -> int:
        """How many calls of the embedder run now although their deadline has passed."""
        return self._threads.overdue

    def embed(self, text: str, /) -> Embedded:
        """The vector of the text, and its space.

        Raises:
            QueryTooLongError: the text is longer than the embedder takes.
            EmbedderTimeoutError: the deadline passed, or the embedder was too slow before and is not asked.
            EmbedderError: the embedder failed, or what it returned is not a usable vector.
        """
        if (known := self.recall(text)) is not None:
            return known
        # To hand it to a thread and back takes a fifth of the time that a small local model takes.
        if self._timeout is None or getattr(self._embedder, "immediate", False):
            return self._compute(text)
        return self._threads.wait_for(text, partial(self._compute, text))

    async def aembed(self, text: str, /) -> Embedded:
        """As `embed`, without blocking the event loop."""
        if (known := self.recall(text)) is not None:
            return known
        native: NativeEmbed | None = getattr(self._embedder, "aembed", None)
        if native is None:
            return await self._threads.await_for(text, partial(self._compute, text))
        return await self._threads.await_natively(partial(self._compute_natively, native, text))

    def close(self) -> None:
        """Release the threads and forget the vectors; a second call does nothing."""
        self._threads.close()
        if self._memo is not None:
            self._memo.clear()

    def recall(self, text: str, /) -> Embedded | None:
        """The vector if it is remembered; the embedder is not asked."""
        return None if self._memo is None else self._memo.get(text)

    def _compute(self, text: str) -> Embedded:
        # It may have come since the caller looked.
        if (known := self.recall(text)) is not None:
            return known
        try:
            return self._keep(text, self._embedder.embed([text]))
        except (*OURS, *ENDS):
            raise
        # A CancelledError too: nobody cancels a blocking call, and to a task it would look like its own cancellation.
        except BaseException as error:
            raise _foreign(error) from error

    async def _compute_natively(self, native: NativeEmbed, text: str) -> Embedded:
        try:
            returned = await native([text])
            if self._dimension is None:
                # The first time numpy is imported and the fingerprint is made: too long for the loop.
                return await self._keep_in_thread(text, returned)
            return self._keep(text, returned)
        except (*OURS, *ENDS, asyncio.CancelledError):
            raise
        except BaseException as error:
            raise _foreign(error) from error

    async def _keep_in_thread(self, text: str, returned: Any) -> Embedded:
        seat = self._threads.submit(partial(self._keep, text, returned))
        try:
            return await asyncio.wrap_future(seat.future)
        finally:
            self._threads.leave(seat, late=False)

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


def _foreign(error: BaseException) -> EmbedderError:
    # The text of a foreign exception may quote the question; its type does not.
    return EmbedderError(f"the embedder raised {type(error).__name__}")

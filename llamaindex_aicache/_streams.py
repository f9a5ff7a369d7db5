"""Streams that are watched: generators that do what the original does, and tell what went through.

They are objects, not generator functions, so that `throw`, `close` and abandonment reach the original as they are.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import AbstractContextManager
from typing import Any, TypeVar

__all__ = ["AsyncStream", "Stream", "as_async_generator", "as_generator"]

T = TypeVar("T")

Around = Callable[[], AbstractContextManager[Any]]


class Stream(Generator[T, Any, Any]):
    """A generator whose every step runs inside a context.

    Args:
        source: the original.
        around: the context of a step; what it sets is gone before the consumer goes on.
        taken: called with each piece.
        ended: called when the original has ended by itself; not after an error, nor when it is abandoned.
    """

    def __init__(
        self,
        source: Generator[T, Any, Any],
        around: Around,
        taken: Callable[[T], None] = lambda _: None,
        ended: Callable[[], None] | None = None,
    ) -> None:
        self._source = source
        self._around = around
        self._taken = taken
        self._ended = ended

    def send(self, value: Any) -> T:
        """The next piece."""
        return self._step(lambda: self._source.send(value))

    def throw(self, *error: Any) -> T:
        """Raise an error inside the original, which is no longer whole then, even if it ends without one."""
        self._ended = None
        return self._step(lambda: self._source.throw(*error))

    def close(self) -> None:
        """Abandon it."""
        self._ended = None
        self._source.close()

    def _step(self, step: Callable[[], T]) -> T:
        # A generator that has failed or was closed ends when it is asked again, and must not pass for a whole one then.
        ended, self._ended = self._ended, None
        try:
            with self._around():
                piece = step()
        except StopIteration:
            if ended is not None:
                ended()
            raise
        self._ended = ended
        self._taken(piece)
        return piece


class AsyncStream(AsyncGenerator[T, Any]):
    """As `Stream`, asynchronous."""

    def __init__(
        self,
        source: AsyncGenerator[T, Any],
        around: Around,
        taken: Callable[[T], None] = lambda _: None,
        ended: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._source = source
        self._around = around
        self._taken = taken
        self._ended = ended

    async def asend(self, value: Any) -> T:
        """The next piece."""
        return await self._step(lambda: self._source.asend(value))

    async def athrow(self, *error: Any) -> T:
        """Raise an error inside the original, which is no longer whole then, even if it ends without one."""
        self._ended = None
        return await self._step(lambda: self._source.athrow(*error))

    async def aclose(self) -> None:
        """Abandon it."""
        self._ended = None
        await self._source.aclose()

    async def _step(self, step: Callable[[], Awaitable[T]]) -> T:
        ended, self._ended = self._ended, None
        try:
            with self._around():
                piece = await step()
        except StopAsyncIteration:
            if ended is not None:
                await ended()
            raise
        self._ended = ended
        self._taken(piece)
        return piece


def as_generator(found: object) -> Generator[Any, Any, Any] | None:
    """What a model streams, as a generator; None if it is no stream."""
    if isinstance(found, Generator):
        return found
    return (piece for piece in found) if isinstance(found, Iterator) else None


def as_async_generator(found: object) -> AsyncGenerator[Any, Any] | None:
    """What a model streams, as an async generator; None if it is no async stream."""
    if isinstance(found, AsyncGenerator):
        return found
    return (piece async for piece in found) if isinstance(found, AsyncIterator) else None

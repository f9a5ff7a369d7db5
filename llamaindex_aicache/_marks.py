"""Marks of hits on their way to the response of a query engine, which keeps only the text of the model's answer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from llamaindex_aicache._streams import AsyncStream, Stream, as_async_generator, as_generator

__all__ = ["MARK", "amarking", "collect", "marking"]

MARK: Final = "aicache"
"""The name of the mark, in `additional_kwargs` of a model's response and in `metadata` of an engine's."""

_marks: ContextVar[list[Any] | None] = ContextVar("aicache_llamaindex_marks", default=None)


def collect(answer: Any) -> None:
    """Note the mark of a response, or of the pieces of one, for the engine around it."""
    marks = _marks.get()
    if marks is None:
        return
    response = answer[-1] if isinstance(answer, list) and answer else answer
    mark = (getattr(response, "additional_kwargs", None) or {}).get(MARK)
    if mark is not None:
        marks.append(mark)


@contextmanager
def _collecting(marks: list[Any]) -> Iterator[None]:
    """Marks of hits inside the block go to this list."""
    token = _marks.set(marks)
    try:
        yield
    finally:
        _marks.reset(token)


def marking(synthesize: Callable[..., Any]) -> Callable[..., Any]:
    """A synthesizer's `synthesize` whose response shows the marks of its hits."""

    @functools.wraps(synthesize)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        marks: list[Any] = []
        with _collecting(marks):
            response = synthesize(self, *args, **kwargs)
        return _marked(response, marks)

    return method


def amarking(asynthesize: Callable[..., Any]) -> Callable[..., Any]:
    """As `marking`, of `asynthesize`."""

    @functools.wraps(asynthesize)
    async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        marks: list[Any] = []
        with _collecting(marks):
            response = await asynthesize(self, *args, **kwargs)
        return _marked(response, marks)

    return method


def _marked(response: Any, marks: list[Any]) -> Any:
    """The response, showing the marks; those of a stream that asks the model while it is read, too."""

    def show(*_: Any) -> None:
        if marks:
            response.metadata = {**(response.metadata or {}), MARK: marks}

    if hasattr(response, "metadata"):
        show()
        stream = getattr(response, "response_gen", None)
        if (source := as_generator(stream)) is not None:
            response.response_gen = Stream(source, lambda: _collecting(marks), show)
        elif (asource := as_async_generator(stream)) is not None:
            response.response_gen = AsyncStream(asource, lambda: _collecting(marks), show)
    return response

"""The eight methods that every answer of a LlamaIndex model comes through, with a cache in front.

A hit is shown by `_events` and answers at once. On a miss the model's own method does all that it does without a cache,
and its answer is kept when it is complete: errors, empty answers and abandoned streams leave nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

from llama_index.core.base.llms.base import BaseLLM

from aicache._model import Miss, MissReason
from aicache._scopes import bypass
from llamaindex_aicache._calls import Call, Calls, Recording, in_progress
from llamaindex_aicache._events import served, shown
from llamaindex_aicache._streams import AsyncStream, Stream, as_async_generator, as_generator
from llamaindex_aicache._swap import Swapper

__all__ = ["ENTRIES", "attach_calls"]

ENTRIES: Final = {
    "chat": True,
    "achat": True,
    "stream_chat": True,
    "astream_chat": True,
    "complete": False,
    "acomplete": False,
    "stream_complete": False,
    "astream_complete": False,
}
"""Method -> whether it takes messages; else it takes a text."""

_LANGCHAIN: Final = "llama_index.llms.langchain"
"""Where the model is defined that asks a LangChain model, which may have a cache of its own."""


def attach_calls(swapped: type, swapper: Swapper[Any], calls: Calls) -> None:
    """Put the cache in front of the eight methods of a fresh subclass."""
    for name in ENTRIES:
        original = getattr(swapped, name)
        make = {
            (False, False): _whole,
            (False, True): _awhole,
            (True, False): _stream,
            (True, True): _astream,
        }[name.startswith(("stream", "astream")), name.startswith("a")]
        method = make(swapped, swapper, calls, name)
        method.__name__ = name
        method.__qualname__ = f"{swapped.__qualname__}.{name}"
        method.__doc__ = original.__doc__
        method.__wrapped__ = original
        setattr(swapped, name, method)


def _whole(swapped: type, swapper: Swapper[Any], calls: Calls, name: str) -> Any:
    show = shown(swapped.__bases__[0], name, is_chat=ENTRIES[name])

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        plain = getattr(super(swapped, self), name)
        call = Call.read(self, args, kwargs, is_chat=ENTRIES[name]) if swapper.is_active else None
        if call is None:
            return plain(*args, **kwargs)
        asked = calls.asked(call)
        found = calls.lookup(asked, is_stream=False)
        if not isinstance(found, Miss):
            with served(found):
                return show.__get__(self, type(self))(*args, **kwargs)
        with _around(self, found):
            response = plain(*args, **kwargs)
        calls.keep(asked, lambda: response)
        return response

    return method


def _awhole(swapped: type, swapper: Swapper[Any], calls: Calls, name: str) -> Any:
    show = shown(swapped.__bases__[0], name, is_chat=ENTRIES[name])

    async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        plain = getattr(super(swapped, self), name)
        call = Call.read(self, args, kwargs, is_chat=ENTRIES[name]) if swapper.is_active else None
        if call is None:
            return await plain(*args, **kwargs)
        asked = calls.asked(call)
        found = await calls.alookup(asked, is_stream=False)
        if not isinstance(found, Miss):
            with served(found):
                return await show.__get__(self, type(self))(*args, **kwargs)
        with _around(self, found):
            response = await plain(*args, **kwargs)
        await calls.akeep(asked, lambda: response)
        return response

    return method


def _stream(swapped: type, swapper: Swapper[Any], calls: Calls, name: str) -> Any:
    show = shown(swapped.__bases__[0], name, is_chat=ENTRIES[name])

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        plain = getattr(super(swapped, self), name)
        call = Call.read(self, args, kwargs, is_chat=ENTRIES[name]) if swapper.is_active else None
        if call is None:
            return plain(*args, **kwargs)
        asked = calls.asked(call)
        found = calls.lookup(asked, is_stream=True)
        if not isinstance(found, Miss):
            with served(found):
                return show.__get__(self, type(self))(*args, **kwargs)
        with _around(self, found):
            response = plain(*args, **kwargs)
        source = as_generator(response)
        if source is None:
            return response
        recording = Recording(calls, asked)
        return Stream(source, lambda: _around(self, found), recording.take, recording.keep)

    return method


def _astream(swapped: type, swapper: Swapper[Any], calls: Calls, name: str) -> Any:
    show = shown(swapped.__bases__[0], name, is_chat=ENTRIES[name])

    async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        plain = getattr(super(swapped, self), name)
        call = Call.read(self, args, kwargs, is_chat=ENTRIES[name]) if swapper.is_active else None
        if call is None:
            return await plain(*args, **kwargs)
        asked = calls.asked(call)
        found = await calls.alookup(asked, is_stream=True)
        if not isinstance(found, Miss):
            with served(found):
                return await show.__get__(self, type(self))(*args, **kwargs)
        with _around(self, found):
            response = await plain(*args, **kwargs)
        source = as_async_generator(response)
        if source is None:
            return response
        recording = Recording(calls, asked)
        return AsyncStream(source, lambda: _around(self, found), recording.take, recording.akeep)

    return method


@contextmanager
def _around(llm: BaseLLM, miss: Miss) -> Iterator[None]:
    """The context in which the model's own method runs."""
    with in_progress(llm), _inner_bypass(llm, miss):
        yield


def _inner_bypass(llm: BaseLLM, miss: Miss) -> AbstractContextManager[None]:
    """A LangChain model inside asks no cache for what was looked up out here: an answer is kept once."""
    looked_up = miss.reason is not MissReason.UNKEYABLE
    is_langchain = any(kind.__module__.startswith(_LANGCHAIN) for kind in type(llm).__mro__)
    return bypass() if looked_up and is_langchain else nullcontext()

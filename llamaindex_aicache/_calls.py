"""Calls of a model as questions to the cache: what is looked up before, and what is kept after."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Any, Self, TypeAlias

from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.prompts import BasePromptTemplate

from aicache._model import Answer, Hit, Miss, MissReason, NotStored, SkipReason, Unkeyable
from aicache.cache import Question, SemanticCache
from llamaindex_aicache._answers import Gathered, HitMark, from_answer, pieces, to_answer
from llamaindex_aicache._marks import collect
from llamaindex_aicache._models import ModelReader
from llamaindex_aicache._noted import take_note
from llamaindex_aicache._prompts import chat_question, completion_question, filled_from

__all__ = ["Asked", "Call", "Calls", "Recording", "in_progress"]

Noted: TypeAlias = tuple[BasePromptTemplate, dict[str, Any]]

_in_progress: ContextVar[tuple[int, ...]] = ContextVar("aicache_llamaindex_in_progress", default=())
"""Models whose own method is running here: what it calls on itself, as `achat` calls `chat`, was looked up already."""


@contextmanager
def in_progress(llm: BaseLLM) -> Iterator[None]:
    """Inside, calls of this model are part of one that was looked up."""
    token = _in_progress.set((*_in_progress.get(), id(llm)))
    try:
        yield
    finally:
        _in_progress.reset(token)


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One call of a model."""

    llm: BaseLLM
    is_chat: bool
    prompt: Any = field(repr=False)
    """The messages, or the text."""
    is_formatted: bool
    kwargs: dict[str, Any] = field(repr=False)
    noted: Noted | None = field(default=None, repr=False)
    """The template that the prompt was made from, and its variables."""

    @classmethod
    def read(cls, llm: BaseLLM, args: tuple[Any, ...], kwargs: dict[str, Any], *, is_chat: bool) -> Self | None:
        """The call; None if it is part of another, or not of the form that LlamaIndex documents."""
        names = ("messages",) if is_chat else ("prompt", "formatted")
        given = dict(zip(names, args, strict=False))
        if len(args) > len(names) or given.keys() & kwargs.keys() or id(llm) in _in_progress.get():
            return None
        rest = given | kwargs
        prompt = rest.pop(names[0], None)
        is_formatted = not is_chat and bool(rest.pop("formatted", False))
        # An iterator of messages could be read only once.
        fits = isinstance(prompt, Sequence) if is_chat else isinstance(prompt, str)
        return cls(llm, is_chat, prompt, is_formatted, rest, take_note()) if fits else None

    def question(self, read_model: ModelReader) -> Question | Unkeyable:
        """What is asked of which model."""
        model = read_model(self.llm)
        if isinstance(model, Unkeyable):
            return model
        filled = None if self.noted is None else filled_from(*self.noted)
        if self.is_chat:
            return chat_question(model, self.prompt, self.kwargs, filled)
        return completion_question(model, self.prompt, self.is_formatted, self.kwargs, filled)


class Asked:
    """The question of a call, read once: the application may change its messages before the answer is complete."""

    def __init__(self, read: Callable[[], Question | Unkeyable]) -> None:
        self._read = read
        self._found: Question | Unkeyable | None = None

    def __call__(self) -> Question | Unkeyable:
        """The question."""
        if self._found is None:
            self._found = self._read()
        return self._found

    def settle(self) -> None:
        """Read it now."""
        with suppress(Exception):  # the update reads it again, contains the fault and counts it
            self()


class Calls:
    """Looks calls up and keeps their answers.

    Args:
        core: the cache.
        keep_truncated: whether answers that were broken off are kept.
    """

    def __init__(self, core: SemanticCache, *, keep_truncated: bool) -> None:
        self._core = core
        self._keep_truncated = keep_truncated
        self.read_model = ModelReader()

    def asked(self, call: Call) -> Asked:
        """The question of this call."""
        return Asked(lambda: call.question(self.read_model))

    def lookup(self, asked: Asked, *, is_stream: bool) -> Any:
        """A response, the pieces of one, or a `Miss`."""
        return _seen(asked, self._core.lookup(asked, _decode_pieces if is_stream else _decode))

    async def alookup(self, asked: Asked, *, is_stream: bool) -> Any:
        """As `lookup`, without blocking the event loop."""
        return _seen(asked, await self._core.alookup(asked, _decode_pieces if is_stream else _decode))

    def keep(self, asked: Asked, respond: Callable[[], Any]) -> None:
        """Keep a response, if it is worth it."""
        self._core.update(asked, self._encoder(respond))

    async def akeep(self, asked: Asked, respond: Callable[[], Any]) -> None:
        """As `keep`, without blocking the event loop."""
        await self._core.aupdate(asked, self._encoder(respond))

    def _encoder(self, respond: Callable[[], Any]) -> Callable[[], Answer | NotStored]:
        def encode() -> Answer | NotStored:
            response = respond()
            if response is None:
                return NotStored(SkipReason.EMPTY)
            return to_answer(response, keep_truncated=self._keep_truncated)

        return encode


class Recording:
    """The pieces of a stream, gathered while they pass, and kept when it has ended."""

    def __init__(self, calls: Calls, asked: Asked) -> None:
        self._calls = calls
        self._asked = asked
        self._gathered = Gathered()
        self._fault: Exception | None = None
        # A stream may be consumed in a thread, or behind the block whose tags or bypass are meant for it.
        self._context = copy_context()

    def take(self, piece: Any) -> None:
        """Note a piece."""
        if self._fault is None:
            try:
                self._gathered.add(piece)
            except Exception as error:  # noqa: BLE001 - the stream goes on, and its answer is not kept
                self._fault = error

    def keep(self) -> None:
        """Keep what was gathered."""
        self._context.run(self._calls.keep, self._asked, self._whole)

    async def akeep(self) -> None:
        """As `keep`, without blocking the event loop."""
        await asyncio.create_task(self._calls.akeep(self._asked, self._whole), context=self._context)

    def _whole(self) -> Any:
        if self._fault is not None:
            raise self._fault  # where the core contains it, logs it and counts it
        return self._gathered.whole()


def _decode(hit: Hit) -> Any:
    return from_answer(hit.entry.answer, hit=HitMark.of(hit))


def _decode_pieces(hit: Hit) -> list[Any]:
    # All at once: a fault in here is a miss, and one in the middle of a stream would be the application's.
    return list(pieces(_decode(hit)))


def _seen(asked: Asked, found: Any) -> Any:
    if isinstance(found, Miss):
        if found.reason is MissReason.REFRESHING:
            asked.settle()  # the lookup did not read it
    else:
        collect(found)
    return found

"""Embedding models that look their vectors up, with the class of the object swapped as `_swap` does it.

The private methods are overridden, which every public one comes through: LlamaIndex's own public methods make events
and spans, on hits as on misses, and only the texts that are left reach the model.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps
from inspect import getattr_static
from itertools import islice
from typing import Any, Final, TypeAlias

from llama_index.core.base.embeddings.base import BaseEmbedding

from llamaindex_aicache._embeddings import Embedding, Kind, VectorCache
from llamaindex_aicache._swap import Swapper

__all__ = ["attach_vectors"]

Vectors: TypeAlias = list[Embedding]


@dataclass(frozen=True, slots=True)
class _Known:
    """Vectors of a model that are known, and the texts whose vectors were handed out."""

    model: bytes
    vectors: dict[str, Embedding]
    missing: dict[str, None]
    """The texts whose vectors are left to compute, in their order."""
    given: set[str] = field(default_factory=set)

    def due(self, texts: Sequence[str], at_once: int) -> list[str]:
        """What is to be computed for these texts, each once, and up to `at_once` of what is due after them.

        For a batch of which a text here and there has changed: LlamaIndex hands over ten of its texts at a time, and
        one request for each changed one among them would be as many as without a cache.
        """
        wanted = dict.fromkeys(text for text in texts if text not in self.vectors)
        ahead = (text for text in self.missing if text not in wanted)
        return [*wanted, *islice(ahead, max(0, at_once - len(wanted)))] if wanted else []

    def learn(self, texts: Sequence[str], vectors: Vectors) -> None:
        """These were computed."""
        self.vectors.update(zip(texts, vectors, strict=True))
        for text in texts:
            self.missing.pop(text, None)

    def in_order(self, texts: Sequence[str]) -> Vectors:
        """One for each text, no two of them the same object: the caller may change it."""
        found: Vectors = []
        for text in texts:
            vector = self.vectors[text]
            found.append(list(vector) if text in self.given else vector)
            self.given.add(text)
        return found


@dataclass(frozen=True, slots=True)
class _Call:
    """A call of one of the model's public methods."""

    model: BaseEmbedding
    known: _Known | None = None
    """For a batch: the cache was asked for all texts at once."""


_call: Final[ContextVar[_Call | None]] = ContextVar("aicache_embedding_call", default=None)
_computing: Final[ContextVar[BaseEmbedding | None]] = ContextVar("aicache_embedding_computing", default=None)
"""The model that computes at this moment: what its methods ask of each other is not looked up again."""


def attach_vectors(swapped: type, swapper: Swapper[Any], vectors: VectorCache) -> None:
    """Put the cache in front of the methods of a fresh subclass."""
    lookup = _Lookup(swapper, vectors)
    base: Any = swapped.__bases__[0]
    setattr(swapped, "rate_limiter", property(_limiter_shown, _set_limiter))  # noqa: B010 - a type knows no such name
    for name, make in _PRIVATE.items():
        setattr(swapped, name, make(getattr(base, name), lookup))
    for name, make in _PUBLIC.items():
        # A class with a method of its own asks its rate limiter by itself.
        if getattr_static(base, name) is getattr_static(BaseEmbedding, name):
            setattr(swapped, name, make(getattr(base, name), lookup))


# ----------------------------------------------------------------------------------------- rate limiter
#
# The public methods ask the limiter before they call the private one. So they do not see it, and it is asked where a
# text turns out to be missing.


def _limiter_shown(self: BaseEmbedding) -> Any:
    return None if _is_inside(self) else vars(self).get("rate_limiter")


def _set_limiter(self: BaseEmbedding, limiter: Any) -> None:
    vars(self)["rate_limiter"] = limiter
    self.__pydantic_fields_set__.add("rate_limiter")


def _is_inside(model: BaseEmbedding) -> bool:
    """In a public method of this model, not merely in one that it is a part of."""
    call = _call.get()
    return call is not None and call.model is model


def _hidden_limiter(model: BaseEmbedding) -> Any:
    """The one that the public method around this call would have asked."""
    return vars(model).get("rate_limiter") if _is_inside(model) else None


# --------------------------------------------------------------------------------------- public methods


@contextmanager
def _inside(model: BaseEmbedding, known: _Known | None = None) -> Iterator[None]:
    token = _call.set(_Call(model, known))
    try:
        yield
    finally:
        _call.reset(token)


def _around_one(original: Callable[..., Embedding], lookup: _Lookup) -> Callable[..., Embedding]:
    @wraps(original)
    def method(self: BaseEmbedding, *args: Any, **kwargs: Any) -> Embedding:
        if not lookup.is_active:
            return original(self, *args, **kwargs)
        with _inside(self):
            return original(self, *args, **kwargs)

    return method


def _around_one_async(
    original: Callable[..., Awaitable[Embedding]], lookup: _Lookup
) -> Callable[..., Awaitable[Embedding]]:
    @wraps(original)
    async def method(self: BaseEmbedding, *args: Any, **kwargs: Any) -> Embedding:
        if not lookup.is_active:
            return await original(self, *args, **kwargs)
        with _inside(self):
            return await original(self, *args, **kwargs)

    return method


def _around_batch(original: Callable[..., Vectors], lookup: _Lookup) -> Callable[..., Vectors]:
    @wraps(original)
    def method(self: BaseEmbedding, texts: list[str], *args: Any, **kwargs: Any) -> Vectors:
        if not lookup.is_active:
            return original(self, texts, *args, **kwargs)
        with _inside(self, lookup.ask(self, "text", texts)):
            return original(self, texts, *args, **kwargs)

    return method


def _around_batch_async(original: Callable[..., Awaitable[Vectors]], lookup: _Lookup) -> Callable[..., Any]:
    @wraps(original)
    async def method(self: BaseEmbedding, texts: list[str], *args: Any, **kwargs: Any) -> Vectors:
        if not lookup.is_active:
            return await original(self, texts, *args, **kwargs)
        with _inside(self, await lookup.aask(self, "text", texts)):
            return await original(self, texts, *args, **kwargs)

    return method


# -------------------------------------------------------------------------------------- private methods


def _one(original: Callable[..., Embedding], kind: Kind, lookup: _Lookup) -> Callable[..., Embedding]:
    @wraps(original)
    def method(self: BaseEmbedding, text: str) -> Embedding:
        return lookup.answer(self, kind, [text], lambda texts: [original(self, texts[0])])[0]

    return method


def _one_async(
    original: Callable[..., Awaitable[Embedding]], kind: Kind, lookup: _Lookup
) -> Callable[..., Awaitable[Embedding]]:
    @wraps(original)
    async def method(self: BaseEmbedding, text: str) -> Embedding:
        async def compute(texts: list[str]) -> Vectors:
            return [await original(self, texts[0])]

        return (await lookup.aanswer(self, kind, [text], compute))[0]

    return method


def _many(original: Callable[..., Vectors], lookup: _Lookup) -> Callable[..., Vectors]:
    @wraps(original)
    def method(self: BaseEmbedding, texts: list[str]) -> Vectors:
        return lookup.answer(self, "text", texts, lambda missing: original(self, missing))

    return method


def _many_async(original: Callable[..., Awaitable[Vectors]], lookup: _Lookup) -> Callable[..., Awaitable[Vectors]]:
    @wraps(original)
    async def method(self: BaseEmbedding, texts: list[str]) -> Vectors:
        return await lookup.aanswer(self, "text", texts, lambda missing: original(self, missing))

    return method


_PUBLIC: Final[dict[str, Callable[..., Any]]] = {
    "get_query_embedding": _around_one,
    "aget_query_embedding": _around_one_async,
    "get_text_embedding": _around_one,
    "aget_text_embedding": _around_one_async,
    "get_text_embedding_batch": _around_batch,
    "aget_text_embedding_batch": _around_batch_async,
}
_PRIVATE: Final[dict[str, Callable[..., Any]]] = {
    "_get_query_embedding": lambda original, lookup: _one(original, "query", lookup),
    "_aget_query_embedding": lambda original, lookup: _one_async(original, "query", lookup),
    "_get_text_embedding": lambda original, lookup: _one(original, "text", lookup),
    "_aget_text_embedding": lambda original, lookup: _one_async(original, "text", lookup),
    "_get_text_embeddings": _many,
    "_aget_text_embeddings": _many_async,
}


# ---------------------------------------------------------------------------------------------- lookups


class _Lookup:
    """Answers texts from the cache and lets the model compute the others, each once."""

    def __init__(self, swapper: Swapper[Any], vectors: VectorCache) -> None:
        self._swapper = swapper
        self._vectors = vectors

    @property
    def is_active(self) -> bool:
        """False once the cache was taken out."""
        return self._swapper.is_active

    def answer(
        self, model: BaseEmbedding, kind: Kind, texts: list[str], compute: Callable[[list[str]], Vectors]
    ) -> Vectors:
        """The vectors of these texts, in their order."""
        if _computing.get() is model or not self.is_active:
            return compute(texts)
        known = _of_batch(model, kind) or self.ask(model, kind, texts)
        if known is None:
            return _compute(model, texts, compute)
        missing = known.due(texts, model.embed_batch_size)
        if missing:
            made = _compute(model, missing, compute)
            if len(made) != len(missing):
                return _compute(model, texts, compute)  # What it would have said without a cache.
            self._vectors.put_many(known.model, kind, missing, made)
            known.learn(missing, made)
        return known.in_order(texts)

    async def aanswer(
        self, model: BaseEmbedding, kind: Kind, texts: list[str], compute: Callable[[list[str]], Awaitable[Vectors]]
    ) -> Vectors:
        """As `answer`, without blocking the event loop."""
        if _computing.get() is model or not self.is_active:
            return await compute(texts)
        known = _of_batch(model, kind) or await self.aask(model, kind, texts)
        if known is None:
            return await _acompute(model, texts, compute)
        missing = known.due(texts, 1)  # Batches are computed side by side: none may go ahead of another.
        if missing:
            made = await _acompute(model, missing, compute)
            if len(made) != len(missing):
                return await _acompute(model, texts, compute)
            await self._vectors.aput_many(known.model, kind, missing, made)
            known.learn(missing, made)
        return known.in_order(texts)

    def ask(self, model: BaseEmbedding, kind: Kind, texts: Sequence[str]) -> _Known | None:
        """What the cache has of these texts; None where it is not asked."""
        described = self._describe(model, texts)
        if described is None:
            return None
        wanted = list(dict.fromkeys(texts))
        return _known(described, wanted, self._vectors.get_many(described, kind, wanted))

    async def aask(self, model: BaseEmbedding, kind: Kind, texts: Sequence[str]) -> _Known | None:
        """As `ask`, without blocking the event loop."""
        described = self._describe(model, texts)
        if described is None:
            return None
        wanted = list(dict.fromkeys(texts))
        return _known(described, wanted, await self._vectors.aget_many(described, kind, wanted))

    def _describe(self, model: BaseEmbedding, texts: object) -> bytes | None:
        if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
            return None
        return self._vectors.describe(model)


def _known(model: bytes, texts: Sequence[str], vectors: Sequence[Embedding | None]) -> _Known:
    pairs = list(zip(texts, vectors, strict=True))
    return _Known(
        model,
        {text: vector for text, vector in pairs if vector is not None},
        {text: None for text, vector in pairs if vector is None},
    )


def _of_batch(model: BaseEmbedding, kind: Kind) -> _Known | None:
    """What the public method around this call has learned; it grows with what is computed. None: ask the cache."""
    call = _call.get()
    return call.known if call is not None and call.model is model and kind == "text" else None


def _compute(model: BaseEmbedding, texts: list[str], compute: Callable[[list[str]], Vectors]) -> Vectors:
    if (limiter := _hidden_limiter(model)) is not None:
        limiter.acquire()
    token = _computing.set(model)
    try:
        return compute(texts)
    finally:
        _computing.reset(token)


async def _acompute(
    model: BaseEmbedding, texts: list[str], compute: Callable[[list[str]], Awaitable[Vectors]]
) -> Vectors:
    if (limiter := _hidden_limiter(model)) is not None:
        await limiter.async_acquire()
    token = _computing.set(model)
    try:
        return await compute(texts)
    finally:
        _computing.reset(token)

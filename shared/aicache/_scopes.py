"""What application code may ask for around a call: no cache, a fresh answer, tags, a TTL.

A scope lives in a context variable, so it follows the code of one request through threads that LangChain starts and
through tasks, and never leaks into another request. It applies to every cache used inside the block.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final

from aicache._errors import ConfigurationError
from aicache._policy import is_number

__all__ = ["Scope", "ScopeBlock", "bypass", "current_scope", "refresh", "scope", "source_tag", "tagged"]


@dataclass(frozen=True, slots=True)
class Scope:
    """The wishes in force at a point of the application."""

    bypass: bool = False
    """Neither read nor write."""
    refresh: bool = False
    """Do not read; write the fresh answer."""
    tags: tuple[str, ...] = ()
    """Written with every entry; `clear(tag=...)` removes by them."""
    ttl: float | None = None
    """Seconds, in place of the policy's TTL; None keeps the policy's."""


@dataclass(frozen=True, slots=True)
class _Frame:
    """A scope and the one around it: a block that ends goes back along it, whoever else uses the same block object."""

    scope: Scope
    outer: _Frame | None = None


_NOTHING_ASKED: Final = _Frame(Scope())
_current: ContextVar[_Frame] = ContextVar("aicache_scope", default=_NOTHING_ASKED)


def current_scope() -> Scope:
    """The scope in force here."""
    return _current.get().scope


class ScopeBlock:
    """A block of code, sync or async, with its own scope; blocks nest, the inner adds to the outer."""

    __slots__ = ("_bypass", "_refresh", "_tags", "_ttl")

    def __init__(self, *, bypass: bool, refresh: bool, tags: tuple[str, ...], ttl: float | None) -> None:
        if ttl is not None and not (is_number(ttl) and ttl > 0):
            raise ConfigurationError("ttl", f"give seconds greater than 0; got {ttl!r}")
        self._bypass = bypass
        self._refresh = refresh
        self._tags = tags
        self._ttl = ttl

    def __enter__(self) -> None:
        frame = _current.get()
        outer = frame.scope
        inner = replace(
            outer,
            bypass=outer.bypass or self._bypass,
            refresh=outer.refresh or self._refresh,
            tags=tuple(dict.fromkeys((*outer.tags, *self._tags))),
            ttl=outer.ttl if self._ttl is None else self._ttl,
        )
        _current.set(_Frame(inner, frame))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _current.set(_current.get().outer or _NOTHING_ASKED)

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


def scope(
    *,
    bypass: bool = False,
    refresh: bool = False,
    tags: tuple[str, ...] = (),
    sources: tuple[str, ...] = (),
    ttl: float | None = None,
) -> ScopeBlock:
    """A block with these wishes: `with scope(ttl=60, sources=("handbook.pdf",)): chain.invoke(...)`.

    A source is the document an answer was drawn from: when it changes, `invalidate(source=...)` takes the answers back.

    Raises:
        ConfigurationError: `ttl` is not above 0, or a tag or source is empty or no text.
    """
    _check_texts("tags", tags)
    _check_texts("sources", sources)
    return ScopeBlock(bypass=bypass, refresh=refresh, tags=(*tags, *map(source_tag, sources)), ttl=ttl)


def _check_texts(parameter: str, texts: object) -> None:
    # A text alone would be taken for its letters.
    if not isinstance(texts, tuple | list) or not all(isinstance(text, str) and text for text in texts):
        raise ConfigurationError(parameter, "give a tuple of texts that are not empty")


def source_tag(source: str) -> str:
    """The tag that entries drawn from this document carry."""
    return f"source:{source}"


def bypass() -> ScopeBlock:
    """A block that neither reads nor writes a cache."""
    return scope(bypass=True)


def refresh() -> ScopeBlock:
    """A block that asks the model anew and writes its answer over the cached one."""
    return scope(refresh=True)


def tagged(*tags: str) -> ScopeBlock:
    """A block whose answers are stored with these tags."""
    return scope(tags=tags)

"""What a hit shows to traces: one span and one pair of events, as the model's own method would have.

LlamaIndex's decorators make them, around a function that has the answer already.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import CellType
from typing import Any, Final

from llama_index.core.llms import callbacks
from llama_index_instrumentation import get_dispatcher

__all__ = ["served", "shown"]

_answer: ContextVar[Any] = ContextVar("aicache_llamaindex_answer")


class _Quiet:
    """The model as LlamaIndex's event decorators see it, without its rate limiter: a hit costs the provider nothing."""

    rate_limiter: Final = None

    def __init__(self, model: Any) -> None:
        object.__setattr__(self, "_model", model)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._model, name, value)


@contextmanager
def served(answer: Any) -> Iterator[None]:
    """Inside, a method made by `shown` answers with this: a response, or a list of pieces."""
    token = _answer.set(answer)
    try:
        yield
    finally:
        _answer.reset(token)


def shown(base: type, name: str, *, is_chat: bool) -> Callable[..., Any]:
    """A method that shows what the method `name` of `base` shows, and answers with what is being served."""
    original = getattr(base, name)
    is_stream, is_async = name.startswith(("stream", "astream")), name.startswith("a")
    method = (_async_method if is_async else _method)(
        _callback_of(base, name, is_chat=is_chat), _replay(is_async=is_async) if is_stream else lambda answer: answer
    )
    method.__name__ = name
    method.__qualname__ = f"{base.__qualname__}.{name}"
    method.__signature__ = inspect.signature(original)
    dispatcher = get_dispatcher(_owner(base, name).__module__)
    return dispatcher.span(method)


def _owner(base: type, name: str) -> type:
    """The class whose definition `base` uses: its module names the dispatcher."""
    return next(kind for kind in base.__mro__ if name in kind.__dict__)


def _callback_of(base: type, name: str, *, is_chat: bool) -> Callable[[Any], Any]:
    if not _shows_events(base, name):
        return lambda function: function  # nor does it without a cache
    return callbacks.llm_chat_callback() if is_chat else callbacks.llm_completion_callback()


def _shows_events(base: type, name: str) -> bool:
    """Whether the method is decorated to show events, or leaves it to the one that it overrides."""
    for kind in base.__mro__:
        method = kind.__dict__.get(name)
        if method is None:
            continue
        if _is_decorated(method):
            return True
        if "super" not in getattr(inspect.unwrap(method), "__code__", _NO_CODE).co_names:
            return False
    return False


def _is_decorated(function: Any, depth: int = 3) -> bool:
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None or not depth:
        return False
    if code.co_filename == callbacks.__file__:
        return bool(code.co_name.startswith("wrapped_"))  # what is wrapped already, it leaves alone
    # A decorator of the application's that does not say what it wraps holds it all the same.
    held = [cell.cell_contents for cell in inspect.unwrap(function).__closure__ or () if cell != _EMPTY]
    return any(_is_decorated(each, depth - 1) for each in held if callable(each) and not isinstance(each, type))


_NO_CODE: Final = (lambda: None).__code__
_EMPTY: Final = CellType()


def _method(callback: Callable[[Any], Any], form: Callable[[Any], Any]) -> Any:
    def give(quiet: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG001 - what the model was called with
        return form(_answer.get())

    emit = callback(give)

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return emit(_Quiet(self), *args, **kwargs)

    return method


def _async_method(callback: Callable[[Any], Any], form: Callable[[Any], Any]) -> Any:
    async def give(quiet: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG001 - what the model was called with
        return form(_answer.get())

    emit = callback(give)

    async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return await emit(_Quiet(self), *args, **kwargs)

    return method


def _replay(*, is_async: bool) -> Callable[[Iterable[Any]], Any]:
    def pieces(answer: Iterable[Any]) -> Generator[Any, None, None]:
        yield from answer

    async def async_pieces(answer: Iterable[Any]) -> AsyncGenerator[Any, None]:
        for piece in answer:
            yield piece

    return async_pieces if is_async else pieces

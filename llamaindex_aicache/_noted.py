"""Templates on their way from `predict` to the `chat` or `complete` that it ends in.

`predict(template, query_str=..., context_str=...)` shows the question apart from all around it. The call it makes is
given only the finished text, so the template is noted where that call finds it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from llama_index.core.prompts import BasePromptTemplate

from llamaindex_aicache._streams import AsyncStream, Stream, as_async_generator, as_generator

__all__ = ["PREDICTS", "Note", "attach_notes", "take_note"]

PREDICTS: Final = (
    "predict",
    "apredict",
    "stream",
    "astream",
    "structured_predict",
    "astructured_predict",
    "stream_structured_predict",
    "astream_structured_predict",
)
"""The methods of a model that are given a template."""

_NOT_VARIABLES: Final = frozenset({"prompt", "output_cls", "llm_kwargs"})


class Note:
    """A template and its variables, for one call: who takes it, takes it away."""

    __slots__ = ("_noted",)

    def __init__(self, template: BasePromptTemplate, variables: dict[str, Any]) -> None:
        self._noted: tuple[BasePromptTemplate, dict[str, Any]] | None = template, variables

    def take(self) -> tuple[BasePromptTemplate, dict[str, Any]] | None:
        """Template and variables, to the first that asks; then None."""
        noted, self._noted = self._noted, None
        return noted


_current: ContextVar[Note | None] = ContextVar("aicache_llamaindex_note", default=None)


def take_note() -> tuple[BasePromptTemplate, dict[str, Any]] | None:
    """What a `predict` around this call was given, if no call has taken it."""
    note = _current.get()
    return None if note is None else note.take()


@contextmanager
def _noting(note: Note | None) -> Iterator[None]:
    if note is None:
        yield
        return
    token = _current.set(note)
    try:
        yield
    finally:
        _current.reset(token)


def _read_note(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Note | None:
    given = (*args, kwargs.get("prompt"))
    template = next((value for value in given if isinstance(value, BasePromptTemplate)), None)
    variables = {name: value for name, value in kwargs.items() if name not in _NOT_VARIABLES}
    # One without variables, as where a structured model passes messages on, must not hide the one around it.
    return None if template is None or not template.template_vars else Note(template, variables)


def attach_notes(swapped: type) -> None:
    """Override the methods that are given a template."""
    for name in PREDICTS:
        original = getattr(swapped, name, None)
        if original is not None:
            make = _async_method if name.startswith("a") else _method
            method = make(swapped, name)
            method.__doc__ = original.__doc__
            method.__name__ = name
            method.__wrapped__ = original
            setattr(swapped, name, method)


def _method(swapped: type, name: str) -> Any:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        note = _read_note(args, kwargs)
        with _noting(note):
            result = getattr(super(swapped, self), name)(*args, **kwargs)
        if name == "stream_structured_predict" and (source := as_generator(result)) is not None:
            return Stream(source, lambda: _noting(note))  # it asks the model at its first step
        return result

    return method


def _async_method(swapped: type, name: str) -> Any:
    async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        note = _read_note(args, kwargs)
        with _noting(note):
            result = await getattr(super(swapped, self), name)(*args, **kwargs)
        if name == "astream_structured_predict" and (source := as_async_generator(result)) is not None:
            return AsyncStream(source, lambda: _noting(note))
        return result

    return method

"""Any function that turns a text into a vector."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import inspect
from collections.abc import Awaitable, Callable, Sequence
from types import CodeType, FunctionType
from typing import Any, Final

from aicache._errors import ConfigurationError, EmbedderError

__all__ = ["CallableEmbedder"]

_PLAIN: Final = (type(None), bool, int, float, complex, str, bytes, type(...))
"""Types whose repr says everything, in every process."""


class CallableEmbedder:
    """A function as an embedder; it may be a coroutine function.

    Vectors are kept longer than a program runs, so the function needs an identity that outlasts it. For a plain
    function that is its module, its name and a hash of its code and default arguments; for a `functools.partial` of
    one, also of the arguments given. What has none of its own (a lambda, a closure, a method, an object, an argument
    that is an object) needs `name`. What the function calls is not part of its identity: change `name` when the model
    behind it changes.

    Args:
        function: takes a text and returns its vector; with `batch`, takes a list of texts and returns their vectors.
        batch: which of the two it is. It is not guessed: a text is a sequence of texts too.
        name: the identity of the model behind the function, such as `"bge-small-v1.5"`.

    Raises:
        ConfigurationError: it is not callable, or needs a name.
    """

    def __init__(self, function: Callable[..., Any], *, batch: bool = False, name: str | None = None) -> None:
        if not callable(function) or isinstance(function, type):
            raise ConfigurationError("function", f"give a function; got {_describe(function)}")
        self._function = function
        self._batch = batch
        self._is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - of an object whose __call__ is a coroutine function
        )
        self._fingerprint = f"callable:{name}" if name else f"callable:{_identity(function)}"

    @property
    def fingerprint(self) -> str:
        """The name given, or module, name and hash of the function's code and arguments."""
        return self._fingerprint

    @property
    def aembed(self) -> Callable[[Sequence[str]], Awaitable[list[Any]]] | None:
        """The same, awaited; None for a function that is not a coroutine function."""
        return self._call_async if self._is_async else None

    def embed(self, texts: Sequence[str]) -> list[Any]:
        """One vector a text.

        Raises:
            EmbedderError: a coroutine function was called in a thread whose event loop runs.
        """
        if not self._is_async:
            function = self._function
            return list(function(list(texts))) if self._batch else [function(text) for text in texts]
        if _loop_is_running():
            raise EmbedderError(
                "a coroutine function cannot be waited for on a running loop: use the cache's async calls"
            )
        return asyncio.run(self._call_async(texts))

    async def _call_async(self, texts: Sequence[str]) -> list[Any]:
        if self._batch:
            return list(await self._function(list(texts)))
        return [await self._function(text) for text in texts]


def _identity(function: Callable[..., Any]) -> str:
    if isinstance(function, functools.partial):
        given = _arguments_hash(function, function.args, function.keywords)
        return f"{_identity(function.func)}({given})"
    if not _stands_alone(function):
        raise _needs_name(f"{_describe(function)} has no identity of its own")
    identity = f"{function.__module__}.{function.__qualname__}"
    if not isinstance(function, FunctionType):
        return identity
    identity = f"{identity}:{_code_hash(function.__code__)}"
    if function.__defaults__ or function.__kwdefaults__:
        identity += f":{_arguments_hash(function, function.__defaults__, function.__kwdefaults__)}"
    return identity


def _arguments_hash(
    function: Callable[..., Any], args: tuple[object, ...] | None, keywords: dict[str, object] | None
) -> str:
    """A hash of default or given arguments; they may choose the model, and one may be a credential."""
    try:
        shown = ascii((_shown(args or ()), _shown(keywords or {})))
    except (TypeError, RecursionError):
        kind = "an argument" if isinstance(function, functools.partial) else "a default argument"
        raise _needs_name(f"{kind} of {_describe(function)} is an object that has no identity of its own") from None
    return hashlib.sha256(shown.encode()).hexdigest()[:12]


def _shown(value: object) -> str:
    """The value as a text that is the same in every process.

    Raises:
        TypeError: the value is more than texts, numbers and collections of them.
    """
    kind = type(value)
    if kind in _PLAIN:
        return repr(value)
    if isinstance(value, dict) and kind is dict:
        items = [f"{_shown(key)}: {_shown(item)}" for key, item in value.items()]
    elif isinstance(value, list | tuple | set | frozenset) and kind in (list, tuple, set, frozenset):
        items = [_shown(item) for item in value]
    else:
        raise TypeError
    return f"{kind.__name__}{items if kind in (list, tuple) else sorted(items)}"


def _needs_name(why: str) -> ConfigurationError:
    return ConfigurationError("name", f"{why}: give CallableEmbedder(..., name=...) the name of the model behind it")


def _stands_alone(function: Callable[..., Any]) -> bool:
    """Whether module, name and code say what the function does: it carries no object and no enclosing variables."""
    if inspect.isbuiltin(function):
        return function.__self__ is None or inspect.ismodule(function.__self__)
    return isinstance(function, FunctionType) and not function.__closure__ and function.__name__ != "<lambda>"


def _code_hash(code: CodeType) -> str:
    digest = hashlib.sha256()
    waiting = [code]
    while waiting:
        part = waiting.pop()
        digest.update(part.co_code)
        digest.update(repr(part.co_names).encode())
        for constant in part.co_consts:
            if isinstance(constant, CodeType):
                waiting.append(constant)
            elif isinstance(constant, frozenset):  # Its order changes from process to process.
                digest.update(repr(sorted(map(repr, constant))).encode())
            else:
                digest.update(repr(constant).encode())
    return digest.hexdigest()[:12]


def _describe(function: object) -> str:
    match function:
        case FunctionType(__name__="<lambda>"):
            return "a lambda"
        case functools.partial():
            return f"a partial of {_describe(function.func)}"
        case FunctionType():
            return f"the function {function.__qualname__}"
        case type():
            return f"the class {function.__qualname__}"
        case _:
            return f"an object of type {type(function).__qualname__}"


def _loop_is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True

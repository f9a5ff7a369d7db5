"""Any function of two questions, and functions that may be coroutine functions."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, cast

from aicache._errors import ConfigurationError, VerifierError
from aicache._model import Opinion
from aicache.verifiers.base import Verifier

__all__ = ["CallableVerifier", "Either", "to_verifier"]


class Either:
    """A function that may be a coroutine function, to be called from both sides.

    Raises:
        ConfigurationError: it is not callable, or a class.
    """

    __slots__ = ("_function", "is_async")

    def __init__(self, parameter: str, function: Callable[..., Any]) -> None:
        if not callable(function) or isinstance(function, type):
            raise ConfigurationError(parameter, f"give a function; got {_describe(function)}")
        self._function = function
        self.is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - of an object whose __call__ is a coroutine function
        )

    def call(self, *args: str) -> Any:
        """Its result, blocking; a coroutine runs in a loop of its own.

        Raises:
            VerifierError: there is a coroutine to run, and a loop runs in this thread.
        """
        if self.is_async and _loop_is_running():
            raise _on_a_loop()
        result = self._function(*args)
        # A lambda around a coroutine function is no coroutine function.
        if not inspect.isawaitable(result):
            return result
        if _loop_is_running():
            if inspect.iscoroutine(result):
                result.close()
            raise _on_a_loop()
        return asyncio.run(_finish(result))

    async def acall(self, *args: str) -> Any:
        """Its result, awaited; only where `is_async`."""
        return await self._function(*args)


class CallableVerifier:
    """A function of the asked and the stored question as a verifier; it may be a coroutine function.

    Args:
        function: returns True or False, or an `Opinion`.

    Raises:
        ConfigurationError: it is not callable.
    """

    def __init__(self, function: Callable[[str, str], bool | Opinion | Awaitable[bool | Opinion]]) -> None:
        self._either = Either("function", function)

    def verify(self, asked: str, stored: str, /) -> bool | Opinion:
        """What the function says."""
        return cast("bool | Opinion", self._either.call(asked, stored))

    @property
    def averify(self) -> Callable[[str, str], Awaitable[bool | Opinion]] | None:
        """The same, awaited; None for a function that is not a coroutine function."""
        return self._either.acall if self._either.is_async else None


def to_verifier(given: object) -> Verifier:
    """The verifier that an option names: one, or a function.

    Raises:
        ConfigurationError: it is neither.
    """
    if not isinstance(given, type):
        if isinstance(given, Verifier):
            # Only `averify` is awaited; a `verify` that has to be is a coroutine function like any other.
            return CallableVerifier(given.verify) if inspect.iscoroutinefunction(given.verify) else given
        if callable(given):
            return CallableVerifier(given)
    raise ConfigurationError(
        "verifier",
        f"give a Verifier or a function of the asked and the stored question; got {_describe(given)}",
    )


def _describe(thing: object) -> str:
    return f"the class {thing.__qualname__}" if isinstance(thing, type) else f"an object of type {type(thing).__name__}"


def _loop_is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _on_a_loop() -> VerifierError:
    return VerifierError("a coroutine function cannot be waited for on a running loop: use the cache's async calls")


async def _finish(waiting: Awaitable[Any]) -> Any:
    return await waiting

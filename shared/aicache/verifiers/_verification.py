"""What stands between the drivers and a verifier: memo, validation, deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeAlias

from aicache._clock import Clock, SystemClock
from aicache._errors import ConfigurationError, MissingExtraError, VerifierError, VerifierTimeoutError
from aicache._memo import Memo
from aicache._model import Opinion
from aicache._policy import is_number
from aicache._scopes import bypass
from aicache.embedders._deadline import DeadlineThreads, Watched
from aicache.verifiers.base import Verifier

__all__ = ["Verification"]

NativeVerify: TypeAlias = Callable[[str, str], Awaitable[Any]]

OURS: Final = (VerifierError, ConfigurationError, MissingExtraError)
"""Exceptions whose texts are ours; they pass as they are."""

ENDS: Final = (KeyboardInterrupt, SystemExit, GeneratorExit)
"""What ends a program or a coroutine; it passes. Any other exception is a fault of the verifier."""

VERIFIER: Final = Watched("verifier", "pair", "opinion", VerifierError, VerifierTimeoutError)


class Verification:
    """The opinion on a pair of questions, from memory or from a verifier within a deadline.

    The verifier runs in a thread of its own (or, awaited, through its `averify`): a caller waits until the deadline and
    goes on with a miss, while a late opinion of a thread still reaches the memo. Who asks about a pair that is being
    verified shares that call, or fails at once if it is late already. After two late calls in a row, and while every
    thread is held by a late one, further calls fail without waiting; ten seconds later one is let through to see.

    The verifier is called as in `bypass()`: one that asks a model would else ask this very cache, and be verified
    itself.

    Args:
        verifier: whom to ask.
        memo_entries: pairs whose opinions are remembered, at most; 0 for none.
        timeout: seconds to wait for an opinion, above 0; None for no limit.
        workers: threads in which the verifier runs, at least 1.
        clock: where time comes from.

    Raises:
        ConfigurationError: an argument is out of range.
    """

    def __init__(
        self,
        verifier: Verifier,
        *,
        memo_entries: int = 4096,
        timeout: float | None = 1.0,
        workers: int = 2,
        clock: Clock | None = None,
    ) -> None:
        if memo_entries < 0:
            raise ConfigurationError("memo_entries", f"give a whole number, 0 or more; got {memo_entries!r}")
        if timeout is not None and not (is_number(timeout) and timeout > 0):
            raise ConfigurationError("timeout", f"give seconds above 0, or None for no limit; got {timeout!r}")
        if workers < 1:
            raise ConfigurationError("workers", f"give a whole number of at least 1; got {workers!r}")
        self._verifier = verifier
        # A memo of size n holds up to 2 n keys.
        self._memo: Memo[tuple[str, str], Opinion] | None = Memo(max(1, memo_entries // 2)) if memo_entries else None
        self._timeout = timeout
        self._closed = False
        self._threads: DeadlineThreads[Opinion] = DeadlineThreads(workers, timeout, clock or SystemClock(), VERIFIER)

    def verify(self, asked: str, stored: str, /) -> Opinion:
        """Whether the answer to the stored question answers the asked one.

        Raises:
            VerifierTimeoutError: the deadline passed, or the verifier was too slow before and is not asked.
            VerifierError: the verifier failed, or what it returned is no yes or no.
        """
        if (known := self.recall(asked, stored)) is not None:
            return known
        self._check_open()
        if self._timeout is None:
            return self._ask(asked, stored)
        return self._threads.wait_for((asked, stored), partial(self._ask, asked, stored))

    async def averify(self, asked: str, stored: str, /) -> Opinion:
        """As `verify`, without blocking the event loop."""
        if (known := self.recall(asked, stored)) is not None:
            return known
        self._check_open()
        native: NativeVerify | None = getattr(self._verifier, "averify", None)
        if native is None:
            return await self._threads.await_for((asked, stored), partial(self._ask, asked, stored))
        return await self._threads.await_natively(partial(self._ask_natively, native, asked, stored))

    def recall(self, asked: str, stored: str, /) -> Opinion | None:
        """The opinion if it is remembered; the verifier is not asked."""
        return None if self._memo is None else self._memo.get((asked, stored))

    def close(self) -> None:
        """Release the threads and forget the opinions; a second call does nothing."""
        self._closed = True
        self._threads.close()
        if self._memo is not None:
            self._memo.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise VerifierTimeoutError("the verifier has been closed")

    def _ask(self, asked: str, stored: str) -> Opinion:
        # It may have come since the caller looked.
        if (known := self.recall(asked, stored)) is not None:
            return known
        try:
            with bypass():
                returned = self._verifier.verify(asked, stored)
            return self._keep(asked, stored, returned)
        except (*OURS, *ENDS):
            raise
        # A CancelledError too: nobody cancels a blocking call, and to a task it would look like its own cancellation.
        except BaseException as error:
            raise _foreign(error) from error

    async def _ask_natively(self, native: NativeVerify, asked: str, stored: str) -> Opinion:
        try:
            with bypass():
                returned = await native(asked, stored)
            return self._keep(asked, stored, returned)
        except (*OURS, *ENDS):
            raise
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and _is_being_cancelled():
                raise
            raise _foreign(error) from error

    def _keep(self, asked: str, stored: str, returned: object) -> Opinion:
        opinion = _to_opinion(returned)
        if self._memo is not None and not self._closed:
            self._memo.put((asked, stored), opinion)
        return opinion


def _to_opinion(returned: object) -> Opinion:
    """A yes or a no, and nothing that merely counts as true: a score is neither, nor is the text "no"."""
    says, said = (returned.same, returned.said) if isinstance(returned, Opinion) else (returned, "")
    item = getattr(says, "item", None)
    plain = item() if callable(item) else says  # What a comparison of numpy or torch scalars makes.
    if isinstance(plain, bool) and isinstance(said, str):
        return Opinion(plain, said)
    raise VerifierError(f"the verifier returned {type(returned).__name__} where True, False or an Opinion is wanted")


def _is_being_cancelled() -> bool:
    """Whether this task has been asked to end; else a `CancelledError` is that of something the verifier awaited."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _foreign(error: BaseException) -> VerifierError:
    # The text of a foreign exception may quote a question; its type does not.
    return VerifierError(f"the verifier raised {type(error).__name__}")

"""One more attempt, at once, where a failure says that the connection was stale and not that the server is ill."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from tenacity import AsyncRetrying, Retrying, retry_if_exception, stop_after_attempt

__all__ = ["aretry_once", "retry_once"]

R = TypeVar("R")

_TWICE: Final = stop_after_attempt(2)
"""No pause in between: what is retried is not overload."""


def retry_once(act: Callable[[], R], *, when: Callable[[BaseException], bool]) -> R:
    """Carry it out; a second time if it failed in the way `when` names. The second failure stands.

    The first attempt is made here and only its failure is handed to tenacity, which takes 13 us a call: a tenth of a
    round trip, and nearly all calls need no second attempt.
    """
    try:
        return act()
    except Exception as error:  # noqa: BLE001 - raised again below unless it is retried
        first = error
    try:
        for attempt in Retrying(stop=_TWICE, retry=retry_if_exception(when), reraise=True):
            with attempt:
                if attempt.retry_state.attempt_number == 1:
                    raise first
                return act()
    finally:
        del first  # It refers to this frame.
    raise AssertionError("tenacity ends with a result or an exception")


async def aretry_once(
    act: Callable[[], Awaitable[R]],
    *,
    when: Callable[[BaseException], bool],
    before: Callable[[], Awaitable[None]],
) -> R:
    """As `retry_once`, for an awaitable; `before` comes before the second attempt. Cancellation is never retried."""
    try:
        return await act()
    except Exception as error:  # noqa: BLE001 - raised again below unless it is retried
        first = error
    try:
        async for attempt in AsyncRetrying(stop=_TWICE, retry=retry_if_exception(when), reraise=True):
            with attempt:
                if attempt.retry_state.attempt_number == 1:
                    raise first
                await before()
                return await act()
    finally:
        del first
    raise AssertionError("tenacity ends with a result or an exception")

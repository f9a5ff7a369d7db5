"""One more attempt, at once, where a failure says that the connection was stale and not that the server is ill."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from tenacity import RetryCallState

__all__ = ["aretry_once", "retry_once"]

R = TypeVar("R")


def retry_once(act: Callable[[], R], *, when: Callable[[BaseException], bool], in_time: Callable[[], bool]) -> R:
    """Carry it out; a second time if it failed in the way `when` names and `in_time` still holds.

    The first attempt is made here and only its failure is handed to tenacity, which takes 13 us a call: a tenth of a
    round trip, and nearly all calls need no second attempt.
    """
    try:
        return act()
    except Exception as error:  # noqa: BLE001 - raised again below unless it is retried
        first = error
    from tenacity import Retrying, retry_if_exception

    for attempt in Retrying(stop=_stop(in_time), retry=retry_if_exception(when), reraise=True):
        with attempt:
            if attempt.retry_state.attempt_number == 1:
                raise first
            return act()
    raise AssertionError("tenacity ends with a result or an exception")


async def aretry_once(
    act: Callable[[], Awaitable[R]], *, when: Callable[[BaseException], bool], in_time: Callable[[], bool]
) -> R:
    """As `retry_once`, for an awaitable. Cancellation is never retried."""
    try:
        return await act()
    except Exception as error:  # noqa: BLE001 - raised again below unless it is retried
        first = error
    from tenacity import AsyncRetrying, retry_if_exception

    async for attempt in AsyncRetrying(stop=_stop(in_time), retry=retry_if_exception(when), reraise=True):
        with attempt:
            if attempt.retry_state.attempt_number == 1:
                raise first
            return await act()
    raise AssertionError("tenacity ends with a result or an exception")


def _stop(in_time: Callable[[], bool]) -> Callable[[RetryCallState], bool]:
    return lambda state: state.attempt_number >= 2 or not in_time()

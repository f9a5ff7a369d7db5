"""Rules of deadlines and of the one retry."""

import asyncio
import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from aicache import StoreError
from aicache._deadline import Deadline, time_left
from aicache._errors import StoreTimeoutError
from aicache._retry import aretry_once, retry_once
from aicache.testing import FakeClock

SHORT = 0.02
"""Seconds really waited, where only the operating system can interrupt a wait."""


def test_what_remains_goes_down_with_the_clock_until_nothing_is_left() -> None:
    clock = FakeClock()
    deadline = Deadline(clock, 1.0)
    clock.advance(0.75)
    assert deadline.remaining() == 0.25
    clock.advance(0.25)
    with pytest.raises(StoreTimeoutError):
        deadline.remaining()


def test_no_deadline_never_passes() -> None:
    clock = FakeClock()
    deadline = Deadline(clock, None)
    clock.advance(1e9)
    assert deadline.remaining() == math.inf
    with deadline.paused():
        clock.advance(1)
    assert deadline.endless


def test_a_pause_does_not_count_even_if_it_ends_in_an_error() -> None:
    clock = FakeClock()
    deadline = Deadline(clock, 1.0)

    def fail_after(seconds: float) -> None:
        clock.advance(seconds)
        raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"), deadline.paused():
        fail_after(10)
    assert deadline.remaining() == 1.0


def test_a_store_learns_how_long_it_has() -> None:
    clock = FakeClock()
    assert time_left(5.0) == 5.0
    assert Deadline(clock, 1.0).call(lambda: time_left(5.0)) == 1.0
    assert Deadline(clock, 9.0).call(lambda: time_left(5.0)) == 5.0
    assert Deadline(clock, None).call(lambda: time_left(5.0)) == 5.0
    assert time_left(5.0) == 5.0


def test_a_call_without_a_limit_of_its_own_is_waited_for_in_a_thread() -> None:
    release = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        try:
            with pytest.raises(StoreTimeoutError):
                Deadline(FakeClock(), SHORT).call_in_thread(release.wait, executor)
        finally:
            release.set()
        assert Deadline(FakeClock(), 60.0).call_in_thread(lambda: time_left(120.0), executor) <= 60.0


def test_a_timeout_of_the_store_itself_passes_through() -> None:
    def timed_out() -> None:
        raise TimeoutError("the store's own")

    with ThreadPoolExecutor(1) as executor, pytest.raises(TimeoutError, match="own"):
        Deadline(FakeClock(), 60.0).call_in_thread(timed_out, executor)


async def test_an_await_is_cancelled_at_the_deadline() -> None:
    cancelled: list[bool] = []

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    with pytest.raises(StoreTimeoutError):
        await Deadline(FakeClock(), SHORT).wait(hang())
    assert cancelled == [True]


async def test_an_await_in_time_returns_and_without_a_deadline_has_no_limit() -> None:
    async def answer() -> int:
        return 7

    assert await Deadline(FakeClock(), 60.0).wait(answer()) == 7
    assert await Deadline(FakeClock(), None).wait(answer()) == 7


async def test_a_timeout_of_an_awaited_store_passes_through() -> None:
    async def timed_out() -> None:
        raise TimeoutError("the store's own")

    with pytest.raises(TimeoutError, match="own"):
        await Deadline(FakeClock(), 60.0).wait(timed_out())


# ----------------------------------------------------------------------------------------------------- retry


class Attempts:
    """Fails as often as told, and counts."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.made = 0

    def __call__(self) -> str:
        self.made += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"

    async def acall(self) -> str:
        await asyncio.sleep(0)
        return self()


def is_reset(error: BaseException) -> bool:
    return isinstance(error, ConnectionResetError)


CASES = [
    ((), True, "answer", 1),
    ((ConnectionResetError(),), True, "answer", 2),
    ((ConnectionResetError(), ConnectionResetError()), True, ConnectionResetError, 2),
    ((ConnectionResetError(), StoreError("down")), True, StoreError, 2),
    ((StoreError("down"),), True, StoreError, 1),
    ((ConnectionResetError(),), False, ConnectionResetError, 1),
    ((KeyboardInterrupt(),), True, KeyboardInterrupt, 1),
]
"""Failures, whether there is time, result or exception, attempts."""


@pytest.mark.parametrize(("errors", "in_time", "result", "made"), CASES)
def test_a_reset_is_tried_once_more_in_time(
    errors: tuple[BaseException, ...], in_time: bool, result: str | type[BaseException], made: int
) -> None:
    attempts = Attempts(*errors)
    if isinstance(result, str):
        assert retry_once(attempts, when=is_reset, in_time=lambda: in_time) == result
    else:
        with pytest.raises(result):
            retry_once(attempts, when=is_reset, in_time=lambda: in_time)
    assert attempts.made == made


@pytest.mark.parametrize(("errors", "in_time", "result", "made"), CASES)
async def test_the_async_retry_does_the_same(
    errors: tuple[BaseException, ...], in_time: bool, result: str | type[BaseException], made: int
) -> None:
    if any(isinstance(error, KeyboardInterrupt) for error in errors):
        errors, result = (asyncio.CancelledError(),), asyncio.CancelledError
    attempts = Attempts(*errors)
    if isinstance(result, str):
        assert await aretry_once(attempts.acall, when=is_reset, in_time=lambda: in_time) == result
    else:
        with pytest.raises(result):
            await aretry_once(attempts.acall, when=is_reset, in_time=lambda: in_time)
    assert attempts.made == made

"""Rules of deadlines."""

import asyncio
import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from aicache._deadline import Deadline, time_left
from aicache._errors import StoreTimeoutError
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


async def test_an_await_that_swallows_its_cancellation_is_cancelled_again() -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        for _ in range(3):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
        await asyncio.Event().wait()

    with pytest.raises(StoreTimeoutError):
        await Deadline(FakeClock(), SHORT).wait(stubborn())
    assert swallowed == 3
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0


async def test_a_caller_cancelled_after_the_deadline_is_cancelled() -> None:
    began = asyncio.Event()

    async def slow_to_end() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            began.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(Deadline(FakeClock(), SHORT).wait(slow_to_end()))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


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

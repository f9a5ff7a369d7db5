"""Rules of the breaker: when it opens, when it tries again, and what counts."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from aicache import ConfigurationError, StoreError
from aicache._breaker import ATTEMPT_LEASE, SLOW, Breaker
from aicache._errors import QueryTooLongError, UnavailableError
from aicache._health import PartHealth, PartState
from aicache.testing import FakeClock

FAILURES, RESET = 3, 5.0


class HarmlessError(Exception):
    pass


def make_breaker(clock: FakeClock | None = None, heard: list[PartHealth] | None = None) -> Breaker:
    def hear(part: str, health: PartHealth) -> None:
        if heard is not None:
            heard.append(health)

    return Breaker(
        "store", clock=clock or FakeClock(), failures=FAILURES, reset=RESET, harmless=(HarmlessError,), on_change=hear
    )


def fail(breaker: Breaker, error: BaseException | None = None) -> None:
    error = error or StoreError("down")
    with pytest.raises(type(error)), breaker.enter():
        raise error


def succeed(breaker: Breaker) -> None:
    with breaker.enter():
        pass


def open_it(breaker: Breaker) -> None:
    for _ in range(FAILURES):
        fail(breaker)


def state(breaker: Breaker) -> PartState:
    return breaker.health.state


def refuses(breaker: Breaker) -> bool:
    try:
        breaker.check()
    except UnavailableError:
        return True
    return False


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    breaker = make_breaker()
    for _ in range(FAILURES - 1):
        fail(breaker)
    assert not refuses(breaker)
    fail(breaker)
    assert refuses(breaker)
    with pytest.raises(UnavailableError):
        breaker.enter()


def test_a_success_in_between_starts_the_count_anew() -> None:
    breaker = make_breaker()
    for _ in range(3):
        for _ in range(FAILURES - 1):
            fail(breaker)
        succeed(breaker)
    assert not refuses(breaker)


def test_the_error_passes_through_unchanged() -> None:
    error = StoreError("down")
    with pytest.raises(StoreError) as caught, make_breaker().enter():
        raise error
    assert caught.value is error


def test_the_failure_that_opens_it_passes_through_as_well() -> None:
    breaker = make_breaker()
    for _ in range(FAILURES):
        with pytest.raises(StoreError), breaker.enter():
            raise StoreError("down")


def test_after_the_reset_time_one_call_is_let_through_and_no_other() -> None:
    clock = FakeClock()
    breaker = make_breaker(clock)
    open_it(breaker)
    clock.advance(RESET - 0.001)
    assert refuses(breaker)
    clock.advance(0.001)
    attempt = breaker.enter()
    with pytest.raises(UnavailableError):
        breaker.enter()
    with attempt:
        pass
    succeed(breaker)


def test_a_failed_attempt_opens_it_for_another_reset_time() -> None:
    clock = FakeClock()
    breaker = make_breaker(clock)
    open_it(breaker)
    clock.advance(RESET)
    fail(breaker)
    assert refuses(breaker)
    clock.advance(RESET)
    succeed(breaker)
    assert state(breaker) is PartState.UP


def test_an_attempt_that_was_cancelled_leaves_the_next_one_to_try() -> None:
    clock = FakeClock()
    breaker = make_breaker(clock)
    open_it(breaker)
    clock.advance(RESET)
    fail(breaker, asyncio.CancelledError())
    assert state(breaker) is PartState.OPEN
    succeed(breaker)
    assert state(breaker) is PartState.UP


def test_an_attempt_that_never_reports_does_not_keep_it_open_for_ever() -> None:
    clock = FakeClock()
    breaker = make_breaker(clock)
    open_it(breaker)
    clock.advance(RESET)
    lost = breaker.enter()
    clock.advance(ATTEMPT_LEASE)
    succeed(breaker)
    assert state(breaker) is PartState.UP
    lost.failed(StoreError("long ago"))
    assert state(breaker) is PartState.UP


def test_a_late_attempt_does_not_decide_while_another_is_under_way() -> None:
    clock = FakeClock()
    breaker = make_breaker(clock)
    open_it(breaker)
    clock.advance(RESET)
    late = breaker.enter()
    clock.advance(ATTEMPT_LEASE)
    current = breaker.enter()
    late.succeeded()
    assert refuses(breaker)
    current.failed(StoreError("down"))
    assert refuses(breaker)


def test_calls_from_before_it_opened_change_nothing_afterwards() -> None:
    clock = FakeClock()
    breaker = make_breaker(clock)
    early, earlier = breaker.enter(), breaker.enter()
    open_it(breaker)
    early.succeeded()
    assert refuses(breaker)
    clock.advance(RESET)
    succeed(breaker)
    for _ in range(FAILURES):
        earlier.failed(StoreError("down"))
    assert state(breaker) is PartState.UP


def test_a_call_reports_once() -> None:
    breaker = make_breaker()
    call = breaker.enter()
    for _ in range(FAILURES):
        call.failed(StoreError("down"))
    assert not refuses(breaker)


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt(), GeneratorExit()])
def test_cancellation_counts_neither_way(error: BaseException) -> None:
    breaker = make_breaker()
    for _ in range(FAILURES):
        fail(breaker, error)
    assert state(breaker) is PartState.UP
    for _ in range(FAILURES - 1):
        fail(breaker)
    fail(breaker, error)
    assert state(breaker) is PartState.DEGRADED
    fail(breaker)
    assert refuses(breaker)


def test_a_harmless_error_counts_as_an_answer() -> None:
    breaker = make_breaker()
    for _ in range(FAILURES - 1):
        fail(breaker)
    fail(breaker, HarmlessError())
    assert state(breaker) is PartState.UP


def test_harmless_covers_subclasses() -> None:
    breaker = Breaker("embedder", clock=FakeClock(), failures=1, harmless=(QueryTooLongError,))

    class LongerError(QueryTooLongError):
        pass

    fail(breaker, LongerError("too long"))
    assert not refuses(breaker)


def test_slow_calls_count_as_failed() -> None:
    clock = FakeClock()
    breaker = make_breaker(clock)
    for _ in range(FAILURES):
        with breaker.enter(slow_after=0.1):
            clock.advance(0.11)
    assert refuses(breaker)
    assert breaker.health.why == SLOW


def test_a_call_that_takes_just_as_long_as_allowed_is_not_slow() -> None:
    clock = FakeClock()
    breaker = make_breaker(clock)
    for _ in range(FAILURES):
        with breaker.enter(slow_after=0.5):
            clock.advance(0.5)
    assert state(breaker) is PartState.UP


def test_time_before_the_call_begins_does_not_make_it_slow() -> None:
    clock = FakeClock()
    breaker = make_breaker(clock)
    for _ in range(FAILURES):
        call = breaker.enter(slow_after=0.1)
        clock.advance(1)
        with call:
            pass
    assert state(breaker) is PartState.UP


def test_a_jump_of_the_wall_clock_decides_nothing() -> None:
    clock = FakeClock()
    breaker = make_breaker(clock)
    open_it(breaker)
    clock.set_wall(clock.wall() + 1e6)
    assert refuses(breaker)
    clock.set_wall(0.0)
    clock.advance(RESET)
    succeed(breaker)
    assert state(breaker) is PartState.UP


def test_health_says_state_reason_and_since_when() -> None:
    clock = FakeClock(wall=1000.0)
    breaker = make_breaker(clock)
    assert breaker.health == PartHealth(PartState.UP, 1000.0)
    clock.advance(1)
    fail(breaker)
    clock.advance(1)
    fail(breaker, ConnectionError("redis://user:secret@host"))
    assert breaker.health == PartHealth(PartState.DEGRADED, 1001.0, "ConnectionError")
    clock.advance(1)
    fail(breaker)
    clock.advance(RESET)
    fail(breaker, TimeoutError())
    assert breaker.health == PartHealth(PartState.OPEN, 1003.0, "TimeoutError")
    clock.advance(RESET)
    succeed(breaker)
    assert breaker.health == PartHealth(PartState.UP, 1013.0)


def test_each_change_of_state_is_told_once() -> None:
    clock, heard = FakeClock(), list[PartHealth]()
    breaker = make_breaker(clock, heard)
    open_it(breaker)
    for _ in range(3):
        clock.advance(RESET)
        fail(breaker)
    clock.advance(RESET)
    succeed(breaker)
    succeed(breaker)
    assert [health.state for health in heard] == [PartState.DEGRADED, PartState.OPEN, PartState.UP]


def test_the_refusal_names_the_part_and_the_kind_of_the_last_failure_only() -> None:
    breaker = make_breaker()
    for _ in range(FAILURES):
        fail(breaker, ConnectionError("redis://user:secret@host"))
    with pytest.raises(UnavailableError, match="store is left alone") as refused:
        breaker.check()
    assert (refused.value.part, refused.value.why) == ("store", "ConnectionError")
    assert "secret" not in str(refused.value)


async def test_it_guards_awaits_and_holds_no_lock_meanwhile() -> None:
    breaker = make_breaker()
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        with breaker.enter():
            inside.set()
            await go_on.wait()

    task = asyncio.create_task(slow())
    await inside.wait()
    fail(breaker)  # would never come back if the other call held the lock
    succeed(breaker)
    go_on.set()
    await task
    assert state(breaker) is PartState.UP


async def test_a_task_cancelled_inside_counts_neither_way() -> None:
    breaker = make_breaker()
    inside = asyncio.Event()

    async def hang() -> None:
        with breaker.enter():
            inside.set()
            await asyncio.Event().wait()

    for _ in range(FAILURES):
        inside.clear()
        task = asyncio.create_task(hang())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert state(breaker) is PartState.UP


def in_threads(count: int, act: Callable[[], None]) -> None:
    threads = [threading.Thread(target=act) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_of_many_threads_one_gets_the_attempt() -> None:
    clock = FakeClock()
    breaker = make_breaker(clock)
    open_it(breaker)
    clock.advance(RESET)
    begin = threading.Barrier(16)
    got: list[object] = []

    def try_it() -> None:
        begin.wait()
        with suppress(UnavailableError):
            got.append(breaker.enter())

    in_threads(16, try_it)
    assert len(got) == 1


def test_failures_of_many_threads_are_all_counted() -> None:
    breaker = Breaker("store", clock=FakeClock(), failures=800)

    def fail_often() -> None:
        for _ in range(100):
            fail(breaker)

    in_threads(7, fail_often)
    assert not refuses(breaker)
    in_threads(1, fail_often)
    assert refuses(breaker)


@pytest.mark.parametrize("failures", [0, -1])
def test_a_number_of_failures_below_one_is_refused(failures: int) -> None:
    with pytest.raises(ConfigurationError, match=r"^failures: "):
        Breaker("store", clock=FakeClock(), failures=failures)


@pytest.mark.parametrize("reset", [0.0, -1.0, float("nan"), float("inf")])
def test_a_reset_time_that_is_none_is_refused(reset: float) -> None:
    with pytest.raises(ConfigurationError, match=r"^reset: "):
        Breaker("store", clock=FakeClock(), reset=reset)

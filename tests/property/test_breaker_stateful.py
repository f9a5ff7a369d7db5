"""The breaker against a model of a few lines, over any order of calls, reports and time."""

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from aicache import StoreError
from aicache._breaker import ATTEMPT_LEASE, Breaker, Call
from aicache._errors import UnavailableError
from aicache._health import PartState
from aicache.testing import FakeClock

FAILURES, RESET = 3, 5.0


@dataclass(frozen=True)
class Permitted:
    call: Call
    era: int
    """Number of openings, closings and attempts before it: its report is news only in the same era."""


class BreakerMachine(RuleBasedStateMachine):
    calls = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.breaker = Breaker("part", clock=self.clock, failures=FAILURES, reset=RESET)
        self.is_open = False
        self.in_a_row = 0
        self.era = 0
        self.next_attempt = 0.0

    def _would_pass(self) -> bool:
        return not self.is_open or self.clock.monotonic() >= self.next_attempt

    @rule(target=calls)
    def enter(self) -> Permitted:
        if not self._would_pass():
            with pytest.raises(UnavailableError):
                self.breaker.enter()
            return Permitted(Breaker("other", clock=self.clock).enter(), -1)
        if self.is_open:
            self.era += 1
            self.next_attempt = self.clock.monotonic() + ATTEMPT_LEASE
        return Permitted(self.breaker.enter(), self.era)

    @rule(permitted=consumes(calls))
    def succeed(self, permitted: Permitted) -> None:
        permitted.call.succeeded()
        if permitted.era == self.era:
            self.in_a_row = 0
            if self.is_open:
                self.is_open = False
                self.era += 1

    @rule(permitted=consumes(calls))
    def fail(self, permitted: Permitted) -> None:
        permitted.call.failed(StoreError("down"))
        if permitted.era == self.era:
            self.in_a_row += 1
            if self.is_open or self.in_a_row >= FAILURES:
                self.is_open = True
                self.era += 1
                self.next_attempt = self.clock.monotonic() + RESET

    @rule(permitted=consumes(calls))
    def abandon(self, permitted: Permitted) -> None:
        permitted.call.abandoned()
        if permitted.era == self.era and self.is_open:
            self.next_attempt = self.clock.monotonic()

    @rule(seconds=st.sampled_from([0.5, 1.0, RESET, ATTEMPT_LEASE]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(wall=st.floats(0, 1e9))
    def the_wall_clock_jumps(self, wall: float) -> None:
        self.clock.set_wall(wall)

    @invariant()
    def check_agrees(self) -> None:
        try:
            self.breaker.check()
        except UnavailableError:
            assert not self._would_pass()
        else:
            assert self._would_pass()

    @invariant()
    def health_agrees(self) -> None:
        state = self.breaker.health.state
        if self.is_open:
            assert state is PartState.OPEN
        else:
            assert state is (PartState.DEGRADED if self.in_a_row else PartState.UP)


BreakerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestBreaker = BreakerMachine.TestCase

"""Every fault of the matrix, sync and async, for lookups and updates: the rules that hold on a slow machine too.

The rules of time itself are `benchmarks/faults.py`'s. Here the six ways of using a cache share one outage, for some
faults take seconds to come about.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("redis", reason="needs the extra redis")

from fault_list import FAULTS, Fault
from fault_matrix import ALL_CELLS, Stage, breaches, run_fault
from fault_session import Cell, Mode, Operation, Terms, question

TERMS = Terms(lasts=0.6, reset=0.2, failures=2, pause=0.01, grace=2.0, timed=False)

Tried = Callable[[Fault], dict[tuple[Mode, Operation], Cell]]


@pytest.fixture(scope="module")
def tried(request: pytest.FixtureRequest, start_redis: Any) -> Iterator[Tried]:
    """Tries a fault once, and says what each way of using a cache saw of it."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def server_of(kind: str) -> Any:
            # The single server is changed in many ways; the groups are made whole after each fault.
            own = kind == "standalone"
            return stack.enter_context(start_redis(kind)) if own else request.getfixturevalue(f"redis_{kind}")

        stage = stack.enter_context(Stage(server_of))

        @functools.cache
        def cells(fault: Fault) -> dict[tuple[Mode, Operation], Cell]:
            # Where many call at once, all six would only be in each other's way.
            runs = [ALL_CELLS] if fault.callers == 1 else [ALL_CELLS[:2], ALL_CELLS[2:4], ALL_CELLS[4:]]
            seen = [cell for run in runs for cell in run_fault(fault, stage, run, TERMS)]
            return {(cell.mode, cell.operation): cell for cell in seen}

        yield cells


@pytest.mark.parametrize(("mode", "operation"), ALL_CELLS, ids=[" ".join(one) for one in ALL_CELLS])
@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_an_application_gets_right_answers_or_none_in_time_and_nothing_is_lost(
    tried: Tried, fault: Fault, mode: Mode, operation: Operation
) -> None:
    cell = tried(fault)[mode, operation]
    assert breaches(cell, TERMS) == []


# ------------------------------------------------------------------------------------ the matrix itself

GOOD = Cell(
    fault=FAULTS[0],
    mode="sync",
    operation="lookup",
    calls=100,
    exceptions=(),
    wrong=0,
    deadline=0.1,
    longest=0.11,
    asked=50,
    served=0,
    opened=True,
    refused=40,
    refused_median=0.0003,
    refused_work=0.0004,
    work_while_open=0,
    resumed=0.3,
    replayed=0,
    caught_up=0.3,
    lost=0,
    missing=0,
)


def test_a_cell_that_keeps_the_rules_breaks_none() -> None:
    assert breaches(GOOD, Terms()) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"exceptions": ("TimeoutError",)}, "exceptions reached the application: TimeoutError"),
        ({"wrong": 1}, "1 wrong answers"),
        ({"missing": 2}, "2 answers are missing afterwards, 0 given up"),
        ({"longest": 0.16}, "a call took 0.160 s"),
        ({"work_while_open": 1}, "1 calls of store or embedder while the breaker was open"),
        ({"resumed": None}, "service resumed never"),
        ({"resumed": 1.6}, "service resumed after 1.60 s"),
        ({"caught_up": None}, "answers still wait to be written"),
        ({"refused_median": 0.002}, "an open breaker cost 2.00 ms"),
        ({"refused_work": 0.003}, "an open breaker cost 3.00 ms"),
        ({"served": 1}, "1 of 50 calls were served meanwhile"),
        ({"opened": False}, "the breaker did not open"),
        ({"operation": "memory", "served": 49}, "49 of 50 calls were served meanwhile"),
    ],
)
def test_a_cell_that_breaks_a_rule_is_noticed(change: dict[str, Any], said: str) -> None:
    assert breaches(replace(GOOD, **change), Terms()) == [said]


def test_questions_differ_and_their_rewordings_do_not_look_like_another() -> None:
    asked = [question(number, reworded=reworded) for number in range(1000) for reworded in (False, True)]
    assert len(set(asked)) == 2000

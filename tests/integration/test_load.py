"""A short load on a cluster in trouble. `benchmarks/load.py` runs a long one and prints its table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("redis", reason="needs the extra redis")

from load_run import PHASES, questions_are_far_apart, run_load

if TYPE_CHECKING:
    from redis_servers import Cluster

SECONDS = 12.0


def test_no_two_questions_of_the_load_are_near_each_other() -> None:
    assert questions_are_far_apart(100) < 0.8


@pytest.mark.slow
def test_while_servers_die_and_slots_move_every_answer_belongs_to_its_question(redis_cluster: Cluster) -> None:
    redis_cluster.reset()
    result = run_load(redis_cluster, SECONDS, breaker_reset=0.5)
    assert [phase.name for phase in result.phases] == list(PHASES)
    assert all(phase.lookups for phase in result.phases)
    assert result.phase("calm").hits > result.phase("calm").from_l1
    assert (result.wrong, result.errors, result.first_error) == (0, 0, "")
    recovered = result.phase("recovered")
    assert recovered.hits > recovered.from_l1, "the store answers again"
    assert result.pending == 0

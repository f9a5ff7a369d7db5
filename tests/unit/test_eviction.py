"""Rules of the eviction policies that a reader should find by name; the models are in tests/property."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from aicache import ConfigurationError
from aicache._eviction import ARC, EVICTIONS, LFU, LRU, Eviction, FrequencySketch, WTinyLFU, eviction, spread


def request(policy: Eviction[int], *keys: int) -> None:
    """What a cache does: a hit is a touch, a miss is followed by an insert."""
    for key in keys:
        if key in policy:
            policy.touch(key)
        else:
            policy.admit(key)


@pytest.fixture(params=EVICTIONS)
def policy(request: pytest.FixtureRequest) -> Eviction[int]:
    return eviction(request.param, 4)


# --------------------------------------------------------------------------------------- all policies


def test_each_name_gives_its_policy() -> None:
    kinds = [type(eviction(name, 1)) for name in EVICTIONS]
    assert kinds == [LRU, LFU, ARC, WTinyLFU]


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"^eviction: .*lru, lfu, arc, w-tinylfu.*'mru'") as caught:
        eviction("mru", 1)
    assert caught.value.parameter == "eviction"


@pytest.mark.parametrize("name", EVICTIONS)
@pytest.mark.parametrize("capacity", [0, -1, 1.5, True, "3", None])
def test_a_capacity_must_be_a_whole_number_of_at_least_one(name: str, capacity: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^capacity: "):
        eviction(name, capacity)  # type: ignore[arg-type]


def test_a_cache_of_one_key_works(policy: Eviction[int]) -> None:
    one = type(policy)(1)  # type: ignore[call-arg]
    held = [key for key in range(5) for victim in [one.admit(key)] if len(one) == 1]
    assert held == [0, 1, 2, 3, 4]


def test_admitting_a_held_key_evicts_nothing(policy: Eviction[int]) -> None:
    request(policy, 1, 2, 3, 4)
    assert policy.admit(1) == ()
    assert len(policy) == 4


def test_touch_and_discard_of_unknown_keys_do_nothing(policy: Eviction[int]) -> None:
    policy.admit(1)
    policy.touch(99)
    policy.discard(99)
    assert len(policy) == 1
    assert 99 not in policy


def test_a_discarded_key_makes_room(policy: Eviction[int]) -> None:
    request(policy, 1, 2, 3, 4)
    policy.discard(2)
    assert policy.admit(5) == ()
    assert [key for key in range(1, 6) if key in policy] == [1, 3, 4, 5]


def test_evict_gives_up_every_key_once_and_then_none(policy: Eviction[int]) -> None:
    request(policy, 1, 2, 3, 4)
    assert sorted(key for _ in range(4) if (key := policy.evict()) is not None) == [1, 2, 3, 4]
    assert policy.evict() is None
    assert len(policy) == 0


def test_a_cleared_policy_is_empty_and_usable(policy: Eviction[int]) -> None:
    request(policy, 1, 2, 3, 4, 1, 2, 5)
    policy.clear()
    assert len(policy) == 0
    assert policy.evict() is None
    request(policy, 6, 7)
    assert [key for key in range(8) if key in policy] == [6, 7]


_VICTIMS = """
from aicache._eviction import eviction
policy = eviction("w-tinylfu", 40)
keys = [make(number * number % 131) for number in range(3000) for make in (str, lambda n: str(n).encode())]
print([key in policy and policy.touch(key) or list(policy.admit(key)) for key in keys])
"""


def test_the_hash_seed_of_the_process_does_not_change_the_victims() -> None:
    seen = {
        subprocess.run(
            [sys.executable, "-c", _VICTIMS],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1
    assert b"'" in next(iter(seen)), "the run evicted something"


# ------------------------------------------------------------------------------------------ one by one


def test_lru_gives_up_the_key_unused_for_longest() -> None:
    policy: LRU[int] = LRU(3)
    request(policy, 1, 2, 3, 1)
    assert policy.admit(4) == (2,)


def test_lfu_gives_up_the_key_used_least() -> None:
    policy: LFU[int] = LFU(3)
    request(policy, 1, 1, 2, 2, 2, 3, 3, 1)
    assert policy.admit(4) == (3,)


def test_lfu_gives_up_the_first_among_equals() -> None:
    policy: LFU[int] = LFU(3)
    request(policy, 1, 2, 3, 3, 2, 1)  # 3 was the first to reach two uses
    assert policy.admit(4) == (3,)


def test_lfu_forgets_the_uses_of_a_key_that_left() -> None:
    policy: LFU[int] = LFU(2)
    request(policy, 1, 1, 1, 2)
    policy.discard(1)
    request(policy, 2, 1)
    assert policy.admit(3) == (1,)


def test_arc_keeps_keys_used_twice_through_a_scan() -> None:
    policy: ARC[int] = ARC(10)
    request(policy, *range(5), *range(5), *range(100, 200))
    assert all(key in policy for key in range(5))


def test_arc_gives_recency_more_room_after_regretted_evictions() -> None:
    policy: ARC[int] = ARC(4)
    request(policy, 1, 1, 2, 2, 3, 4, 5)  # 3 went to the ghost of t1
    assert 3 not in policy
    assert policy.admit(3) == (4,)  # t1 may hold one key now, and held 4 and 5
    assert policy.admit(6) == (1,), "t1 has its share, so t2 gives up its oldest"


def test_wtinylfu_keeps_popular_keys_through_a_scan() -> None:
    policy: WTinyLFU[int] = WTinyLFU(100)
    popular = range(80)
    request(policy, *popular, *popular, *popular, *range(1_000, 2_000))
    assert sum(key in policy for key in popular) >= 76, "a few fall to strangers that share their counters"


def test_wtinylfu_takes_a_newcomer_asked_for_more_often_than_the_key_it_displaces() -> None:
    policy: WTinyLFU[int] = WTinyLFU(10)
    request(policy, *range(10))
    request(policy, 50, 51)  # 50 was asked for once, like the others, and is refused
    assert 50 not in policy
    request(policy, 50, 52)  # the second request counts more than the one use of key 0
    assert 50 in policy
    assert 0 not in policy


def test_the_window_of_wtinylfu_holds_one_key_in_a_hundred() -> None:
    policy: WTinyLFU[int] = WTinyLFU(1_000)
    request(policy, *range(1_000), *range(1_000))
    newcomers = range(2_000, 2_100)
    request(policy, *newcomers)
    held = [key for key in newcomers if key in policy]
    assert held[-10:] == list(newcomers[-10:])
    assert len(held) <= 12, "the main part refuses them, but for a few that share counters with popular keys"


def test_wtinylfu_forgets_old_favourites() -> None:
    policy: WTinyLFU[int] = WTinyLFU(50)
    for _ in range(20):
        request(policy, *range(50))
    for _ in range(60):
        request(policy, *range(100, 140))
    assert sum(key in policy for key in range(100, 140)) >= 38


def test_wtinylfu_resists_scans_when_bytes_bound_it_below_its_capacity() -> None:
    policy: WTinyLFU[int] = WTinyLFU(10_000)
    popular = range(80)
    request(policy, *popular, *popular, *popular)
    for key in range(1_000, 2_000):
        policy.admit(key)
        if len(policy) > 100:
            policy.evict()
    assert len(policy) == 100
    assert sum(key in policy for key in popular) == 80


def test_wtinylfu_remembers_popularity_when_cleared() -> None:
    policy: WTinyLFU[int] = WTinyLFU(10)
    for _ in range(5):
        request(policy, 1, 2, 3)
    policy.clear()
    request(policy, *range(20, 30), 1, 31)
    assert 1 in policy, "known from before, it displaces a stranger"


# ----------------------------------------------------------------------------------------- the sketch


def test_a_counter_stops_at_fifteen() -> None:
    sketch = FrequencySketch(1_000)
    for _ in range(40):
        sketch.add(spread("key"))
    assert sketch.estimate(spread("key")) == 15


def test_counters_are_halved_after_ten_uses_per_key_of_capacity() -> None:
    sketch = FrequencySketch(10)
    for _ in range(12):
        sketch.add(spread("popular"))
    for number in range(87):
        sketch.add(spread(number))
    assert sketch.estimate(spread("popular")) == 12
    sketch.add(spread("the hundredth"))
    assert sketch.estimate(spread("popular")) == 6


def test_estimates_are_nearly_always_exact_for_as_many_keys_as_the_capacity() -> None:
    sketch = FrequencySketch(1_000)
    for number in range(1_000):
        sketch.add(spread(number))
    assert sum(sketch.estimate(spread(number)) == 1 for number in range(1_000)) >= 990
    assert sum(sketch.estimate(spread(number)) == 0 for number in range(1_000, 2_000)) >= 990

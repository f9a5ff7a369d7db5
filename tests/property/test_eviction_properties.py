"""Each policy against a plain model of it: lists and counts, slow and obvious."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from aicache._eviction import EVICTIONS, Eviction, FrequencySketch, eviction, spread

KEYS = range(20)


class Model:
    """What all models share; lists run from the oldest to the newest."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity

    def held(self) -> list[int]:
        raise NotImplementedError

    def hit(self, key: int) -> None:
        raise NotImplementedError

    def insert(self, key: int) -> list[int]:
        raise NotImplementedError

    def evict(self) -> int | None:
        raise NotImplementedError

    def discard(self, key: int) -> None:
        raise NotImplementedError

    def clear(self) -> None:
        for key in self.held():
            self.discard(key)

    def touch(self, key: int) -> None:
        if key in self.held():
            self.hit(key)

    def admit(self, key: int) -> list[int]:
        if key in self.held():
            self.hit(key)
            return []
        return self.insert(key)


class LRUModel(Model):
    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.keys: list[int] = []

    def held(self) -> list[int]:
        return list(self.keys)

    def hit(self, key: int) -> None:
        self.keys.remove(key)
        self.keys.append(key)

    def insert(self, key: int) -> list[int]:
        self.keys.append(key)
        return [self.keys.pop(0)] if len(self.keys) > self.capacity else []

    def evict(self) -> int | None:
        return self.keys.pop(0) if self.keys else None

    def discard(self, key: int) -> None:
        if key in self.keys:
            self.keys.remove(key)


class LFUModel(Model):
    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.uses: dict[int, int] = {}
        self.order: list[int] = []  # in the order in which they reached their number of uses

    def held(self) -> list[int]:
        return list(self.order)

    def hit(self, key: int) -> None:
        self.uses[key] += 1
        self.order.remove(key)
        self.order.append(key)

    def insert(self, key: int) -> list[int]:
        victim = self.evict() if len(self.order) == self.capacity else None
        self.uses[key] = 1
        self.order.append(key)
        return [] if victim is None else [victim]

    def evict(self) -> int | None:
        if not self.order:
            return None
        victim = min(self.order, key=lambda key: self.uses[key])
        self.discard(victim)
        return victim

    def discard(self, key: int) -> None:
        if key in self.order:
            self.order.remove(key)
            del self.uses[key]


class ARCModel(Model):
    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.t1: list[int] = []
        self.t2: list[int] = []
        self.b1: list[int] = []
        self.b2: list[int] = []
        self.p = 0.0

    def held(self) -> list[int]:
        return self.t1 + self.t2

    def hit(self, key: int) -> None:
        (self.t1 if key in self.t1 else self.t2).remove(key)
        self.t2.append(key)

    def insert(self, key: int) -> list[int]:
        full = len(self.held()) == self.capacity
        victims: list[int] = []
        if key in self.b1:
            grown = self.p + max(1.0, len(self.b2) / len(self.b1))
            self.p = max(self.p, min(grown, len(self.held())))
            victims += [self.replace(False)] if full else []
            self.b1.remove(key)
            self.t2.append(key)
        elif key in self.b2:
            self.p = max(0.0, self.p - max(1.0, len(self.b1) / len(self.b2)))
            victims += [self.replace(True)] if full else []
            self.b2.remove(key)
            self.t2.append(key)
        else:
            if len(self.t1) == self.capacity:
                return [self.t1.pop(0), *self.take_in(key)]
            if len(self.t1) + len(self.b1) == self.capacity:
                self.b1.pop(0)
            elif len(self.held()) + len(self.b1) + len(self.b2) == 2 * self.capacity:
                self.b2.pop(0)
            victims += [self.replace(False)] if full else []
            self.take_in(key)
        return victims

    def take_in(self, key: int) -> list[int]:
        self.t1.append(key)
        return []

    def replace(self, for_b2: bool) -> int:
        from_t1 = len(self.t1) > self.p or (for_b2 and len(self.t1) == self.p)
        if self.t1 and (from_t1 or not self.t2):
            self.b1.append(self.t1.pop(0))
            return self.b1[-1]
        self.b2.append(self.t2.pop(0))
        return self.b2[-1]

    def evict(self) -> int | None:
        return self.replace(False) if self.held() else None

    def discard(self, key: int) -> None:
        for keys in (self.t1, self.t2):
            if key in keys:
                keys.remove(key)

    def clear(self) -> None:
        self.__init__(self.capacity)  # type: ignore[misc]


class WTinyLFUModel(Model):
    """Counts exactly; the sketch does so too for as few keys as these, which do not share all four counters."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.window: list[int] = []
        self.probation: list[int] = []
        self.protected: list[int] = []
        self.candidate: int | None = None
        self.uses = dict.fromkeys(KEYS, 0)
        self.counted = 0

    def held(self) -> list[int]:
        return self.window + self.probation + self.protected

    def count(self, key: int) -> None:
        self.uses[key] = min(15, self.uses[key] + 1)
        self.counted += 1
        if self.counted == 10 * self.capacity:
            self.counted //= 2
            self.uses = {key: uses // 2 for key, uses in self.uses.items()}

    def hit(self, key: int) -> None:
        self.count(key)
        if key in self.window:
            self.window.remove(key)
            self.window.append(key)
            return
        promoted = key in self.probation
        (self.probation if promoted else self.protected).remove(key)
        self.protected.append(key)
        while promoted and len(self.protected) > 0.8 * (len(self.protected) + len(self.probation)):
            self.probation.append(self.protected.pop(0))

    def insert(self, key: int) -> list[int]:
        self.count(key)
        self.window.append(key)
        if len(self.window) > max(1, len(self.held()) // 100):
            self.candidate = self.window.pop(0)
            self.probation.append(self.candidate)
        if len(self.held()) <= self.capacity:
            return []
        victim = self.evict()
        assert victim is not None
        return [victim]

    def evict(self) -> int | None:
        candidate, self.candidate = self.candidate, None
        if candidate in self.probation and self.uses[candidate] <= self.uses[self.probation[0]]:
            self.probation.remove(candidate)
            return candidate
        for keys in (self.probation, self.protected, self.window):
            if keys:
                return keys.pop(0)
        return None

    def discard(self, key: int) -> None:
        for keys in (self.window, self.probation, self.protected):
            if key in keys:
                keys.remove(key)

    def clear(self) -> None:
        super().clear()
        self.candidate = None


MODELS: dict[str, type[Model]] = {
    "lru": LRUModel,
    "lfu": LFUModel,
    "arc": ARCModel,
    "w-tinylfu": WTinyLFUModel,
}


def test_every_policy_has_a_model() -> None:
    assert tuple(MODELS) == EVICTIONS


class PolicyMachine(RuleBasedStateMachine):
    """The victims of a policy are those of its model, in the same order."""

    keys = st.sampled_from(KEYS)

    @initialize(name=st.sampled_from(EVICTIONS), capacity=st.integers(1, 8))
    def construct(self, name: str, capacity: int) -> None:
        self.capacity = capacity
        self.policy: Eviction[int] = eviction(name, capacity)
        self.model = MODELS[name](capacity)

    @rule(key=keys)
    def request(self, key: int) -> None:
        if key in self.model.held():
            self.touch(key)
        else:
            self.admit(key)

    @rule(key=keys)
    def admit(self, key: int) -> None:
        victims = list(self.policy.admit(key))
        assert victims == self.model.admit(key)
        assert all(victim not in self.policy for victim in victims), "a victim is gone"

    @rule(key=keys)
    def touch(self, key: int) -> None:
        self.policy.touch(key)
        self.model.touch(key)

    @rule()
    def evict(self) -> None:
        assert self.policy.evict() == self.model.evict()

    @rule(key=keys)
    def discard(self, key: int) -> None:
        self.policy.discard(key)
        self.model.discard(key)

    @rule(sure=st.integers(0, 9))
    def clear(self, sure: int) -> None:
        if sure == 0:  # rarely, or no run would get far
            self.policy.clear()
            self.model.clear()

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        held = self.model.held()
        assert len(self.policy) == len(held) <= self.capacity
        assert [key for key in KEYS if key in self.policy] == sorted(held)

    def teardown(self) -> None:
        if hasattr(self, "policy"):
            while (victim := self.model.evict()) is not None:
                assert self.policy.evict() == victim, "the order of those that remain"
            assert self.policy.evict() is None


PolicyMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestPolicyMatchesItsModel = PolicyMachine.TestCase


@pytest.mark.parametrize("name", EVICTIONS)
@pytest.mark.parametrize("capacity", [1, 2, 5, 12])
def test_a_long_run_gives_the_victims_of_the_model(name: str, capacity: int) -> None:
    """Long enough for counters to be halved many times and for ARC's share to move to and fro."""
    chance = random.Random(capacity)
    policy: Eviction[int] = eviction(name, capacity)
    model = MODELS[name](capacity)
    for number in range(3_000):
        centre = number // 500  # the popular keys change
        key = (centre + int(chance.expovariate(0.25))) % len(KEYS)
        match chance.randrange(40):
            case 0:
                policy.discard(key)
                model.discard(key)
            case 1:
                assert policy.evict() == model.evict()
            case _ if key in policy:
                policy.touch(key)
                model.touch(key)
            case _:
                assert list(policy.admit(key)) == model.admit(key)
        assert len(policy) == len(model.held()) <= capacity


# ------------------------------------------------------------------------------------------- the sketch


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 60), max_size=250))
def test_the_sketch_never_counts_too_few(uses: list[int]) -> None:
    sketch = FrequencySketch(capacity=100)  # halves at 1,000 uses: not here
    for key in uses:
        sketch.add(spread(key))
    for key in range(61):
        assert sketch.estimate(spread(key)) >= min(15, uses.count(key))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=40) | st.text(max_size=20) | st.integers() | st.tuples(st.integers(), st.integers()))
def test_every_key_spreads_to_64_bits(key: object) -> None:
    assert 0 <= spread(key) < 2**64
    assert spread(key) == spread(key)

"""The certificate against known truth: traffic of any kind breaks the bound no more often than it says.

The adversary sees everything but the coin that is about to fall: all earlier coins, the true number of wrong
answers, and the bound. He chooses whether the next accepted request is wrong and how likely it is audited.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aicache._guards import parse
from aicache._learned import Certificate, Decision, Learner, Neighbour, Serve, Target, fit
from aicache._learned._certificate import EXPLORE

ALPHA = 0.05
"""What the certificate promises; written here again, so that a changed promise fails."""
RUNS = 300
STEPS = 250
TOLERATED = ALPHA * RUNS + 4.5 * sqrt(RUNS * ALPHA * (1 - ALPHA))
"""Violations in RUNS runs that a true rate of ALPHA exceeds once in 300,000 tests."""


@dataclass
class History:
    certificate: Certificate
    served_wrong: int = 0
    steps: int = 0
    since_caught: int = 0
    """Steps since an audit was last wrong."""

    def __post_init__(self) -> None:
        self.bound = self.certificate.bound()

    def charge(self, audit_chance: float) -> None:
        self.certificate = self.certificate.charged(audit_chance)
        self.bound = self.certificate.bound()
        self.since_caught = 0


Adversary = Callable[[History, random.Random], tuple[bool, float]]


def play(adversary: Adversary, seed: int, steps: int = STEPS) -> bool:
    """Whether the bound was broken at any time."""
    chance, history = random.Random(seed), History(Certificate())
    for _ in range(steps):
        wrong, audit_chance = adversary(history, chance)
        history.steps += 1
        history.since_caught += 1
        if not wrong:
            continue
        if chance.random() < audit_chance:
            history.charge(audit_chance)
        else:
            history.served_wrong += 1
            if history.served_wrong > history.bound:
                return True
    return False


def violations(adversary: Adversary) -> int:
    return sum(play(adversary, seed) for seed in range(RUNS))


def always_wrong(history: History, chance: random.Random) -> tuple[bool, float]:
    return True, EXPLORE


def lies_low_when_caught(history: History, chance: random.Random) -> tuple[bool, float]:
    return history.since_caught > 5 or history.steps < 40, EXPLORE


def wrong_where_audits_are_rare(history: History, chance: random.Random) -> tuple[bool, float]:
    audit_chance = chance.choice([EXPLORE, 0.15, 0.5, 1.0])
    return audit_chance < 0.5, audit_chance


def presses_on_while_the_bound_is_near(history: History, chance: random.Random) -> tuple[bool, float]:
    near = history.served_wrong + 8 > history.bound
    return near or chance.random() < 0.3, EXPLORE


@pytest.mark.parametrize(
    "adversary",
    [always_wrong, lies_low_when_caught, wrong_where_audits_are_rare, presses_on_while_the_bound_is_near],
)
def test_no_adversary_breaks_the_bound_more_often_than_alpha(adversary: Adversary) -> None:
    assert violations(adversary) <= TOLERATED


def test_the_bound_is_not_so_wide_that_nothing_could_break_it() -> None:
    assert violations(always_wrong) > 0


@settings(max_examples=12, deadline=None)
@given(
    wrong=st.tuples(*[st.floats(0, 1)] * 4),
    audits=st.tuples(*[st.floats(EXPLORE, 1)] * 4),
    patience=st.integers(1, 30),
    nerve=st.integers(1, 20),
)
def test_no_strategy_on_what_was_seen_breaks_the_bound_more_often_than_alpha(
    wrong: tuple[float, ...], audits: tuple[float, ...], patience: int, nerve: int
) -> None:
    def adversary(history: History, chance: random.Random) -> tuple[bool, float]:
        near = history.served_wrong + nerve > history.bound
        mood = 2 * (history.since_caught > patience) + near
        return chance.random() < wrong[mood], audits[mood]

    assert violations(adversary) <= TOLERATED


@given(st.lists(st.floats(EXPLORE, 1), max_size=60))
def test_the_bound_is_where_the_evidence_reaches_one_over_alpha(audits: list[float]) -> None:
    certificate = Certificate()
    for chance in audits:
        certificate = certificate.charged(chance)
    assert certificate.evidence(certificate.bound()) == pytest.approx(1 / ALPHA, rel=1e-6)


@given(st.floats(EXPLORE, 1))
def test_a_wrong_audit_never_lowers_the_bound(chance: float) -> None:
    assert Certificate().charged(chance).bound() >= Certificate().bound()


@pytest.mark.parametrize("chance", [0.0, 0.0999, 1.1, float("nan")])
def test_an_audit_rarer_than_the_certificate_allows_is_refused(chance: float) -> None:
    with pytest.raises(ValueError, match="probability"):
        Certificate().charged(chance)


# ------------------------------------------------------------------------------ the whole learner under a certificate

TEXT = parse("how do I reset my password")


def near(score: float, agreeing: int) -> list[Neighbour]:
    return [Neighbour(score - i / 100, TEXT, b"a" if i < agreeing else b"b", 5) for i in range(5)]


def ends_within_its_budget(rate: float, seed: int, wrong_from: int, total: int) -> bool:
    """Traffic that is right until a moment and then all wrong; True when the share of wrong ones never exceeded."""
    chance = random.Random(seed)
    learner = Learner(Target(rate, certified=True))
    served_wrong = 0
    for at in range(1, total + 1):
        likely = chance.random()
        right = at < wrong_from and chance.random() < likely
        decision: Decision = learner.decide(TEXT, near(0.8 + likely / 5, 1 + round(4 * likely)), chance.random())
        if isinstance(decision, Serve):
            served_wrong += not right
            if served_wrong > rate * at:
                return False
            continue
        assert decision.ticket is not None
        learner.take([learner.label(decision.ticket, ok=right)])
        lessons = learner.due()
        if lessons is not None and lessons.version % 4 == 0:
            learner.adopt(fit(lessons, learner.snapshot().weights))
    return True


def test_a_certified_learner_keeps_its_rate_at_every_moment_when_all_answers_turn_wrong() -> None:
    runs = 30
    broken = sum(not ends_within_its_budget(0.2, seed, 300 + 20 * seed, 1000) for seed in range(runs))
    assert broken <= ALPHA * runs + 4.5 * sqrt(runs * ALPHA * (1 - ALPHA))


def test_a_certified_learner_serves_in_the_end() -> None:
    chance, learner, served = random.Random(1), Learner(Target(0.2, certified=True)), 0
    for _ in range(900):
        decision = learner.decide(TEXT, near(0.97, 5), chance.random())
        if isinstance(decision, Serve):
            served += 1
        else:
            assert decision.ticket is not None
            learner.take([learner.label(decision.ticket, ok=True)])
            lessons = learner.due()
            if lessons is not None:
                learner.adopt(fit(lessons, learner.snapshot().weights))
    assert served > 400

"""The learned matcher: features, budget, ledger, labels, and one process' view of them."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from dataclasses import replace
from math import exp
from struct import unpack

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aicache._errors import ConfigurationError
from aicache._guards import NEUTRAL_GUARDS, parse
from aicache._learned import (
    Audit,
    Decline,
    Equal,
    FeatureSet,
    Floor,
    Label,
    Learner,
    Ledger,
    Lessons,
    Neighbour,
    Reading,
    Serve,
    Snapshot,
    Target,
    Ticket,
    fit,
)
from aicache._learned._budget import allowance, correction, cutoff
from aicache._learned._fit import prior
from aicache._learned._record import RECORDS, Records

FEATURES = FeatureSet()
TEXT = parse("how do I reset my password")
ONE_PERCENT = Target(0.01)


def near(*scores: float, clusters: str = "", question: str = "how can I reset the password") -> list[Neighbour]:
    names = clusters or "a" * len(scores)
    parsed = parse(question)
    return [
        Neighbour(score, parsed, name.encode(), names.count(name)) for score, name in zip(scores, names, strict=True)
    ]


def numbers(query: str, neighbours: Sequence[Neighbour]) -> dict[str, float]:
    row = FEATURES.row(parse(query), neighbours)
    return dict(zip(FEATURES.names, unpack(f"<{len(row) // 4}f", row), strict=True))


def audit(*, wrong: bool, risk: float = 0.01, chance: float = 0.1) -> Label:
    return Label(FEATURES.row(TEXT, near(0.9)), not wrong, chance, audit=True, risk=risk, predicted=risk)


def lesson(*, ok: bool = True, score: float = 0.9) -> Label:
    return Label(FEATURES.row(TEXT, near(score)), ok, 1.0, audit=False, risk=0.2, predicted=0.2, requests=1)


def folded(labels: Sequence[Label | None]) -> Ledger:
    ledger = Ledger()
    for label in labels:
        ledger = ledger.after(label)
    return ledger


# ---------------------------------------------------------------------------------------------------- features


def test_a_row_has_one_number_for_each_name() -> None:
    assert len(FEATURES.row(TEXT, near(0.9))) == 4 * len(FEATURES.names) == 4 * FEATURES.count


def test_rows_of_other_guards_have_another_signature() -> None:
    assert FeatureSet(NEUTRAL_GUARDS).signature != FEATURES.signature
    assert FeatureSet().signature == FEATURES.signature


def test_a_conflict_sets_the_feature_of_its_guard_only() -> None:
    row = numbers("how do I enable 2FA", near(0.95, question="how do I disable 2FA"))
    assert row["guard_antonym"] == 1
    assert row["guard_number"] == 0


def test_neighbours_of_one_answer_agree_and_one_with_another_answer_lowers_it_by_its_nearness() -> None:
    assert numbers("x", near(0.9, 0.85, 0.8))["agree"] == 1
    split = numbers("x", near(0.9, 0.85, clusters="ab"))
    assert split["agree"] == pytest.approx(1 / (1 + exp(-1)))
    assert split["margin"] == pytest.approx(0.5)


def test_without_another_answer_the_margin_reaches_beyond_the_last_neighbour() -> None:
    assert numbers("x", near(0.9, 0.8))["margin"] == pytest.approx(1.2)


def test_equal_words_are_exact_and_the_same_words_in_another_order_are_not() -> None:
    same = numbers("Pay my card", near(0.9, question="pay my card"))
    moved = numbers("card pay my", near(0.9, question="pay my card"))
    assert (same["exact"], same["order"]) == (1, 0)
    assert (moved["exact"], moved["order"]) == (0, 1)


# ------------------------------------------------------------------------------------------------------- budget


def test_the_risks_below_the_cutoff_sum_to_the_allowed_share_of_all_requests() -> None:
    risks = [0.001 * at for at in range(1, 1001)]
    found = cutoff(risks, 1.0, ONE_PERCENT, 0.01)
    assert sum(risk for risk in risks if risk <= found) * 0.97 <= 0.01 * 1000
    assert sum(risk for risk in risks if risk <= found + 0.001) * 0.97 > 0.01 * 1000


def test_per_hits_the_risks_below_the_cutoff_average_to_the_allowed_rate() -> None:
    risks = [0.001 * at for at in range(1, 1001)]
    found = cutoff(risks, 1.0, Target(0.01, "hits"), 0.0101)
    assert found == pytest.approx(0.019)


def test_nothing_is_below_the_cutoff_when_the_least_risk_is_too_high() -> None:
    assert cutoff([0.5] * 100, 1.0, ONE_PERCENT, 0.01) == 0


def test_a_known_floor_of_the_comparator_is_not_counted_as_risk() -> None:
    noisy = Target(0.01, floor=Floor(false_different=0.05))
    risks = [0.05 + 0.0001 * at for at in range(1000)]
    assert cutoff(risks, 1.0, ONE_PERCENT, 0.01) < cutoff(risks, 1.0, noisy, 0.01)


def test_more_wrong_audits_than_predicted_correct_the_risks_upwards_within_bounds() -> None:
    assert correction(10, 5, 0.8) > correction(5, 5, 0.8) > correction(0, 5, 0.8)
    assert correction(0, 1000, 0.8) == 0.5
    assert correction(1000, 1, 0.8) == 4


@pytest.mark.parametrize(("wrong", "quantile", "exact"), [(0, 0.8, 4.2790), (2, 0.8, 6.7210), (7, 0.6, 10.4757)])
def test_the_correction_is_a_quantile_of_a_gamma_distribution(wrong: int, quantile: float, exact: float) -> None:
    predicted = 5.0
    assert correction(wrong, predicted, quantile) == pytest.approx(exact / (3 + predicted), rel=0.01)


def test_the_rate_aimed_at_grows_towards_the_allowed_one() -> None:
    rates = [allowance(ONE_PERCENT, requests, 0) for requests in (0, 100, 10_000, 10**8)]
    assert rates[0] == 0
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(0.01, rel=0.01)


@pytest.mark.parametrize("rate", [0.0, -0.1, 0.6, float("nan")])
def test_a_rate_outside_its_range_is_refused(rate: float) -> None:
    with pytest.raises(ConfigurationError, match="max_error_rate"):
        Target(rate)


# ------------------------------------------------------------------------------------------------------- ledger


def test_the_ledger_counts_lessons_requests_and_hits() -> None:
    ledger = folded([lesson(), replace(lesson(), row=b"", requests=3, hits=2), audit(wrong=False)])
    assert (ledger.position, ledger.lessons, ledger.requests, ledger.hits, ledger.audits) == (3, 2, 4, 2, 1)


def test_an_unreadable_label_moves_the_position_and_nothing_else() -> None:
    assert folded([lesson(), None]) == replace(folded([lesson()]), position=2)


def test_audits_that_turn_wrong_all_at_once_raise_the_alarm_and_nothing_is_served_for_a_while() -> None:
    before = folded([lesson()] * 500 + [audit(wrong=False)] * 50)
    after = before
    for _ in range(4):
        after = after.after(audit(wrong=True))
    assert (before.alarms, after.alarms) == (0, 1)
    assert after.resting
    assert after.usable <= 202
    assert after.alert < 1


def test_audits_that_go_as_predicted_raise_no_alarm() -> None:
    ledger = folded([audit(wrong=at % 20 == 0, risk=0.05) for at in range(2000)])
    assert ledger.alarms == 0


def close_miss(*, wrong: bool, risk: float = 0.1) -> Label:
    return replace(lesson(ok=not wrong), risk=risk, predicted=risk, close=True)


def test_nearly_accepted_misses_that_turn_wrong_call_for_audits_and_raise_no_alarm_alone() -> None:
    before = folded([audit(wrong=False)] * 20 + [close_miss(wrong=False)] * 20)
    after = before
    for _ in range(30):
        after = after.after(close_miss(wrong=True))
    assert before.alert == 0
    assert after.alert == 1
    assert after.alarms == 0
    confirmed = after.after(audit(wrong=True))
    assert confirmed.alarms == 1
    assert before.after(audit(wrong=True)).alarms == 0


def test_misses_far_from_being_accepted_say_nothing_of_drift() -> None:
    assert folded([replace(close_miss(wrong=True), close=False)] * 50).alert == 0


def test_an_alarm_starts_the_count_of_requests_anew() -> None:
    ledger = folded([lesson()] * 300 + [audit(wrong=True)] * 4)
    assert (ledger.alarms, ledger.requests, ledger.requests_before) == (1, 300, 300)


def test_one_wrong_audit_of_a_tiny_risk_raises_no_alarm_but_the_alert() -> None:
    ledger = folded([audit(wrong=False, risk=1e-9)] * 20 + [audit(wrong=True, risk=1e-9)])
    assert ledger.alarms == 0
    assert 0 < ledger.alert < 1


# -------------------------------------------------------------------------------------------------------- bytes

LABELS = st.builds(
    Label,
    row=st.lists(st.floats(-999, 999, width=32), max_size=8).map(lambda row: np.array(row, "<f4").tobytes()),
    ok=st.booleans(),
    chance=st.floats(0.01, 1),
    audit=st.booleans(),
    risk=st.floats(0, 1),
    predicted=st.floats(0, 1),
    requests=st.integers(0, 10**6),
    hits=st.integers(0, 10**6),
    cluster=st.binary(min_size=8, max_size=8),
    close=st.booleans(),
)


@given(LABELS)
def test_a_label_is_read_as_it_was_written(label: Label) -> None:
    assert Label.from_bytes(label.to_bytes()) == label


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 3e38, -2000.0])
def test_a_label_with_a_feature_that_cannot_be_is_none(number: float) -> None:
    assert Label.from_bytes(replace(lesson(), row=np.array([1.0, number], "<f4").tobytes()).to_bytes()) is None


@given(st.binary(max_size=80))
def test_any_bytes_are_a_label_or_none(stored: bytes) -> None:
    label = Label.from_bytes(stored)
    assert label is None or 0 < label.chance <= 1


@given(LABELS, st.data())
def test_a_label_cut_short_is_none_or_lacks_features(label: Label, data: st.DataObject) -> None:
    stored = label.to_bytes()
    cut = Label.from_bytes(stored[: data.draw(st.integers(0, len(stored) - 1))])
    assert cut is None or len(cut.row) < len(label.row)


def test_a_snapshot_is_read_as_it_was_written() -> None:
    ledger = folded([lesson()] * 30 + [audit(wrong=True), audit(wrong=False)])
    weights = fit(Lessons(30, tuple([lesson()] * 30)), prior(FEATURES.count))
    read = Snapshot.from_bytes(Snapshot(ledger, weights).to_bytes(), FEATURES.count)
    assert read is not None
    assert read.ledger == ledger
    assert read.weights.version == 30
    np.testing.assert_array_equal(read.weights.mean, weights.mean)
    np.testing.assert_array_equal(read.weights.covariance, weights.covariance)


@pytest.mark.parametrize("field", ["requests", "surprise", "position"])
@pytest.mark.parametrize("wrong", ["many", None, -1, [1]])
def test_a_snapshot_whose_counters_are_no_counts_is_none(field: str, wrong: object) -> None:
    stored = orjson.loads(Snapshot(Ledger(), prior(FEATURES.count)).to_bytes())
    stored["ledger"][field] = wrong
    assert Snapshot.from_bytes(orjson.dumps(stored), FEATURES.count) is None


@pytest.mark.parametrize("stored", [b"", b"{}", b"[]", b"null", b'{"format":99}', b'{"format":1,"ledger":3}'])
def test_a_damaged_snapshot_is_none(stored: bytes) -> None:
    assert Snapshot.from_bytes(stored, FEATURES.count) is None


def test_a_snapshot_of_other_features_is_none() -> None:
    stored = Snapshot(Ledger(), prior(5)).to_bytes()
    assert Snapshot.from_bytes(stored, FEATURES.count) is None


# ---------------------------------------------------------------------------------------------------------- fit


def test_what_was_wrong_becomes_riskier_and_what_was_right_safer() -> None:
    good, bad = [lesson(score=0.95)] * 60, [lesson(score=0.6, ok=False)] * 60
    start = prior(FEATURES.count)
    weights = fit(Lessons(120, tuple(good + bad)), start)
    assert weights.risk(good[0].row, 0) < start.risk(good[0].row, 0)
    assert weights.risk(bad[0].row, 0) > 0.9


def test_the_start_of_a_fit_does_not_change_its_result() -> None:
    labels = tuple(lesson(score=0.5 + at / 300, ok=at % 3 > 0) for at in range(120))
    cold = fit(Lessons(120, labels), prior(FEATURES.count))
    warm = fit(Lessons(120, labels), fit(Lessons(60, labels[:60]), prior(FEATURES.count)))
    np.testing.assert_allclose(warm.mean, cold.mean, atol=1e-3)


def test_fewer_labels_leave_more_doubt() -> None:
    few, many = (fit(Lessons(n, tuple([lesson()] * n)), prior(FEATURES.count)) for n in (5, 100))
    row = lesson().row
    assert few.risk(row, 1) - few.risk(row, 0) > many.risk(row, 1) - many.risk(row, 0)


# ------------------------------------------------------------------------------------------------------ learner


def taught(target: Target, lessons: int = 400, log: list[Label] | None = None) -> Learner:
    """A learner that has seen near questions be right and far ones wrong, and as many requests."""
    learner = Learner(target)
    for at in range(lessons):
        score = 0.97 if at % 2 else 0.5
        decision = learner.decide(TEXT, near(score), 0.0)
        assert not isinstance(decision, Serve)
        assert decision.ticket is not None
        label = teach(learner, decision.ticket, ok=score > 0.9)
        if log is not None:
            log.append(label)
    return learner


def teach(learner: Learner, ticket: Ticket, *, ok: bool) -> Label:
    label = learner.label(ticket, ok=ok)
    learner.take([label])
    due = learner.due()
    if due is not None:
        learner.adopt(fit(due, learner.snapshot().weights))
    return label


def test_nothing_is_served_before_a_hundred_labels() -> None:
    learner = Learner(Target(0.5))
    for _ in range(99):
        decision = learner.decide(TEXT, near(0.99), 0.999)
        assert isinstance(decision, Decline)
        assert decision.why == "learning"
        assert decision.ticket is not None
        teach(learner, decision.ticket, ok=True)


def test_an_empty_cache_declines_without_a_ticket() -> None:
    assert Learner(ONE_PERCENT).decide(TEXT, [], 0.5) == Decline(None, "nothing stored")


def test_once_taught_the_coin_decides_between_serving_and_an_audit() -> None:
    learner = taught(Target(0.05))
    assert isinstance(learner.decide(TEXT, near(0.97), 0.999), Serve)
    asked = learner.decide(TEXT, near(0.97), 0.0)
    assert isinstance(asked, Audit)
    assert asked.ticket.audit
    assert 0.03 <= asked.ticket.chance < 1
    risky = learner.decide(TEXT, near(0.5), 0.999)
    assert isinstance(risky, Decline)
    assert risky.why == "risk"


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -float("inf")])
def test_a_score_that_is_no_number_is_never_served_and_teaches_nothing(score: float) -> None:
    learner = taught(Target(0.05))
    decision = learner.decide(TEXT, near(score), 0.999)
    assert isinstance(decision, Decline)
    assert decision.ticket is not None
    assert Label.from_bytes(learner.label(decision.ticket, ok=True).to_bytes()) is None
    assert isinstance(learner.decide(TEXT, near(0.97), 0.999), Serve)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_not_adopted(number: float) -> None:
    learner = taught(Target(0.05))
    newest = learner.snapshot().weights
    learner.adopt(replace(newest, version=newest.version + 1, mean=newest.mean + number))
    assert learner.snapshot().weights is newest


def test_a_cluster_served_without_a_label_for_long_is_audited_more_and_more() -> None:
    learner = taught(Target(0.05))
    chances = []
    for _ in range(120):
        served = learner.decide(TEXT, near(0.97), 0.999)
        assert isinstance(served, Serve)
        chances.append(served.ticket.chance)
    assert chances[-1] > 0.4
    other = learner.decide(TEXT, near(0.97, clusters="b"), 0.999)
    assert isinstance(other, Serve)
    assert other.ticket.chance < chances[-1]
    asked = learner.decide(TEXT, near(0.97), 0.0)
    assert isinstance(asked, Audit)
    teach(learner, asked.ticket, ok=True)
    again = learner.decide(TEXT, near(0.97), 0.999)
    assert isinstance(again, Serve)
    assert again.ticket.chance < chances[-1]


def test_a_cluster_whose_last_labels_were_wrong_is_riskier_than_one_without_labels() -> None:
    learner = taught(Target(0.05))
    for _ in range(3):
        asked = learner.decide(TEXT, near(0.97), 0.0)
        assert isinstance(asked, Audit)
        learner.take([learner.label(asked.ticket, ok=False)])
    assert learner.weigh(TEXT, near(0.97))[0] > learner.weigh(TEXT, near(0.97, clusters="b"))[0]


def test_threads_may_decide_while_another_one_learns() -> None:
    learner, failed, over = taught(Target(0.05)), [], threading.Event()

    def keep_deciding() -> None:
        try:
            while not over.is_set():
                learner.decide(TEXT, near(0.97, clusters=random.choice("abcdef")), random.random())
        except Exception as error:  # noqa: BLE001 - to be seen by the test, which runs in another thread
            failed.append(error)

    threads = [threading.Thread(target=keep_deciding) for _ in range(2)]
    for thread in threads:
        thread.start()
    for at in range(300):
        ticket = learner.decide(TEXT, near(0.5, clusters="abc"[at % 3]), 0.0).ticket
        assert ticket is not None
        teach(learner, ticket, ok=False)
    over.set()
    for thread in threads:
        thread.join()
    assert failed == []
    assert learner.position == learner.ledger.lessons == 700


def test_a_ticket_forgotten_leaves_no_trace_in_the_ledger() -> None:
    learner = taught(Target(0.05))
    before = learner.ledger
    asked = learner.decide(TEXT, near(0.97), 0.0)
    assert isinstance(asked, Audit)
    learner.forget(asked.ticket)
    assert learner.ledger == before


def test_requests_and_hits_travel_with_the_next_label_and_come_back_when_it_is_lost() -> None:
    learner = Learner(ONE_PERCENT)
    tickets = [learner.decide(TEXT, near(0.9), 0.5).ticket for _ in range(3)]
    assert tickets[0] is not None
    assert tickets[1] is not None
    lost = learner.label(tickets[0], ok=True)
    assert lost.requests == 3
    learner.unsent(lost)
    assert learner.label(tickets[1], ok=True).requests == 3


def test_to_weigh_tells_the_risk_and_the_cutoff_of_the_next_decision_and_changes_nothing() -> None:
    learner, twin = taught(Target(0.05)), taught(Target(0.05))
    for score in (0.97, 0.5):
        risk, cutoff_now = learner.weigh(TEXT, near(score))
        served = isinstance(twin.decide(TEXT, near(score), 0.999), Serve)
        assert served == (risk <= cutoff_now)
    assert learner.weigh(TEXT, []) == (1.0, cutoff_now)
    asked = learner.decide(TEXT, near(0.5), 0.5)
    assert asked.ticket is not None
    assert asked.ticket.risk == risk
    assert learner.label(asked.ticket, ok=False).requests == 1


def test_a_hit_withdrawn_is_not_counted_also_when_it_was_already_sent() -> None:
    learner = taught(Target(0.05))

    def sent(serves: int, withdrawn: int) -> int:
        decisions = [learner.decide(TEXT, near(0.97), 0.999) for _ in range(serves)]
        for decision in decisions[:withdrawn]:
            assert isinstance(decision, Serve)
            learner.withdraw(decision.ticket)
        free = learner.decide(TEXT, near(0.5), 0.999).ticket
        assert free is not None
        return Label.from_bytes(learner.label(free, ok=False).to_bytes()).hits  # type: ignore[union-attr]

    assert sent(3, withdrawn=1) == 2
    early = learner.decide(TEXT, near(0.97), 0.999)
    assert isinstance(early, Serve)
    assert sent(0, withdrawn=0) == 1
    learner.withdraw(early.ticket)
    assert sent(0, withdrawn=0) == 0
    assert sent(2, withdrawn=0) == 1


def test_two_processes_that_read_one_log_hold_the_same_ledger() -> None:
    one, other = Learner(Target(0.05)), Learner(Target(0.05))
    log: list[Label] = []
    for at in range(300):
        asks = one if at % 3 else other
        decision = asks.decide(TEXT, near(0.97 if at % 2 else 0.5), at / 300)
        if not isinstance(decision, Serve) and decision.ticket is not None:
            log.append(asks.label(decision.ticket, ok=bool(at % 2)))
        for learner in (one, other):
            learner.take(log[learner.position :])
    assert one.ledger == other.ledger
    assert one.ledger.requests <= 300


def test_a_process_that_starts_from_a_snapshot_goes_on_like_the_one_that_wrote_it() -> None:
    log: list[Label] = []
    first = taught(Target(0.05), log=log)
    stored = Snapshot.from_bytes(first.snapshot().to_bytes(), FEATURES.count)
    second = Learner(Target(0.05), snapshot=stored, lessons=log)
    assert second.ledger == first.ledger
    asked, again = (learner.decide(TEXT, near(0.5), 0.9) for learner in (first, second))
    assert asked.ticket is not None
    assert again.ticket is not None
    assert asked.ticket.risk == again.ticket.risk


def test_older_weights_than_those_at_hand_are_not_adopted() -> None:
    learner = taught(Target(0.05))
    newest = learner.snapshot().weights
    learner.adopt(replace(newest, version=newest.version - 1, mean=newest.mean * 0))
    assert learner.snapshot().weights is newest


def test_a_label_of_another_width_in_the_log_is_passed_over() -> None:
    learner = Learner(ONE_PERCENT)
    learner.take([replace(lesson(), row=b"\0" * 8)])
    assert (learner.position, learner.ledger.lessons) == (1, 0)


def test_a_certified_audit_without_a_label_counts_as_wrong_until_it_has_one() -> None:
    learner = taught(Target(0.15, certified=True), lessons=500)
    for _ in range(60):
        asked = learner.decide(TEXT, near(0.97), 0.0)
        assert isinstance(asked, Audit)
        teach(learner, asked.ticket, ok=True)
    for _ in range(200):  # So many hits that their number alone no longer is a bound on the wrong ones.
        assert isinstance(learner.decide(TEXT, near(0.97), 0.999), Serve)
    decisions = [learner.decide(TEXT, near(0.97), 0.0) for _ in range(30)]
    pending = [decision.ticket for decision in decisions if isinstance(decision, Audit)]
    assert all(ticket.chance >= 0.1 for ticket in pending)
    assert isinstance(decisions[-1], Decline)
    assert decisions[-1].why == "budget"
    learner.take([learner.label(ticket, ok=True) for ticket in pending])
    assert isinstance(learner.decide(TEXT, near(0.97), 0.999), Serve)


# --------------------------------------------------------------------------------------------------- comparator


def test_answers_with_one_digest_are_equal_whatever_their_bodies() -> None:
    assert Equal().same(Reading(b"x", "one"), Reading(b"x", "two"))
    assert Equal().same(Reading(b"x", "one"), Reading(b"y", "one")) is False


# ------------------------------------------------------------------------------------------------------ records


def of_cluster(name: bytes, *, ok: bool, risk: float = 0.2) -> Label:
    return replace(lesson(ok=ok), cluster=name.ljust(8, b"\0"), risk=risk)


def recorded(labels: Sequence[Label], name: bytes) -> dict[str, float]:
    records = Records()
    for label in labels:
        records.add(label)
    return dict(zip(RECORDS, records.of(name.ljust(8, b"\0")), strict=True))


def test_a_cluster_never_seen_has_an_empty_record() -> None:
    assert recorded([], b"a") == dict.fromkeys(RECORDS, 0.0)
    assert recorded([of_cluster(b"b", ok=True)], b"a")["evidence"] == 0


def test_a_record_counts_wrong_labels_against_those_predicted_and_the_last_ones_most() -> None:
    right, wrong = of_cluster(b"a", ok=True), of_cluster(b"a", ok=False)
    assert recorded([right] * 10, b"a")["excess"] < 0
    assert recorded([right] * 10 + [wrong] * 3, b"a")["excess"] > recorded([wrong] * 3 + [right] * 10, b"a")["excess"]
    expected = of_cluster(b"a", ok=False, risk=1.0)
    assert recorded([expected] * 3, b"a")["excess"] == 0


def test_a_record_grows_idle_while_others_have_labels() -> None:
    labels = [of_cluster(b"a", ok=True), *[of_cluster(b"b", ok=True)] * 50]
    assert recorded(labels, b"a")["idle"] > 0 == recorded(labels, b"b")["idle"]


def test_the_oldest_clusters_are_forgotten_first() -> None:
    labels = [of_cluster(b"%d" % at, ok=True) for at in range(10_001)]
    assert recorded(labels, b"0")["evidence"] == 0 < recorded(labels, b"1")["evidence"]


def test_a_label_without_a_cluster_is_on_no_ones_record() -> None:
    assert recorded([lesson(ok=False)] * 5, b"")["evidence"] == 0

"""The static matcher: threshold, guards, margin, and how a decision follows from the judgements."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from aicache._guards import Conflict, Parsed
from aicache._match import Accept, Judgement, Reject, StaticMatcher, Verdict
from aicache._model import Answer, CacheKey, Candidate, Entry, MissReason, Partition

PARTITION = Partition(b"p", b"n", b"t", b"m")
MATCHER = StaticMatcher(threshold=0.9, margin=0.05)


def near(query: str, score: float, answer: str | None = None) -> Candidate:
    digest = (query if answer is None else answer).encode()
    return Candidate(Entry(CacheKey(PARTITION, query.encode()), query, Answer(b"{}", digest), created=0.0), score)


def test_no_candidates_is_absent() -> None:
    assert MATCHER.decide("how do I pay", []) == Reject(MissReason.ABSENT)
    assert MATCHER.explain("how do I pay", []) == ()


def test_a_near_candidate_without_conflict_or_rival_is_accepted() -> None:
    found = near("how can I pay", 0.95)
    assert MATCHER.decide("how do I pay", [found]) == Accept(found)
    assert MATCHER.explain("how do I pay", [found]) == (Judgement(found, Verdict.CLEAR),)


def test_a_nearest_candidate_below_the_threshold_is_rejected_with_both_figures() -> None:
    decision = MATCHER.decide("how do I pay", [near("how can I pay", 0.8999)])
    assert decision == Reject(MissReason.BELOW_THRESHOLD, "0.8999, threshold 0.9")


@pytest.mark.parametrize("score", [0.9, 0.9 - 1e-7])
def test_a_score_at_the_threshold_passes_up_to_float_noise(score: float) -> None:
    assert isinstance(MATCHER.decide("how do I pay", [near("how can I pay", score)]), Accept)


def test_a_threshold_of_one_accepts_a_cosine_of_one_computed_in_float32() -> None:
    assert isinstance(StaticMatcher(1.0, 0.0).decide("how do I pay", [near("How do I pay?", 0.9999998)]), Accept)


def test_a_score_that_is_no_number_is_below_the_threshold() -> None:
    decision = MATCHER.decide("how do I pay", [near("how can I pay", float("nan"))])
    assert isinstance(decision, Reject)
    assert decision.reason is MissReason.BELOW_THRESHOLD


def test_a_guarded_candidate_is_rejected_with_the_name_of_the_guard_and_no_word_of_the_prompt() -> None:
    found = near("how do I buy Tesla shares", 0.99)
    decision = MATCHER.decide("how do I sell Tesla shares", [found])
    assert decision == Reject(MissReason.GUARDED, "antonym")
    (judgement,) = MATCHER.explain("how do I sell Tesla shares", [found])
    assert judgement == Judgement(found, Verdict.GUARDED, conflict=Conflict("antonym", "sell", "buy"))


def test_a_clean_candidate_behind_a_guarded_one_is_accepted() -> None:
    other, right = near("weather in Paris", 0.97), near("what is the weather in Rome", 0.95)
    assert MATCHER.decide("weather in Rome", [other, right]) == Accept(right)


def test_guarded_candidates_before_one_below_the_threshold_are_reported_as_guarded() -> None:
    decision = MATCHER.decide("weather in Rome", [near("weather in Paris", 0.97), near("climate of Rome", 0.8)])
    assert decision == Reject(MissReason.GUARDED, "class")


def test_identical_text_up_to_white_space_is_served_whatever_score_guards_and_rivals_say() -> None:
    same = near("how do I  pay\n", 0.5, "a")
    rivals = [near("how can I pay", 0.99, "b"), near("how to pay", 0.98, "b")]
    assert MATCHER.decide("how do I pay", [*rivals, same]) == Accept(same)
    assert MATCHER.explain("how do I pay", [*rivals, same])[0] == Judgement(same, Verdict.IDENTICAL)


# ------------------------------------------------------------------------------------------------ margin


def test_a_rival_whose_answer_others_share_makes_a_near_candidate_ambiguous() -> None:
    found = near("card works badly", 0.96, "a")
    rivals = [near("card is broken", 0.94, "b"), near("card rejected", 0.85, "b")]
    decision = MATCHER.decide("card does work badly", [found, *rivals])
    assert decision == Reject(MissReason.AMBIGUOUS, "0.9600 against 0.9400, margin 0.05")
    assert MATCHER.explain("card does work badly", [found, *rivals])[0] == Judgement(
        found, Verdict.AMBIGUOUS, rival=rivals[0]
    )


def test_a_rival_at_the_margin_or_farther_does_not_count() -> None:
    found = near("card works badly", 0.96, "a")
    rivals = [near("card is broken", 0.91, "b"), near("card rejected", 0.85, "b")]
    assert MATCHER.decide("card does work badly", [found, *rivals]) == Accept(found)


def test_an_entry_with_the_same_answer_is_no_rival() -> None:
    found = near("card works badly", 0.96, "a")
    assert MATCHER.decide("card does work badly", [found, near("card is broken", 0.95, "a")]) == Accept(found)


def test_answers_that_nobody_shares_are_other_words_and_not_rivals() -> None:
    found = near("how can I pay", 0.96)
    assert MATCHER.decide("how do I pay", [found, near("how to pay", 0.95), near("ways to pay", 0.94)]) == Accept(found)


def test_an_entry_that_a_guard_tells_from_the_query_is_no_rival() -> None:
    found = near("weather in Rome, please", 0.96, "a")
    others = [near("weather in Paris", 0.95, "b"), near("Paris weather", 0.94, "b")]
    assert MATCHER.decide("weather in Rome", [found, *others]) == Accept(found)


def test_two_questions_that_a_guard_tells_apart_are_rivals_for_a_query_that_leaves_it_open() -> None:
    today, tomorrow = near("what is the weather today", 0.96), near("what is the weather tomorrow", 0.95)
    decision = MATCHER.decide("what is the weather", [today, tomorrow])
    assert isinstance(decision, Reject)
    assert decision.reason is MissReason.AMBIGUOUS


def test_a_margin_of_zero_lets_the_nearest_win() -> None:
    found = near("card works badly", 0.96, "a")
    rivals = [near("card is broken", 0.96, "b"), near("card rejected", 0.85, "b")]
    assert StaticMatcher(0.9, 0.0).decide("card does work badly", [found, *rivals]) == Accept(found)


# ------------------------------------------------------------------------------------- blind embedders, guards


def test_a_cosine_of_one_between_different_words_of_another_script_is_a_blind_embedder() -> None:
    decision = MATCHER.decide("如何重置我的密码", [near("如何删除我的帐户", 1.0)])
    assert decision == Reject(MissReason.GUARDED, "unseen")


@pytest.mark.parametrize(
    ("query", "stored", "score"),
    [
        ("如何重置我的密码？", "如何重置我的密码", 1.0),
        ("как сбросить пароль", "Как сбросить пароль?", 1.0),
        ("как сбросить пароль", "как поменять пароль", 0.96),
        ("what’s the price", "what's the price", 1.0),
        ("how do I pay — now", "How do I pay - now", 1.0),
    ],
)
def test_punctuation_case_and_honest_scores_are_no_sign_of_a_blind_embedder(
    query: str, stored: str, score: float
) -> None:
    found = near(stored, score)
    assert MATCHER.decide(query, [found]) == Accept(found)


PROGRAM = "What does it print?\nfor i in range(3):\n    x = i\n    print(x)"
LAYOUTS = [
    (PROGRAM, PROGRAM.replace("    print", "print")),
    (PROGRAM, PROGRAM.replace("    print", "\tprint")),
    (PROGRAM, " ".join(PROGRAM.split())),
    ("count the spaces in 'a b'", "count the spaces in 'a    b'"),
    ("count the spaces in `a  b`", "count the spaces in `a b`"),
    ("split a\tb", "split a b"),
    ("one\ntwo three", "one two\nthree"),
    ("one\n\ntwo", "one\ntwo"),
]


@pytest.mark.parametrize(("query", "stored"), LAYOUTS)
def test_white_space_that_may_carry_meaning_is_a_veto_whatever_the_score(query: str, stored: str) -> None:
    for one, other in ((query, stored), (stored, query)):
        assert MATCHER.decide(one, [near(other, 1.0)]) == Reject(MissReason.GUARDED, "layout")


@pytest.mark.parametrize("stored", [f"\n {PROGRAM}\n\n", PROGRAM.replace("\n", "  \n"), PROGRAM.replace("\n", "\r\n")])
def test_white_space_around_a_text_and_at_line_ends_means_nothing(stored: str) -> None:
    found = near(stored, 0.5)
    assert MATCHER.decide(PROGRAM, [found]) == Accept(found)


@pytest.mark.parametrize("stored", ["what's  the   price", "what's\u00a0the price", " what's the price "])
def test_runs_of_blanks_in_a_line_without_quotes_mean_nothing(stored: str) -> None:
    found = near(stored, 0.5)
    assert MATCHER.decide("what's the price", [found]) == Accept(found)


@pytest.mark.parametrize(("query", "stored"), [("use it", "use IT"), ("drucken", "drücken"), ("ls -r", "ls -R")])
def test_what_an_uncased_embedder_cannot_see_is_not_served_at_a_cosine_of_one(query: str, stored: str) -> None:
    decision = MATCHER.decide(query, [near(stored, 1.0)])
    assert isinstance(decision, Reject)
    assert decision.reason is MissReason.GUARDED


@dataclass(frozen=True)
class Never:
    """A guard against everything."""

    name: str = "never"

    def conflict(self, a: Parsed, b: Parsed) -> Conflict | None:
        return Conflict(self.name, a.text, b.text)


def test_the_matcher_asks_exactly_the_guards_it_is_given() -> None:
    found = near("how do I buy shares", 0.99)
    assert StaticMatcher(0.9, 0.05, ()).decide("how do I sell shares", [found]) == Accept(found)
    decision = StaticMatcher(0.9, 0.05, (Never(),)).decide("how do I sell shares", [found])
    assert decision == Reject(MissReason.GUARDED, "never")


def test_matchers_with_equal_rules_are_equal_whatever_they_remember() -> None:
    used = StaticMatcher(0.9, 0.05)
    used.decide("how do I pay", [near("how can I pay", 0.95)])
    assert used == StaticMatcher(0.9, 0.05)

"""The order of operations, step by step: plans are played by hand, without any store."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from aicache._match import Accept, Judgement, Reject
from aicache._model import (
    L1,
    Candidate,
    Entry,
    ExactOnly,
    Hit,
    Match,
    Miss,
    MissReason,
    NotStored,
    Opinion,
    Query,
    Search,
    SkipReason,
    Stored,
)
from aicache._plans import Journal, Request, Rules, lookup, update
from aicache._policy import CachePolicy
from aicache._steps import (
    CheckEpoch,
    Embed,
    Embedded,
    Fetch,
    Forget,
    Mark,
    Nearest,
    Plan,
    Promote,
    Recall,
    StepFailed,
    Sweep,
    Touch,
    Verify,
    Write,
)
from aicache.testing import make_entry, make_key, make_vector

NOW = 1_000.0
KEY = make_key("q")
FRESH = make_entry(key=KEY, created=NOW - 5)
EXPIRED = make_entry(key=KEY, created=NOW - 50, expires=NOW)
MORTAL = replace(make_entry(key=KEY, created=NOW - 5, expires=NOW + 5), life=10.0)
OTHER = make_entry("reworded", created=NOW - 7, vector=make_vector(1, 0))
VECTOR = Embedded("fake/2", make_vector(1, 0))


class Nearest1:
    """Accepts the nearest candidate, whatever its score."""

    floor = -1.0

    def decide(self, text: str, candidates: Sequence[Candidate], space: str, /) -> Accept | Reject:
        return Accept(candidates[0]) if candidates else Reject(MissReason.ABSENT, "")

    def preview(self, text: str, candidates: Sequence[Candidate], space: str, /) -> Accept | Reject:
        return self.decide(text, candidates, space)

    def explain(self, text: str, candidates: Sequence[Candidate], space: str, /) -> tuple[Judgement, ...]:
        return ()


class Never(Nearest1):
    """Rejects everything."""

    def decide(self, text: str, candidates: Sequence[Candidate], space: str, /) -> Accept | Reject:
        return Reject(MissReason.GUARDED, "number")


def request(*, exact_only: ExactOnly | None = None, **more: Any) -> Request:
    return Request(Query("chat", "q", b"frame", b"model", exact_only), KEY, NOW, **more)


def rules(
    *, matcher: Nearest1 | None = None, embedder: bool = True, l1: bool = True, verifier: bool = False, **policy: Any
) -> Rules:
    return Rules(CachePolicy(**policy), matcher or Nearest1(), "disk", embedder, l1, verifier)


def play(plan: Plan[Any], replies: Mapping[type, Any]) -> tuple[list[type], Any]:
    """Run a plan with a fixed reply for each kind of step (a StepFailed is thrown): the kinds in order, the result."""
    steps: list[type] = []
    advance: Callable[[], Any] = lambda: next(plan)  # noqa: E731 - rebound below
    while True:
        try:
            step = advance()
        except StopIteration as stop:
            return steps, stop.value
        steps.append(type(step))
        reply = replies.get(type(step))
        if isinstance(reply, StepFailed):
            advance = lambda error=reply: plan.throw(error)  # noqa: E731
        else:
            advance = lambda value=reply: plan.send(value)  # noqa: E731


def failed(reason: MissReason) -> StepFailed:
    return StepFailed(reason, "told to")


# ------------------------------------------------------------------------------------------------ lookup


def test_a_fresh_exact_hit_in_l1_needs_no_store() -> None:
    steps, outcome = play(lookup(request(), rules()), {Recall: FRESH})
    assert steps == [Recall]
    assert outcome == Hit(FRESH, L1, Match.EXACT, 1.0, 5.0)


def test_without_an_l1_no_step_is_spent_on_it() -> None:
    assert play(lookup(request(look=True), rules(l1=False)), {Fetch: FRESH})[0] == [Fetch]
    assert play(update(request(), FRESH.answer, rules(l1=False)), {Embed: VECTOR})[0] == [Embed, Write]


def test_an_exact_hit_below_l1_is_promoted_and_needs_no_embedding() -> None:
    steps, outcome = play(lookup(request(), rules()), {Fetch: FRESH})
    assert steps == [Recall, Mark, Fetch, Promote]
    assert outcome == Hit(FRESH, "disk", Match.EXACT, 1.0, 5.0)


def test_an_expired_entry_leaves_l1_and_the_store_is_asked() -> None:
    steps, outcome = play(lookup(request(), rules()), {Recall: EXPIRED, Fetch: FRESH})
    assert steps == [Recall, Forget, Mark, Fetch, Promote]
    assert isinstance(outcome, Hit)


def test_a_semantic_hit_takes_two_store_reads_and_one_embedding() -> None:
    replies = {Embed: VECTOR, Nearest: [Candidate(OTHER, 0.98)]}
    steps, outcome = play(lookup(request(), rules()), replies)
    assert steps == [Recall, Mark, Fetch, Embed, Nearest, Promote]
    assert outcome == Hit(OTHER, "disk", Match.SEMANTIC, 0.98, 7.0, KEY)


def search_of(plan: Plan[Any]) -> Search:
    """The search that a lookup asks for."""
    step = next(plan)
    while not isinstance(step, Nearest):
        step = plan.send(VECTOR if isinstance(step, Embed) else None)
    plan.close()
    return step.search


def test_the_nearest_are_asked_for_by_the_one_who_asks_and_down_to_where_they_count() -> None:
    class Picky(Nearest1):
        floor = 0.87

    assert search_of(lookup(request(), rules(matcher=Picky(), candidates=7))) == Search(
        KEY.partition, VECTOR.space, VECTOR.vector, 7, asker=KEY, floor=0.87
    )


def test_explain_wants_to_see_those_that_do_not_count_too() -> None:
    class Picky(Nearest1):
        floor = 0.87

    assert search_of(lookup(request(), rules(matcher=Picky()), Journal())).floor == -1.0


def test_an_expired_neighbour_is_never_a_candidate() -> None:
    replies = {Embed: VECTOR, Nearest: [Candidate(EXPIRED, 1.0)]}
    assert play(lookup(request(), rules()), replies)[1] == Miss(MissReason.ABSENT)
    replies = {Embed: VECTOR, Nearest: [Candidate(EXPIRED, 1.0), Candidate(OTHER, 0.98)]}
    assert play(lookup(request(), rules()), replies)[1].entry is OTHER


def test_an_expired_exact_entry_is_the_reason_when_nothing_else_is_near() -> None:
    replies = {Fetch: EXPIRED, Embed: VECTOR, Nearest: []}
    assert play(lookup(request(), rules()), replies)[1] == Miss(MissReason.EXPIRED)


def test_the_matchers_reason_is_the_lookups_reason() -> None:
    replies = {Embed: VECTOR, Nearest: [Candidate(OTHER, 0.99)]}
    assert play(lookup(request(), rules(matcher=Never())), replies)[1] == Miss(MissReason.GUARDED, "number")


def test_an_exact_only_query_is_never_embedded() -> None:
    steps, outcome = play(lookup(request(exact_only=ExactOnly.NOT_TEXT), rules()), {})
    assert steps == [Recall, Mark, Fetch]
    assert outcome == Miss(MissReason.EXACT_ONLY, ExactOnly.NOT_TEXT)


def test_without_an_embedder_the_reason_says_so() -> None:
    steps, outcome = play(lookup(request(), rules(embedder=False)), {})
    assert steps == [Recall, Mark, Fetch]
    assert outcome == Miss(MissReason.NO_EMBEDDER)


def test_a_verifier_is_asked_last_and_nothing_is_promoted_before() -> None:
    replies = {Embed: VECTOR, Nearest: [Candidate(OTHER, 0.98)], Verify: Opinion(same=True)}
    steps, outcome = play(lookup(request(), rules(verifier=True)), replies)
    assert steps == [Recall, Mark, Fetch, Embed, Nearest, Verify, Promote]
    assert outcome == Hit(OTHER, "disk", Match.SEMANTIC, 0.98, 7.0, KEY)


def test_what_the_verifier_refuses_is_a_miss_and_reaches_no_tier() -> None:
    replies = {Embed: VECTOR, Nearest: [Candidate(OTHER, 0.98)], Verify: Opinion(same=False, said="why")}
    steps, outcome = play(lookup(request(), rules(verifier=True)), replies)
    assert steps == [Recall, Mark, Fetch, Embed, Nearest, Verify]
    assert outcome == Miss(MissReason.UNVERIFIED, "why")


def test_a_verifier_that_fails_ends_the_lookup_and_nothing_is_promoted() -> None:
    near = [Candidate(OTHER, 0.98)]
    replies = {Embed: VECTOR, Nearest: near, Verify: failed(MissReason.VERIFIER_FAILED)}
    with pytest.raises(StepFailed) as caught:
        play(lookup(request(), rules(verifier=True)), replies)
    assert caught.value.reason is MissReason.VERIFIER_FAILED


def test_what_needs_no_judgement_is_not_verified() -> None:
    same = make_entry(" q\n", created=NOW - 7)
    never = Never()
    assert Verify not in play(lookup(request(), rules(verifier=True)), {Recall: FRESH})[0]
    assert Verify not in play(lookup(request(), rules(verifier=True)), {Fetch: FRESH})[0]
    near = {Embed: VECTOR, Nearest: [Candidate(same, 1.0)]}
    assert isinstance(play(lookup(request(), rules(verifier=True)), near)[1], Hit)
    assert Verify not in play(lookup(request(), rules(verifier=True)), near)[0]
    assert Verify not in play(lookup(request(), rules(verifier=True, matcher=never)), near)[0]


def test_the_journal_keeps_what_the_verifier_said() -> None:
    journal, opinion = Journal(), Opinion(same=True, said="why")
    replies = {Embed: VECTOR, Nearest: [Candidate(OTHER, 0.98)], Verify: opinion}
    assert Promote not in play(lookup(request(), rules(verifier=True), journal), replies)[0]
    assert journal.opinion == opinion


@pytest.mark.parametrize("step", [Fetch, Embed, Nearest])
def test_a_step_that_fails_ends_the_lookup_with_its_reason(step: type) -> None:
    replies: dict[type, Any] = {Embed: VECTOR, step: failed(MissReason.STORE_FAILED)}
    with pytest.raises(StepFailed) as caught:
        play(lookup(request(), rules()), replies)
    assert caught.value.reason is MissReason.STORE_FAILED


def test_l1_keeps_answering_while_the_epoch_cannot_be_read() -> None:
    replies = {CheckEpoch: failed(MissReason.STORE_FAILED), Recall: FRESH}
    steps, outcome = play(lookup(request(look=True), rules()), replies)
    assert steps == [CheckEpoch, Recall]
    assert isinstance(outcome, Hit)


def test_a_hit_does_not_extend_a_life_unless_the_ttl_slides() -> None:
    assert Touch not in play(lookup(request(), rules(ttl=60)), {Recall: MORTAL})[0]
    assert Touch in play(lookup(request(), rules(ttl=60, sliding=True)), {Recall: MORTAL})[0]


def test_a_hit_renews_the_life_that_the_entry_was_written_with() -> None:
    plan = lookup(request(), rules(ttl=86_400, sliding=True))
    next(plan)
    assert plan.send(MORTAL) == Touch(KEY, NOW + 10)


def test_an_entry_without_a_life_or_just_renewed_is_not_renewed() -> None:
    immortal = make_entry(key=KEY, created=NOW - 5)
    renewed = replace(MORTAL, expires=NOW + 9.5)
    for entry in (immortal, renewed):
        assert Touch not in play(lookup(request(), rules(ttl=60, sliding=True)), {Recall: entry})[0]


def test_a_sliding_ttl_that_cannot_be_renewed_still_serves() -> None:
    replies = {Recall: MORTAL, Touch: failed(MissReason.STORE_FAILED)}
    assert isinstance(play(lookup(request(), rules(ttl=60, sliding=True)), replies)[1], Hit)


def test_a_journalled_lookup_writes_to_no_tier() -> None:
    journal = Journal()
    steps, _ = play(lookup(request(look=True), rules(ttl=60, sliding=True), journal), {Fetch: MORTAL})
    assert steps == [Recall, Mark, Fetch]
    assert journal.exact == {L1: "absent", "disk": "fresh"}


def test_the_journal_keeps_what_was_near() -> None:
    near = [Candidate(OTHER, 0.9)]
    journal = Journal()
    play(lookup(request(), rules(), journal), {Embed: VECTOR, Nearest: near})
    assert journal.space == "fake/2"
    assert list(journal.candidates) == near


# ------------------------------------------------------------------------------------------------ update


def written(plan: Plan[Any], replies: Mapping[type, Any]) -> tuple[list[type], Entry]:
    steps, outcome = play(plan, replies)
    assert isinstance(outcome, Stored)
    return steps, outcome.entry


def test_an_update_embeds_keeps_in_l1_and_writes_in_this_order() -> None:
    steps, entry = written(update(request(tags=("a",)), FRESH.answer, rules(ttl=60)), {Embed: VECTOR})
    assert steps == [Embed, Promote, Write]
    assert entry == Entry(KEY, "q", FRESH.answer, NOW, NOW + 60, VECTOR.space, VECTOR.vector, tags=("a",), life=60.0)


def test_an_update_looks_for_foreign_changes_before_it_keeps_anything_in_l1() -> None:
    steps, _ = written(update(request(look=True), FRESH.answer, rules()), {Embed: VECTOR})
    assert steps == [Embed, CheckEpoch, Promote, Write]


def test_a_ttl_asked_for_the_call_replaces_the_policys() -> None:
    assert written(update(request(ttl=5), FRESH.answer, rules(ttl=60)), {Embed: VECTOR})[1].expires == NOW + 5
    assert written(update(request(ttl=5), FRESH.answer, rules()), {Embed: VECTOR})[1].expires == NOW + 5


def test_an_exact_only_prompt_is_stored_without_a_vector() -> None:
    steps, entry = written(update(request(exact_only=ExactOnly.NOT_HUMAN), FRESH.answer, rules()), {})
    assert steps == [Promote, Write]
    assert entry.vector is None


def test_a_failed_embedding_still_stores_the_answer_for_exact_matches() -> None:
    replies = {Embed: failed(MissReason.EMBEDDER_SLOW)}
    steps, outcome = play(update(request(), FRESH.answer, rules()), replies)
    assert steps == [Embed, Promote, Write]
    assert isinstance(outcome, Stored)
    assert outcome.embedding is MissReason.EMBEDDER_SLOW
    assert outcome.entry.vector is None


def test_an_answer_above_the_bound_is_not_stored() -> None:
    steps, outcome = play(update(request(), FRESH.answer, rules(max_entry_bytes=3)), {})
    assert steps == []
    assert isinstance(outcome, NotStored)
    assert outcome.reason is SkipReason.TOO_LARGE


def test_an_update_sweeps_only_when_the_chore_is_due() -> None:
    assert play(update(request(sweep=True), FRESH.answer, rules()), {Embed: VECTOR})[0][-1] is Sweep
    assert Sweep not in play(update(request(), FRESH.answer, rules()), {Embed: VECTOR})[0]


def test_a_failed_sweep_costs_nothing() -> None:
    replies = {Embed: VECTOR, Sweep: failed(MissReason.STORE_FAILED)}
    assert isinstance(play(update(request(sweep=True), FRESH.answer, rules()), replies)[1], Stored)

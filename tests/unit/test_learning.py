"""Rules of learning through the plain lookup and update of a cache, over the memory store and fakes."""

import asyncio
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest

from aicache._errand import Background
from aicache._guards import DEFAULT_GUARDS
from aicache._learned import Comparator, Equal, Reading, Target
from aicache._learning import LearnedMatcher
from aicache._learning_choice import digest_only
from aicache._match import StaticMatcher, Verdict
from aicache._model import (
    Answer,
    Hit,
    Match,
    Miss,
    MissReason,
    NotStored,
    Opinion,
    Outcome,
    Prompt,
    Selection,
    SkipReason,
    Stored,
    Turn,
    UpdateOutcome,
)
from aicache._open import open_cache
from aicache._study import QUEUE_LENGTH, Studying
from aicache.cache import Question, SemanticCache
from aicache.embedders._embedding import Embedding
from aicache.stores.base import Store
from aicache.stores.memory import MemoryStore
from aicache.testing import ChaosStore, FailingStore, FakeClock, FakeEmbedder
from aicache.verifiers._verification import Verification

TOPICS = (
    "reset my password",
    "cancel the subscription",
    "change the delivery address",
    "download an invoice",
    "close this account",
    "track a parcel",
    "return damaged shoes",
    "update payment card",
)
WAYS = (
    "how do I {}",
    "how can I {} please",
    "{}",
    "I want to {}",
    "what must I do to {}",
    "please {}",
    "could you {} for me",
    "where do I {}",
    "I would like to {}",
    "is there a way to {}",
    "tell me how to {}",
    "{} please",
)


def traffic(seed: int = 0, rounds: int = 3) -> Iterator[tuple[str, str]]:
    """Questions of a shop and the answer to each; every round words them anew."""
    chance = random.Random(seed)
    for turn in range(rounds):
        pairs = [(way.format(topic), topic) for topic in TOPICS for way in WAYS]
        chance.shuffle(pairs)
        yield from ((f"{text} {'now ' * turn}".strip(), topic) for text, topic in pairs)


def question(text: str) -> Callable[[], Question]:
    raw = sha256(text.encode()).digest()
    return lambda: Question(raw, lambda: Prompt("text", (Turn("human", text),), b"m"))


def answer(text: str) -> Answer:
    return Answer(text.encode(), sha256(text.encode()).digest()[:16])


def make_cache(
    store: Store | None = None,
    *,
    rate: float = 0.1,
    coin: Callable[[], float] | None = None,
    comparator: Comparator | None = None,
    background: Background = "inline",
    shadow: bool = False,
    certified: bool = False,
    clock: FakeClock | None = None,
    **options: Any,
) -> SemanticCache:
    store = store or MemoryStore()
    coin = coin or random.Random(1).random
    matcher = LearnedMatcher(
        Target(rate, certified=certified),
        DEFAULT_GUARDS,
        store,  # type: ignore[arg-type]  # Faulty ones, too.
        namespace="",
        coin=coin,
    )
    studying = Studying(comparator or Equal(), digest_only, shadow=shadow, background=background)
    return SemanticCache(
        store,
        embedding=Embedding(FakeEmbedder()),
        matcher=matcher,
        studying=studying,
        clock=clock or FakeClock(),
        **options,
    )


def whole(hit: Hit) -> Hit:
    return hit


def ask(cache: SemanticCache, text: str) -> Outcome:
    return cache.lookup(question(text), whole)


def keep(cache: SemanticCache, text: str, said: str) -> UpdateOutcome:
    return cache.update(question(text), lambda: answer(said))


def run(cache: SemanticCache, stream: Iterator[tuple[str, str]]) -> list[Outcome]:
    """What an application does: look up, and on a miss ask the model and keep what it says."""
    outcomes: list[Outcome] = []
    for text, said in stream:
        outcomes.append(ask(cache, text))
        if isinstance(outcomes[-1], Miss):
            keep(cache, text, said)
    return outcomes


def reasons(outcomes: Sequence[Outcome]) -> set[MissReason]:
    return {outcome.reason for outcome in outcomes if isinstance(outcome, Miss)}


def settle(cache: SemanticCache) -> None:
    """Have the log read in the background before it matters."""
    ask(cache, "wake up")
    assert cache._study is not None
    cache._study.settle(10)


def lessons(cache: SemanticCache) -> int:
    learned = cache.stats().learned
    assert learned is not None
    return learned.lessons


# ------------------------------------------------------------------------------------- lookup and update


def test_a_reworded_question_is_served_after_enough_fresh_answers_agreed_with_cached_ones() -> None:
    cache = make_cache()
    outcomes = run(cache, traffic())
    hits = [outcome for outcome in outcomes if isinstance(outcome, Hit)]
    assert len(hits) > len(outcomes) / 4
    assert all(hit.match is Match.SEMANTIC for hit in hits)
    said = dict(traffic())
    wrong = sum(
        hit.entry.answer != answer(said[text])
        for (text, _), hit in zip(traffic(), outcomes, strict=True)
        if isinstance(hit, Hit)
    )
    assert wrong <= 0.1 * len(outcomes)


def test_nothing_is_served_before_enough_is_known() -> None:
    cache = make_cache()
    outcomes = run(cache, (pair for pair, _ in zip(traffic(), range(90), strict=False)))
    assert reasons(outcomes) <= {MissReason.ABSENT, MissReason.LEARNING, MissReason.RISKY}
    assert not any(isinstance(outcome, Hit) for outcome in outcomes)


def test_an_audit_is_a_miss_to_the_application_and_its_update_is_a_lesson() -> None:
    cache = make_cache(coin=lambda: 0.0)
    run(cache, traffic(rounds=2))
    fresh = next(text for text, _ in traffic(seed=5, rounds=3) if ask(cache, text) == Miss(MissReason.AUDIT))
    before = cache.stats().learned
    assert isinstance(keep(cache, fresh, dict(traffic())[fresh]), Stored)
    after = cache.stats().learned
    assert before is not None
    assert after is not None
    assert (after.lessons, after.audits) == (before.lessons + 1, before.audits + 1)


def test_with_a_coin_that_always_says_audit_nothing_is_ever_served() -> None:
    outcomes = run(make_cache(coin=lambda: 0.0), traffic())
    assert not any(isinstance(outcome, Hit) for outcome in outcomes)
    assert MissReason.AUDIT in reasons(outcomes)


def test_the_same_text_is_served_whatever_was_learned() -> None:
    cache = make_cache()
    keep(cache, "how do I reset my password", "by mail")
    outcome = ask(cache, "how do I reset  my password")
    assert isinstance(outcome, Hit)
    assert lessons(cache) == 0


def test_an_answer_that_never_comes_leaves_no_trace() -> None:
    clock = FakeClock()
    silent, told = make_cache(clock=clock), make_cache()
    for cache in (silent, told):
        run(cache, traffic(rounds=1))
    for text, _ in traffic(seed=3, rounds=1):
        ask(silent, f"{text} today")
    clock.advance(10_000)
    assert lessons(silent) == lessons(told)


def test_an_answer_that_is_not_kept_teaches_nothing() -> None:
    cache = make_cache()
    run(cache, traffic(rounds=1))
    before = lessons(cache)
    text = "how do I track a parcel from here"
    assert isinstance(ask(cache, text), Miss)
    cache.update(question(text), lambda: NotStored(SkipReason.TRUNCATED))
    assert isinstance(keep(cache, text, "elsewhere"), Stored)
    assert lessons(cache) == before


def test_an_answer_without_a_lookup_teaches_nothing() -> None:
    cache = make_cache()
    run(cache, traffic(rounds=1))
    before = lessons(cache)
    keep(cache, "I never asked for this", "but here it is")
    assert lessons(cache) == before


def test_lookups_of_one_prompt_at_the_same_time_each_get_their_own_lesson() -> None:
    cache = make_cache()
    run(cache, traffic(rounds=1))
    before = lessons(cache)
    text = "how do I track a parcel from here"
    for _ in range(3):
        assert isinstance(ask(cache, text), Miss)
    for _ in range(3):
        keep(cache, text, "track a parcel")
    assert lessons(cache) == before + 3


def test_a_batch_is_paired_prompt_by_prompt() -> None:
    cache = make_cache()
    run(cache, traffic(rounds=1))
    before = lessons(cache)
    texts = ["how do I track a parcel from here", "kindly cancel the subscription of mine"]
    outcomes = cache.lookup_many([question(text) for text in texts], whole)
    assert all(isinstance(outcome, Miss) for outcome in outcomes)
    for text in reversed(texts):
        keep(cache, text, text)
    assert lessons(cache) == before + 2


async def test_async_calls_learn_as_sync_ones_do() -> None:
    sync, awaited = make_cache(), make_cache()
    run(sync, traffic(rounds=2))
    for text, said in traffic(rounds=2):
        outcome = await awaited.alookup(question(text), whole)
        if isinstance(outcome, Miss):
            await awaited.aupdate(question(text), lambda said=said: answer(said))  # type: ignore[misc]
    assert awaited.stats().learned == sync.stats().learned


async def test_concurrent_tasks_lose_no_lesson() -> None:
    cache = make_cache()
    run(cache, traffic(rounds=1))
    before = lessons(cache)
    texts = [f"how do I {topic} from here" for topic in TOPICS]

    async def one(text: str) -> None:
        await cache.alookup(question(text), whole)
        await asyncio.sleep(0)
        await cache.aupdate(question(text), lambda: answer(text))

    await asyncio.gather(*(one(text) for text in texts))
    assert lessons(cache) == before + len(texts)


def test_threads_lose_no_lesson() -> None:
    cache = make_cache(background="thread", coin=lambda: 0.0)
    settle(cache)
    run(cache, traffic(rounds=1))
    texts = [f"how do I {topic} from {place}" for topic in TOPICS for place in ("here", "Rome", "home")]

    def some(mine: Sequence[str]) -> None:
        for text in mine:
            ask(cache, text)
            keep(cache, text, text)

    threads = [threading.Thread(target=some, args=(texts[start::4],)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cache.close()
    # The first question of all found nothing to compare with.
    assert lessons(cache) == len(TOPICS) * len(WAYS) + len(texts) - 1


# ----------------------------------------------------------------------------------------------- clusters


def clusters(store: MemoryStore) -> dict[bytes | None, set[bytes]]:
    found: dict[bytes | None, set[bytes]] = {}
    for entry in store.entries(Selection()):
        found.setdefault(entry.cluster, set()).add(entry.answer.body)
    return found


def test_entries_of_one_cluster_give_one_answer() -> None:
    store = MemoryStore()
    run(make_cache(store, coin=lambda: 0.0), traffic(rounds=1))
    shared = {cluster: answers for cluster, answers in clusters(store).items() if cluster is not None}
    assert shared
    assert all(len(answers) == 1 for answers in shared.values())


class Later:
    """`Equal`, asked in the background."""

    immediate = False

    def __init__(self, open_: threading.Event | None = None) -> None:
        self._open = open_

    def same(self, a: Reading, b: Reading) -> bool | None:
        if self._open is not None:
            self._open.wait(10)
        return a.digest == b.digest


def test_a_comparison_in_the_background_finds_the_same_clusters() -> None:
    at_once, later = MemoryStore(), MemoryStore()
    run(make_cache(at_once, coin=lambda: 0.0), traffic(rounds=1))
    run(make_cache(later, coin=lambda: 0.0, comparator=Later()), traffic(rounds=1))
    assert clusters(at_once) == clusters(later)


def test_an_update_does_not_wait_for_a_comparator_that_takes_its_time() -> None:
    gate = threading.Event()
    cache = make_cache(comparator=Later(gate), background="thread")
    settle(cache)
    outcomes = run(cache, traffic(rounds=1))
    assert all(isinstance(outcome, Miss) for outcome in outcomes)
    gate.set()
    cache.close()
    assert lessons(cache) == len(outcomes) - 1


def test_answers_beyond_what_a_slow_comparator_can_take_are_not_compared_and_counted() -> None:
    gate = threading.Event()
    cache = make_cache(comparator=Later(gate), background="thread")
    settle(cache)
    texts = [f"how do I reset my password in room {number:b}" for number in range(QUEUE_LENGTH + 100)]
    for text in texts:
        ask(cache, text)
        keep(cache, text, "x")
    learned = cache.stats().learned
    gate.set()
    cache.close()
    assert learned is not None
    assert learned.uncompared >= 90


# ------------------------------------------------------------------------------------- faults and restarts


class Undecided:
    immediate = True

    def same(self, a: Reading, b: Reading) -> bool | None:
        raise ValueError("no idea")


def test_a_comparator_that_fails_teaches_nothing_and_ends_nothing() -> None:
    cache = make_cache(comparator=Undecided())
    outcomes = run(cache, traffic(rounds=1))
    learned = cache.stats().learned
    assert learned is not None
    assert learned.lessons == 0
    assert learned.uncompared == len(outcomes) - 1
    assert cache.stats().stored == len(outcomes)


def test_what_was_learned_survives_a_restart() -> None:
    store = MemoryStore()
    before = make_cache(store)
    run(before, traffic(rounds=2))
    after = make_cache(store)
    ask(after, "wake up")
    assert lessons(after) == lessons(before)
    outcomes = [ask(after, text) for text, _ in traffic(rounds=3)]
    assert any(isinstance(outcome, Hit) and outcome.match is Match.SEMANTIC for outcome in outcomes)


def test_caches_with_one_store_learn_together() -> None:
    store, clock = MemoryStore(), FakeClock()
    one, two = make_cache(store, clock=clock), make_cache(store, clock=clock)
    halves = list(traffic(rounds=1))
    for number, (text, said) in enumerate(halves):
        cache = (one, two)[number % 2]
        ask(cache, text)
        keep(cache, text, said)
    clock.advance(2)
    for cache in (one, two):
        ask(cache, "anything new?")
    assert lessons(one) == lessons(two) == len(halves) - 1


def test_another_error_rate_learns_from_a_log_of_its_own() -> None:
    store = MemoryStore()
    run(make_cache(store, rate=0.1), traffic(rounds=1))
    other = make_cache(store, rate=0.02)
    ask(other, "wake up")
    assert lessons(other) == 0


def test_lessons_wait_for_a_store_that_fails_for_a_while() -> None:
    store = FailingStore(MemoryStore())
    clock = FakeClock()
    cache = make_cache(store, clock=clock)
    stream = traffic(rounds=1)
    run(cache, (next(stream) for _ in range(20)))
    store.fail("append_lessons")
    run(cache, (next(stream) for _ in range(3)))
    store.recover()
    clock.advance(60)
    run(cache, stream)
    assert lessons(cache) == len(TOPICS) * len(WAYS) - 1


def test_a_store_whose_log_cannot_be_read_costs_no_answer_and_learning_begins_when_it_can() -> None:
    store = FailingStore(MemoryStore())
    store.fail("lessons", "summary")
    clock = FakeClock()
    cache = make_cache(store, clock=clock)
    stream = traffic(rounds=1)
    outcomes = run(cache, (next(stream) for _ in range(4)))
    assert reasons(outcomes) == {MissReason.LEARNING}
    assert cache.stats().failed_steps["learn", MissReason.STORE_FAILED] > 0
    store.recover()
    clock.advance(60)
    run(cache, stream)
    assert lessons(cache) > 0


def log_of(cache: SemanticCache) -> bytes:
    matcher = cache._matcher
    assert isinstance(matcher, LearnedMatcher)
    return matcher.courses[-1]._log


def test_damaged_lessons_and_summaries_are_left_out() -> None:
    store = MemoryStore()
    cache = make_cache(store)
    run(cache, traffic(rounds=1))
    known = lessons(cache)
    store.append_lessons(log_of(cache), [b"", b"\x01damaged", bytes(500)])
    store.keep_summary(log_of(cache), 10_000, b"no summary")
    again = make_cache(store)
    ask(again, "wake up")
    assert lessons(again) == known
    run(again, traffic(rounds=1, seed=4))
    assert lessons(again) >= known


def test_learning_begins_anew_when_the_store_has_lost_the_log() -> None:
    store = MemoryStore()
    cache = make_cache(store)
    run(cache, traffic(rounds=1))
    store.forget_lessons(log_of(cache))
    ask(cache, "how do I track a parcel from here")
    keep(cache, "how do I track a parcel from here", "track a parcel")
    assert lessons(cache) == 1


def test_a_store_that_raises_at_random_never_costs_an_exception() -> None:
    store = ChaosStore(MemoryStore(), seed=3, error_rate=0.3)
    clock = FakeClock()
    cache = make_cache(store, clock=clock)
    for text, said in traffic(rounds=1):
        clock.advance(2)
        if isinstance(ask(cache, text), Miss):
            keep(cache, text, said)
    assert cache.stats().lookups == len(TOPICS) * len(WAYS)
    assert lessons(cache) > 0
    cache.close()


# ------------------------------------------------------------------------------------------------ verifier


def test_what_a_verifier_refuses_counts_neither_as_served_nor_as_a_lesson() -> None:
    class No:
        def verify(self, asked: str, stored: str) -> Opinion:
            return Opinion(same=False)

    store = MemoryStore()
    run(make_cache(store, coin=lambda: 0.99), traffic(rounds=2))
    cache = make_cache(store, coin=lambda: 0.99, verification=Verification(No()))
    ask(cache, "wake up")
    before = lessons(cache)
    refused = [text for text, _ in traffic(seed=7) if ask(cache, text) == Miss(MissReason.UNVERIFIED)]
    assert refused
    for text in refused:
        keep(cache, text, "fresh")
    assert lessons(cache) == before


# ------------------------------------------------------------------------------------------------ feedback


@pytest.mark.parametrize("wrong", [True, False])
def test_a_report_about_a_hit_is_a_lesson(wrong: bool) -> None:
    cache = make_cache()
    hits = [outcome for outcome in run(cache, traffic()) if isinstance(outcome, Hit)]
    before = cache.stats().learned
    cache.report(hits[-1].id, wrong=wrong)
    after = cache.stats().learned
    assert before is not None
    assert after is not None
    assert (after.lessons, after.audits) == (before.lessons + 1, before.audits)


def test_a_report_about_a_hit_that_is_not_remembered_only_does_what_it_always_did() -> None:
    store = MemoryStore()
    hits = [outcome for outcome in run(make_cache(store), traffic()) if isinstance(outcome, Hit)]
    other = make_cache(store)
    ask(other, "wake up")
    before = lessons(other)
    assert other.report(hits[-1].id, wrong=True)
    assert lessons(other) == before


# ------------------------------------------------------------------------------------------------- shadow


def test_shadow_mode_serves_nothing_and_counts_what_it_would_have_served() -> None:
    real, shadow = make_cache(), make_cache(shadow=True)
    served = run(real, traffic())
    seen = run(shadow, traffic())
    hits = [outcome for outcome in served if isinstance(outcome, Hit)]
    assert not any(isinstance(outcome, Hit) for outcome in seen)
    counted = shadow.stats().shadow
    assert counted is not None
    assert (
        sum(counted.hits.values())
        == len(hits)
        == sum(outcome == Miss(MissReason.SHADOW, "semantic from memory") for outcome in seen)
    )
    said = dict(traffic())
    wrong = sum(
        outcome.entry.answer != answer(said[text])
        for (text, _), outcome in zip(traffic(), served, strict=True)
        if isinstance(outcome, Hit)
    )
    assert counted.wrong.get(Match.SEMANTIC, 0) == wrong
    assert counted.right.get(Match.SEMANTIC, 0) == len(hits) - wrong


def make_static_shadow() -> SemanticCache:
    return SemanticCache(
        MemoryStore(),
        embedding=Embedding(FakeEmbedder()),
        matcher=StaticMatcher(threshold=0.8, margin=0.0),
        studying=Studying(Equal(), digest_only, shadow=True, background="inline"),
        clock=FakeClock(),
    )


def test_shadow_mode_of_a_static_cache_says_how_often_it_would_have_been_wrong() -> None:
    cache = make_static_shadow()
    keep(cache, "How do I reset my password?", "by mail")
    for said in ("by mail", "by phone"):
        outcome = ask(cache, "How can I reset my password please?")
        assert outcome == Miss(MissReason.SHADOW, "semantic from memory")
        assert keep(cache, "How can I reset my password please?", said) == NotStored(SkipReason.SHADOW)
    shadow = cache.stats().shadow
    assert shadow is not None
    assert (shadow.right, shadow.wrong, shadow.unknown) == ({Match.SEMANTIC: 1}, {Match.SEMANTIC: 1}, 0)
    assert "2 semantic (1 of 2 compared wrong)" in str(cache.stats())


def test_shadow_mode_writes_what_a_real_cache_would_have_written_and_no_more() -> None:
    cache = make_static_shadow()
    for said in ("by mail", "by phone"):
        assert isinstance(ask(cache, "How do I reset my password?"), Miss)
        keep(cache, "How do I reset my password?", said)
    assert cache.size().entries == 1
    shadow = cache.stats().shadow
    assert shadow is not None
    assert (shadow.hits, shadow.wrong) == ({Match.EXACT: 1}, {Match.EXACT: 1})


# ------------------------------------------------------------------------------------------------- people


def test_explain_shows_the_risk_and_the_limit_and_changes_nothing() -> None:
    cache = make_cache()
    run(cache, traffic())
    before = cache.stats()
    explained = cache.explain(question("how do I reset my password this minute"))
    nearest = explained.judgements[0]
    assert nearest.verdict in {Verdict.CLEAR, Verdict.RISKY}
    assert nearest.risk is not None
    assert nearest.limit is not None
    assert {judgement.verdict for judgement in explained.judgements[1:]} == {Verdict.FARTHER}
    assert cache.stats() == before


def test_two_texts_that_only_differ_in_what_no_embedder_sees_are_never_served() -> None:
    cache = make_cache(coin=lambda: 0.99)
    run(cache, traffic(rounds=2))
    keep(cache, "for x in y:\n    reset(x)\n    track(x)", "both")
    outcome = ask(cache, "for x in y:\n    reset(x)\ntrack(x)")
    assert isinstance(outcome, Miss)


def test_a_certified_cache_serves_no_more_than_its_budget_while_it_knows_of_no_audit() -> None:
    cache = make_cache(rate=0.02, certified=True, coin=lambda: 0.99)
    outcomes = run(cache, traffic())
    assert MissReason.BUDGET in reasons(outcomes)
    assert sum(isinstance(outcome, Hit) for outcome in outcomes) <= 0.02 * len(outcomes) + 1


def test_reset_stats_begins_shadow_counts_anew() -> None:
    cache = make_static_shadow()
    keep(cache, "How do I reset my password?", "by mail")
    ask(cache, "How do I reset my password?")
    cache.reset_stats()
    shadow = cache.stats().shadow
    assert shadow is not None
    assert shadow.hits == {}
    assert replace(shadow, unknown=0) == shadow


class Silent:
    """Cannot tell whether answers that differ say the same."""

    immediate = True

    def same(self, a: Reading, b: Reading) -> bool | None:
        return True if a.digest == b.digest else None


def test_under_a_certificate_an_audit_that_nobody_can_tell_counts_as_wrong() -> None:
    for certified, more in ((True, 1), (False, 0)):
        store = MemoryStore()
        run(make_cache(store, coin=lambda: 0.0, certified=certified), traffic(rounds=2))
        cache = make_cache(store, coin=lambda: 0.0, certified=certified, comparator=Silent())
        ask(cache, "wake up")
        before = lessons(cache)
        audited = next(text for text, _ in traffic(seed=5) if ask(cache, text) == Miss(MissReason.AUDIT))
        keep(cache, audited, "something that nobody has said")
        assert lessons(cache) == before + more


def test_caches_that_compare_otherwise_learn_apart() -> None:
    store = MemoryStore()

    def opened(comparator: object, candidates: int) -> SemanticCache:
        options: Any = {"max_error_rate": 0.1, "comparator": comparator, "candidates": candidates}
        cache = open_cache(store, FakeEmbedder(), options, background="inline")
        ask(cache, "wake up")
        return cache

    first = opened(Equal(), 10)
    run(first, traffic(rounds=1))
    assert lessons(opened(Equal(), 10)) == lessons(first) > 0
    assert lessons(opened(Silent(), 10)) == 0
    assert lessons(opened(Equal(), 5)) == 0


def test_after_easy_traffic_a_difference_that_a_guard_sees_is_not_served() -> None:
    cache = make_cache(coin=lambda: 0.99)
    run(cache, traffic())
    assert keep(cache, "how do I return damaged shoes within 14 days", "return damaged shoes")
    other = "how do I return damaged shoes within 90 days"
    assert not isinstance(ask(cache, other), Hit)
    nearest = cache.explain(question(other)).judgements[0]
    assert nearest.conflict is not None
    assert nearest.conflict.guard == "number"
    assert "guard number" in str(cache.explain(question(other)))

"""Rules of the wired cache, over the memory store and fakes."""

import asyncio
import logging
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest

from aicache import ConfigurationError, StoreError, bypass, refresh, scope, tagged
from aicache._driver import Embedding as EmbeddingPort
from aicache._errors import UnknownWordsError, UnreadableEntryError, WrongKeyError
from aicache._health import PartState
from aicache._model import (
    L1,
    Answer,
    Entry,
    ExactOnly,
    Hit,
    Match,
    Miss,
    MissReason,
    NotStored,
    Outcome,
    Prompt,
    SkipReason,
    Stored,
    Turn,
    Unkeyable,
    UpdateOutcome,
)
from aicache._policy import CachePolicy
from aicache.cache import EPOCH_INTERVAL, SWEEP_INTERVAL, Question, SemanticCache
from aicache.embedders._embedding import Embedding
from aicache.stores.l1 import L1Cache
from aicache.stores.memory import MemoryStore
from aicache.testing import FailingStore, FakeClock, FakeEmbedder

ASKED = "How do I reset my password?"
REWORDED = "How can I reset my password please?"
UNRELATED = "Which planets have rings?"


def question(text: str = ASKED, *, system: str = "s", model: str = "m") -> Question:
    turns = (Turn("system", system), Turn("human", text))
    raw = sha256(f"{text}|{system}|{model}".encode()).digest()
    return Question(raw, lambda: Prompt("chat", turns, model.encode()))


def answer(text: str = "by mail") -> Answer:
    return Answer(text.encode(), sha256(text.encode()).digest()[:16])


def make_cache(
    store: Any = None, *, embedder: FakeEmbedder | None = None, l1: bool = False, **options: Any
) -> SemanticCache:
    embedding: EmbeddingPort | None = None if embedder is None else Embedding(embedder)
    options.setdefault("policy", CachePolicy(threshold=0.8, margin=0.0))
    options.setdefault("clock", FakeClock())
    return SemanticCache(
        MemoryStore() if store is None else store, l1=L1Cache() if l1 else None, embedding=embedding, **options
    )


def whole_hit(hit: Hit) -> Hit:
    return hit


def ask(cache: SemanticCache, asked: Question) -> Outcome:
    return cache.lookup(lambda: asked, whole_hit)


def keep(cache: SemanticCache, asked: Question, kept: Answer | None = None) -> UpdateOutcome:
    return cache.update(lambda: asked, lambda: kept or answer())


class BoomError(Exception):
    """A fault that says the prompt: its text must show up nowhere."""

    def __init__(self) -> None:
        super().__init__(ASKED)


# ---------------------------------------------------------------------------------------------- the main road


def test_a_repeated_question_is_an_exact_hit() -> None:
    cache = make_cache()
    assert ask(cache, question()) == Miss(MissReason.NO_EMBEDDER)
    stored = keep(cache, question())
    assert isinstance(stored, Stored)
    found = ask(cache, question())
    assert isinstance(found, Hit)
    assert (found.entry.answer, found.match, found.tier) == (answer(), Match.EXACT, "memory")


def test_a_reworded_question_is_a_semantic_hit() -> None:
    cache = make_cache(embedder=FakeEmbedder())
    keep(cache, question())
    found = ask(cache, question(REWORDED))
    assert isinstance(found, Hit)
    assert found.match is Match.SEMANTIC
    assert 0.8 <= found.score < 1.0
    assert ask(cache, question(UNRELATED)).reason is MissReason.BELOW_THRESHOLD  # type: ignore[union-attr]


def test_another_system_prompt_or_model_shares_nothing() -> None:
    cache = make_cache(embedder=FakeEmbedder())
    keep(cache, question())
    assert ask(cache, question(system="t")) == Miss(MissReason.ABSENT)
    assert ask(cache, question(model="n")) == Miss(MissReason.ABSENT)


def test_a_lookup_and_its_update_read_the_prompt_and_embed_it_once() -> None:
    embedder = FakeEmbedder()
    cache = make_cache(embedder=embedder)
    reads: list[int] = []
    once = question()

    def read() -> Prompt | Unkeyable:
        reads.append(1)
        return once.read()

    ask(cache, Question(once.raw, read))
    keep(cache, Question(once.raw, read))
    ask(cache, Question(once.raw, read))
    assert len(reads) == 1
    assert embedder.embedded == 1


def test_age_is_the_time_since_the_answer_was_written() -> None:
    clock = FakeClock()
    cache = make_cache(clock=clock)
    keep(cache, question())
    clock.advance(90)
    assert ask(cache, question()).age == 90  # type: ignore[union-attr]


def test_an_answer_older_than_its_ttl_is_a_miss_and_a_sweep_removes_it() -> None:
    clock = FakeClock()
    cache = make_cache(clock=clock, policy=CachePolicy(ttl=60))
    keep(cache, question())
    clock.advance(59)
    assert isinstance(ask(cache, question()), Hit)
    clock.advance(1)
    assert ask(cache, question()) == Miss(MissReason.EXPIRED)
    assert cache.size().entries == 1
    assert cache.sweep() == 1
    assert cache.size().entries == 0


def test_updates_sweep_by_themselves_once_the_interval_is_over() -> None:
    clock = FakeClock()
    cache = make_cache(clock=clock, policy=CachePolicy(ttl=1))
    keep(cache, question())
    clock.advance(SWEEP_INTERVAL)
    keep(cache, question(UNRELATED))
    assert cache.size().entries == 1


def test_a_sliding_ttl_starts_anew_with_every_hit_in_every_tier() -> None:
    clock = FakeClock()
    cache = make_cache(clock=clock, l1=True, policy=CachePolicy(ttl=60, sliding=True))
    keep(cache, question())
    for _ in range(5):
        clock.advance(40)
        assert isinstance(ask(cache, question()), Hit)
    clock.advance(60)
    assert ask(cache, question()) == Miss(MissReason.EXPIRED)


def test_a_sliding_ttl_never_prolongs_what_was_written_for_less() -> None:
    clock = FakeClock()
    cache = make_cache(clock=clock, policy=CachePolicy(ttl=86_400, sliding=True))
    with scope(ttl=60):
        keep(cache, question())
    clock.advance(50)
    assert isinstance(ask(cache, question()), Hit)
    clock.advance(60)
    assert ask(cache, question()) == Miss(MissReason.EXPIRED)


def test_without_a_ttl_of_its_own_a_sliding_policy_makes_nothing_immortal() -> None:
    clock = FakeClock()
    cache = make_cache(clock=clock, policy=CachePolicy(sliding=True))
    with scope(ttl=60):
        keep(cache, question())
    clock.advance(50)
    ask(cache, question())
    clock.advance(60)
    assert ask(cache, question()) == Miss(MissReason.EXPIRED)


# ------------------------------------------------------------------------------------------ scopes, rules


def test_bypass_neither_reads_nor_writes() -> None:
    cache = make_cache()
    with bypass():
        assert keep(cache, question()) == NotStored(SkipReason.BYPASSED, "scope")
    keep(cache, question())
    with bypass():
        assert ask(cache, question()) == Miss(MissReason.BYPASSED, "scope")


def test_refresh_asks_anew_and_replaces_the_answer() -> None:
    cache = make_cache(l1=True)
    keep(cache, question(), answer("old"))
    with refresh():
        assert ask(cache, question()) == Miss(MissReason.REFRESHING)
        keep(cache, question(), answer("new"))
    found = ask(cache, question())
    assert isinstance(found, Hit)
    assert found.entry.answer.body == b"new"


def test_tags_select_what_clear_removes() -> None:
    cache = make_cache(l1=True)
    with tagged("prices"):
        keep(cache, question())
    keep(cache, question(UNRELATED))
    assert cache.clear(tag="prices") == 1
    assert isinstance(ask(cache, question()), Miss)
    assert isinstance(ask(cache, question(UNRELATED)), Hit)


def test_a_ttl_may_be_given_for_one_call() -> None:
    clock = FakeClock()
    cache = make_cache(clock=clock)
    with scope(ttl=5):
        keep(cache, question())
    clock.advance(5)
    assert ask(cache, question()) == Miss(MissReason.EXPIRED)


def test_the_policy_may_leave_a_query_alone() -> None:
    cache = make_cache(policy=CachePolicy(bypass=lambda query: "time" in query.text))
    asked = question("What time is it?")
    assert keep(cache, asked) == NotStored(SkipReason.BYPASSED, "policy")
    assert ask(cache, asked) == Miss(MissReason.BYPASSED, "policy")
    assert isinstance(keep(cache, question()), Stored)


def test_an_unkeyable_prompt_bypasses_with_its_reason() -> None:
    cache = make_cache()
    asked = Question(b"raw", lambda: Unkeyable("an object without identity"))
    assert ask(cache, asked) == Miss(MissReason.UNKEYABLE, "an object without identity")
    assert keep(cache, asked) == NotStored(SkipReason.UNKEYABLE, "an object without identity")


# ------------------------------------------------------------------------------------- tenant, namespace


def test_tenants_and_namespaces_on_one_store_share_nothing() -> None:
    store = MemoryStore()
    mine = make_cache(store, tenant="a", embedder=FakeEmbedder())
    keep(mine, question())
    for other in (
        make_cache(store, tenant="b", embedder=FakeEmbedder()),
        make_cache(store, embedder=FakeEmbedder()),
        make_cache(store, tenant="", embedder=FakeEmbedder()),
        make_cache(store, tenant="a", namespace="n", embedder=FakeEmbedder()),
    ):
        assert ask(other, question()) == Miss(MissReason.ABSENT)
    assert isinstance(ask(mine, question()), Hit)


def test_a_tenant_callable_is_asked_at_every_call() -> None:
    tenants = iter(["a", "a", "b"])
    cache = make_cache(tenant=lambda: next(tenants))
    keep(cache, question())
    assert isinstance(ask(cache, question()), Hit)
    assert isinstance(ask(cache, question()), Miss)


def raising() -> str:
    raise BoomError


@pytest.mark.parametrize("tenant", [raising, lambda: None, lambda: 7])
def test_an_unknown_tenant_shares_nothing(tenant: Callable[[], Any]) -> None:
    cache = make_cache(tenant=tenant)
    assert keep(cache, question()).reason is SkipReason.UNKEYABLE  # type: ignore[union-attr]
    assert ask(cache, question()).reason is MissReason.UNKEYABLE  # type: ignore[union-attr]


def test_clear_stays_in_its_namespace_and_tenant() -> None:
    store = MemoryStore()
    a, b = make_cache(store, tenant="a"), make_cache(store, tenant="b")
    elsewhere = make_cache(store, namespace="n")
    for cache in (a, b, elsewhere):
        keep(cache, question())
    assert a.clear() == 1
    assert isinstance(ask(b, question()), Hit)
    assert a.clear(all_tenants=True) == 1
    assert isinstance(ask(elsewhere, question()), Hit)


def test_clear_with_a_tenant_callable_means_the_tenant_of_this_moment() -> None:
    tenant = "a"
    cache = make_cache(tenant=lambda: tenant)
    keep(cache, question())
    tenant = "b"
    keep(cache, question())
    assert cache.clear() == 1
    assert isinstance(ask(cache, question()), Miss)
    tenant = "a"
    assert isinstance(ask(cache, question()), Hit)


def test_clear_with_an_unknown_tenant_wants_to_be_told_whose_entries() -> None:
    cache = make_cache(tenant=raising)
    with pytest.raises(ConfigurationError, match=r"^tenant: .*all_tenants=True"):
        cache.clear()
    assert cache.clear(all_tenants=True) == 0


def test_clear_by_model_and_tenant_removes_only_those() -> None:
    cache = make_cache(tenant=lambda: "a")
    keep(cache, question(model="m"))
    keep(cache, question(model="n"))
    assert cache.clear(described=b"m", tenant="b") == 0
    assert cache.clear(described=b"m") == 1
    assert isinstance(ask(cache, question(model="n")), Hit)


# ------------------------------------------------------------------------------------------------- tiers


class Shared(FailingStore):
    """A store that another process may change: the test says when."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.foreign_changes = 0

    def epoch(self) -> int:
        return self.foreign_changes


def test_l1_answers_without_the_store() -> None:
    store = FailingStore(MemoryStore())
    cache = make_cache(store, l1=True)
    keep(cache, question())
    store.fail()
    found = ask(cache, question())
    assert isinstance(found, Hit)
    assert found.tier == L1
    assert store.calls["fetch"] == 0


def test_a_hit_below_is_promoted() -> None:
    store = FailingStore(MemoryStore())
    keep(make_cache(store), question())
    cache = make_cache(store, l1=True)
    assert ask(cache, question()).tier == "memory"  # type: ignore[union-attr]
    assert ask(cache, question()).tier == L1  # type: ignore[union-attr]


def test_what_another_process_removed_is_not_served_from_l1_longer_than_the_epoch_interval() -> None:
    clock, store = FakeClock(), Shared()
    cache = make_cache(store, l1=True, clock=clock)
    keep(cache, question())
    assert isinstance(ask(cache, question()), Hit)
    make_cache(store).clear()
    store.foreign_changes += 1
    clock.advance(EPOCH_INTERVAL)
    assert isinstance(ask(cache, question()), Miss)


def test_a_foreign_change_before_the_first_look_at_the_epoch_is_noticed_too() -> None:
    clock, store = FakeClock(), Shared()
    keep(make_cache(store), question())
    cache = make_cache(store, l1=True, clock=clock)
    assert isinstance(ask(cache, question()), Hit)
    make_cache(store).clear()
    store.foreign_changes += 1
    clock.advance(EPOCH_INTERVAL)
    assert isinstance(ask(cache, question()), Miss)


def test_a_foreign_change_after_a_first_update_is_noticed_too() -> None:
    clock, store = FakeClock(), Shared()
    cache = make_cache(store, l1=True, clock=clock)
    keep(cache, question())
    make_cache(store).clear()
    store.foreign_changes += 1
    clock.advance(EPOCH_INTERVAL)
    assert isinstance(ask(cache, question()), Miss)


class Telling(Shared):
    """A store whose replies bring the epoch along."""

    facts = {"dialect": "plain", "reason": "the server has no vectors"}  # noqa: RUF012 - as a store may have it

    @property
    def seen_epoch(self) -> int:
        return self.foreign_changes


def test_an_epoch_that_comes_along_with_a_reply_empties_l1_at_once() -> None:
    clock, store = FakeClock(), Telling()
    cache = make_cache(store, l1=True, clock=clock)
    keep(cache, question())
    ask(cache, question(UNRELATED))  # The first look.
    keep(cache, question())
    assert ask(cache, question()).tier == L1  # type: ignore[union-attr]
    make_cache(store).clear()
    store.foreign_changes += 1
    ask(cache, question(UNRELATED))
    assert isinstance(ask(cache, question()), Miss)


def test_a_listener_that_panics_costs_no_answer() -> None:
    class Panic(BaseException):
        """As extension modules written in Rust raise it."""

    def listen(outcome: Outcome, seconds: float) -> None:
        raise Panic

    cache = make_cache(on_outcome=listen)
    keep(cache, question())
    assert isinstance(ask(cache, question()), Hit)


def test_stats_show_what_the_store_says_of_itself() -> None:
    stats = make_cache(Telling()).stats()
    assert stats.store == {"name": "memory", "dialect": "plain", "reason": "the server has no vectors"}
    assert "store: name memory, dialect plain, reason the server has no vectors" in str(stats)
    assert make_cache().stats().store == {"name": "memory"}


def test_an_entry_under_a_foreign_key_is_a_miss_with_a_name_of_its_own() -> None:
    store = FailingStore(MemoryStore())
    cache = make_cache(store)
    store.fail("fetch", error=WrongKeyError("not ours"))
    assert ask(cache, question()) == Miss(MissReason.WRONG_KEY, "WrongKeyError")
    assert cache.stats().misses == {MissReason.WRONG_KEY: 1}
    assert cache.health().parts["memory"].state is PartState.UP


def test_a_lookup_that_overlaps_with_a_clear_does_not_bring_the_entry_back() -> None:
    class Overtaken(FailingStore):
        overtake = False

        def fetch(self, key: Any) -> Entry | None:
            entry = super().fetch(key)
            if self.overtake:
                self.overtake = False
                cache.clear()
            return entry

    store = Overtaken(MemoryStore())
    keep(make_cache(store), question())
    cache = make_cache(store, l1=True)
    store.overtake = True
    assert isinstance(ask(cache, question()), Hit)
    assert isinstance(ask(cache, question()), Miss)


def test_clear_empties_l1_even_when_the_store_fails() -> None:
    store = FailingStore(MemoryStore())
    cache = make_cache(store, l1=True)
    keep(cache, question())
    store.fail()
    with pytest.raises(StoreError):
        cache.clear()
    assert isinstance(ask(cache, question()), Miss)


# ------------------------------------------------------------------------------------------ failing well


@pytest.mark.parametrize("error", [StoreError("told to"), BoomError(), OSError("disk"), MemoryError()])
@pytest.mark.parametrize("method", ["fetch", "nearest", "write", "epoch", "sweep", "touch"])
def test_a_store_that_raises_never_reaches_the_application(method: str, error: Exception) -> None:
    clock, store = FakeClock(), FailingStore(MemoryStore())
    cache = make_cache(store, l1=True, embedder=FakeEmbedder(), clock=clock, policy=CachePolicy(ttl=1000, sliding=True))
    keep(cache, question())
    store.fail(method, error=error)
    clock.advance(SWEEP_INTERVAL)
    for asked in (question(), question(REWORDED), question(UNRELATED)):
        assert isinstance(ask(cache, asked), (Hit, Miss))
        assert isinstance(keep(cache, asked), (Stored, NotStored))
    store.recover()
    keep(cache, question())
    assert isinstance(ask(cache, question()), Hit)


def test_a_failed_store_is_a_miss_with_a_reason_and_a_counter() -> None:
    store = FailingStore(MemoryStore(), "fetch", "write")
    cache = make_cache(store)
    assert ask(cache, question()) == Miss(MissReason.STORE_FAILED, "Fetch: StoreError")
    assert keep(cache, question()).reason is SkipReason.STORE_FAILED  # type: ignore[union-attr]
    stats = cache.stats()
    assert stats.misses == {MissReason.STORE_FAILED: 1}
    assert stats.not_stored == {SkipReason.STORE_FAILED: 1}
    assert stats.failed_steps == {
        ("fetch", MissReason.STORE_FAILED): 1,
        ("write", MissReason.STORE_FAILED): 1,
    }


def test_an_answer_that_could_not_be_written_is_still_served_by_l1() -> None:
    cache = make_cache(FailingStore(MemoryStore(), "write"), l1=True)
    keep(cache, question())
    assert isinstance(ask(cache, question()), Hit)


@pytest.mark.parametrize("returns", ["nan", "zero"])
def test_an_unusable_vector_stores_nothing_but_the_exact_entry(returns: Any) -> None:
    embedder = FakeEmbedder(returns=returns)
    cache = make_cache(embedder=embedder)
    stored = keep(cache, question())
    assert isinstance(stored, Stored)
    assert stored.entry.vector is None
    assert isinstance(ask(cache, question()), Hit)
    assert ask(cache, question(REWORDED)).reason is MissReason.EMBEDDER_FAILED  # type: ignore[union-attr]
    assert cache.stats().stored_without_vector == {MissReason.EMBEDDER_FAILED: 1}


def test_a_query_too_long_for_the_embedder_is_matched_exactly_and_is_no_failure() -> None:
    cache = make_cache(embedder=FakeEmbedder(max_words=3))
    assert ask(cache, question()).reason is MissReason.EXACT_ONLY  # type: ignore[union-attr]
    keep(cache, question())
    assert isinstance(ask(cache, question()), Hit)
    assert cache.stats().failed_steps == {}


def test_a_query_with_words_the_embedder_does_not_know_is_matched_exactly_and_is_no_failure() -> None:
    cache = make_cache(embedder=FakeEmbedder(fail_with=UnknownWordsError("of another script")))
    assert ask(cache, question()) == Miss(MissReason.EXACT_ONLY, ExactOnly.UNKNOWN_WORDS)
    keep(cache, question())
    assert isinstance(ask(cache, question()), Hit)
    assert cache.stats().failed_steps == {}


def test_vectors_of_two_embedders_never_meet_but_exact_hits_survive_the_change() -> None:
    store = MemoryStore()
    keep(make_cache(store, embedder=FakeEmbedder(fingerprint="one")), question())
    changed = make_cache(store, embedder=FakeEmbedder(fingerprint="two"))
    assert isinstance(ask(changed, question()), Hit)
    assert ask(changed, question(REWORDED)) == Miss(MissReason.ABSENT)
    smaller = make_cache(store, embedder=FakeEmbedder(64, fingerprint="one"))
    assert ask(smaller, question(REWORDED)) == Miss(MissReason.ABSENT)


def test_faults_of_the_adapter_are_contained() -> None:
    cache = make_cache()

    def broken(*_: object) -> Any:
        raise BoomError

    assert ask(cache, Question(b"x", broken)) == Miss(MissReason.INTERNAL, "BoomError")
    assert cache.lookup(broken, whole_hit) == Miss(MissReason.INTERNAL, "BoomError")
    assert cache.update(question, broken) == NotStored(SkipReason.INTERNAL, "BoomError")
    keep(cache, question())
    assert cache.lookup(question, broken) == Miss(MissReason.INTERNAL, "BoomError")


class PanicError(BaseException):
    """What extension modules written in Rust raise."""


@pytest.mark.parametrize("method", ["fetch", "nearest", "write", "epoch"])
def test_a_panic_of_an_extension_module_is_contained_like_any_fault(method: str) -> None:
    store = FailingStore(MemoryStore(), method, error=PanicError())
    cache = make_cache(store, l1=True, embedder=FakeEmbedder())
    assert isinstance(ask(cache, question()), Miss)
    keep(cache, question())
    assert isinstance(ask(cache, question(REWORDED)), (Hit, Miss))


def test_a_log_handler_that_raises_costs_nothing() -> None:
    class Down(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("log shipping down")

    handler = Down()
    logging.getLogger("aicache").addHandler(handler)
    try:
        cache = make_cache(FailingStore(MemoryStore(), "fetch", "write"))
        assert ask(cache, question()).reason is MissReason.STORE_FAILED  # type: ignore[union-attr]
        keep(cache, question())
    finally:
        logging.getLogger("aicache").removeHandler(handler)


def test_values_that_end_up_in_logs_show_no_prompt_and_no_answer() -> None:
    cache = make_cache(embedder=FakeEmbedder())
    stored = keep(cache, question(), answer("the secret answer"))
    hit = ask(cache, question())
    for value in (stored, hit, question().read()):
        assert ASKED not in repr(value)
        assert "secret" not in repr(value)


def test_the_memory_of_parsed_prompts_keeps_no_long_ones() -> None:
    frames: list[int] = []
    cache = make_cache(policy=CachePolicy(bypass=lambda query: frames.append(len(query.frame)) is not None))
    ask(cache, question(system="s" * 100_000))
    assert frames == [max(frames)]
    assert len(cache._memo) == 0
    ask(cache, question())
    assert len(cache._memo) == 1


def test_an_answer_the_adapter_cannot_read_is_a_miss() -> None:
    cache = make_cache()
    keep(cache, question())

    def unreadable(hit: Hit) -> Hit:
        raise UnreadableEntryError("of another format")

    assert cache.lookup(question, unreadable) == Miss(MissReason.UNREADABLE, "UnreadableEntryError")
    assert cache.stats().misses == {MissReason.UNREADABLE: 1}


def test_clear_says_when_the_store_could_not_be_reached() -> None:
    cache = make_cache(FailingStore(MemoryStore(), "clear"))
    with pytest.raises(StoreError, match="could not be cleared"):
        cache.clear()


def test_every_kind_of_fault_is_logged_once_and_without_the_prompt(caplog: pytest.LogCaptureFixture) -> None:
    store = FailingStore(MemoryStore(), "fetch", error=BoomError())
    cache = make_cache(store, on_outcome=lambda *_: raising())  # type: ignore[arg-type, return-value]
    with caplog.at_level(logging.DEBUG, logger="aicache"):
        for _ in range(3):
            ask(cache, question())
    assert len(caplog.records) == 2
    assert "fetch failed: BoomError" in caplog.text
    assert "on_outcome raised BoomError" in caplog.text
    assert ASKED not in caplog.text


@pytest.mark.parametrize(
    ("option", "value"), [("namespace", 3), ("tenant", 3), ("tenant", asyncio.sleep), ("on_outcome", "print")]
)
def test_a_wrong_option_is_refused_by_name(option: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{option}: "):
        make_cache(**{option: value})


# ---------------------------------------------------------------------------------------- being watched


def test_every_outcome_is_told_to_the_listener_with_its_time() -> None:
    heard: list[tuple[Outcome, float]] = []
    cache = make_cache(on_outcome=lambda outcome, seconds: heard.append((outcome, seconds)))
    ask(cache, question())
    keep(cache, question())
    ask(cache, question())
    assert [type(outcome) for outcome, _ in heard] == [Miss, Hit]
    assert all(seconds >= 0 for _, seconds in heard)


def test_explain_shows_what_decided_and_changes_nothing() -> None:
    cache = make_cache(embedder=FakeEmbedder(), l1=True)
    keep(cache, question())
    before = cache.stats()
    explanation = cache.explain(lambda: question(REWORDED))
    assert isinstance(explanation.outcome, Hit)
    assert explanation.query == REWORDED
    assert len(explanation.judgements) == 1
    assert explanation.tiers == ((L1, "absent"), ("memory", "absent"))
    text = str(explanation)
    assert text.startswith("hit: semantic from memory")
    assert "partition" in text
    assert cache.stats() == before


def test_explain_names_the_reason_of_a_prompt_without_a_key() -> None:
    explanation = make_cache().explain(lambda: Unkeyable("why not"))
    assert str(explanation) == "miss: unkeyable (why not)"


# ------------------------------------------------------------------------------------------------- async


async def test_async_does_the_same_as_sync() -> None:
    embedder = FakeEmbedder()
    cache = make_cache(embedder=embedder, l1=True)
    assert await cache.alookup(question, whole_hit) == Miss(MissReason.ABSENT)
    assert isinstance(await cache.aupdate(question, answer), Stored)
    exact = await cache.alookup(question, whole_hit)
    assert isinstance(exact, Hit)
    assert exact.tier == L1
    semantic = await cache.alookup(lambda: question(REWORDED), whole_hit)
    assert isinstance(semantic, Hit)
    assert semantic.match is Match.SEMANTIC
    assert await cache.aclear() == 1
    await cache.aclose()


async def test_a_store_that_waits_does_not_block_the_loop() -> None:
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Waiting(FailingStore):
        @property
        def blocking(self) -> bool:
            return True

        def fetch(self, key: Any) -> Entry | None:
            return asyncio.run_coroutine_threadsafe(until(release), loop).result()  # type: ignore[func-returns-value]

    async def until(event: asyncio.Event) -> None:
        await event.wait()

    cache = make_cache(Waiting(MemoryStore()))
    waiting = asyncio.create_task(cache.alookup(question, whole_hit))
    await asyncio.sleep(0)
    release.set()  # would never run if the lookup held the loop
    assert await waiting == Miss(MissReason.NO_EMBEDDER)
    await cache.aclose()


async def test_a_cancelled_lookup_leaves_the_cache_usable() -> None:
    entered = asyncio.Event()
    loop = asyncio.get_running_loop()
    go_on = asyncio.Event()

    class Waiting(FailingStore):
        @property
        def blocking(self) -> bool:
            return True

        def fetch(self, key: Any) -> Entry | None:
            loop.call_soon_threadsafe(entered.set)
            asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result()
            return None

    cache = make_cache(Waiting(MemoryStore()))
    task = asyncio.create_task(cache.alookup(question, whole_hit))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    assert await cache.alookup(question, whole_hit) == Miss(MissReason.NO_EMBEDDER)
    assert cache.stats().lookups == 1
    await cache.aclose()


def test_one_cache_serves_several_event_loops() -> None:
    cache = make_cache(embedder=FakeEmbedder())
    keep(cache, question())
    for _ in range(3):
        assert isinstance(asyncio.run(cache.alookup(lambda: question(REWORDED), whole_hit)), Hit)


def test_closing_twice_is_harmless() -> None:
    with make_cache(embedder=FakeEmbedder()) as cache:
        keep(cache, question())
    cache.close()


# ----------------------------------------------------------------------------- two caches over one store object


@pytest.fixture(params=["sync", "async"])
def drive(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Calls a method of a cache, or its async twin."""

    def act(cache: SemanticCache, method: str, *args: Any, **options: Any) -> Any:
        if request.param == "sync":
            return getattr(cache, method)(*args, **options)
        return asyncio.run(getattr(cache, f"a{method}")(*args, **options))

    return act


@pytest.mark.parametrize("l1", [True, False])
@pytest.mark.parametrize(
    ("method", "what"),
    [("clear", {}), ("invalidate", {"tag": "prices"}), ("invalidate", {"like": ASKED, "min_score": 0.9})],
)
def test_what_one_cache_takes_back_no_other_over_the_store_serves(
    drive: Callable[..., Any], method: str, what: dict[str, Any], l1: bool
) -> None:
    store = MemoryStore()
    app, admin = make_cache(store, l1=True, embedder=FakeEmbedder()), make_cache(store, l1=l1, embedder=FakeEmbedder())
    with tagged("prices"):
        keep(app, question())
    assert ask(app, question()).tier == L1  # type: ignore[union-attr]
    if what:
        drive(admin, method, **what, dry_run=True)
        assert ask(app, question()).tier == L1  # type: ignore[union-attr]
    drive(admin, method, **what)
    assert isinstance(ask(app, question()), Miss)


@pytest.mark.parametrize("l1", [True, False])
def test_what_one_cache_replaces_no_other_over_the_store_serves(drive: Callable[..., Any], l1: bool) -> None:
    store = MemoryStore()
    app, other = make_cache(store, l1=True), make_cache(store, l1=l1)
    keep(app, question(), answer("old"))
    drive(other, "update", question, lambda: answer("new"))
    assert ask(app, question()).entry.answer == answer("new")  # type: ignore[union-attr]
    if l1:
        assert ask(other, question()).tier == L1  # type: ignore[union-attr]


def test_what_is_written_later_replaces_what_other_caches_over_the_store_remember() -> None:
    store = FailingStore(MemoryStore())
    app, other = make_cache(store, l1=True), make_cache(store, l1=True)
    keep(app, question(), answer("old"))
    store.fail(error=StoreError("down"))
    keep(other, question(), answer("new"))
    store.recover()
    assert ask(app, question()).entry.answer == answer("old")  # type: ignore[union-attr]
    ask(other, question(UNRELATED))
    other._ports.workers.executor().shutdown(wait=True)  # What it wrote meanwhile is written now.
    assert ask(app, question()).entry.answer == answer("new")  # type: ignore[union-attr]

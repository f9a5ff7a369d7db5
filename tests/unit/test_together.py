"""Rules of many lookups at once: each gets what it would get alone, and the store is asked once or twice."""

import asyncio
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any, cast

import pytest

from aicache._asking import GIVE_UP, ask, ask_natively
from aicache._errors import StoreError, UnreadableEntryError
from aicache._model import (
    Answer,
    CacheKey,
    Candidate,
    Entry,
    Hit,
    Match,
    Miss,
    MissReason,
    Outcome,
    Prompt,
    Search,
    Turn,
    Unkeyable,
)
from aicache._policy import CachePolicy
from aicache._steps import Fetch, Together
from aicache.cache import Question, SemanticCache
from aicache.embedders._embedding import Embedding
from aicache.stores.base import Fetched
from aicache.stores.l1 import L1Cache, L1Circle
from aicache.stores.memory import MemoryStore
from aicache.testing import FailingStore, FakeClock, FakeEmbedder, make_key

ASKED = "How do I reset my password?"
REWORDED = "How can I reset my password please?"
UNRELATED = "Which planets have rings?"


class Batching(FailingStore):
    """A store that takes many reads at once, and counts how often."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.batches: list[tuple[str, int]] = []
        self.unreadable: set[bytes] = set()

    def fetch_many(self, keys: Sequence[CacheKey]) -> Sequence[Fetched]:
        self._enter("fetch")
        self.batches.append(("fetch", len(keys)))
        return [
            UnreadableEntryError("damaged") if key.digest in self.unreadable else self._store.fetch(key) for key in keys
        ]

    def nearest_many(self, searches: Sequence[Search]) -> Sequence[Sequence[Candidate]]:
        self._enter("nearest")
        self.batches.append(("nearest", len(searches)))
        return [self._store.nearest(search) for search in searches]


class OneByOne(FailingStore):
    """A store that reads one entry at a time; those of some keys are damaged."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.unreadable: set[bytes] = set()

    def fetch(self, key: CacheKey) -> Entry | None:
        if key.digest in self.unreadable:
            raise UnreadableEntryError("damaged")
        return super().fetch(key)


@pytest.fixture(params=["sync", "async"])
def ask_many(request: pytest.FixtureRequest) -> Callable[..., list[Outcome]]:
    def act(cache: SemanticCache, *texts: str) -> list[Outcome]:
        asks = [lambda text=text: question(text) for text in texts]
        if request.param == "sync":
            return cache.lookup_many(asks, lambda hit: hit)
        return asyncio.run(cache.alookup_many(asks, lambda hit: hit))

    return act


def question(text: str) -> Question:
    def read() -> Prompt | Unkeyable:
        return Unkeyable("no") if text == "unkeyable" else Prompt("chat", (Turn("human", text),), b"m")

    return Question(sha256(text.encode()).digest(), read)


def make_cache(store: Any, *, l1: bool = False) -> SemanticCache:
    return SemanticCache(
        store,
        l1=L1Cache() if l1 else None,
        embedding=Embedding(FakeEmbedder()),
        policy=CachePolicy(threshold=0.8, margin=0.0),
        clock=FakeClock(),
    )


def keep(cache: SemanticCache, text: str) -> bytes:
    """Keep an answer; the digest of its key."""
    stored = cache.update(lambda: question(text), lambda: Answer(text.encode(), b"digest"))
    return stored.entry.key.digest  # type: ignore[union-attr]


def test_all_are_asked_in_two_rounds_and_answered_in_their_order(ask_many: Callable[..., list[Outcome]]) -> None:
    store = Batching()
    cache = make_cache(store)
    keep(cache, ASKED)
    outcomes = ask_many(cache, UNRELATED, ASKED, "unkeyable", REWORDED)
    assert store.batches == [("fetch", 3), ("nearest", 2)]
    unrelated, exact, unkeyable, reworded = outcomes
    assert unrelated.reason is MissReason.BELOW_THRESHOLD  # type: ignore[union-attr]
    assert unkeyable == Miss(MissReason.UNKEYABLE, "no")
    assert isinstance(exact, Hit)
    assert isinstance(reworded, Hit)
    assert (exact.match, reworded.match) == (Match.EXACT, Match.SEMANTIC)


def test_none_are_asked_for_none(ask_many: Callable[..., list[Outcome]]) -> None:
    store = Batching()
    assert ask_many(make_cache(store)) == []
    assert store.batches == []


def test_what_l1_has_the_store_is_not_asked_for(ask_many: Callable[..., list[Outcome]]) -> None:
    store = Batching()
    cache = make_cache(store, l1=True)
    keep(cache, ASKED)
    keep(cache, UNRELATED)
    outcomes = ask_many(cache, ASKED, UNRELATED)
    assert [outcome.tier for outcome in outcomes if isinstance(outcome, Hit)] == ["l1", "l1"]
    assert store.batches == []


@pytest.mark.parametrize("store", [Batching, OneByOne])
def test_a_damaged_entry_costs_only_its_own_question(
    ask_many: Callable[..., list[Outcome]], store: type[Batching] | type[OneByOne]
) -> None:
    kept = store()
    cache = make_cache(kept)
    kept.unreadable.add(keep(cache, ASKED))
    keep(cache, UNRELATED)
    damaged, sound = ask_many(cache, ASKED, UNRELATED)
    assert damaged == Miss(MissReason.UNREADABLE, "UnreadableEntryError")
    assert isinstance(sound, Hit)
    assert cache.stats().failed_steps["fetch", MissReason.UNREADABLE] == 1


@pytest.mark.parametrize("store", [Batching, OneByOne])
def test_a_store_that_fails_is_a_miss_for_each_and_one_failure(
    ask_many: Callable[..., list[Outcome]], store: type[Batching] | type[OneByOne]
) -> None:
    kept = store()
    cache = make_cache(kept)
    kept.fail(error=StoreError("down"))
    outcomes = ask_many(cache, ASKED, UNRELATED, REWORDED)
    assert [outcome.reason for outcome in outcomes if isinstance(outcome, Miss)] == [MissReason.STORE_FAILED] * 3
    assert cache.stats().failed_steps["together", MissReason.STORE_FAILED] == 1


def test_each_is_counted_as_a_lookup(ask_many: Callable[..., list[Outcome]]) -> None:
    cache = make_cache(Batching())
    keep(cache, ASKED)
    ask_many(cache, ASKED, REWORDED, UNRELATED)
    stats = cache.stats()
    assert (stats.lookups, stats.exact_hits, stats.semantic_hits) == (3, 1, 1)


class Scattered(FailingStore):
    """A store that reads one entry at a time and cannot read some; it may have an async half."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.failing: set[bytes] = set()

    def fetch(self, key: CacheKey) -> Entry | None:
        found = super().fetch(key)
        if key.digest in self.failing:
            raise StoreError("this one does not answer")
        return found


def test_a_read_that_fails_costs_only_its_own_question(ask_many: Callable[..., list[Outcome]]) -> None:
    store = Scattered()
    cache = make_cache(store)
    store.failing.add(keep(cache, ASKED))
    keep(cache, UNRELATED)
    failed, sound = ask_many(cache, ASKED, UNRELATED)
    assert failed == Miss(MissReason.STORE_FAILED, "Fetch: StoreError")
    assert isinstance(sound, Hit)
    assert cache.health().ok


@pytest.mark.parametrize("native", [False, True])
async def test_what_fails_in_a_row_ends_the_asking_and_the_rest_fails_alike(native: bool) -> None:
    store = Scattered()
    reads = tuple(Fetch(make_key(f"q{number}")) for number in range(GIVE_UP + 5))
    store.failing.update(read.key.digest for read in reads[1:])

    class Half:
        async def afetch(self, key: CacheKey) -> Entry | None:
            return store.fetch(key)

    circle = L1Circle(None, store)
    step = Together(reads)
    replies = await ask_natively(step, cast("Any", Half()), circle) if native else ask(step, store, circle)
    assert store.calls["fetch"] == 1 + GIVE_UP
    assert replies[0] is None
    assert [type(reply) for reply in replies[1:]] == [StoreError] * (GIVE_UP + 4)


def test_a_batch_of_which_all_fail_is_one_failure_of_the_store(ask_many: Callable[..., list[Outcome]]) -> None:
    store = Scattered()
    cache = make_cache(store)
    store.failing.update(keep(cache, text) for text in (ASKED, UNRELATED))
    outcomes = ask_many(cache, ASKED, UNRELATED)
    assert {outcome.reason for outcome in outcomes if isinstance(outcome, Miss)} == {MissReason.STORE_FAILED}
    assert cache.stats().failed_steps == {("together", MissReason.STORE_FAILED): 1}
    assert not cache.health().ok

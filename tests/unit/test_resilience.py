"""Rules of a cache whose store or embedder fails, hangs or is slow: breaker, deadline, and what is written later."""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

import pytest

from aicache import ConfigurationError, StoreError
from aicache._deadline import time_left
from aicache._errors import QueryTooLongError, UnreadableEntryError, UnwritableEntryError
from aicache._health import PartState
from aicache._model import (
    L1,
    Answer,
    CacheKey,
    Candidate,
    Entry,
    Hit,
    Listed,
    Match,
    Miss,
    MissReason,
    NotStored,
    Outcome,
    Prompt,
    Search,
    Selection,
    SkipReason,
    Space,
    Stored,
    Turn,
    UpdateOutcome,
    Vector,
)
from aicache._policy import CachePolicy
from aicache._replay import LOOPS_LOST, REST_SECONDS
from aicache._resilience import LOOKUP_SECONDS, UPDATE_SECONDS, Resilience
from aicache._workers import DaemonThreads
from aicache.cache import Question, SemanticCache
from aicache.embedders._embedding import Embedding
from aicache.stores.l1 import L1Cache
from aicache.stores.memory import MemoryStore
from aicache.testing import FailingStore, FakeClock, FakeEmbedder

ASKED, REWORDED, UNRELATED = (
    "How do I reset my password?",
    "How can I reset my password please?",
    "Which planets have rings?",
)
FAILURES, RESET = 3, 5.0
SHORT = 0.02
"""Seconds really waited, where only the operating system can interrupt a wait."""


def question(text: str = ASKED) -> Question:
    return Question(sha256(text.encode()).digest(), lambda: Prompt("chat", (Turn("human", text),), b"m"))


def answer(text: str = "by mail") -> Answer:
    return Answer(text.encode(), sha256(text.encode()).digest()[:16])


def make_cache(
    store: Any,
    clock: FakeClock | None = None,
    *,
    embedder: FakeEmbedder | None = None,
    l1: bool = False,
    **limits: Any,
) -> SemanticCache:
    limits = {"breaker_failures": FAILURES, "breaker_reset": RESET} | limits
    return SemanticCache(
        store,
        l1=L1Cache() if l1 else None,
        embedding=None if embedder is None else Embedding(embedder),
        policy=CachePolicy(threshold=0.8, margin=0.0),
        resilience=Resilience(**limits),
        clock=clock or FakeClock(),
    )


def ask(cache: SemanticCache, text: str = ASKED) -> Outcome:
    return cache.lookup(lambda: question(text), lambda hit: hit)


async def aask(cache: SemanticCache, text: str = ASKED) -> Outcome:
    return await cache.alookup(lambda: question(text), lambda hit: hit)


def keep(cache: SemanticCache, text: str = ASKED, kept: str = "by mail") -> UpdateOutcome:
    return cache.update(lambda: question(text), lambda: answer(kept))


async def akeep(cache: SemanticCache, text: str = ASKED) -> UpdateOutcome:
    return await cache.aupdate(lambda: question(text), answer)


UNAVAILABLE = MissReason.UNAVAILABLE


def break_down(cache: SemanticCache) -> None:
    """Ask until the breaker opens; of questions nobody else asks."""
    for number in range(FAILURES):
        # With an L1 the first lookup fails twice, for it also asks for foreign changes: it may open a call earlier.
        expected = {MissReason.STORE_FAILED} if cache._ports.l1 is None else {MissReason.STORE_FAILED, UNAVAILABLE}
        assert ask(cache, f"Question number {number}?").reason in expected  # type: ignore[union-attr]


def settle(cache: SemanticCache) -> None:
    """Let the workers finish; afterwards there are none."""
    cache._ports.workers.executor().shutdown(wait=True)


def state(cache: SemanticCache, part: str = "memory") -> PartState:
    return cache.health().parts[part].state


def total(store: FailingStore) -> int:
    return sum(store.calls.values())


# --------------------------------------------------------------------------------------------------- breaker


def test_an_open_breaker_means_no_store_call_and_no_embedding() -> None:
    store, embedder = FailingStore(MemoryStore()), FakeEmbedder()
    cache = make_cache(store, embedder=embedder)
    store.fail()
    break_down(cache)
    before = total(store), embedder.calls
    assert ask(cache) == Miss(MissReason.UNAVAILABLE, "memory: StoreError")
    assert keep(cache) == NotStored(SkipReason.UNAVAILABLE, "memory: StoreError")
    assert (total(store), embedder.calls) == before


def test_l1_keeps_answering_while_the_store_is_left_alone() -> None:
    store = FailingStore(MemoryStore())
    cache = make_cache(store, l1=True)
    keep(cache)
    store.fail()
    break_down(cache)
    assert ask(cache).tier == L1  # type: ignore[union-attr]
    keep(cache, UNRELATED)
    assert ask(cache, UNRELATED).tier == L1  # type: ignore[union-attr]


def test_after_the_reset_time_one_lookup_tries_the_store_and_opens_the_way() -> None:
    clock, store = FakeClock(), FailingStore(MemoryStore())
    cache = make_cache(store, clock)
    keep(cache)
    store.fail()
    break_down(cache)
    clock.advance(RESET)
    assert ask(cache).reason is MissReason.STORE_FAILED  # type: ignore[union-attr]
    store.recover()
    assert ask(cache).reason is MissReason.UNAVAILABLE  # type: ignore[union-attr]
    clock.advance(RESET)
    assert isinstance(ask(cache), Hit)
    assert state(cache) is PartState.UP


def test_damaged_entries_and_refused_ones_do_not_speak_against_the_store() -> None:
    store = FailingStore(MemoryStore())
    cache = make_cache(store)
    store.fail("fetch", error=UnreadableEntryError("damaged"))
    for _ in range(FAILURES + 1):
        assert ask(cache).reason is MissReason.UNREADABLE  # type: ignore[union-attr]
    store.fail("write", error=UnwritableEntryError("too large"))
    for _ in range(FAILURES + 1):
        assert keep(cache).reason is SkipReason.STORE_FAILED  # type: ignore[union-attr]
    assert state(cache) is PartState.UP
    assert cache.stats().pending == 0


def test_a_failing_embedder_is_left_alone_and_exact_matching_goes_on() -> None:
    clock, embedder = FakeClock(), FakeEmbedder(fail_with=RuntimeError("down"))
    cache = make_cache(MemoryStore(), clock, embedder=embedder)
    for number in range(FAILURES):
        assert ask(cache, f"Question number {number}?").reason is MissReason.EMBEDDER_FAILED  # type: ignore[union-attr]
    before = embedder.calls
    assert ask(cache) == Miss(MissReason.UNAVAILABLE, "embedder: EmbedderError")
    assert isinstance(keep(cache), Stored)
    assert isinstance(ask(cache), Hit)
    assert embedder.calls == before
    assert (state(cache), state(cache, "embedder")) == (PartState.UP, PartState.OPEN)
    embedder.fail_with = None
    clock.advance(RESET)
    assert ask(cache, REWORDED) == Miss(MissReason.ABSENT)
    assert state(cache, "embedder") is PartState.UP


def test_remembered_vectors_are_used_while_the_embedder_is_left_alone_and_say_nothing_of_it() -> None:
    embedder = FakeEmbedder()
    cache = make_cache(MemoryStore(), embedder=embedder)
    keep(cache)
    assert ask(cache, REWORDED).match is Match.SEMANTIC  # type: ignore[union-attr]
    embedder.fail_with = RuntimeError("down")
    for number in range(FAILURES):
        ask(cache, f"Question number {number}?")
        ask(cache, REWORDED)
    assert state(cache, "embedder") is PartState.OPEN
    assert ask(cache, REWORDED).match is Match.SEMANTIC  # type: ignore[union-attr]


def test_questions_too_long_for_the_embedder_do_not_speak_against_it() -> None:
    cache = make_cache(MemoryStore(), embedder=FakeEmbedder(fail_with=QueryTooLongError("too long")))
    for number in range(FAILURES + 1):
        assert ask(cache, f"Question number {number}?").reason is MissReason.EXACT_ONLY  # type: ignore[union-attr]
    assert state(cache, "embedder") is PartState.UP


def test_health_shows_each_part_as_a_line() -> None:
    cache = make_cache(FailingStore(MemoryStore(), "fetch"), embedder=FakeEmbedder())
    assert cache.health().ok
    ask(cache)
    assert not cache.health().ok
    assert str(cache.health()).splitlines() == [
        "memory    degraded since 1970-01-12 13:46:40 UTC (StoreError)",
        "embedder  up since 1970-01-12 13:46:40 UTC",
    ]


def test_an_outage_is_two_lines_in_the_log_however_long_it_is(caplog: pytest.LogCaptureFixture) -> None:
    clock, store = FakeClock(), FailingStore(MemoryStore())
    cache = make_cache(store, clock)
    store.fail("fetch")
    with caplog.at_level(logging.INFO, logger="aicache"):
        for _ in range(20):
            ask(cache)
            clock.advance(RESET)
        store.recover()
        ask(cache)
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "fetch failed",
        "memory is left alone for a while, for its last calls failed (StoreError)",
        "memory is up",
    ]


# ----------------------------------------------------------------------------------------- written later


def test_answers_of_an_outage_are_written_when_the_store_is_back() -> None:
    clock, store, embedder = FakeClock(), FailingStore(MemoryStore()), FakeEmbedder()
    cache = make_cache(store, clock, embedder=embedder)
    store.fail()
    break_down(cache)
    keep(cache)
    keep(cache, UNRELATED)
    assert cache.stats().pending == 2
    store.recover()
    clock.advance(RESET)
    ask(cache, "Is anybody there?")
    settle(cache)
    stats = cache.stats()
    assert (stats.pending, stats.replayed, stats.lost) == (0, 2, 0)
    assert ask(cache).match is Match.EXACT  # type: ignore[union-attr]
    assert ask(cache, UNRELATED).match is Match.EXACT  # type: ignore[union-attr]
    assert "2 replayed" in str(stats)


def test_an_answer_of_an_outage_gets_its_vector_when_it_is_written() -> None:
    clock, store, embedder = FakeClock(), FailingStore(MemoryStore()), FakeEmbedder()
    cache = make_cache(store, clock, embedder=embedder)
    store.fail()
    break_down(cache)
    keep(cache)
    assert embedder.calls == 0
    store.recover()
    clock.advance(RESET)
    ask(cache, UNRELATED)
    settle(cache)
    assert ask(cache, REWORDED).match is Match.SEMANTIC  # type: ignore[union-attr]


def test_the_newest_answer_wins_over_one_that_waited() -> None:
    store = FailingStore(MemoryStore(), "write")
    cache = make_cache(store)
    keep(cache, kept="old")
    store.recover()
    keep(cache, kept="new")
    settle(cache)
    assert ask(cache).entry.answer == answer("new")  # type: ignore[union-attr]
    assert cache.stats().pending == 0


def test_a_cleared_answer_that_waited_never_comes_back() -> None:
    clock, store = FakeClock(), FailingStore(MemoryStore())
    cache = make_cache(store, clock, l1=True)
    store.fail()
    break_down(cache)
    keep(cache)
    with pytest.raises(StoreError, match="could not be cleared"):
        cache.clear()
    store.recover()
    clock.advance(RESET)
    assert isinstance(ask(cache), Miss)
    settle(cache)
    assert isinstance(ask(cache), Miss)
    assert cache.stats().pending == 0


def test_expired_answers_are_not_written_later() -> None:
    clock, store = FakeClock(), FailingStore(MemoryStore(), "write")
    cache = SemanticCache(store, policy=CachePolicy(ttl=10), clock=clock)
    keep(cache)
    clock.advance(10)
    store.recover()
    ask(cache, UNRELATED)
    settle(cache)
    assert (store.calls["write"], cache.stats().pending) == (1, 0)


def test_what_does_not_fit_is_counted_as_lost() -> None:
    cache = make_cache(FailingStore(MemoryStore(), "write"), pending_entries=1)
    keep(cache)
    keep(cache, UNRELATED)
    stats = cache.stats()
    assert (stats.pending, stats.lost) == (1, 1)
    cache.reset_stats()
    assert (cache.stats().pending, cache.stats().lost) == (1, 0)


def test_a_replay_that_fails_rests_before_the_next_one() -> None:
    clock, store = FakeClock(), FailingStore(MemoryStore(), "write")
    cache = make_cache(store, clock, breaker_failures=100)
    keep(cache)
    tried: list[int] = []
    for _ in range(3):
        for number in range(4):
            ask(cache, f"Question number {number}?")
            settle(cache)
            cache._ports.workers.close()
        tried.append(store.calls["write"])
        clock.advance(1.0)
    assert tried == [2, 3, 4]


def test_closing_writes_what_still_waits() -> None:
    inner = MemoryStore()
    store = FailingStore(inner, "write")
    cache = make_cache(store)
    keep(cache)
    store.recover()
    cache.close()
    assert store.calls["write"] == 2


def test_closing_while_the_store_is_down_does_not_raise() -> None:
    store = FailingStore(MemoryStore(), "write")
    cache = make_cache(store)
    keep(cache)
    cache.close()
    assert cache.stats().pending == 1


# ------------------------------------------------------------------------------------------------- deadlines


class TimedStore(FailingStore):
    """Its calls take time on a fake clock."""

    def __init__(self, clock: FakeClock, seconds: float, *, bounded: bool = True) -> None:
        super().__init__(MemoryStore())
        self._clock = clock
        self.seconds = seconds
        self.bounded = bounded
        self.time_left: list[float] = []

    def _enter(self, method: str) -> None:
        super()._enter(method)
        self.time_left.append(time_left(60.0))
        self._clock.advance(self.seconds)


def test_slow_calls_open_the_breaker_although_they_succeed() -> None:
    clock = FakeClock()
    cache = make_cache(TimedStore(clock, 0.2), clock, lookup_timeout=0.1)
    for number in range(FAILURES):
        assert ask(cache, f"Question number {number}?") == Miss(MissReason.NO_EMBEDDER)
    assert cache.health().parts["memory"].why == "slow"
    assert ask(cache).reason is MissReason.UNAVAILABLE  # type: ignore[union-attr]


def test_the_calls_of_one_lookup_share_its_time_and_the_embedding_has_its_own() -> None:
    clock = FakeClock()
    store = TimedStore(clock, 0.06)
    embedder = SlowEmbedder(clock, 1.0)
    cache = make_cache(store, clock, embedder=embedder, lookup_timeout=0.1)
    ask(cache)
    assert store.time_left == pytest.approx([0.1, 0.04])
    store.seconds = 0.1
    assert ask(cache, UNRELATED) == Miss(MissReason.STORE_FAILED, "Nearest: StoreTimeoutError")
    assert store.calls["nearest"] == 1


class SlowEmbedder(FakeEmbedder):
    def __init__(self, clock: FakeClock, seconds: float) -> None:
        super().__init__()
        self._clock = clock
        self._seconds = seconds

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        self._clock.advance(self._seconds)
        return super().embed(texts)


def test_lookups_and_updates_have_deadlines_of_their_own() -> None:
    clock = FakeClock()
    store = TimedStore(clock, 0.0)
    cache = make_cache(store, clock, lookup_timeout=1.0, update_timeout=2.0)
    ask(cache)
    keep(cache)
    cache.clear()
    assert store.time_left == [1.0, 2.0, 60.0]


def test_local_stores_have_no_deadline_unless_asked_for() -> None:
    clock = FakeClock()
    for networked, bounded in ((False, True), (True, False)):
        store = TimedStore(clock, 0.0, bounded=bounded)
        cache = make_cache(store, clock)
        ask(cache)
        keep(cache)
        assert store.time_left == ([LOOKUP_SECONDS, UPDATE_SECONDS] if networked else [60.0, 60.0])
        cache.close()


class HangingStore(FailingStore):
    """Every call hangs until released."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.entered = threading.Event()
        self.release = threading.Event()

    @property
    def blocking(self) -> bool:
        return True

    @property
    def bounded(self) -> bool:
        return False

    def _enter(self, method: str) -> None:
        super()._enter(method)
        self.entered.set()
        self.release.wait()


def test_a_call_that_hangs_holds_up_nobody() -> None:
    store = HangingStore()
    cache = make_cache(store, lookup_timeout=SHORT, update_timeout=SHORT)
    try:
        assert ask(cache) == Miss(MissReason.STORE_FAILED, "Fetch: StoreTimeoutError")
        assert keep(cache) == NotStored(SkipReason.STORE_FAILED, "Write: StoreTimeoutError")
        ask(cache)
        assert ask(cache).reason is MissReason.UNAVAILABLE  # type: ignore[union-attr]
    finally:
        store.release.set()
    settle(cache)
    assert cache.stats().pending == 1


async def test_a_call_that_hangs_holds_up_no_task() -> None:
    store = HangingStore()
    cache = make_cache(store, lookup_timeout=SHORT, update_timeout=SHORT)
    try:
        assert await aask(cache) == Miss(MissReason.STORE_FAILED, "Fetch: StoreTimeoutError")
        assert await akeep(cache) == NotStored(SkipReason.STORE_FAILED, "Write: StoreTimeoutError")
        await aask(cache)
        assert (await aask(cache)).reason is MissReason.UNAVAILABLE  # type: ignore[union-attr]
    finally:
        store.release.set()
    settle(cache)


async def test_a_lookup_that_found_no_free_thread_does_not_speak_against_the_store() -> None:
    cache = make_cache(MemoryStoreThatBlocks(MemoryStore()), lookup_timeout=SHORT)
    release = threading.Event()
    busy = [cache._ports.workers.executor().submit(release.wait) for _ in range(4)]
    try:
        for _ in range(FAILURES + 1):
            assert await aask(cache) == Miss(MissReason.STORE_FAILED, "Fetch: StoreTimeoutError")
        assert state(cache) is PartState.UP
    finally:
        release.set()
    for future in busy:
        future.result()
    settle(cache)


class MemoryStoreThatBlocks(FailingStore):
    @property
    def blocking(self) -> bool:
        return True


async def test_calls_queued_behind_those_that_opened_the_breaker_never_reach_the_store() -> None:
    store = MemoryStoreThatBlocks(MemoryStore(), "write")
    cache = make_cache(store)
    release = threading.Event()
    busy = [cache._ports.workers.executor().submit(release.wait) for _ in range(4)]
    writes = [asyncio.create_task(akeep(cache, f"Question number {number}?")) for number in range(50)]
    # Lets the tasks run up to the queue; there is no event to wait for.
    while cache._ports.workers.executor()._tasks.qsize() < len(writes):  # noqa: ASYNC110
        await asyncio.sleep(0)
    release.set()
    outcomes = await asyncio.gather(*writes)
    at_work = len(busy)
    assert store.calls["write"] < FAILURES + at_work
    reasons = [outcome.reason for outcome in outcomes if isinstance(outcome, NotStored)]
    assert len(reasons) == 50
    assert reasons.count(SkipReason.UNAVAILABLE) >= 50 - FAILURES - at_work
    settle(cache)


async def test_a_cancelled_lookup_says_nothing_of_the_store() -> None:
    store = NativeStore()
    cache = make_cache(store, l1=True)
    for _ in range(FAILURES + 1):
        store.hang = asyncio.Event()
        task = asyncio.create_task(aask(cache))
        await store.hang.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert state(cache) is PartState.UP


# ------------------------------------------------------------------------------------------- async stores


class NativeStore(FailingStore):
    """A store with an async half; its other half is not for tasks."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.hang: asyncio.Event | None = None
        """Set by a call that then waits for ever."""

    @property
    def blocking(self) -> bool:
        return True

    async def _wait(self) -> None:
        if self.hang is not None:
            self.hang.set()
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        assert threading.current_thread() is threading.main_thread()

    async def afetch(self, key: CacheKey) -> Entry | None:
        await self._wait()
        return self.fetch(key)

    async def anearest(self, search: Search) -> Sequence[Candidate]:
        await self._wait()
        return self.nearest(search)

    async def awrite(self, entry: Entry) -> None:
        await self._wait()
        self.write(entry)

    async def atouch(self, key: CacheKey, expires: float | None) -> None:
        await self._wait()
        self.touch(key, expires)

    async def aremove(self, keys: Sequence[CacheKey], *, dry_run: bool = False) -> int:
        await self._wait()
        return self.remove(keys, dry_run=dry_run)

    async def aclear(self, selection: Selection, *, dry_run: bool = False) -> int:
        await self._wait()
        return self.clear(selection, dry_run=dry_run)

    async def asimilar(self, selection: Selection, space: Space, vector: Vector, min_score: float) -> Sequence[Listed]:
        await self._wait()
        return self.similar(selection, space, vector, min_score)

    async def ablock(self, asker: CacheKey, entry: CacheKey) -> None:
        await self._wait()
        self.block(asker, entry)

    async def asweep(self, now: float, limit: int) -> int:
        await self._wait()
        return self.sweep(now, limit)

    async def aepoch(self) -> int:
        await self._wait()
        return self.epoch()

    async def aclose(self) -> None:
        self.close()


async def test_a_store_with_an_async_half_is_asked_without_a_thread() -> None:
    cache = make_cache(NativeStore(), embedder=FakeEmbedder(), l1=True)
    assert await aask(cache) == Miss(MissReason.ABSENT)
    assert isinstance(await akeep(cache), Stored)
    assert (await aask(cache, REWORDED)).match is Match.SEMANTIC  # type: ignore[union-attr]
    assert await cache.aclear() == 1
    assert await aask(cache) == Miss(MissReason.ABSENT)


async def test_a_store_with_an_async_half_that_hangs_is_left_at_the_deadline() -> None:
    store = NativeStore()
    store.hang = asyncio.Event()
    cache = make_cache(store, lookup_timeout=SHORT)
    for _ in range(FAILURES):
        assert await aask(cache) == Miss(MissReason.STORE_FAILED, "Fetch: StoreTimeoutError")
    assert (await aask(cache)).reason is MissReason.UNAVAILABLE  # type: ignore[union-attr]


async def turns(until: Callable[[], bool]) -> None:
    """Let the loop's other tasks run."""
    for _ in range(1_000):
        if until():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to pass")


async def test_answers_of_an_outage_are_written_from_the_loop() -> None:
    clock, store = FakeClock(), NativeStore()
    cache = make_cache(store, clock)
    store.fail()
    for number in range(FAILURES):
        await aask(cache, f"Question number {number}?")
    await akeep(cache)
    await akeep(cache, UNRELATED)
    assert cache.stats().pending == 2
    store.recover()
    clock.advance(RESET)
    await aask(cache, "Is anybody there?")
    await turns(lambda: cache.stats().pending == 0)
    assert isinstance(await aask(cache), Hit)
    assert isinstance(await aask(cache, UNRELATED), Hit)


async def test_one_task_replays_however_many_calls_succeed_meanwhile() -> None:
    class SlowToWrite(NativeStore):
        async def awrite(self, entry: Entry) -> None:
            if not go_on.is_set():
                await go_on.wait()
            await super().awrite(entry)

    go_on = asyncio.Event()
    go_on.set()
    store = SlowToWrite()
    cache = make_cache(store)
    store.fail("write")
    await akeep(cache)
    await akeep(cache, UNRELATED)
    store.recover()
    go_on.clear()
    for number in range(3):
        await aask(cache, f"Question number {number}?")
    assert len(asyncio.all_tasks()) == 2  # this one and the replay
    go_on.set()
    await turns(lambda: len(asyncio.all_tasks()) == 1)
    assert cache.stats().replayed == 2


def test_a_loop_that_ends_during_the_replay_loses_nothing() -> None:
    clock, store = FakeClock(), NativeStore()
    cache = make_cache(store, clock)

    async def outage_and_one_call_after_it() -> None:
        store.fail("write")
        await akeep(cache)
        store.recover()
        await aask(cache, UNRELATED)
        store.hang = asyncio.Event()
        await store.hang.wait()

    asyncio.run(outage_and_one_call_after_it())
    assert cache.stats().pending == 1
    store.hang = None

    async def another_loop() -> None:
        await aask(cache, UNRELATED)
        await turns(lambda: cache.stats().pending == 0)

    asyncio.run(another_loop())
    assert isinstance(ask(cache), Hit)


# --------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("lookup_timeout", 0),
        ("lookup_timeout", "soon"),
        ("update_timeout", float("nan")),
        ("update_timeout", True),
        ("breaker_failures", 0),
        ("breaker_failures", 2.5),
        ("breaker_reset", 0),
        ("breaker_reset", None),
        ("pending_entries", -1),
        ("pending_bytes", "all"),
    ],
)
def test_a_wrong_option_is_refused_by_name(option: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{option}: "):
        Resilience(**{option: value})  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------- no thread


class ScarceThreads(DaemonThreads):
    """On a system that has no thread to give while `scarce` is set."""

    scarce = True

    def _start(self, thread: threading.Thread) -> None:
        if self.scarce:
            raise RuntimeError("can't start new thread")
        super()._start(thread)


def scarce_threads(cache: SemanticCache) -> ScarceThreads:
    """What the cache has for workers from now on."""
    workers = cache._ports.workers
    workers.executor().shutdown()
    threads = workers._executor = ScarceThreads(4, "scarce")
    return threads


async def test_a_lookup_that_found_no_thread_leaves_the_attempt_at_the_store_to_the_next() -> None:
    clock, store = FakeClock(), MemoryStoreThatBlocks(MemoryStore())
    cache = make_cache(store, clock)
    keep(cache)
    store.fail()
    break_down(cache)
    store.recover()
    clock.advance(RESET)
    scarce_threads(cache)
    assert (await aask(cache)).reason is MissReason.STORE_FAILED  # type: ignore[union-attr]
    assert isinstance(ask(cache), Hit)


def test_a_hit_stays_a_hit_when_the_replay_finds_no_thread_and_a_later_one_makes_up_for_it() -> None:
    clock, store = FakeClock(), FailingStore(MemoryStore())
    cache = make_cache(store, clock)
    keep(cache)
    store.fail("write")
    keep(cache, UNRELATED)
    store.recover()
    threads = scarce_threads(cache)
    assert isinstance(ask(cache), Hit)
    threads.scarce = False
    clock.advance(REST_SECONDS)
    assert isinstance(ask(cache), Hit)
    settle(cache)
    assert (cache.stats().pending, cache.stats().replayed) == (0, 1)


def test_closing_without_a_thread_closes_the_store_all_the_same() -> None:
    store = StoreThatTellsOfItsClosing(MemoryStore(), "write")
    cache = make_cache(store)
    keep(cache)
    scarce_threads(cache)
    cache.close()
    assert store.closed.is_set()


class StoreThatTellsOfItsClosing(FailingStore):
    def __init__(self, inner: MemoryStore, *failing: str) -> None:
        super().__init__(inner, *failing)
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()
        super().close()


def test_closing_reaches_the_store_although_the_last_write_hangs() -> None:
    class HangsUntilClosed(StoreThatTellsOfItsClosing):
        def write(self, entry: Entry) -> None:
            super().write(entry)
            ended_by_closing.append(self.closed.wait(20))

    ended_by_closing: list[bool] = []
    store = HangsUntilClosed(MemoryStore(), "write")
    cache = make_cache(store)
    keep(cache)
    store.recover()
    threads = cache._ports.workers.executor()
    cache.close()
    for thread in threads._threads:
        thread.join()
    assert ended_by_closing == [True]


# ------------------------------------------------------------------------------- replays whose loop is gone


def outage_and_a_hanging_replay(cache: SemanticCache, store: NativeStore) -> asyncio.AbstractEventLoop:
    """One answer waits, and a task of the loop, which has stopped since, has begun to write it."""

    async def program() -> None:
        store.fail("write")
        await akeep(cache)
        store.recover()
        await aask(cache, UNRELATED)
        store.hang = asyncio.Event()
        await store.hang.wait()
        store.hang = None

    loop = asyncio.new_event_loop()
    loop.run_until_complete(program())
    assert (cache.stats().pending, cache.stats().replayed) == (1, 0)
    return loop


def test_closing_writes_what_a_replay_on_a_closed_loop_left() -> None:
    store = NativeStore()
    cache = make_cache(store)
    outage_and_a_hanging_replay(cache, store).close()
    cache.close()
    assert (cache.stats().pending, cache.stats().replayed) == (0, 1)


def test_a_call_without_a_loop_takes_up_what_a_replay_on_a_stopped_loop_left() -> None:
    store = NativeStore()
    cache = make_cache(store)
    loop = outage_and_a_hanging_replay(cache, store)
    ask(cache, UNRELATED)
    settle(cache)
    assert (cache.stats().pending, cache.stats().replayed) == (0, 1)
    writes = store.calls["write"]
    loop.run_until_complete(turns_of_all_tasks())
    loop.close()
    assert store.calls["write"] == writes


async def turns_of_all_tasks() -> None:
    await turns(lambda: len(asyncio.all_tasks()) == 1)


def test_another_loop_takes_up_what_a_replay_on_a_closed_loop_left() -> None:
    store = NativeStore()
    cache = make_cache(store)
    outage_and_a_hanging_replay(cache, store).close()

    async def another_loop() -> None:
        await aask(cache, UNRELATED)
        await turns(lambda: cache.stats().replayed == 1)

    asyncio.run(another_loop())
    assert cache.stats().pending == 0


@pytest.mark.parametrize("cancels", [True, False])
def test_a_worker_replays_where_each_call_has_a_loop_of_its_own(cancels: bool) -> None:
    store = NativeStore()
    cache = make_cache(store)

    def call(act: Callable[[], Any]) -> None:
        if cancels:
            asyncio.run(act())
        else:
            loop = asyncio.new_event_loop()
            loop.run_until_complete(act())
            loop.close()

    store.fail("write")
    call(lambda: akeep(cache))
    store.recover()
    for _ in range(LOOPS_LOST + 1):
        call(lambda: aask(cache, UNRELATED))
    settle(cache)
    assert (cache.stats().pending, cache.stats().replayed) == (0, 1)


async def test_closing_writes_what_a_task_of_the_running_loop_hangs_at_and_ends_that_task() -> None:
    store = NativeStore()
    cache = make_cache(store)
    store.fail("write")
    await akeep(cache)
    store.recover()
    await aask(cache, UNRELATED)
    store.hang = asyncio.Event()
    await store.hang.wait()
    await cache.aclose()
    assert (cache.stats().pending, cache.stats().replayed) == (0, 1)
    await turns_of_all_tasks()


def test_a_wake_that_comes_when_its_loop_has_ended_leaves_the_replay_to_the_next_call() -> None:
    store = NativeStore()
    cache = make_cache(store)
    store.fail("write")
    keep(cache)
    store.recover()
    cache._ports.replay.wake_on_loop()
    ask(cache, UNRELATED)
    settle(cache)
    assert (cache.stats().pending, cache.stats().replayed) == (0, 1)

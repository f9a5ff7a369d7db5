"""`ChaosStore` misbehaves as told and in no other way, repeatably, for sync and for async callers."""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from aicache import Store, StoreError
from aicache._errors import UnavailableError, UnreadableEntryError
from aicache._model import Answer, Miss, Prompt, Search, Selection, Turn
from aicache._resilience import Resilience
from aicache.cache import Question, SemanticCache
from aicache.embedders._embedding import Embedding
from aicache.stores.base import AsyncStore, BulkStore, LessonStore
from aicache.stores.memory import MemoryStore
from aicache.testing import (
    ChaosStore,
    FakeClock,
    FakeEmbedder,
    StoreContract,
    make_entry,
    make_key,
    make_partition,
    make_vector,
)
from aicache.testing._around import StoreAround

EAST = make_vector(1, 0)
SPACE = "fake/2"
ENTRY = make_entry("q", vector=EAST)


class Awaited(StoreAround):
    """The async half of a store as a `Store`."""

    def _pass(self, method: str, act: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        twin = getattr(self._store, f"a{method}", None)
        return act(*args, **kwargs) if twin is None else asyncio.run(twin(*args, **kwargs))


class Blocking(MemoryStore):
    """Says that it waits for a disk, and notes the threads it is called from."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[int] = set()

    @property
    def blocking(self) -> bool:
        return True

    def fetch(self, key: Any) -> Any:
        self.threads.add(threading.get_ident())
        return super().fetch(key)


class Networked(ChaosStore):
    """A store with an async half of its own."""

    seen_epoch = 7
    facts = {"dialect": "plain"}  # noqa: RUF012 - as a store would have it


@pytest.fixture(params=["sync", "async"])
def half(request: pytest.FixtureRequest) -> Callable[[ChaosStore], Store]:
    return Awaited if request.param == "async" else lambda store: store


def outcomes(store: Store, count: int = 200) -> list[str]:
    """What became of that many fetches of an entry."""
    seen = []
    for _ in range(count):
        try:
            seen.append("found" if store.fetch(ENTRY.key) else "none")
        except StoreError as error:
            seen.append(type(error).__name__)
    return seen


def filled(**faults: Any) -> ChaosStore:
    inner = MemoryStore()
    inner.write(ENTRY)
    return ChaosStore(inner, **faults)


def many(store: Store) -> BulkStore:
    assert isinstance(store, BulkStore)
    return store


class TestCalm(StoreContract):
    @pytest.fixture
    def store(self, half: Callable[[ChaosStore], Store]) -> Iterator[Store]:
        store = ChaosStore(MemoryStore())
        yield half(store)
        store.close()


def test_it_is_both_halves_of_a_store_behind_a_network() -> None:
    store = ChaosStore(MemoryStore())
    assert isinstance(store, Store)
    assert isinstance(store, AsyncStore)
    assert (store.name, store.blocking, store.bounded) == ("memory", True, False)
    assert (store.seen_epoch, store.facts) == (None, {})
    outer = ChaosStore(Networked(MemoryStore()))
    assert (outer.seen_epoch, outer.facts) == (7, {"dialect": "plain"})


# ------------------------------------------------------------------------------------------------ chance


def test_the_same_calls_meet_the_same_faults_and_another_seed_others(half: Callable[[ChaosStore], Store]) -> None:
    first, again, other = (half(filled(seed=seed, error_rate=0.3, damage=0.2)) for seed in (1, 1, 2))
    seen = outcomes(first)
    assert seen == outcomes(again) == outcomes(filled(seed=1, error_rate=0.3, damage=0.2))
    assert seen != outcomes(other)
    assert set(seen) == {"found", "StoreError", "UnreadableEntryError"}


def test_neither_other_methods_nor_other_faults_shift_what_a_call_meets() -> None:
    plain = outcomes(filled(error_rate=0.3))
    busy = filled(error_rate=0.3, delay=1.0, lose_writes=0.5, sleep=lambda seconds: None)
    mixed = []
    for _ in plain:
        with suppress(StoreError):
            busy.write(ENTRY)
        mixed += outcomes(busy, 1)
    assert mixed == plain


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_a_rate_is_the_share_of_calls(share: float) -> None:
    store = filled(error_rate=share)
    failed = outcomes(store, 2_000).count("StoreError")
    assert abs(failed / 2_000 - share) <= (0.03 if 0 < share < 1 else 0)
    assert (store.calls["fetch"], store.faults["error"]) == (2_000, failed)


# ------------------------------------------------------------------------------------------------ faults


def test_the_error_told_is_raised_by_every_method_but_close(half: Callable[[ChaosStore], Store]) -> None:
    error = UnavailableError("redis", "maintenance")
    chaos = ChaosStore(MemoryStore(), error_rate=1.0, error=error)
    store = half(chaos)
    for call in (
        lambda: store.fetch(make_key()),
        lambda: store.nearest(Search(make_partition(), SPACE, EAST, 1)),
        lambda: store.write(ENTRY),
        lambda: store.touch(make_key(), None),
        lambda: store.remove([]),
        lambda: store.clear(Selection()),
        lambda: store.similar(Selection(), SPACE, EAST, 0.5),
        lambda: store.block(make_key(), make_key()),
        lambda: store.sweep(0.0, 1),
        store.size,
        store.epoch,
    ):
        with pytest.raises(UnavailableError) as caught:
            call()
        assert caught.value is error
    store.close()
    assert chaos.faults == {"error": 11}


def test_an_error_that_is_raised_often_does_not_grow() -> None:
    store = filled(error_rate=1.0, error=OSError("gone"))
    depths = set()
    for _ in range(5):
        with pytest.raises(OSError, match="gone") as caught:
            store.fetch(ENTRY.key)
        depths.add(len(traceback.extract_tb(caught.value.__traceback__)))
    assert len(depths) == 1


def test_only_the_chosen_methods_misbehave(half: Callable[[ChaosStore], Store]) -> None:
    chaos = filled(error_rate=1.0, only=["write", "close"])
    store = half(chaos)
    assert store.fetch(ENTRY.key) == ENTRY
    with pytest.raises(StoreError):
        store.write(ENTRY)
    with pytest.raises(StoreError):
        store.close()


def test_a_delay_is_waited_for_before_the_call(half: Callable[[ChaosStore], Store]) -> None:
    slept: list[float] = []

    async def asleep(seconds: float) -> None:
        slept.append(seconds)

    chaos = filled(delay=(0.1, 0.5), sleep=slept.append, asleep=asleep)
    store = half(chaos)
    assert outcomes(store, 50) == ["found"] * 50
    assert len(set(slept)) == 50
    assert 0.1 <= min(slept) < 0.2
    assert 0.4 < max(slept) <= 0.5
    chaos.set(delay=2.0)
    store.epoch()
    assert slept[-1] == 2.0
    assert chaos.faults == {"delay": 51}


def test_a_lost_write_seems_to_succeed(half: Callable[[ChaosStore], Store]) -> None:
    chaos = ChaosStore(MemoryStore(), lose_writes=0.5)
    store = half(chaos)
    entries = [make_entry(f"question {number}") for number in range(100)]
    for entry in entries:
        store.write(entry)
    found = [store.fetch(entry.key) for entry in entries]
    assert [one for one in found if one] == [entry for entry, one in zip(entries, found, strict=True) if one]
    assert 0 < chaos.faults["lost write"] == found.count(None) < 100


def test_a_damaged_entry_cannot_be_fetched_and_is_not_near(half: Callable[[ChaosStore], Store]) -> None:
    chaos = filled(damage=1.0)
    store = half(chaos)
    with pytest.raises(UnreadableEntryError):
        store.fetch(ENTRY.key)
    assert list(store.nearest(Search(ENTRY.key.partition, SPACE, EAST, 5))) == []
    assert store.fetch(make_key("never written")) is None
    assert chaos.faults == {"damage": 2}


def test_each_entry_near_a_question_is_damaged_by_itself() -> None:
    chaos = ChaosStore(MemoryStore())
    for number in range(20):
        chaos.write(make_entry(f"question {number}", vector=make_vector(1, number)))
    chaos.set(damage=0.5)
    left = chaos.nearest(Search(make_partition(), SPACE, EAST, 20))
    assert 0 < len(left) == 20 - chaos.faults["damage"] < 20
    scores = [one.score for one in left]
    assert scores == sorted(scores, reverse=True)


def test_a_lost_write_of_many_loses_all_of_them(half: Callable[[ChaosStore], Store]) -> None:
    chaos = ChaosStore(MemoryStore(), lose_writes=1.0)
    many(half(chaos)).write_many([ENTRY, make_entry("another")])
    assert chaos.size().entries == 0
    assert chaos.faults == {"lost write": 1}


def test_damaged_entries_are_not_listed(half: Callable[[ChaosStore], Store]) -> None:
    chaos = ChaosStore(MemoryStore())
    many(half(chaos)).write_many([make_entry(f"question {number}") for number in range(40)])
    chaos.set(damage=0.5)
    left = many(half(chaos)).entries(Selection())
    assert 0 < len(left) == 40 - chaos.faults["damage"] < 40


def test_lessons_are_neither_lost_nor_late_and_fail_like_the_rest() -> None:
    chaos = ChaosStore(MemoryStore(), lose_writes=1.0, damage=1.0, stale=True)
    assert isinstance(chaos, LessonStore)
    assert chaos.append_lessons(b"log", [b"one"]) == 1
    chaos.keep_summary(b"log", 1, b"summary")
    assert chaos.lessons(b"log", 0).items == (b"one",)
    assert chaos.summary(b"log") == (1, b"summary")
    assert chaos.faults == {}
    chaos.set(error_rate=1.0, only=["append_lessons"])
    with pytest.raises(StoreError):
        chaos.append_lessons(b"log", [b"two"])
    chaos.forget_lessons(b"log")
    assert chaos.calls["append_lessons"] == 2


# ------------------------------------------------------------------------------------------------ a lagging replica


def test_while_it_is_stale_reads_find_what_was_there_and_afterwards_what_was_done(
    half: Callable[[ChaosStore], Store],
) -> None:
    chaos = filled()
    store = half(chaos)
    newer, added = make_entry("q", "newer", vector=EAST), make_entry("added")
    chaos.set(stale=True)
    store.write(newer)
    store.write(added)
    store.touch(ENTRY.key, 5.0)
    assert store.fetch(ENTRY.key) == ENTRY
    assert [one.entry for one in store.nearest(Search(ENTRY.key.partition, SPACE, EAST, 5))] == [ENTRY]
    assert store.fetch(added.key) is None
    assert store.remove([ENTRY.key]) == 1
    store.write(newer)
    assert store.fetch(ENTRY.key) == ENTRY
    chaos.calm()
    assert store.fetch(ENTRY.key) == newer
    assert store.fetch(added.key) == added
    assert chaos.faults == {"held back": 5}


def test_what_is_joined_and_written_at_once_while_it_is_stale_is_seen_afterwards(
    half: Callable[[ChaosStore], Store],
) -> None:
    chaos = filled(stale=True)
    store, added = half(chaos), make_entry("added")
    many(store).write_many([added])
    assert isinstance(store, LessonStore)
    store.join(ENTRY.key, b"c" * 16)
    assert store.fetch(ENTRY.key) == ENTRY
    assert list(many(store).entries(Selection())) == [ENTRY]
    chaos.calm()
    assert store.fetch(ENTRY.key) == replace(ENTRY, cluster=b"c" * 16)
    assert store.fetch(added.key) == added
    assert chaos.faults == {"held back": 2}


def test_what_is_cleared_while_it_is_stale_is_still_read(half: Callable[[ChaosStore], Store]) -> None:
    chaos = filled(stale=True)
    store = half(chaos)
    assert store.clear(Selection(), dry_run=True) == 1
    assert store.clear(Selection()) == 1
    assert store.fetch(ENTRY.key) == ENTRY
    chaos.set(stale=True)
    assert store.fetch(ENTRY.key) == ENTRY, "it goes on"
    chaos.set(delay=0.0)
    assert store.fetch(ENTRY.key) is None


# ------------------------------------------------------------------------------------------------ hanging


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another thread is about to do."""
    patience = threading.Event()
    for _ in range(10_000):
        if condition():
            return
        patience.wait(0.001)
    pytest.fail("it never came about")


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.mark.parametrize("end", ["release", "calm", "set"])
def test_what_hangs_goes_on_when_it_is_released(
    half: Callable[[ChaosStore], Store], pool: ThreadPoolExecutor, end: str
) -> None:
    chaos = filled(hang=1.0)
    store = half(chaos)
    calls = [pool.submit(store.fetch, ENTRY.key) for _ in range(3)]
    until(lambda: chaos.hanging == 3)
    assert not any(call.done() for call in calls)
    getattr(chaos, end)()
    assert [call.result(10) for call in calls] == [ENTRY] * 3
    assert (chaos.hanging, chaos.faults["hang"]) == (0, 3)


def test_closing_lets_go_what_hangs(half: Callable[[ChaosStore], Store], pool: ThreadPoolExecutor) -> None:
    chaos = filled(hang=1.0)
    store = half(chaos)
    call = pool.submit(store.fetch, make_key("never written"))
    until(lambda: chaos.hanging == 1)
    store.close()
    assert call.result(10) is None


def test_after_a_release_later_calls_hang_again(pool: ThreadPoolExecutor) -> None:
    chaos = filled(hang=1.0)
    chaos.release()
    call = pool.submit(chaos.fetch, ENTRY.key)
    until(lambda: chaos.hanging == 1)
    chaos.calm()
    assert call.result(10) == ENTRY


def test_a_call_released_just_before_it_begins_to_hang_does_not() -> None:
    chaos: ChaosStore = filled(hang=1.0, delay=1.0, sleep=lambda seconds: chaos.release())
    assert chaos.fetch(ENTRY.key) == ENTRY


async def test_a_task_that_hangs_can_be_cancelled_and_leaves_nothing() -> None:
    chaos = filled(hang=1.0)
    one, other = (asyncio.create_task(chaos.afetch(ENTRY.key)) for _ in range(2))
    await asyncio.to_thread(until, lambda: chaos.hanging == 2)
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one
    assert chaos.hanging == 1
    chaos.release()
    assert await other == ENTRY


def test_a_hang_that_nobody_ends_ends_by_itself(half: Callable[[ChaosStore], Store]) -> None:
    chaos = filled(hang=1.0, longest_hang=0.01)
    assert half(chaos).fetch(ENTRY.key) == ENTRY
    assert (chaos.hanging, chaos.faults) == (0, {"hang": 1})


# ------------------------------------------------------------------------------------------------ orders


def test_set_replaces_what_was_told_before() -> None:
    store = filled(error_rate=1.0, only=["fetch"])
    store.set(lose_writes=1.0)
    assert store.fetch(ENTRY.key) == ENTRY
    store.write(make_entry("lost"))
    assert store.fetch(make_key("lost")) is None
    store.calm()
    store.write(make_entry("lost"))
    assert store.fetch(make_key("lost")) is not None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("error_rate", 1.5),
        ("error_rate", -0.1),
        ("error_rate", float("nan")),
        ("hang", "often"),
        ("lose_writes", 2),
        ("damage", None),
        ("delay", -1.0),
        ("delay", (2.0, 1.0)),
        ("delay", float("inf")),
        ("error", "gone"),
        ("only", ["fetsch"]),
        ("eror_rate", 0.5),
    ],
)
def test_a_fault_that_makes_no_sense_is_named_and_changes_nothing(name: str, value: object) -> None:
    wrong: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=f"^{name}: "):
        ChaosStore(MemoryStore(), **wrong)
    store = filled(error_rate=1.0)
    with pytest.raises(ValueError, match=f"^{name}: "):
        store.set(**wrong)
    assert outcomes(store, 3) == ["StoreError"] * 3


async def test_a_store_inside_that_blocks_is_asked_in_a_thread() -> None:
    inner = Blocking()
    await ChaosStore(inner).afetch(ENTRY.key)
    assert inner.threads
    assert threading.get_ident() not in inner.threads


async def test_the_async_half_of_the_store_inside_is_used_where_there_is_one() -> None:
    class Native(ChaosStore):
        def fetch(self, key: Any) -> Any:
            raise AssertionError("the sync half was called")

    inner = Native(MemoryStore())
    assert await ChaosStore(inner).afetch(ENTRY.key) is None
    assert inner.calls == {"fetch": 1}


def test_counts_are_right_under_threads(pool: ThreadPoolExecutor) -> None:
    store = filled(error_rate=0.5)
    done: list[Future[list[str]]] = [pool.submit(outcomes, store, 500) for _ in range(4)]
    failed = sum(one.result(60).count("StoreError") for one in done)
    assert (store.calls["fetch"], store.faults["error"]) == (2_000, failed)
    assert failed == outcomes(filled(error_rate=0.5), 2_000).count("StoreError")


# ------------------------------------------------------------------------------------------------ in a cache

TROUBLE: dict[str, dict[str, Any]] = {
    "errors": {"error_rate": 1.0},
    "a fault that is no Exception": {"error_rate": 1.0, "error": BaseException("panic")},
    "said to be unavailable": {"error_rate": 1.0, "error": UnavailableError("memory", "maintenance")},
    "hangs": {"hang": 1.0},
    "damage": {"damage": 1.0},
    "lost writes": {"lose_writes": 1.0},
    "a lagging replica": {"stale": True},
    "some of all": {"error_rate": 0.2, "hang": 0.2, "lose_writes": 0.3, "damage": 0.3},
}


def question(number: int) -> Question:
    text = f"How do I mend part number {number}?"
    return Question(text.encode(), lambda: Prompt("text", (Turn("human", text),), b"model"))


def answer(number: int) -> Answer:
    return Answer(b"%d" % number, b"%d" % number)


async def ask_and_keep(cache: SemanticCache, number: int, half: str) -> bytes | None:
    """One call of an application: what the cache said, after which the answer is kept."""
    ask, decode, give = partial(question, number), lambda hit: hit.entry.answer.body, partial(answer, number)
    if half == "sync":
        found = cache.lookup(ask, decode)
        cache.update(ask, give)
    else:
        found = await cache.alookup(ask, decode)
        await cache.aupdate(ask, give)
    return None if isinstance(found, Miss) else found


@pytest.mark.parametrize("caller", ["sync", "async"])
@pytest.mark.parametrize("trouble", TROUBLE)
async def test_whatever_it_does_no_exception_and_no_wrong_answer_leaves_a_cache(trouble: str, caller: str) -> None:
    clock, chaos = FakeClock(), ChaosStore(MemoryStore())
    cache = SemanticCache(
        chaos,
        embedding=Embedding(FakeEmbedder()),
        resilience=Resilience(lookup_timeout=0.02, update_timeout=0.02),
        clock=clock,
    )
    chaos.set(**TROUBLE[trouble])
    for _ in range(3):
        for number in range(4):
            assert await ask_and_keep(cache, number, caller) in {None, answer(number).body}
        clock.advance(10)  # Past the breaker's reset.
    assert chaos.faults
    chaos.calm()
    await ask_and_keep(cache, 0, caller)
    assert await ask_and_keep(cache, 0, caller) == answer(0).body
    await cache.aclose()

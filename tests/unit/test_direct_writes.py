"""Rules of a write that is still under way when its caller, a removal or a newer answer does not wait for it."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

import pytest

from aicache import StoreError
from aicache._model import Answer, CacheKey, Entry, Hit, Outcome, Prompt, Selection, Turn, UpdateOutcome
from aicache._pending import PendingUpdate, PendingUpdates
from aicache._resilience import Resilience
from aicache.cache import Question, SemanticCache
from aicache.stores.l1 import L1Cache
from aicache.stores.memory import MemoryStore
from aicache.testing import FailingStore, FakeClock, make_entry

ASKED = "What does it cost?"
SHORT = 0.02
"""Seconds really waited, where only the operating system can interrupt a wait."""
LONG = 10.0
"""Seconds after which a test that waits for a thread fails."""


class Held(FailingStore):
    """A store whose write of one answer waits until it is let go."""

    bounded = False

    def __init__(self, held: bytes = b"old") -> None:
        super().__init__(MemoryStore())
        self.held = held
        self.entered, self.go = threading.Event(), threading.Event()
        self.written, self.removed = threading.Semaphore(0), threading.Semaphore(0)

    @property
    def blocking(self) -> bool:
        return True

    def write(self, entry: Entry) -> None:
        if entry.answer.body == self.held:
            self.entered.set()
            assert self.go.wait(LONG)
        super().write(entry)
        self.written.release()

    def remove(self, keys: Sequence[CacheKey], *, dry_run: bool = False) -> int:
        try:
            return super().remove(keys, dry_run=dry_run)
        finally:
            self.removed.release()

    def kept(self) -> list[bytes]:
        """The answers it holds."""
        assert isinstance(self._store, MemoryStore)
        return [entry.answer.body for entry in self._store._table.select(Selection())]


class HeldOnLoop(Held):
    """The same with an async half."""

    def __init__(self, held: bytes = b"old") -> None:
        super().__init__(held)
        self.arrived, self.leave = asyncio.Event(), asyncio.Event()

    async def awrite(self, entry: Entry) -> None:
        if entry.answer.body == self.held:
            self.arrived.set()
            await self.leave.wait()
        FailingStore.write(self, entry)
        self.written.release()

    async def aremove(self, keys: Sequence[CacheKey], *, dry_run: bool = False) -> int:
        return self.remove(keys, dry_run=dry_run)

    async def aclear(self, selection: Selection, *, dry_run: bool = False) -> int:
        return self.clear(selection, dry_run=dry_run)

    async def afetch(self, key: CacheKey) -> Entry | None:
        return self.fetch(key)

    async def anearest(self, search: Any) -> Any:
        return self.nearest(search)

    async def atouch(self, key: CacheKey, expires: float | None) -> None:
        self.touch(key, expires)

    async def asimilar(self, *args: Any) -> Any:
        return self.similar(*args)

    async def ablock(self, asker: CacheKey, entry: CacheKey) -> None:
        self.block(asker, entry)

    async def asweep(self, now: float, limit: int) -> int:
        return self.sweep(now, limit)

    async def aepoch(self) -> int:
        return self.epoch()

    async def aclose(self) -> None:
        self.close()


def make_cache(store: Any, **limits: Any) -> SemanticCache:
    return SemanticCache(store, l1=L1Cache(), resilience=Resilience(**limits), clock=FakeClock())


def question() -> Question:
    return Question(b"raw", lambda: Prompt("chat", (Turn("human", ASKED),), b"m"))


def answer(body: str) -> Answer:
    return Answer(body.encode(), sha256(body.encode()).digest()[:16])


def keep(cache: SemanticCache, body: str) -> UpdateOutcome:
    return cache.update(question, lambda: answer(body))


async def akeep(cache: SemanticCache, body: str) -> UpdateOutcome:
    return await cache.aupdate(question, lambda: answer(body))


def ask(cache: SemanticCache) -> Outcome:
    return cache.lookup(question, lambda hit: hit)


def settle(cache: SemanticCache) -> None:
    """Let the workers finish."""
    cache._ports.workers.executor().shutdown(wait=True)


async def heard(signal: Callable[..., bool]) -> None:
    assert await asyncio.to_thread(signal, timeout=LONG)


# ------------------------------------------------------------------------------------------------- cleared


def clear_all(cache: SemanticCache) -> None:
    cache.clear()


def invalidate_one(cache: SemanticCache) -> None:
    entry = next(iter(cache._ports.l1._table._entries.values()))  # type: ignore[union-attr]
    cache.invalidate(entry_id=entry.key.id)


@pytest.mark.parametrize("take_back", [clear_all, invalidate_one])
def test_an_answer_cleared_after_its_write_timed_out_does_not_come_back_when_the_call_ends(
    take_back: Callable[[SemanticCache], None],
) -> None:
    store = Held()
    cache = make_cache(store, update_timeout=SHORT)
    keep(cache, "old")
    assert cache.stats().pending == 1
    take_back(cache)
    before = store.calls["remove"]
    store.go.set()
    for _ in range(before + 1):
        assert store.removed.acquire(timeout=LONG)
    settle(cache)
    assert store.kept() == []
    assert not isinstance(ask(cache), Hit)


@pytest.mark.parametrize("how", ["timed out", "cancelled", "awaited"])
async def test_an_answer_cleared_while_a_thread_writes_it_does_not_come_back(how: str) -> None:
    store = Held()
    cache = make_cache(store, update_timeout=SHORT if how == "timed out" else None)
    writing = asyncio.create_task(akeep(cache, "old"))
    await heard(store.entered.wait)
    if how == "timed out":
        await writing
    elif how == "cancelled":
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
    await cache.aclear()
    store.go.set()
    await heard(store.removed.acquire)
    if how == "awaited":
        await writing
    settle(cache)
    assert store.kept() == []
    assert not isinstance(ask(cache), Hit)


async def test_an_answer_cleared_while_the_async_half_writes_it_does_not_come_back() -> None:
    store = HeldOnLoop()
    cache = make_cache(store)
    writing = asyncio.create_task(akeep(cache, "old"))
    await store.arrived.wait()
    await cache.aclear()
    store.leave.set()
    await writing
    await heard(store.removed.acquire)
    assert store.kept() == []


# ----------------------------------------------------------------------------------------------- overtaken


def test_an_older_answer_that_lands_after_a_newer_one_is_overwritten_by_it() -> None:
    store = Held()
    cache = make_cache(store, update_timeout=SHORT)
    keep(cache, "old")
    keep(cache, "new")
    assert store.kept() == [b"new"]
    store.go.set()
    for _ in ("new", "old", "new again"):
        assert store.written.acquire(timeout=LONG)
    settle(cache)
    assert store.kept() == [b"new"]


async def test_an_older_answer_that_lands_after_a_newer_one_is_overwritten_by_it_for_tasks_too() -> None:
    store = Held()
    cache = make_cache(store, update_timeout=SHORT)
    await akeep(cache, "old")
    await akeep(cache, "new")
    store.go.set()
    for _ in ("new", "old", "new again"):
        await heard(store.written.acquire)
    settle(cache)
    assert store.kept() == [b"new"]


async def test_an_older_answer_that_lands_after_a_newer_one_is_overwritten_by_it_in_the_async_half() -> None:
    store = HeldOnLoop()
    cache = make_cache(store)
    writing = asyncio.create_task(akeep(cache, "old"))
    await store.arrived.wait()
    await akeep(cache, "new")
    store.leave.set()
    await writing
    for _ in ("new", "old", "new again"):
        await heard(store.written.acquire)
    assert store.kept() == [b"new"]


# ------------------------------------------------------------------------------------------------ dry runs


@pytest.mark.parametrize("dry_run", [None, 0])
def test_whatever_is_false_is_no_dry_run_for_what_waits_either(dry_run: Any) -> None:
    store = FailingStore(MemoryStore())
    cache = make_cache(store)
    store.fail(error=StoreError("down"))
    keep(cache, "old")
    key = next(iter(cache._ports.l1._table._entries.values())).key  # type: ignore[union-attr]
    from aicache._driver import run
    from aicache._steps import Plan, Remove, StepFailed

    def plan() -> Plan[None]:
        try:
            yield from Remove((key,), dry_run)
        except StepFailed:
            return

    run(plan(), cache._ports)
    assert cache.stats().pending == 0


# ------------------------------------------------------------------------- the same without a store or threads


OLD, NEW = make_entry("a", body=b"old"), make_entry("a", body=b"new")


def drained(kept: PendingUpdates) -> list[Entry | CacheKey]:
    acts: list[Entry | CacheKey] = []
    kept.drain(lambda update: acts.append(update.entry), acts.append, 0.0)
    return acts


def test_writes_that_end_in_the_order_they_began_are_not_repeated() -> None:
    kept = PendingUpdates()
    for one in (OLD, NEW):
        kept.supersede(one)
        assert kept.begins(one)
        assert not kept.ended(one)
    assert drained(kept) == []


def test_a_write_that_nobody_waits_for_any_longer_does_not_begin() -> None:
    kept = PendingUpdates()
    for leave in (kept.left, lambda entry: kept.add_failed(PendingUpdate(entry))):
        kept.supersede(OLD)
        leave(OLD)
        assert not kept.begins(OLD)


def test_a_newer_answer_that_finds_no_room_to_be_written_again_takes_the_older_one_along() -> None:
    for bounds in ({"max_entries": 0}, {"max_bytes": 1}):
        kept = PendingUpdates(**bounds)
        for one in (OLD, NEW):
            kept.supersede(one)
            kept.begins(one)
        kept.ended(NEW)
        assert kept.ended(OLD)
        assert drained(kept) == [OLD.key]


def test_a_newer_answer_that_expired_before_it_was_written_again_takes_the_older_one_along() -> None:
    kept = PendingUpdates()
    newer = make_entry("a", body=b"new", expires=-1.0)
    for one in (OLD, newer):
        kept.supersede(one)
        kept.begins(one)
    kept.ended(newer)
    kept.ended(OLD)
    assert drained(kept) == [OLD.key]


def test_a_removal_that_was_due_before_a_write_that_failed_is_still_due() -> None:
    kept = PendingUpdates()
    kept.supersede(OLD)
    kept.begins(OLD)
    kept.forget([OLD.key])
    kept.ended(OLD)
    kept.supersede(NEW)
    kept.begins(NEW)
    kept.stopped(NEW)
    kept.left(NEW)
    assert drained(kept) == [OLD.key]


def test_a_write_that_landed_spares_the_removal_that_was_due_before_it() -> None:
    kept = PendingUpdates()
    kept.supersede(OLD)
    kept.begins(OLD)
    kept.forget([OLD.key])
    kept.ended(OLD)
    kept.supersede(NEW)
    kept.begins(NEW)
    kept.ended(NEW)
    assert drained(kept) == []


def test_an_answer_written_while_its_key_is_being_removed_is_written_again() -> None:
    kept, acts = PendingUpdates(), []
    kept.supersede(OLD)
    kept.begins(OLD)
    kept.forget([OLD.key])
    kept.ended(OLD)

    def remove(key: CacheKey) -> None:
        kept.supersede(NEW)
        kept.begins(NEW)
        kept.ended(NEW)
        acts.append(key)

    kept.drain(lambda update: acts.append(update.entry), remove, 0.0)
    assert acts == [OLD.key, NEW]

"""Rules of blobs: plain bytes beside the answers, that can be made again and so may be dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from hashlib import sha256
from typing import Any

import pytest

from aicache._blobs import AT_ONCE, BYTES_AT_ONCE, Blobs
from aicache._errors import ConfigurationError, StoreError, UnwritableEntryError
from aicache._model import Answer, CacheKey, Entry, Miss, Prompt, Selection, Turn
from aicache._policy import CachePolicy
from aicache._resilience import Resilience
from aicache._stats import BlobCounts
from aicache.cache import Question, SemanticCache
from aicache.stores.l1 import L1Cache
from aicache.stores.memory import MemoryStore
from aicache.testing import FailingStore, FakeClock
from aicache.testing._around import STORE_METHODS


class Plain:
    """A store that can neither write many nor list, like one that a user wrote."""

    def __init__(self, store: MemoryStore) -> None:
        self._inside = store
        self.refused: set[bytes] = set()
        self.calls: list[str] = []
        self.error: BaseException = UnwritableEntryError("too large")

    def write(self, entry: Entry) -> None:
        self.calls.append("write")
        if entry.answer.body in self.refused:
            raise self.error
        self._inside.write(entry)

    def __getattr__(self, name: str) -> Any:
        if name not in STORE_METHODS - {"write_many", "entries"} | {"name", "blocking"}:
            raise AttributeError(name)
        return getattr(self._inside, name)


class Pair:
    """The blobs' methods, sync or async, under one name."""

    def __init__(self, blobs: Blobs, *, is_async: bool) -> None:
        self._blobs = blobs
        self._is_async = is_async

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if not self._is_async:
            return getattr(self._blobs, name)  # type: ignore[no-any-return]
        method: Callable[..., Awaitable[Any]] = getattr(self._blobs, f"a{name}")

        async def wait(*args: Any, **kwargs: Any) -> Any:
            return await method(*args, **kwargs)

        return lambda *args, **kwargs: asyncio.run(wait(*args, **kwargs))


class World:
    """A cache on a still clock, its store, and its blobs of one kind."""

    def __init__(self, *, is_async: bool, store: Any = None, l1: bool = False, **options: Any) -> None:
        self.clock = FakeClock()
        self.inside = MemoryStore()
        self.store: Any = FailingStore(self.inside) if store is None else store(self.inside)
        self.is_async = is_async
        self.cache = SemanticCache(self.store, clock=self.clock, l1=L1Cache() if l1 else None, **options)
        self.raw = self.cache.blobs("thing")
        self.blobs = Pair(self.raw, is_async=is_async)

    def other(self, **options: Any) -> Pair:
        """Those of another cache on the same store."""
        kind = options.pop("kind", "thing")
        cache = SemanticCache(self.store, clock=self.clock, **options)
        return Pair(cache.blobs(kind), is_async=self.is_async)


@pytest.fixture(params=["sync", "async"])
def world(request: pytest.FixtureRequest) -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(**options: Any) -> World:
        made.append(World(is_async=request.param == "async", **options))
        return made[-1]

    yield make
    for one in made:
        one.cache.close()


Make = Callable[..., World]


# ----------------------------------------------------------------------------------------- what comes back


def test_what_was_put_comes_back_in_the_order_asked_for(world: Make) -> None:
    blobs = world().blobs
    assert blobs.put_many("c", [("one", b"1"), ("two", b"2")]) == 2
    assert blobs.get_many("c", ["two", "three", "one", "two"]) == [b"2", None, b"1", b"2"]


def test_any_text_is_a_name_and_any_bytes_a_blob(world: Make) -> None:
    blobs = world().blobs
    pairs = [("", b""), ("\ud800", b"\0\xff"), ("x" * 5_000, b"=")]
    blobs.put_many("c", pairs, named=True)
    assert blobs.get_many("c", [name for name, _ in pairs]) == [blob for _, blob in pairs]
    assert sorted(blobs.items("c")) == sorted(pairs)


def test_the_later_blob_of_a_name_replaces_the_earlier_one(world: Make) -> None:
    blobs = world().blobs
    blobs.put_many("c", [("n", b"old")])
    blobs.put_many("c", [("n", b"new")])
    assert blobs.get_many("c", ["n"]) == [b"new"]


@pytest.mark.parametrize(
    ("options", "collection"),
    [
        ({}, "other"),
        ({"kind": "other"}, "c"),
        ({"namespace": "other"}, "c"),
        ({"tenant": "other"}, "c"),
        ({"tenant": ""}, "c"),
    ],
)
def test_kind_namespace_tenant_and_collection_keep_blobs_apart(
    world: Make, options: dict[str, Any], collection: str
) -> None:
    made = world()
    made.blobs.put_many("c", [("n", b"1")], named=True)
    other = made.other(**options)
    assert other.get_many(collection, ["n"]) == [None]
    assert other.items(collection) == []
    assert other.clear(collection) == 0
    assert made.other().get_many("c", ["n"]) == [b"1"]


def test_no_two_ways_to_cut_the_same_letters_meet(world: Make) -> None:
    made = world()
    made.other(kind="ab", namespace="c").put_many("d", [("n", b"1")])
    assert made.other(kind="a", namespace="bc").get_many("d", ["n"]) == [None]
    assert made.other(kind="ab", namespace="cd").get_many("", ["n"]) == [None]


def test_a_blob_is_never_an_answer(world: Make) -> None:
    made = world()
    made.blobs.put_many("c", [("hello", b"1")], named=True)
    prompt = Prompt("text", (Turn("human", "hello"),), b"model")
    found = made.cache.lookup(lambda: Question(sha256(b"hello").digest(), lambda: prompt), lambda hit: hit)
    assert isinstance(found, Miss)


# -------------------------------------------------------------------------------------------- how long


def test_an_expired_blob_is_not_there(world: Make) -> None:
    made = world()
    made.blobs.put_many("c", [("n", b"1")], ttl=10.0, named=True)
    made.clock.advance(9.9)
    assert made.blobs.get_many("c", ["n"]) == [b"1"]
    made.clock.advance(0.1)
    assert made.blobs.get_many("c", ["n"]) == [None]
    assert made.blobs.items("c") == []


def test_the_ttl_of_answers_is_not_that_of_blobs(world: Make) -> None:
    made = world(policy=CachePolicy(ttl=1.0))
    made.blobs.put_many("c", [("n", b"1")])
    made.clock.advance(1_000.0)
    assert made.blobs.get_many("c", ["n"]) == [b"1"]


def test_expired_blobs_leave_the_store_although_no_answer_is_ever_stored(world: Make) -> None:
    made = world()
    made.blobs.put_many("c", [("n", b"1")], ttl=10.0)
    made.clock.advance(100.0)
    made.blobs.put_many("c", [("m", b"2")])
    assert made.inside.size().entries == 1


# ------------------------------------------------------------------------------------------ round trips


class Noting(FailingStore):
    """Notes how many entries each call is about."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.written: list[int] = []
        self.fetched: list[int] = []

    def write_many(self, entries: Sequence[Entry]) -> None:
        self._enter("write_many")
        self.written.append(len(entries))
        for entry in entries:
            self._store.write(entry)

    def fetch_many(self, keys: Sequence[CacheKey]) -> list[Entry | None]:
        self._enter("fetch")
        self.fetched.append(len(keys))
        return [self._store.fetch(key) for key in keys]

    def nearest_many(self, searches: Sequence[object]) -> list[Any]:
        raise NotImplementedError


def test_many_are_read_and_written_in_few_round_trips(world: Make) -> None:
    made = world(store=Noting)
    pairs = [(str(number), b"x") for number in range(AT_ONCE + 1)]
    assert made.blobs.put_many("c", pairs) == AT_ONCE + 1
    assert made.blobs.get_many("c", [name for name, _ in pairs]) == [b"x"] * (AT_ONCE + 1)
    assert made.store.written == [AT_ONCE, 1]
    assert made.store.fetched == [AT_ONCE, 1]


def test_large_blobs_are_written_in_parts_of_bounded_size(world: Make) -> None:
    made = world(store=Noting)
    half = bytes(BYTES_AT_ONCE // 2)
    made.blobs.put_many("c", [(str(number), half) for number in range(5)])
    made.blobs.put_many("c", [("huge", half * 5)])
    assert made.store.written == [2, 2, 1, 1]


def test_nothing_asked_for_asks_no_store(world: Make) -> None:
    made = world()
    assert made.blobs.get_many("c", []) == []
    assert made.blobs.put_many("c", []) == 0
    assert made.blobs.remove_many("c", []) == 0
    assert made.store.calls.total() == 0


def test_a_store_that_writes_one_at_a_time_does_as_well(world: Make) -> None:
    made = world(store=Plain)
    assert made.blobs.put_many("c", [("one", b"1"), ("two", b"2")]) == 2
    assert made.blobs.get_many("c", ["one", "two"]) == [b"1", b"2"]


def test_one_that_cannot_be_written_does_not_cost_the_others(world: Make) -> None:
    made = world(store=Plain)
    made.store.refused = {b"2"}
    made.blobs.put_many("c", [("one", b"1"), ("two", b"2"), ("three", b"3")])
    assert made.blobs.get_many("c", ["one", "two", "three"]) == [b"1", None, b"3"]


def test_a_store_that_is_down_is_not_asked_for_each_of_many(world: Make) -> None:
    made = world(store=Plain)
    made.store.refused, made.store.error = {b"x"}, OSError("down")
    made.blobs.put_many("c", [(str(number), b"x") for number in range(100)])
    assert len(made.store.calls) == 5


def test_a_store_that_cannot_list_says_so(world: Make) -> None:
    with pytest.raises(StoreError, match="could not be listed"):
        world(store=Plain).blobs.items("c")


# ---------------------------------------------------------------------------------------------- faults


def test_a_store_that_is_down_costs_the_blobs_and_nothing_else(world: Make) -> None:
    made = world()
    made.blobs.put_many("c", [("n", b"1")])
    made.store.fail()
    assert made.blobs.get_many("c", ["n", "m"]) == [None, None]
    assert made.blobs.put_many("c", [("m", b"2")]) == 0
    assert made.raw.counts == BlobCounts(found=0, missing=2, stored=1, dropped=1)


def test_what_could_not_be_written_is_not_kept_for_later(world: Make) -> None:
    made = world()
    made.store.fail("write_many")
    made.blobs.put_many("c", [("n", b"1")])
    assert made.cache.stats().pending == 0


def test_after_some_failures_the_store_is_left_alone(world: Make) -> None:
    made = world(resilience=Resilience(breaker_failures=2))
    made.store.fail()
    for _ in range(5):
        made.blobs.put_many("c", [("n", b"1")])
        made.blobs.get_many("c", ["n"])
    assert made.store.calls.total() == 2


def test_removing_and_listing_say_when_they_cannot(world: Make) -> None:
    made = world()
    made.store.fail()
    for name, args in (("remove_many", ("c", ["n"])), ("clear", ("c",)), ("items", ("c",))):
        with pytest.raises(StoreError):
            getattr(made.blobs, name)(*args)


def test_a_name_that_is_no_text_is_contained(world: Make) -> None:
    made = world()
    assert made.blobs.get_many("c", [None]) == [None]
    assert made.blobs.put_many("c", [(None, b"1")]) == 0


def test_without_a_known_tenant_nothing_is_read_or_written(world: Make) -> None:
    made = world(tenant=nobody)
    assert made.blobs.put_many("c", [("n", b"1")]) == 0
    assert made.blobs.get_many("c", ["n"]) == [None]
    assert made.store.calls.total() == 0
    with pytest.raises(ConfigurationError, match="tenant"):
        made.blobs.clear("c")


def nobody() -> None:
    """A tenant callable that does not know."""


# ---------------------------------------------------------------------------------------------- wishes


def test_inside_bypass_nothing_is_read_or_written(world: Make) -> None:
    made = world()
    made.blobs.put_many("c", [("n", b"1")])
    with made.cache.bypass():
        assert made.blobs.get_many("c", ["n"]) == [None]
        assert made.blobs.put_many("c", [("m", b"2")]) == 0
    assert made.blobs.get_many("c", ["n", "m"]) == [b"1", None]


def test_inside_refresh_blobs_are_made_anew(world: Make) -> None:
    made = world()
    made.blobs.put_many("c", [("n", b"old")])
    with made.cache.refresh():
        assert made.blobs.get_many("c", ["n"]) == [None]
        made.blobs.put_many("c", [("n", b"new")])
    assert made.blobs.get_many("c", ["n"]) == [b"new"]


# -------------------------------------------------------------------------------------------- removing


def test_removing_says_how_many_there_were(world: Make) -> None:
    made = world()
    made.blobs.put_many("c", [("one", b"1"), ("two", b"2")])
    assert made.blobs.remove_many("c", ["one", "three"]) == 1
    assert made.blobs.get_many("c", ["one", "two"]) == [None, b"2"]


def test_clear_removes_one_collection(world: Make) -> None:
    made = world()
    made.blobs.put_many("c", [("one", b"1"), ("two", b"2")])
    made.blobs.put_many("d", [("one", b"3")])
    assert made.blobs.clear("c") == 2
    assert made.blobs.get_many("c", ["one"]) + made.blobs.get_many("d", ["one"]) == [None, b"3"]


def test_the_caches_own_clear_removes_blobs_too(world: Make) -> None:
    made = world()
    made.blobs.put_many("c", [("n", b"1")])
    made.cache.clear()
    assert made.blobs.get_many("c", ["n"]) == [None]


def test_blobs_without_a_name_are_not_listed(world: Make) -> None:
    made = world()
    made.blobs.put_many("c", [("n", b"1")])
    made.blobs.put_many("c", [("m", b"2")], named=True)
    assert made.blobs.items("c") == [("m", b"2")]


# -------------------------------------------------------------------------------------------------- L1


def test_a_single_blob_is_served_from_memory_the_second_time(world: Make) -> None:
    made = world(l1=True)
    made.blobs.put_many("c", [("n", b"1")])
    assert [made.blobs.get("c", "n"), made.blobs.get("c", "n")] == [b"1", b"1"]
    assert made.store.calls["fetch"] == 1


def test_a_single_blob_that_was_put_is_in_memory_even_if_the_store_is_down(world: Make) -> None:
    made = world(l1=True)
    made.store.fail()
    assert made.blobs.put("c", "n", b"1") == 0
    assert made.blobs.get("c", "n") == b"1"


def test_one_that_expires_in_memory_is_not_served(world: Make) -> None:
    made = world(l1=True)
    made.blobs.put("c", "n", b"1", ttl=10.0)
    made.clock.advance(10.0)
    assert made.blobs.get("c", "n") is None


def test_many_neither_enter_memory_nor_leave_old_ones_there(world: Make) -> None:
    made = world(l1=True)
    made.blobs.put("c", "n", b"old")
    made.blobs.put_many("c", [("n", b"new"), ("m", b"2")])
    made.blobs.get_many("c", ["n", "m"])
    assert made.cache._ports.l1 is not None
    assert made.cache._ports.l1.size().entries == 0
    assert made.blobs.get("c", "n") == b"new"


def test_removed_blobs_leave_memory(world: Make) -> None:
    made = world(l1=True)
    for name, args in (("remove_many", ("c", ["n"])), ("clear", ("c",))):
        made.blobs.put("c", "n", b"1")
        getattr(made.blobs, name)(*args)
        assert made.blobs.get("c", "n") is None


def test_a_removal_by_another_process_reaches_memory_within_a_second(world: Make) -> None:
    made = world(l1=True)

    class Shared(FailingStore):
        number = 0

        def epoch(self) -> int:
            return self.number

    shared = Shared(made.inside)
    cache = SemanticCache(shared, clock=made.clock, l1=L1Cache())
    blobs = Pair(cache.blobs("thing"), is_async=made.is_async)
    blobs.put("c", "n", b"1")
    blobs.get("c", "n")
    made.inside.clear(Selection())
    shared.number = 1
    made.clock.advance(1.0)
    assert blobs.get("c", "n") is None
    cache.close()


# ---------------------------------------------------------------------------------------------- counts


def test_each_blob_is_counted_once(world: Make) -> None:
    made = world()
    made.blobs.put_many("c", [("one", b"1"), ("two", b"2")])
    made.blobs.get_many("c", ["one", "three"])
    made.blobs.get("c", "two")
    assert made.raw.counts == BlobCounts(found=2, missing=1, stored=2, dropped=0)
    made.raw.reset_counts()
    assert made.raw.counts == BlobCounts()


def test_blobs_do_not_count_as_lookups_or_answers(world: Make) -> None:
    made = world()
    made.blobs.put_many("c", [("one", b"1")])
    made.blobs.get_many("c", ["one", "two"])
    stats = made.cache.stats()
    assert (stats.lookups, stats.stored) == (0, 0)


def test_the_same_kind_is_the_same_object(world: Make) -> None:
    cache = world().cache
    assert cache.blobs("thing") is cache.blobs("thing")
    assert cache.blobs("thing") is not cache.blobs("thing", namespace="other")


def test_what_is_stored_holds_a_name_only_if_it_is_to_be_listed(world: Make) -> None:
    made = world()
    made.blobs.put_many("c", [("a secret", b"1")])
    entries = made.inside.entries(Selection())
    assert [(entry.query, entry.answer) for entry in entries] == [("", Answer(b"1", b""))]


def test_stats_count_blobs_by_kind_and_reset_with_the_rest() -> None:
    cache = SemanticCache(MemoryStore(), clock=FakeClock())
    blobs = cache.blobs("vector")
    blobs.put_many("texts", [("a", b"1")])
    blobs.get_many("texts", ["a", "b"])
    assert cache.stats().blobs == {"vector": BlobCounts(found=1, missing=1, stored=1)}
    assert "vector: 1 found, 1 missing, 1 stored, 0 dropped" in str(cache.stats())
    cache.reset_stats()
    assert cache.stats().blobs == {"vector": BlobCounts()}

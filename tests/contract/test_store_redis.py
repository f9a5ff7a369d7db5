"""The Redis store keeps the contract of every store: both halves, on every kind of server."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import pytest

from aicache._model import CacheKey, Candidate, Entry, Listed, Search, Selection, Space, StoreSize, Vector
from aicache.stores.base import AsyncBulkStore, AsyncStore, BulkStore, Lessons, LessonStore, Store
from aicache.testing import StoreContract

pytest.importorskip("redis", reason="needs the extra redis")

from aicache.stores.redis import RedisStore

if TYPE_CHECKING:
    from redis_servers import Cluster, Node, SentinelSet

R = TypeVar("R")

PATIENT: dict[str, Any] = {"timeout": 20.0, "connect_timeout": 20.0}
"""Eight threads and a server share two busy cores here."""


class Awaited:
    """The async half of a store as a `Store`: each call is awaited on one event loop in a thread of its own.

    Lessons are of the sync half only.
    """

    name = "redis"
    blocking = True

    def __init__(self, store: RedisStore) -> None:
        assert isinstance(store, AsyncStore)
        assert isinstance(store, AsyncBulkStore)
        self._store = store
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def _wait(self, coroutine: Coroutine[Any, Any, R]) -> R:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    def fetch(self, key: CacheKey) -> Entry | None:
        return self._wait(self._store.afetch(key))

    def nearest(self, search: Search) -> Sequence[Candidate]:
        return self._wait(self._store.anearest(search))

    def write(self, entry: Entry) -> None:
        self._wait(self._store.awrite(entry))

    def write_many(self, entries: Sequence[Entry]) -> None:
        self._wait(self._store.awrite_many(entries))

    def entries(self, selection: Selection) -> Sequence[Entry]:
        return self._wait(self._store.aentries(selection))

    def touch(self, key: CacheKey, expires: float | None) -> None:
        self._wait(self._store.atouch(key, expires))

    def remove(self, keys: Sequence[CacheKey], *, dry_run: bool = False) -> int:
        return self._wait(self._store.aremove(keys, dry_run=dry_run))

    def clear(self, selection: Selection, *, dry_run: bool = False) -> int:
        return self._wait(self._store.aclear(selection, dry_run=dry_run))

    def similar(self, selection: Selection, space: Space, vector: Vector, min_score: float) -> Sequence[Listed]:
        return self._wait(self._store.asimilar(selection, space, vector, min_score))

    def block(self, asker: CacheKey, entry: CacheKey) -> None:
        self._wait(self._store.ablock(asker, entry))

    def sweep(self, now: float, limit: int) -> int:
        return self._wait(self._store.asweep(now, limit))

    def size(self) -> StoreSize:
        return self._wait(self._store.asize())

    def epoch(self) -> int:
        return self._wait(self._store.aepoch())

    def append_lessons(self, log: bytes, lessons: Sequence[bytes]) -> int:
        return self._store.append_lessons(log, lessons)

    def lessons(self, log: bytes, after: int) -> Lessons:
        return self._store.lessons(log, after)

    def keep_summary(self, log: bytes, position: int, summary: bytes) -> None:
        self._store.keep_summary(log, position, summary)

    def summary(self, log: bytes) -> tuple[int, bytes] | None:
        return self._store.summary(log)

    def forget_lessons(self, log: bytes) -> None:
        self._store.forget_lessons(log)

    def join(self, key: CacheKey, cluster: bytes) -> None:
        self._store.join(key, cluster)

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self._wait(self._store.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture(params=["sync", "async"])
def half(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextlib.contextmanager
def opened(server: Any, half: str, expected: str, **options: Any) -> Iterator[Store]:
    """An empty store; when it is closed, the server has shown the dialect that was meant."""
    server.flush()
    redis_store = RedisStore(server.url, **PATIENT, **options)
    store: Store = Awaited(redis_store) if half == "async" else redis_store
    # What is none would have the rules of it skipped.
    assert isinstance(store, BulkStore)
    assert isinstance(store, LessonStore)
    try:
        yield store
        assert redis_store.dialect in (expected, None)
    finally:
        store.close()


class TestRedis8(StoreContract):
    @pytest.fixture
    def store(self, redis_standalone: Node, half: str) -> Iterator[Store]:
        with opened(redis_standalone, half, "vector sets") as store:
            yield store


class TestRedis8Unquantised(StoreContract):
    @pytest.fixture
    def store(self, redis_standalone: Node) -> Iterator[Store]:
        with opened(redis_standalone, "sync", "vector sets", quantisation="NOQUANT") as store:
            yield store


class TestRediSearch(StoreContract):
    @pytest.fixture
    def store(self, redis_search: Node, half: str) -> Iterator[Store]:
        # This server has vector sets as well.
        with opened(redis_search, half, "search", dialect="search") as store:
            yield store


class TestCluster(StoreContract):
    @pytest.fixture
    def store(self, redis_cluster: Cluster, half: str) -> Iterator[Store]:
        with opened(redis_cluster, half, "vector sets") as store:
            yield store


class TestSentinel(StoreContract):
    @pytest.fixture
    def store(self, redis_sentinel: SentinelSet, half: str) -> Iterator[Store]:
        with opened(redis_sentinel, half, "vector sets") as store:
            yield store


class ExactContract(StoreContract):
    """The contract without the rules of which nearness is the subject, or a part that cannot be left out."""

    needs_vectors: ClassVar[frozenset[str]] = frozenset(
        {
            "test_expired_entries_are_still_returned",
            "test_nearest_comes_first_with_its_true_cosine",
            "test_an_equal_vector_scores_one_and_never_more",
            "test_scores_match_the_dot_product_in_many_dimensions",
            "test_at_most_k_candidates",
            "test_below_the_floor_entries_may_be_missing",
            "test_candidates_carry_whole_entries",
            "test_an_entry_without_a_vector_is_never_near",
            "test_nearest_stays_in_the_partition",
            "test_nearest_stays_in_the_space",
            "test_nearest_stays_in_the_dimension",
            "test_after_a_replacement_only_the_new_entry_is_near",
            "test_a_replacement_in_another_space_leaves_the_old_space",
            "test_touch_sets_when_an_entry_expires_and_nothing_else",
            "test_remove_takes_entries_with_their_vectors",
            "test_an_entry_can_be_written_again_after_its_removal",
            "test_clear_removes_the_selection_and_nothing_else",
            "test_a_dry_run_of_clear_counts_the_same_and_changes_nothing",
            "test_a_dry_run_of_remove_counts_and_removes_nothing",
            "test_an_entry_is_removed_by_its_id",
            "test_what_similar_lists_can_be_removed",
            "test_a_blocked_entry_is_never_near_its_asker_again",
            "test_a_block_is_about_one_pair_only",
            "test_a_block_outlives_the_entry_and_holds_for_the_next_one_of_its_key",
            "test_as_many_candidates_come_as_if_the_blocked_ones_were_not_there",
            "test_blocking_twice_does_no_harm",
            "test_what_is_blocked_before_it_is_there_is_blocked_when_it_comes",
            "test_a_pair_is_blocked_by_its_ids",
            "test_one_asker_may_have_many_blocked_entries",
            "test_threads_lose_nothing_and_mix_nothing",
            "test_a_cluster_comes_back_as_it_was_written",
            "test_entries_without_a_cluster_count_themselves_only",
            "test_each_candidate_says_how_many_entries_its_cluster_has",
            "test_the_whole_cluster_is_counted_however_few_candidates_are_asked_for",
            "test_what_cannot_be_near_counts_all_the_same",
            "test_a_replacement_leaves_the_cluster_of_its_predecessor",
            "test_what_is_removed_counts_no_longer",
            "test_a_dry_run_changes_no_count",
            "test_touch_changes_neither_cluster_nor_count",
            "test_join_moves_an_entry_and_changes_nothing_else_of_it",
            "test_join_into_its_own_cluster_changes_nothing",
            "test_what_joined_is_counted_like_what_was_written_so",
            "test_joining_what_is_gone_does_nothing",
            "test_an_entry_written_after_it_joined_has_the_cluster_it_is_written_with",
            "test_counts_are_right_after_changes_by_many_threads",
            "test_many_entries_are_written_as_one_by_one",
            "test_many_replace_their_predecessors_and_the_last_of_a_key_stays",
            "test_hundreds_are_written_and_listed",
        }
    )


for _name in ExactContract.needs_vectors:
    assert hasattr(StoreContract, _name), f"{_name}: there is no such rule any more"
    # Not collected at all: a skip would say that something is missing here.
    setattr(ExactContract, _name, None)


class TestRedis7(ExactContract):
    @pytest.fixture
    def store(self, redis_7: Node, half: str) -> Iterator[Store]:
        with opened(redis_7, half, "plain") as store:
            yield store

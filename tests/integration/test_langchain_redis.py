"""AICache over real Redis servers of every kind: LangChain's own suites, and what processes share."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from cryptography.fernet import Fernet
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, Generation
from langchain_tests.integration_tests.cache import AsyncCacheTestSuite, SyncCacheTestSuite

from aicache import Match, MissReason
from aicache.cache import EPOCH_INTERVAL
from aicache.stores.redis import RedisStore
from aicache.testing import FakeClock, FakeEmbedder
from langchain_aicache import AICache

SERVERS = ["redis_standalone", "redis_7", "redis_search", "redis_cluster", "redis_sentinel"]
BY_MEANING = [name for name in SERVERS if name != "redis_7"]

ASKED, REWORDED = "How do I reset my password?", "How can I reset my password please?"
ANSWER = [Generation(text="by mail")]


def server(request: pytest.FixtureRequest, name: str) -> Any:
    found = request.getfixturevalue(name)
    found.flush()
    return found


def open_cache(url: str, **options: Any) -> AICache:
    # Deadlines are for networks; on a busy test machine they would make every pause a failure.
    return AICache(
        url, embeddings=FakeEmbedder(), threshold=0.8, margin=0.0, lookup_timeout=5.0, update_timeout=5.0, **options
    )


class TestSync(SyncCacheTestSuite):
    @pytest.fixture(params=SERVERS)
    def cache(self, request: pytest.FixtureRequest) -> Iterator[AICache]:  # type: ignore[override]
        with open_cache(server(request, request.param).url) as cache:
            yield cache


class TestAsync(AsyncCacheTestSuite):
    @pytest.fixture(params=SERVERS)
    async def cache(self, request: pytest.FixtureRequest) -> AsyncIterator[AICache]:  # type: ignore[override]
        async with open_cache(server(request, request.param).url) as cache:
            yield cache


@pytest.mark.parametrize("name", BY_MEANING)
def test_one_processs_answer_serves_anothers_reworded_question(request: pytest.FixtureRequest, name: str) -> None:
    url = server(request, name).url
    with open_cache(url) as one, open_cache(url) as two:
        one.update(ASKED, "m", ANSWER)
        assert two.lookup(ASKED, "m") == ANSWER
        assert two.lookup(REWORDED, "m") == ANSWER
        assert two.stats().hits["redis", Match.SEMANTIC] == 1


@pytest.mark.parametrize("name", BY_MEANING)
async def test_the_async_half_finds_what_the_sync_half_wrote(request: pytest.FixtureRequest, name: str) -> None:
    async with open_cache(server(request, name).url) as cache:
        cache.update(ASKED, "m", ANSWER)
        assert await cache.alookup(REWORDED, "m") == ANSWER


def test_a_server_without_vectors_still_answers_repetitions(request: pytest.FixtureRequest) -> None:
    with open_cache(server(request, "redis_7").url, l1_entries=0) as cache:
        cache.update(ASKED, "m", ANSWER)
        assert cache.lookup(ASKED, "m") == ANSWER
        assert cache.lookup(REWORDED, "m") is None


def test_tenants_on_one_server_share_nothing(request: pytest.FixtureRequest) -> None:
    url = server(request, "redis_standalone").url
    with open_cache(url, tenant="a") as a, open_cache(url, tenant="b") as b:
        a.update(ASKED, "m", ANSWER)
        assert b.lookup(ASKED, "m") is None
        b.clear()
        assert a.lookup(ASKED, "m") == ANSWER


async def test_a_killed_server_costs_no_exception_and_no_answer_and_gets_what_it_missed(start_redis: Any) -> None:
    from redis_servers import wait_until

    with start_redis("standalone") as node:
        async with open_cache(node.url, breaker_failures=2, breaker_reset=0.05) as cache:
            cache.update(ASKED, "m", ANSWER)
            node.kill()
            assert cache.lookup(ASKED, "m") == ANSWER  # L1 keeps answering
            for number in range(4):
                assert cache.lookup(f"another question {number}", "m") is None
                assert await cache.alookup(f"one more question {number}", "m") is None
                cache.update(f"kept question {number}", "m", ANSWER)
            assert cache.lookup("kept question 3", "m") == ANSWER
            assert cache.stats().pending == 4
            node.restart()

            def is_drained() -> bool:
                cache.lookup("is the store back?", "m")
                return cache.stats().pending == 0

            wait_until(is_drained, "the answers kept during the outage to be written")
        with open_cache(node.url) as other:
            for number in range(4):
                assert other.lookup(f"kept question {number}", "m") == ANSWER


# ------------------------------------------------------------------------------------------ taking answers back

UNRELATED = "Which planets have rings?"


def take_back(cache: AICache, how: str) -> int:
    """Take the answer to ASKED back; how many entries went."""
    match how:
        case "tag" | "source":
            return cache.invalidate(**{how: "x"}).count  # type: ignore[misc]
        case "like":
            return cache.invalidate(like=REWORDED, min_score=0.8).count
        case "entry_id":
            entry_id = cache.explain(ASKED, "m").entry_id
            assert entry_id is not None
            return cache.invalidate(entry_id=entry_id).count
        case "prompt":
            return cache.invalidate(ASKED, llm="m").count
        case _:
            return cache.invalidate(older_than=0.0).count


WAYS = ["tag", "source", "like", "entry_id", "prompt", "older_than"]


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("name", BY_MEANING)
def test_what_one_process_takes_back_the_other_serves_no_longer_than_a_second(
    request: pytest.FixtureRequest, name: str, how: str
) -> None:
    url = server(request, name).url
    clock = FakeClock(wall=time.time())
    with open_cache(url) as one, open_cache(url, clock=clock) as two:
        with one.scope(tags=("x",), sources=("x",)):
            one.update(ASKED, "m", ANSWER)
        one.update(UNRELATED, "m", ANSWER)
        for text in (ASKED, ASKED):
            assert two.lookup(text, "m") == ANSWER
        assert two.stats().hits["l1", Match.EXACT] == 1
        assert take_back(one, how) == (2 if how == "older_than" else 1)
        clock.advance(EPOCH_INTERVAL)
        assert two.lookup(ASKED, "m") is None
        assert (two.lookup(UNRELATED, "m") is None) == (how == "older_than")


@pytest.mark.parametrize("name", ["redis_standalone", "redis_search", "redis_sentinel"])
async def test_a_process_that_asks_redis_hears_of_it_at_once(request: pytest.FixtureRequest, name: str) -> None:
    url = server(request, name).url
    async with open_cache(url) as one, open_cache(url, clock=FakeClock(wall=time.time())) as two:
        one.update(ASKED, "m", ANSWER)
        await two.alookup(ASKED, "m")
        one.clear()
        # Its clock stands still: it is this reply that tells it.
        await two.alookup(UNRELATED, "m")
        assert await two.alookup(ASKED, "m") is None


@pytest.mark.parametrize("name", BY_MEANING)
def test_a_hit_that_one_process_reports_is_never_matched_again_by_another(
    request: pytest.FixtureRequest, name: str
) -> None:
    url = server(request, name).url
    with open_cache(url) as one, open_cache(url, l1_entries=0) as two:
        one.update(ASKED, "m", [ChatGeneration(message=AIMessage("by mail"))])
        (hit,) = two.lookup(REWORDED, "m") or ()
        assert isinstance(hit, ChatGeneration)
        assert one.report(hit.message.response_metadata["aicache"]["entry_id"], wrong=True)
        assert two.lookup(ASKED, "m") is None
        one.update(ASKED, "m", ANSWER)
        assert two.lookup(REWORDED, "m") is None
        assert two.lookup(ASKED, "m") == ANSWER


def test_a_store_made_from_a_sync_client_only_serves_async_callers_too(request: pytest.FixtureRequest) -> None:
    client = server(request, "redis_standalone").client(decode_responses=False)
    with contextlib.closing(client), AICache(RedisStore(client=client), embeddings=False, l1_entries=0) as cache:
        cache.update(ASKED, "m", ANSWER)
        assert asyncio.run(cache.alookup(ASKED, "m")) == ANSWER


@pytest.mark.parametrize("name", SERVERS)
def test_many_prompts_are_answered_at_once(request: pytest.FixtureRequest, name: str) -> None:
    with open_cache(server(request, name).url, l1_entries=0) as cache:
        cache.update(ASKED, "m", ANSWER)
        found = cache.lookup_many([UNRELATED, ASKED, REWORDED], "m")
        assert found == [None, ANSWER, None if name == "redis_7" else ANSWER]


def test_stats_say_in_which_dialect_and_why_nothing_is_matched_by_meaning(request: pytest.FixtureRequest) -> None:
    with open_cache(server(request, "redis_7").url) as cache:
        cache.lookup(ASKED, "m")
        facts = cache.stats().store
        assert (facts["name"], facts["dialect"]) == ("redis", "plain")
        assert "vector sets" in facts["reason"]


def test_a_foreign_key_is_a_miss_with_a_name_and_a_counter(request: pytest.FixtureRequest) -> None:
    url = server(request, "redis_standalone").url
    with open_cache(url, encryption_keys=[Fernet.generate_key()]) as cache:
        cache.update(ASKED, "m", ANSWER)
    with open_cache(url, encryption_keys=[Fernet.generate_key()]) as other:
        assert other.lookup(ASKED, "m") is None
        assert other.lookup(REWORDED, "m") is None
        assert other.stats().misses == {MissReason.WRONG_KEY: 2}

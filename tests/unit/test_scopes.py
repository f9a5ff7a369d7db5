"""Rules of scopes."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import pytest

from aicache import ConfigurationError, bypass, refresh, scope, tagged
from aicache._scopes import Scope, current_scope


def test_outside_any_block_nothing_is_asked() -> None:
    assert current_scope() == Scope()


def test_a_block_ends_with_its_body_even_after_an_error() -> None:
    with pytest.raises(RuntimeError), bypass():
        raise RuntimeError
    assert current_scope() == Scope()


def test_inner_blocks_add_to_outer_ones() -> None:
    with tagged("a"), scope(ttl=60, tags=("b", "a")), refresh():
        assert current_scope() == Scope(refresh=True, tags=("a", "b"), ttl=60)
        with scope(ttl=5):
            assert current_scope().ttl == 5
        assert current_scope().ttl == 60


def test_one_block_object_may_be_entered_again_and_nested() -> None:
    block = tagged("a")
    with block, block:
        assert current_scope().tags == ("a",)
    assert current_scope() == Scope()
    with block:
        assert current_scope().tags == ("a",)


async def test_one_block_object_may_be_shared_by_overlapping_tasks() -> None:
    block = tagged("a")
    first_inside, second_done = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        async with block:
            first_inside.set()
            await second_done.wait()
            assert current_scope().tags == ("a",)
        assert current_scope() == Scope()

    async def second() -> None:
        await first_inside.wait()
        async with block:
            assert current_scope().tags == ("a",)
        assert current_scope() == Scope()
        second_done.set()

    await asyncio.gather(first(), second())


async def test_a_block_works_in_async_code_and_stays_in_its_task() -> None:
    inside, outside = asyncio.Event(), asyncio.Event()

    async def bypassed() -> None:
        async with bypass():
            inside.set()
            await outside.wait()
            assert current_scope().bypass

    task = asyncio.create_task(bypassed())
    await inside.wait()
    assert not current_scope().bypass
    outside.set()
    await task


def test_a_copied_context_carries_the_block_into_a_thread() -> None:
    with tagged("a"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(copy_context().run, current_scope).result().tags == ("a",)
        assert pool.submit(current_scope).result() == Scope()


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf"), True, "60"])
def test_a_ttl_that_is_no_positive_number_is_refused_by_name(ttl: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^ttl: "):
        scope(ttl=ttl)  # type: ignore[arg-type]


@pytest.mark.parametrize("tag", ["", 7])
def test_a_tag_that_is_no_text_is_refused_by_name(tag: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^tags: "):
        tagged(tag)  # type: ignore[arg-type]

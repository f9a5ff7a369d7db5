"""Memo, validation and deadline around an embedder."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from aicache._errors import (
    ConfigurationError,
    EmbedderError,
    EmbedderTimeoutError,
    MissingExtraError,
    QueryTooLongError,
)
from aicache.embedders._embedding import Embedding
from aicache.testing import FakeClock, FakeEmbedder

SHORT = 0.02
"""A deadline that is waited for in earnest; the embedders below hang until the test lets them go."""


class Hanging:
    """An embedder that returns when told to."""

    fingerprint = "hanging"

    def __init__(self) -> None:
        self.release = threading.Event()
        self.begun = threading.Semaphore(0)
        self.calls = 0
        self.texts: list[str] = []

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        self.calls += 1
        self.texts += texts
        self.begun.release()
        assert self.release.wait(60)
        return [[1.0, 0.0] for _ in texts]


class Paced:
    """An embedder that makes one vector for each `go`."""

    fingerprint = "paced"

    def __init__(self) -> None:
        self.go = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)
        self.texts: list[str] = []

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        self.texts += texts
        self.begun.release()
        assert self.go.acquire(timeout=60)
        return [[1.0, 0.0] for _ in texts]


class Failing:
    """An embedder that fails when told to."""

    fingerprint = "failing"

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.release = threading.Event()
        self.calls = 0

    def embed(self, texts: Sequence[str]) -> Any:
        self.calls += 1
        assert self.release.wait(60)
        raise self.error


class PanicException(BaseException):
    """As Rust extensions raise it: no Exception."""


class Awaited:
    """An embedder with a native coroutine."""

    fingerprint = "awaited"

    def __init__(self, answer: Callable[[], Any]) -> None:
        self.answer = answer
        self.calls = 0
        self.cancelled = 0
        self.called = asyncio.Event()

    def embed(self, texts: Sequence[str]) -> Any:
        raise AssertionError("the coroutine is preferred")

    async def aembed(self, texts: Sequence[str]) -> Any:
        self.calls += 1
        self.called.set()
        try:
            answer = self.answer()
            return await answer if asyncio.iscoroutine(answer) else answer
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    embedder = Hanging()
    yield embedder
    embedder.release.set()


# ------------------------------------------------------------------------------------------------------ memo


async def test_a_text_is_embedded_once_by_both_sides_together() -> None:
    embedder = FakeEmbedder()
    embedding = Embedding(embedder)
    first = embedding.embed("How do I pay?")
    assert await embedding.aembed("How do I pay?") == first == embedding.embed("How do I pay?")
    assert embedder.calls == 1
    assert (first.space, first.vector) == (embedder.space, embedder.vector("How do I pay?"))


def test_without_memo_every_call_embeds() -> None:
    embedder = FakeEmbedder()
    embedding = Embedding(embedder, memo_entries=0)
    embedding.embed("a")
    embedding.embed("a")
    assert embedder.calls == 2


def test_the_memo_is_bounded() -> None:
    embedder = FakeEmbedder()
    embedding = Embedding(embedder, memo_entries=4, timeout=None)
    for number in range(5):
        embedding.embed(f"text {number}")
    embedding.embed("text 0")
    assert embedder.calls == 6


def test_after_close_nothing_is_remembered_or_embedded() -> None:
    embedder = FakeEmbedder()
    embedding = Embedding(embedder)
    embedding.embed("a")
    embedding.close()
    embedding.close()
    with pytest.raises(EmbedderError, match="closed"):
        embedding.embed("a")


# ------------------------------------------------------------------------------------------------ validation


@pytest.mark.parametrize("timeout", [None, 30.0])
def test_an_unusable_vector_is_an_error_and_not_remembered(timeout: float | None) -> None:
    embedder = FakeEmbedder(returns="nan")
    embedding = Embedding(embedder, timeout=timeout)
    with pytest.raises(EmbedderError, match="NaN"):
        embedding.embed("a")
    embedder.returns = "vectors"
    assert embedding.embed("a").vector == embedder.vector("a")


def test_a_dimension_that_changes_is_an_error() -> None:
    embedder = FakeEmbedder(8)
    embedding = Embedding(embedder)
    embedding.embed("a")
    embedder.dimension = 16
    with pytest.raises(EmbedderError, match="returned 16 numbers where it returned 8"):
        embedding.embed("b")


@pytest.mark.parametrize("seconds", [None, 30.0])
async def test_a_foreign_exception_becomes_an_embedder_error_that_does_not_quote_it(seconds: float | None) -> None:
    embedding = Embedding(FakeEmbedder(fail_with=RuntimeError("bad input: my secret")), timeout=seconds)
    with pytest.raises(EmbedderError, match=r"^the embedder raised RuntimeError$"):
        embedding.embed("my secret")
    with pytest.raises(EmbedderError, match=r"^the embedder raised RuntimeError$"):
        await embedding.aembed("my secret")


async def test_a_timeout_inside_the_embedder_is_its_failure_and_not_our_deadline() -> None:
    embedding = Embedding(FakeEmbedder(fail_with=TimeoutError("socket")))
    for caught in (pytest.raises(EmbedderError, match="raised TimeoutError"),) * 2:
        with caught as error:
            embedding.embed("a")
        assert not isinstance(error.value, EmbedderTimeoutError)

    async def slow_socket() -> None:
        raise TimeoutError("socket")

    with pytest.raises(EmbedderError, match="raised TimeoutError") as error:
        await Embedding(Awaited(slow_socket)).aembed("a")
    assert not isinstance(error.value, EmbedderTimeoutError)


async def test_our_own_errors_pass_as_they_are() -> None:
    embedding = Embedding(FakeEmbedder(max_words=1))
    with pytest.raises(QueryTooLongError):
        embedding.embed("two words")
    with pytest.raises(QueryTooLongError):
        await embedding.aembed("two words")


# -------------------------------------------------------------------------------------------------- deadline


def test_a_caller_waits_no_longer_than_the_deadline(hanging: Hanging) -> None:
    with pytest.raises(EmbedderTimeoutError, match=r"within 0\.02 s"):
        Embedding(hanging, timeout=SHORT).embed("a")


async def test_an_awaiting_caller_waits_no_longer_than_the_deadline(hanging: Hanging) -> None:
    with pytest.raises(EmbedderTimeoutError):
        await Embedding(hanging, timeout=SHORT).aembed("a")


def test_calls_fail_at_once_while_all_threads_are_overdue_and_recover_afterwards(hanging: Hanging) -> None:
    clock = FakeClock()
    embedding = Embedding(hanging, timeout=SHORT, workers=2, clock=clock)
    for text in ("a", "b"):
        with pytest.raises(EmbedderTimeoutError, match="within"):
            embedding.embed(text)
        assert hanging.begun.acquire(timeout=60)
    clock.advance(SHORT)
    assert embedding.overdue == 2
    with pytest.raises(EmbedderTimeoutError, match="still busy"):
        embedding.embed("c")
    assert hanging.calls == 2

    threads = [thread for thread in threading.enumerate() if thread.name == "aicache-embedder"]
    hanging.release.set()
    # The late results have reached the memo once both calls have come back.
    _until(lambda: embedding.overdue == 0)
    assert embedding.embed("a").space == "hanging/2"
    assert embedding.embed("b").space == "hanging/2"
    assert hanging.calls == 2
    assert all(thread.daemon for thread in threads)


async def test_a_hanging_embedder_does_not_stop_the_event_loop(hanging: Hanging) -> None:
    embedding = Embedding(hanging, timeout=30)
    waiting = asyncio.create_task(embedding.aembed("a"))
    await asyncio.get_running_loop().run_in_executor(None, hanging.begun.acquire)
    assert not waiting.done()
    hanging.release.set()
    assert (await waiting).space == "hanging/2"


def test_a_caller_that_gave_up_leaves_the_queue(hanging: Hanging) -> None:
    embedding = Embedding(hanging, timeout=SHORT, workers=1, clock=FakeClock())
    for text in ("a", "b", "c"):
        with pytest.raises(EmbedderTimeoutError):
            embedding.embed(text)
    hanging.release.set()
    _until(lambda: _can_embed(embedding, "d"))
    assert set(hanging.texts) == {"a", "d"}


async def test_a_cancelled_task_leaves_the_queue(hanging: Hanging) -> None:
    embedding = Embedding(hanging, timeout=30, workers=1)
    tasks = [asyncio.create_task(embedding.aembed(text)) for text in ("a", "b")]
    await asyncio.get_running_loop().run_in_executor(None, hanging.begun.acquire)
    tasks[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[1]
    hanging.release.set()
    await tasks[0]
    await embedding.aembed("c")
    assert hanging.calls == 2


async def test_the_queue_has_a_bound(hanging: Hanging) -> None:
    embedding = Embedding(hanging, timeout=30, workers=1)
    first = asyncio.create_task(embedding.aembed("first"))
    await asyncio.get_running_loop().run_in_executor(None, hanging.begun.acquire)
    others = [asyncio.create_task(embedding.aembed(f"text {number}")) for number in range(65)]
    done, _ = await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
    assert [str(task.exception()) for task in done] == ["too many calls wait for the embedder"]
    hanging.release.set()
    await asyncio.gather(first, *others[:64])


async def test_closing_ends_calls_that_wait_with_an_error_and_not_with_a_cancellation(hanging: Hanging) -> None:
    embedding = Embedding(hanging, timeout=30, workers=1)
    running = asyncio.create_task(embedding.aembed("a"))
    await asyncio.get_running_loop().run_in_executor(None, hanging.begun.acquire)
    waiting = asyncio.create_task(embedding.aembed("b"))
    await asyncio.sleep(0)
    embedding.close()
    with pytest.raises(EmbedderTimeoutError, match="closed"):
        await waiting
    hanging.release.set()
    assert (await running).space == "hanging/2"


def test_many_threads_share_few_workers() -> None:
    embedder = FakeEmbedder()
    embedding = Embedding(embedder, timeout=30, workers=2)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: embedding.embed(f"text {number % 50}"), range(400)))
    assert [one.vector for one in found] == [embedder.vector(f"text {number % 50}") for number in range(400)]


# ------------------------------------------------------------------------------------------ a slow embedder


def test_after_a_late_call_the_next_one_for_the_same_text_does_not_wait_again(hanging: Hanging) -> None:
    embedding = Embedding(hanging, timeout=SHORT, clock=FakeClock())
    _be_late(embedding, hanging, "a")
    with pytest.raises(EmbedderTimeoutError, match="still works on this text"):
        embedding.embed("a")
    assert hanging.texts == ["a"]


async def test_after_a_late_call_the_next_awaited_one_for_the_same_text_does_not_wait_again(hanging: Hanging) -> None:
    embedding = Embedding(hanging, timeout=SHORT, clock=FakeClock())
    _be_late(embedding, hanging, "a")
    with pytest.raises(EmbedderTimeoutError, match="still works on this text"):
        await embedding.aembed("a")
    assert hanging.texts == ["a"]


def test_callers_who_ask_for_the_same_text_at_the_same_time_share_one_call(hanging: Hanging) -> None:
    embedding = Embedding(hanging, timeout=30, memo_entries=0, clock=FakeClock())
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(embedding.embed, "a") for _ in range(4)]
        _until(lambda: _seats(embedding, "a") == 4)
        hanging.release.set()
        assert {one.result(60).space for one in asked} == {"hanging/2"}
    assert hanging.texts == ["a"]


async def test_tasks_and_threads_share_one_call(hanging: Hanging) -> None:
    embedding = Embedding(hanging, timeout=30, memo_entries=0, clock=FakeClock())
    asked = [asyncio.create_task(embedding.aembed("a")) for _ in range(3)]
    blocked = asyncio.get_running_loop().run_in_executor(None, embedding.embed, "a")
    await asyncio.to_thread(_until, lambda: _seats(embedding, "a") == 4)
    hanging.release.set()
    assert {one.space for one in await asyncio.gather(*asked, blocked)} == {"hanging/2"}
    assert hanging.texts == ["a"]


async def test_a_caller_who_gives_up_takes_nothing_from_those_who_share_the_call(hanging: Hanging) -> None:
    embedding = Embedding(hanging, timeout=30, workers=1, clock=FakeClock())
    running = asyncio.create_task(embedding.aembed("first"))
    await asyncio.to_thread(hanging.begun.acquire)
    # One shares the call that runs, two share one that still waits for the thread.
    tasks = [asyncio.create_task(embedding.aembed(text)) for text in ("first", "second", "second")]
    await asyncio.sleep(0)
    for gives_up in (running, tasks[1]):
        gives_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gives_up
    hanging.release.set()
    assert (await tasks[0]).space == (await tasks[2]).space == "hanging/2"
    assert hanging.texts == ["first", "second"]


def test_those_who_share_a_call_share_its_failure() -> None:
    embedder = Failing(RuntimeError("my secret"))
    embedding = Embedding(embedder, timeout=30, clock=FakeClock())
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(embedding.embed, "a") for _ in range(2)]
        _until(lambda: _seats(embedding, "a") == 2)
        embedder.release.set()
        for one in asked:
            with pytest.raises(EmbedderError, match=r"^the embedder raised RuntimeError$"):
                one.result(60)
    assert embedder.calls == 1


def test_a_failed_call_is_not_shared_afterwards() -> None:
    embedder = Failing(RuntimeError())
    embedder.release.set()
    embedding = Embedding(embedder, timeout=30)
    for calls in (1, 2, 3):
        with pytest.raises(EmbedderError):
            embedding.embed("a")
        assert embedder.calls == calls


def test_after_a_row_of_late_calls_the_embedder_rests_although_its_threads_are_free() -> None:
    clock, embedder = FakeClock(), Paced()
    embedding = Embedding(embedder, timeout=SHORT, clock=clock)
    _be_late_and_finish(embedding, embedder, "a")
    _be_late_and_finish(embedding, embedder, "b")
    assert embedding.overdue == 0
    with pytest.raises(EmbedderTimeoutError, match="left alone"):
        embedding.embed("c")
    clock.advance(9.9)
    with pytest.raises(EmbedderTimeoutError, match="left alone"):
        embedding.embed("d")
    assert embedder.texts == ["a", "b"]


def test_a_late_result_is_remembered_and_served_while_the_embedder_rests() -> None:
    embedder = Paced()
    embedding = Embedding(embedder, timeout=SHORT, clock=FakeClock())
    for text in ("a", "b"):
        _be_late_and_finish(embedding, embedder, text)
    assert embedding.embed("a") == embedding.embed("b")
    assert embedder.texts == ["a", "b"]


def test_after_a_rest_one_call_at_a_time_sees_whether_the_embedder_is_still_slow() -> None:
    clock, embedder = FakeClock(), Paced()
    embedding = Embedding(embedder, timeout=SHORT, clock=clock)
    for text in ("a", "b"):
        _be_late_and_finish(embedding, embedder, text)
    for text in ("c", "d"):
        clock.advance(10.0)
        _be_late(embedding, embedder, text)
        for _ in range(3):
            with pytest.raises(EmbedderTimeoutError, match="left alone"):
                embedding.embed("another")
        _finish(embedding, embedder, text)
    assert embedder.texts == ["a", "b", "c", "d"]


def test_while_a_probe_is_out_others_are_refused_and_its_return_ends_the_rest() -> None:
    clock, embedder = FakeClock(), Paced()
    embedding = Embedding(embedder, timeout=30.0, clock=clock)
    _tire(embedding)
    clock.advance(10.0)
    with ThreadPoolExecutor(1) as pool:
        probe = pool.submit(embedding.embed, "probe")
        assert embedder.begun.acquire(timeout=60)
        with pytest.raises(EmbedderTimeoutError, match="left alone"):
            embedding.embed("another")
        embedder.go.release(2)
        assert probe.result(60).space == "paced/2"
    assert embedding.embed("another").space == "paced/2"


async def test_a_probe_whose_task_is_cancelled_does_not_keep_the_embedder_at_rest() -> None:
    clock, embedder = FakeClock(), Paced()
    embedding = Embedding(embedder, timeout=30.0, workers=3, clock=clock)
    _tire(embedding)
    clock.advance(10.0)
    probe = asyncio.create_task(embedding.aembed("probe"))
    await asyncio.to_thread(embedder.begun.acquire)
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    with pytest.raises(EmbedderTimeoutError, match="left alone"):
        await embedding.aembed("another")
    clock.advance(40.0)
    embedder.go.release(2)
    assert (await embedding.aembed("another")).space == "paced/2"


def test_late_calls_between_timely_ones_cause_no_rest() -> None:
    embedder = Paced()
    embedding = Embedding(embedder, timeout=0.25, workers=1, clock=FakeClock())
    for number in range(2):
        _be_late_and_finish(embedding, embedder, f"late {number}")
        embedder.go.release()
        assert embedding.embed(f"timely {number}").space == "paced/2"
        assert embedder.begun.acquire(timeout=60)


# --------------------------------------------------------------------------------- exceptions beyond Exception


@pytest.mark.parametrize("seconds", [None, 30.0])
async def test_a_panic_becomes_an_embedder_error_that_does_not_quote_it(seconds: float | None) -> None:
    embedding = Embedding(FakeEmbedder(fail_with=PanicException("my secret")), timeout=seconds)
    for _ in range(3):  # More often than there are threads: they survive it.
        with pytest.raises(EmbedderError, match=r"^the embedder raised PanicException$"):
            embedding.embed("my secret")
        with pytest.raises(EmbedderError, match=r"^the embedder raised PanicException$"):
            await embedding.aembed("my secret")


@pytest.mark.parametrize("seconds", [None, 30.0])
async def test_a_panic_of_a_coroutine_becomes_an_embedder_error(seconds: float | None) -> None:
    async def panic() -> None:
        raise PanicException("my secret")

    with pytest.raises(EmbedderError, match=r"^the embedder raised PanicException$"):
        await Embedding(Awaited(panic), timeout=seconds).aembed("a")


@pytest.mark.parametrize("seconds", [None, 30.0])
def test_a_panic_over_the_fingerprint_becomes_an_embedder_error(seconds: float | None) -> None:
    class Unnamed(FakeEmbedder):
        @property
        def fingerprint(self) -> str:
            raise PanicException

    with pytest.raises(EmbedderError, match=r"^the embedder raised PanicException$"):
        Embedding(Unnamed(), timeout=seconds).embed("a")


@pytest.mark.parametrize("seconds", [None, 30.0])
@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_ends_a_program_passes_and_the_threads_survive_it(end: type[BaseException], seconds: float | None) -> None:
    embedder = FakeEmbedder(fail_with=end())
    embedding = Embedding(embedder, timeout=seconds, workers=1)
    for _ in range(2):
        with pytest.raises(end):
            embedding.embed("a")
    embedder.fail_with = None
    assert embedding.embed("a").vector == embedder.vector("a")


@pytest.mark.parametrize("seconds", [None, 30.0])
async def test_a_cancellation_inside_a_blocking_embedder_is_its_failure_and_not_the_callers(
    seconds: float | None,
) -> None:
    embedding = Embedding(FakeEmbedder(fail_with=asyncio.CancelledError()), timeout=seconds)
    with pytest.raises(EmbedderError, match="raised CancelledError"):
        await embedding.aembed("a")
    with pytest.raises(EmbedderError, match="raised CancelledError"):
        embedding.embed("a")


# ------------------------------------------------------------------------------------------ native coroutines


async def test_the_embedders_own_coroutine_is_preferred() -> None:
    embedder = Awaited(lambda: [[0.0, 2.0]])
    embedding = Embedding(embedder)
    assert (await embedding.aembed("a")).space == "awaited/2"
    assert (await embedding.aembed("b")).space == "awaited/2"
    assert (await embedding.aembed("a")).space == "awaited/2"
    assert embedder.calls == 2


async def test_a_coroutine_past_its_deadline_is_cancelled() -> None:
    embedder = Awaited(lambda: asyncio.sleep(3600))
    with pytest.raises(EmbedderTimeoutError):
        await Embedding(embedder, timeout=SHORT).aembed("a")
    assert embedder.cancelled == 1


async def test_a_caller_that_is_cancelled_cancels_the_coroutine() -> None:
    embedder = Awaited(lambda: asyncio.sleep(3600))
    task = asyncio.create_task(Embedding(embedder).aembed("a"))
    await embedder.called.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert embedder.cancelled == 1


async def test_after_a_row_of_late_coroutines_the_embedder_rests() -> None:
    clock = FakeClock()
    embedder = Awaited(lambda: [[1.0]])
    embedding = Embedding(embedder, timeout=SHORT, workers=2, clock=clock)
    await _first_vector(embedding, clock)
    embedder.calls, embedder.answer = 0, lambda: asyncio.sleep(3600)
    for text in ("a", "b"):
        with pytest.raises(EmbedderTimeoutError, match="within"):
            await embedding.aembed(text)
    with pytest.raises(EmbedderTimeoutError, match="left alone"):
        await embedding.aembed("c")
    assert embedder.calls == 2
    clock.advance(10.0)
    embedder.answer = lambda: [[1.0]]
    assert (await embedding.aembed("c")).space == "awaited/1"


async def test_late_coroutines_between_timely_ones_cause_no_rest() -> None:
    clock = FakeClock()
    embedder = Awaited(lambda: [[1.0]])
    embedding = Embedding(embedder, timeout=SHORT, workers=2, clock=clock)
    await _first_vector(embedding, clock)
    for number in range(3):
        embedder.answer = lambda: asyncio.sleep(3600)
        with pytest.raises(EmbedderTimeoutError, match="within"):
            await embedding.aembed(f"late {number}")
        embedder.answer = lambda: [[1.0]]
        assert (await embedding.aembed(f"timely {number}")).space == "awaited/1"


# ------------------------------------------------------------------------------------------------- processes


def test_a_hanging_embedder_does_not_keep_a_finished_program_alive() -> None:
    code = """
import threading
from aicache._errors import EmbedderTimeoutError
from aicache.embedders._embedding import Embedding

class Hanging:
    fingerprint = "hanging"
    def embed(self, texts):
        threading.Event().wait()

try:
    Embedding(Hanging(), timeout=0.05).embed("a")
except EmbedderTimeoutError:
    print("went on")
"""
    assert _python(code) == "went on"


@pytest.mark.skipif(sys.platform == "win32", reason="no fork there")
def test_a_forked_child_makes_its_own_threads() -> None:
    code = """
import os
from aicache.embedders._embedding import Embedding
from aicache.testing import FakeEmbedder

embedding = Embedding(FakeEmbedder(), timeout=30)
embedding.embed("before")
child = os.fork()
if child == 0:
    os._exit(0 if embedding.embed("after").space == "fake/128" else 1)
print(os.waitpid(child, 0)[1])
"""
    assert _python(code) == "0"


@pytest.mark.skipif(sys.platform == "win32", reason="no fork there")
def test_a_child_forked_while_a_lock_is_held_and_a_call_runs_does_not_wait_for_either() -> None:
    code = """
import os, signal, threading
from aicache._errors import EmbedderTimeoutError
from aicache.embedders._embedding import Embedding

class Hanging:
    fingerprint = "hanging"
    hangs = True
    def embed(self, texts):
        if self.hangs:
            begun.set()
            threading.Event().wait()
        return [[1.0, 0.0]]

def hold():
    with embedding._threads._shared.ready:
        held.set()
        threading.Event().wait()

begun, held = threading.Event(), threading.Event()
embedder = Hanging()
embedding = Embedding(embedder, timeout=30)
threading.Thread(target=embedding.embed, args=["a"], daemon=True).start()
begun.wait()
threading.Thread(target=hold, daemon=True).start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(20)  # A deadlock ends here.
    embedder.hangs = False
    if embedding.overdue:
        os._exit(2)
    if embedding.embed("a").space != "hanging/2":
        os._exit(3)
    grandchild = os.fork()
    if grandchild == 0:
        signal.alarm(20)
        os._exit(0 if embedding.embed("b").space == "hanging/2" else 4)
    status = os.waitpid(grandchild, 0)[1]
    embedding.close()
    os._exit(0 if status == 0 else 5)
print(os.waitpid(child, 0)[1], flush=True)
os._exit(0)
"""
    assert _python(code) == "0"


@pytest.mark.skipif(sys.platform == "win32", reason="no fork there")
def test_a_child_of_a_closed_one_finds_it_closed() -> None:
    code = """
import os
from aicache._errors import EmbedderTimeoutError
from aicache.embedders._embedding import Embedding
from aicache.testing import FakeEmbedder

embedding = Embedding(FakeEmbedder(), timeout=30)
embedding.close()
child = os.fork()
if child == 0:
    try:
        embedding.embed("a")
    except EmbedderTimeoutError:
        os._exit(0)
    os._exit(1)
print(os.waitpid(child, 0)[1])
"""
    assert _python(code) == "0"


def test_what_is_registered_for_forks_does_not_keep_an_embedding_alive() -> None:
    embedding = Embedding(FakeEmbedder())
    alive = weakref.ref(embedding._threads)
    del embedding
    gc.collect()
    assert alive() is None


# ---------------------------------------------------------------------------------------------- construction


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("inf")}, "timeout"),
        ({"workers": 0}, "workers"),
        ({"memo_entries": -1}, "memo_entries"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name}: "):
        Embedding(FakeEmbedder(), **options)


def test_without_numpy_the_extra_is_named_at_construction() -> None:
    code = """
import sys
sys.modules["numpy"] = None
from aicache._errors import MissingExtraError
from aicache.embedders._embedding import Embedding
from aicache.testing import FakeEmbedder
try:
    Embedding(FakeEmbedder())
except MissingExtraError as error:
    print(error.extra)
"""
    assert _python(code) == "onnx"
    assert issubclass(MissingExtraError, ImportError)


# --------------------------------------------------------------------------------------------------- helpers


def _until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread is about to do; fails after a minute."""
    pause = threading.Event()
    for _ in range(60_000):
        if condition():
            return
        pause.wait(0.001)
    pytest.fail("it did not happen within a minute")


def _seats(embedding: Embedding, text: str) -> int:
    """How many callers share the call for this text."""
    call = embedding._threads._shared.flights.get(text)
    return 0 if call is None else len(call.seats)


def _be_late(embedding: Embedding, embedder: Hanging | Paced, text: str) -> None:
    """Ask for a text until the embedder has begun with it and the deadline has passed."""
    for _ in range(1000):  # A thread may take longer to start than the deadline is long.
        with pytest.raises(EmbedderTimeoutError, match="within"):
            embedding.embed(text)
        if embedder.begun.acquire(blocking=False):
            return
    pytest.fail("the embedder never began")


def _tire(embedding: Embedding) -> None:
    """Have the embedder rest, without waiting for late calls."""
    for _ in range(2):
        embedding._threads.report(late=True)


def _finish(embedding: Embedding, embedder: Paced, text: str) -> None:
    embedder.go.release()
    _until(lambda: _seats(embedding, text) == 0 and text not in embedding._threads._shared.flights)


def _be_late_and_finish(embedding: Embedding, embedder: Paced, text: str) -> None:
    _be_late(embedding, embedder, text)
    _finish(embedding, embedder, text)


def _can_embed(embedding: Embedding, text: str) -> bool:
    try:
        embedding.embed(text)
    except EmbedderTimeoutError:
        return False
    return True


async def _first_vector(embedding: Embedding, clock: FakeClock) -> None:
    """Have the first vector made; it passes through a thread, which may take longer than a short deadline."""
    for _ in range(1000):
        try:
            await embedding.aembed("first")
        except EmbedderTimeoutError:
            clock.advance(10.0)
        else:
            return
    pytest.fail("no vector")


def _python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("immediate", [True, False])
def test_an_embedder_that_only_computes_is_called_where_the_caller_stands(immediate: bool) -> None:
    threads: list[threading.Thread] = []

    class Noting(FakeEmbedder):
        def embed(self, texts: Sequence[str]) -> list[list[float]]:
            threads.append(threading.current_thread())
            return super().embed(texts)

    embedder = Noting()
    embedder.immediate = immediate  # type: ignore[attr-defined]
    Embedding(embedder, timeout=30.0).embed("a")
    assert (threads == [threading.current_thread()]) is immediate

"""The two drivers: they carry out the steps of a plan, one blocking, one awaiting.

This is the only place where an exception of a store or an embedder is caught: it becomes `StepFailed`, is reported
once, and is thrown into the plan. Cancellation passes through; the plan is closed whatever happens. It is also where
breakers, deadlines and the keeping of unwritten updates apply, to every step that leaves the process's memory and to
no other: a hit in L1 meets none of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, TypeAlias, TypeVar, assert_never

from aicache._breaker import Breaker, Call
from aicache._clock import Clock, SystemClock
from aicache._deadline import Deadline
from aicache._errors import (
    CONTROL,
    EmbedderTimeoutError,
    QueryTooLongError,
    StoreTimeoutError,
    UnavailableError,
    UnknownWordsError,
    UnreadableEntryError,
    UnwritableEntryError,
)
from aicache._model import ExactOnly, MissReason
from aicache._pending import PendingUpdate
from aicache._replay import Replay
from aicache._steps import (
    AnyStep,
    CheckEpoch,
    Clear,
    Embed,
    Embedded,
    Fetch,
    Forget,
    Mark,
    Nearest,
    Plan,
    Promote,
    Recall,
    Remove,
    StepFailed,
    Sweep,
    Touch,
    Write,
)
from aicache._workers import Workers
from aicache.stores.base import AsyncStore, Store
from aicache.stores.l1 import L1Cache

__all__ = ["Embedding", "Ports", "run", "run_async"]

R = TypeVar("R")

MemoryStep: TypeAlias = Recall | Mark | Promote | Forget
StoreStep: TypeAlias = CheckEpoch | Fetch | Nearest | Write | Touch | Remove | Clear | Sweep

_IN_MEMORY: Final = (Recall, Mark, Promote, Forget)
_READS: Final = (Fetch, Nearest)
"""Steps that leave nothing to do before or after in this process's memory."""
_SHORT: Final = (Fetch, CheckEpoch, Touch, Remove)
"""On a store that does not block these take less than a change of thread. `Nearest` and `Write` work on an index, which
may take milliseconds (and import numpy the first time)."""


_NO_DEADLINE: Final = Deadline(SystemClock(), None)
"""It never changes, so that all may share it."""


class Embedding(Protocol):
    """Text to vector with memo, validation and deadline: `aicache.embedders`."""

    def recall(self, text: str, /) -> Embedded | None:
        """The vector if it is remembered; never asks the embedder."""

    def embed(self, text: str, /) -> Embedded:
        """The vector of the text, and its space."""

    async def aembed(self, text: str, /) -> Embedded:
        """The same without blocking the loop."""

    def close(self) -> None:
        """Release threads."""


@dataclass(frozen=True, slots=True)
class Ports:
    """What the steps act on, and what watches over it."""

    store: Store
    native: AsyncStore | None
    """The store's other half, where it has one: async callers use it without a thread."""
    bounded: bool
    """False: the store's calls may take for ever, so that one with a deadline needs a thread."""
    l1: L1Cache | None
    embedding: Embedding | None
    workers: Workers
    clock: Clock
    store_breaker: Breaker
    embed_breaker: Breaker
    replay: Replay
    report: Callable[[AnyStep, StepFailed, BaseException], None]
    """Called for every failed step: counts it, and logs each kind once."""


def run(plan: Plan[R], ports: Ports, seconds: float | None = None) -> R:
    """Carry out a plan, blocking. Its store calls may take so many seconds together.

    Raises:
        StepFailed: a step failed and the plan could not go on without it.
    """
    deadline: Deadline | None = None
    try:
        step = next(plan)
        while True:
            try:
                if isinstance(step, _IN_MEMORY):
                    result = _in_memory(step, ports.l1)
                else:
                    deadline = deadline or (Deadline(ports.clock, seconds) if seconds else _NO_DEADLINE)
                    result = _perform(step, ports, deadline)
            except CONTROL:
                if isinstance(step, Write):
                    ports.replay.pending.ended(step.entry)
                raise
            except BaseException as error:  # noqa: BLE001 - the boundary: any fault of a port becomes a reason
                step = plan.throw(_failure(step, error, ports))
            else:
                step = plan.send(result)
    except StopIteration as stop:
        returned: R = stop.value
        return returned
    finally:
        plan.close()


async def run_async(plan: Plan[R], ports: Ports, seconds: float | None = None) -> R:
    """Carry out a plan without blocking the event loop. `seconds` as for `run`.

    Raises:
        StepFailed: a step failed and the plan could not go on without it.
    """
    deadline: Deadline | None = None
    try:
        step = next(plan)
        while True:
            try:
                if isinstance(step, _IN_MEMORY):
                    result = _in_memory(step, ports.l1)
                else:
                    deadline = deadline or (Deadline(ports.clock, seconds) if seconds else _NO_DEADLINE)
                    result = await _perform_async(step, ports, deadline)
            except CONTROL:
                if isinstance(step, Write):
                    ports.replay.pending.ended(step.entry)
                raise
            except BaseException as error:  # noqa: BLE001 - the boundary: any fault of a port becomes a reason
                step = plan.throw(_failure(step, error, ports))
            else:
                step = plan.send(result)
    except StopIteration as stop:
        returned: R = stop.value
        return returned
    finally:
        plan.close()


# ------------------------------------------------------------------------------------------- one step


def _in_memory(step: MemoryStep, l1: L1Cache | None) -> Any:
    if l1 is None:
        return None
    if isinstance(step, Recall):  # First and without a pattern: all that a hit in L1 asks for.
        return l1.get(step.key)
    match step:
        case Mark():
            return l1.mark
        case Promote(entry, since):
            return l1.put(entry, since=since)
        case Forget(key):
            return l1.discard(key)
        case _:
            assert_never(step)


def _perform(step: Embed | StoreStep, ports: Ports, deadline: Deadline) -> Any:
    if isinstance(step, Embed):
        embedding = _require(ports.embedding)
        if (known := embedding.recall(step.text)) is not None:
            return known
        ports.store_breaker.check()
        with deadline.paused(), ports.embed_breaker.enter():
            return embedding.embed(step.text)
    overtakes = not isinstance(step, _READS) and _before(step, ports)
    with ports.store_breaker.enter(deadline.remaining()):
        if deadline.endless:
            result = _ask(step, ports)
        elif ports.bounded:
            result = deadline.call(partial(_ask, step, ports))
        else:
            result = deadline.call_in_thread(partial(_ask, step, ports), ports.workers.executor())
    if ports.replay.pending.waiting:
        ports.replay.wake()
    return result if isinstance(step, _READS) else _after(step, result, ports, overtakes=overtakes)


async def _perform_async(step: Embed | StoreStep, ports: Ports, deadline: Deadline) -> Any:
    """As `_perform`, with what may wait moved off the loop."""
    if isinstance(step, Embed):
        embedding = _require(ports.embedding)
        if (known := embedding.recall(step.text)) is not None:
            return known
        ports.store_breaker.check()
        with deadline.paused(), ports.embed_breaker.enter():
            return await embedding.aembed(step.text)
    overtakes = not isinstance(step, _READS) and _before(step, ports)
    call = ports.store_breaker.enter(deadline.remaining())
    if ports.native is not None:
        with call:
            result = await deadline.wait(_ask_natively(step, ports.native, ports.l1))
    elif isinstance(step, _SHORT) and not ports.store.blocking:
        with call:
            result = _ask(step, ports)
    else:
        result = await _ask_in_worker(step, ports, call, deadline)
    if ports.replay.pending.waiting:
        ports.replay.wake_on_loop()
    return result if isinstance(step, _READS) else _after(step, result, ports, overtakes=overtakes)


async def _ask_in_worker(step: StoreStep, ports: Ports, call: Call, deadline: Deadline) -> Any:
    """The call reports from its thread; it is this task that knows when nobody waits for it any longer."""

    def ask() -> Any:
        call.confirm()  # It may have waited for a thread behind the very calls that opened the breaker.
        with call:
            return deadline.call(partial(_ask, step, ports))

    future: Future[Any] = ports.workers.executor().submit(ask)
    try:
        return await deadline.wait(asyncio.wrap_future(future))
    except StoreTimeoutError as error:
        # One that never began waited for a thread, which is not the store's fault.
        if future.cancel():
            call.abandoned()
        else:
            call.failed(error)
        raise
    except asyncio.CancelledError:
        if future.cancel():
            call.abandoned()
        raise


def _ask(step: StoreStep, ports: Ports) -> Any:
    store = ports.store
    match step:
        case Fetch(key):
            return store.fetch(key)
        case Nearest(partition, space, vector, k):
            return store.nearest(partition, space, vector, k)
        case Write(entry):
            return store.write(entry)
        case CheckEpoch():
            return store.epoch()
        case Touch(key, expires):
            return store.touch(key, expires)
        case Remove(keys):
            try:
                return store.remove(keys)
            finally:
                _forget_in_l1(step, ports.l1)
        case Clear(selection):
            try:
                return store.clear(selection)
            finally:
                _forget_in_l1(step, ports.l1)
        case Sweep(now, limit):
            return store.sweep(now, limit)
        case _:
            assert_never(step)


async def _ask_natively(step: StoreStep, store: AsyncStore, l1: L1Cache | None) -> Any:
    match step:
        case Fetch(key):
            return await store.afetch(key)
        case Nearest(partition, space, vector, k):
            return await store.anearest(partition, space, vector, k)
        case Write(entry):
            return await store.awrite(entry)
        case CheckEpoch():
            return await store.aepoch()
        case Touch(key, expires):
            return await store.atouch(key, expires)
        case Remove(keys):
            try:
                return await store.aremove(keys)
            finally:
                _forget_in_l1(step, l1)
        case Clear(selection):
            try:
                return await store.aclear(selection)
            finally:
                _forget_in_l1(step, l1)
        case Sweep(now, limit):
            return await store.asweep(now, limit)
        case _:
            assert_never(step)


def _before(step: StoreStep, ports: Ports) -> bool:
    """The part of a step that concerns this process's memory: it happens whatever becomes of the store.

    True when the entry overtakes an older one that is being replayed at this moment.
    """
    pending = ports.replay.pending
    match step:
        case Write(entry):
            return pending.supersede(entry)
        case Touch(key, expires) if ports.l1 is not None:
            ports.l1.touch(key, expires)
        case Remove(keys):
            pending.forget(keys)
            _forget_in_l1(step, ports.l1)
        case Clear(selection):
            pending.clear(selection)
            _forget_in_l1(step, ports.l1)
        case _:
            pass
    return False


def _forget_in_l1(step: Remove | Clear, l1: L1Cache | None) -> None:
    """Done first, for the store may be left alone, and again last, whatever it answered.

    A lookup that read the store just before it forgot the entry cannot bring it back then.
    """
    if l1 is None:
        return
    if isinstance(step, Clear):
        l1.clear(step.selection)
    else:
        for key in step.keys:
            l1.discard(key)


def _after(step: StoreStep, result: Any, ports: Ports, *, overtakes: bool) -> Any:
    """What this process's memory learns from a step that succeeded."""
    if isinstance(step, Write):
        ports.replay.pending.ended(step.entry)
        if overtakes:
            ports.replay.pending.add(PendingUpdate(step.entry))
    if isinstance(step, CheckEpoch):
        return ports.l1.observe(result) if ports.l1 is not None else None
    return result


# ------------------------------------------------------------------------------------------- failures


def _require(embedding: Embedding | None) -> Embedding:
    if embedding is None:
        raise RuntimeError("a plan asked for an embedding although the cache has no embedder")
    return embedding


def _failure(step: AnyStep, error: BaseException, ports: Ports) -> StepFailed:
    """The failed step as a miss reason. The detail names types only: foreign texts may quote a prompt."""
    failed = StepFailed(*_reason(step, error))
    failed.__cause__ = error
    if isinstance(step, Write):
        if isinstance(error, UnwritableEntryError):
            ports.replay.pending.ended(step.entry)
        else:
            ports.replay.pending.add_failed(PendingUpdate(step.entry, step.wants_vector))
    ports.report(step, failed, error)
    return failed


def _reason(step: AnyStep, error: BaseException) -> tuple[MissReason, str]:
    kind = type(error).__name__
    match error:
        case QueryTooLongError():
            return MissReason.EXACT_ONLY, ExactOnly.TOO_LONG
        case UnknownWordsError():
            return MissReason.EXACT_ONLY, ExactOnly.UNKNOWN_WORDS
        case UnavailableError():
            return MissReason.UNAVAILABLE, f"{error.part}: {error.why}"
        case EmbedderTimeoutError():
            return MissReason.EMBEDDER_SLOW, kind
        case UnreadableEntryError():
            return MissReason.UNREADABLE, kind
        case _ if isinstance(step, Embed):
            return MissReason.EMBEDDER_FAILED, kind
        case _:
            return MissReason.STORE_FAILED, f"{type(step).__name__}: {kind}"

"""The two drivers: they carry out the steps of a plan, one blocking, one awaiting.

This is the only place where an exception of a store, an embedder or a verifier is caught: it becomes `StepFailed`, is
reported once, and is thrown into the plan. Cancellation passes through; the plan is closed whatever happens. It is also
where breakers, deadlines and the keeping of unwritten updates apply, to every step that leaves the process's memory and
to no other: a hit in L1 meets none of them.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from operator import mul
from typing import Any, Final, Protocol, TypeVar, assert_never

from aicache._asking import ask, ask_natively, forget_in_l1
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
    VerifierTimeoutError,
    WrongKeyError,
)
from aicache._model import Entry, ExactOnly, Listed, MissReason, Opinion, Selection, Vector
from aicache._pending import PendingUpdate, PendingUpdates
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
    MemoryStep,
    Nearest,
    Plan,
    Promote,
    Recall,
    Remove,
    Similar,
    StepFailed,
    StoreStep,
    Together,
    Touch,
    Verify,
    Write,
)
from aicache._workers import Workers
from aicache.stores.base import AsyncStore, Store
from aicache.stores.l1 import L1Cache, L1Circle

__all__ = ["Embedding", "Ports", "Verification", "run", "run_async"]

P = TypeVar("P")
R = TypeVar("R")

_IN_MEMORY: Final = (Recall, Mark, Promote, Forget)
_READS: Final = (Fetch, Nearest, Together)
"""Steps of a lookup: nothing of this process's memory hangs on them but L1, which may learn the epoch by them."""
_SHORT: Final = (Fetch, CheckEpoch, Touch, Remove)
"""On a store that does not block these take less than a change of thread. `Nearest` and `Write` work on an index, which
may take milliseconds (and import numpy the first time)."""


@dataclass(frozen=True, slots=True)
class _Before:
    """What was true just before the store was asked."""

    unwritten: Sequence[Entry] = ()
    """Entries of a selection on their way to the store."""


_NOTHING_BEFORE: Final = _Before()
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


class Verification(Protocol):
    """Two questions to a yes or no, with memo, validation and deadline: `aicache.verifiers`."""

    def recall(self, asked: str, stored: str, /) -> Opinion | None:
        """The opinion if it is remembered; never asks the verifier."""

    def verify(self, asked: str, stored: str, /) -> Opinion:
        """Whether the answer to the stored question answers the asked one."""

    async def averify(self, asked: str, stored: str, /) -> Opinion:
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
    heard: Callable[[], int | None] | None
    """The epoch if the store's last reply brought it along; None for a store that has no such thing."""
    l1: L1Cache | None
    circle: L1Circle
    """It, and those of other caches in front of the same store."""
    embedding: Embedding | None
    verification: Verification | None
    workers: Workers
    clock: Clock
    store_breaker: Breaker
    embed_breaker: Breaker
    verify_breaker: Breaker
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
                    result = _in_memory(step, ports)
                else:
                    deadline = deadline or (Deadline(ports.clock, seconds) if seconds else _NO_DEADLINE)
                    result = _perform(step, ports, deadline)
            except CONTROL:
                if isinstance(step, Write):
                    ports.replay.pending.left(step.entry)
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
                    result = _in_memory(step, ports)
                else:
                    deadline = deadline or (Deadline(ports.clock, seconds) if seconds else _NO_DEADLINE)
                    result = await _perform_async(step, ports, deadline)
            except CONTROL:
                if isinstance(step, Write):
                    ports.replay.pending.left(step.entry)
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


def _in_memory(step: MemoryStep, ports: Ports) -> Any:
    l1 = ports.l1
    if l1 is None:
        return ports.circle.forget(step.what) if isinstance(step, Forget) else None
    if isinstance(step, Recall):  # First and without a pattern: all that a hit in L1 asks for.
        return l1.get(step.key)
    match step:
        case Mark():
            return l1.mark
        case Promote(entry, since):
            return l1.put(entry, since=since)
        case Forget(what):
            # A selection is unwanted everywhere; one entry has expired, which the others see for themselves.
            return ports.circle.forget(what) if isinstance(what, Selection) else l1.discard(what)
        case _:
            assert_never(step)


def _perform(step: Embed | Verify | StoreStep, ports: Ports, deadline: Deadline) -> Any:
    if isinstance(step, Embed):
        embedding = _require(ports.embedding)
        if (known := embedding.recall(step.text)) is not None:
            return known
        ports.store_breaker.check()
        with deadline.paused(), ports.embed_breaker.enter():
            return embedding.embed(step.text)
    if isinstance(step, Verify):
        verification = _require(ports.verification)
        if (opinion := verification.recall(step.asked, step.stored)) is not None:
            return opinion
        with deadline.paused(), ports.verify_breaker.enter():
            return verification.verify(step.asked, step.stored)
    before = None if isinstance(step, _READS) else _before(step, ports)
    with ports.store_breaker.enter(deadline.remaining()):
        if deadline.endless:
            result = _ask(step, ports)
        elif ports.bounded:
            result = deadline.call(partial(_ask, step, ports))
        else:
            result = deadline.call_in_thread(partial(_ask, step, ports), ports.workers.executor())
    if ports.replay.unfinished:
        ports.replay.wake()
    return _after(step, result, ports, before)


async def _perform_async(step: Embed | Verify | StoreStep, ports: Ports, deadline: Deadline) -> Any:
    """As `_perform`, with what may wait moved off the loop."""
    if isinstance(step, Embed):
        embedding = _require(ports.embedding)
        if (known := embedding.recall(step.text)) is not None:
            return known
        ports.store_breaker.check()
        with deadline.paused(), ports.embed_breaker.enter():
            return await embedding.aembed(step.text)
    if isinstance(step, Verify):
        verification = _require(ports.verification)
        if (opinion := verification.recall(step.asked, step.stored)) is not None:
            return opinion
        with deadline.paused(), ports.verify_breaker.enter():
            return await verification.averify(step.asked, step.stored)
    before = None if isinstance(step, _READS) else _before(step, ports)
    call = ports.store_breaker.enter(deadline.remaining())
    if ports.native is not None:
        with call:
            result = await deadline.wait(_ask_natively(step, ports, ports.native))
    elif isinstance(step, _SHORT) and not ports.store.blocking:
        with call:
            result = _ask(step, ports)
    else:
        result = await _ask_in_worker(step, ports, call, deadline)
    if ports.replay.unfinished:
        ports.replay.wake_on_loop()
    return _after(step, result, ports, before)


async def _ask_in_worker(step: StoreStep, ports: Ports, call: Call, deadline: Deadline) -> Any:
    """The call reports from its thread; it is this task that knows when nobody waits for it any longer."""

    def act() -> Any:
        call.confirm()  # It may have waited for a thread behind the very calls that opened the breaker.
        with call:
            return deadline.call(partial(_ask, step, ports))

    try:
        future: Future[Any] = ports.workers.executor().submit(act)
    except BaseException:
        call.abandoned()
        raise
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
    """Ask the store. This ends when its call does, however long ago the caller ceased to wait for it."""
    if not isinstance(step, Write):
        return ask(step, ports.store, ports.circle)
    with _UnderWay(step.entry, ports.replay.pending, ports.replay.wake):
        return ask(step, ports.store, ports.circle)


async def _ask_natively(step: StoreStep, ports: Ports, native: AsyncStore) -> Any:
    """The same of the store's async half."""
    if not isinstance(step, Write):
        return await ask_natively(step, native, ports.circle)
    with _UnderWay(step.entry, ports.replay.pending, ports.replay.wake_on_loop):
        return await ask_natively(step, native, ports.circle)


class _UnderWay:
    """A write that the store is asked for in the block. What was cleared or overtaken meanwhile is put right after it.

    Raises:
        asyncio.CancelledError: at the beginning, if nobody waits for it any longer.
    """

    __slots__ = ("_entry", "_pending", "_wake")

    def __init__(self, entry: Entry, pending: PendingUpdates, wake: Callable[[], None]) -> None:
        self._entry = entry
        self._pending = pending
        self._wake = wake

    def __enter__(self) -> None:
        if not self._pending.begins(self._entry):
            raise asyncio.CancelledError

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        due = self._pending.ended(self._entry) if kind is None else self._pending.stopped(self._entry)
        # A coroutine that is thrown away has no loop any more.
        if due and kind is not GeneratorExit:
            self._wake()


def _before(step: StoreStep, ports: Ports) -> _Before:
    """The part of a step that concerns this process's memory: it happens whatever becomes of the store."""
    pending = ports.replay.pending
    match step:
        case Write(entry, wants_vector):
            pending.supersede(entry, wants_vector=wants_vector)
        case Touch(key, expires) if ports.l1 is not None:
            ports.l1.touch(key, expires)
        case Remove(keys) if not step.dry_run:
            pending.forget(keys)
            forget_in_l1(step, ports.circle)
        case Clear(selection) if not step.dry_run:
            pending.clear(selection)
            forget_in_l1(step, ports.circle)
        case Similar(selection):
            return _Before(unwritten=pending.entries(selection))
        case _:
            pass
    return _NOTHING_BEFORE


def _after(step: StoreStep, result: Any, ports: Ports, before: _Before | None) -> Any:
    """What this process's memory learns from a step that succeeded."""
    if isinstance(step, _READS):
        if ports.heard is not None and ports.l1 is not None and (epoch := ports.heard()) is not None:
            ports.l1.observe(epoch)
        if isinstance(step, Together):
            return [
                _failure(read, reply, ports) if isinstance(reply, BaseException) else reply
                for read, reply in zip(step.reads, result, strict=True)
            ]
        return result
    if isinstance(step, CheckEpoch):
        return ports.l1.observe(result) if ports.l1 is not None else None
    if isinstance(step, Similar):
        return _with_unwritten(step, result, before.unwritten if before is not None else ())
    return result


def _with_unwritten(step: Similar, listed: Sequence[Listed], unwritten: Sequence[Entry]) -> Sequence[Listed]:
    """What the store found, and what was on its way to it when it was asked."""
    known = {one.key.digest for one in listed}
    waiting = [
        Listed(entry.key, entry.query, score, entry.created)
        for entry in unwritten
        if entry.key.digest not in known
        and entry.space == step.space
        and entry.vector is not None
        and (score := _cosine(entry.vector, step.vector)) >= step.min_score
    ]
    return sorted((*listed, *waiting), key=lambda one: -one.score) if waiting else listed


def _cosine(one: Vector, other: Vector) -> float:
    """Of two unit vectors of one space."""
    form = f"<{len(one) // 4}f"
    total: float = sum(map(mul, struct.unpack(form, one), struct.unpack(form, other)))
    return total


# ------------------------------------------------------------------------------------------- failures


def _require(part: P | None) -> P:
    if part is None:
        raise RuntimeError("a plan asked for an embedder or a verifier that the cache does not have")
    return part


def _failure(step: AnyStep, error: BaseException, ports: Ports) -> StepFailed:
    """The failed step as a miss reason. The detail names types only: foreign texts may quote a prompt."""
    failed = StepFailed(*_reason(step, error))
    failed.__cause__ = error
    if isinstance(step, Write):
        if isinstance(error, UnwritableEntryError):
            ports.replay.pending.left(step.entry)
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
        case VerifierTimeoutError():
            return MissReason.VERIFIER_SLOW, kind
        case WrongKeyError():
            return MissReason.WRONG_KEY, kind
        case UnreadableEntryError():
            return MissReason.UNREADABLE, kind
        case _ if isinstance(step, Embed):
            return MissReason.EMBEDDER_FAILED, kind
        case _ if isinstance(step, Verify):
            return MissReason.VERIFIER_FAILED, kind
        case _:
            return MissReason.STORE_FAILED, f"{type(step).__name__}: {kind}"

"""The two drivers: they carry out the steps of a plan, one blocking, one awaiting.

This is the only place where an exception of a store or an embedder is caught: it becomes `StepFailed`, is reported
once, and is thrown into the plan. Cancellation passes through; the plan is closed whatever happens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, assert_never

from aicache._errors import EmbedderTimeoutError, QueryTooLongError, UnknownWordsError, UnreadableEntryError
from aicache._model import ExactOnly, MissReason
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
from aicache.stores.base import Store
from aicache.stores.l1 import L1Cache

__all__ = ["Embedding", "Ports", "run", "run_async"]

R = TypeVar("R")


class Embedding(Protocol):
    """Text to vector with memo, validation and deadline: `aicache.embedders`."""

    def embed(self, text: str, /) -> Embedded:
        """The vector of the text, and its space."""

    async def aembed(self, text: str, /) -> Embedded:
        """The same without blocking the loop."""

    def close(self) -> None:
        """Release threads."""


@dataclass(frozen=True, slots=True)
class Ports:
    """What the steps act on."""

    store: Store
    l1: L1Cache | None
    embedding: Embedding | None
    workers: Workers
    report: Callable[[AnyStep, StepFailed, Exception], None]
    """Called for every failed step: counts it, and logs each kind once."""


def run(plan: Plan[R], ports: Ports) -> R:
    """Carry out a plan, blocking.

    Raises:
        StepFailed: a step failed and the plan could not go on without it.
    """
    try:
        step = next(plan)
        while True:
            try:
                result = _perform(step, ports)
            except Exception as error:  # noqa: BLE001 - the boundary: any fault of a port becomes a reason
                step = plan.throw(_failure(step, error, ports))
            else:
                step = plan.send(result)
    except StopIteration as stop:
        returned: R = stop.value
        return returned
    finally:
        plan.close()


async def run_async(plan: Plan[R], ports: Ports) -> R:
    """Carry out a plan without blocking the event loop.

    Raises:
        StepFailed: a step failed and the plan could not go on without it.
    """
    try:
        step = next(plan)
        while True:
            try:
                result = await _perform_async(step, ports)
            except Exception as error:  # noqa: BLE001 - the boundary: any fault of a port becomes a reason
                step = plan.throw(_failure(step, error, ports))
            else:
                step = plan.send(result)
    except StopIteration as stop:
        returned: R = stop.value
        return returned
    finally:
        plan.close()


def _perform(step: AnyStep, ports: Ports) -> Any:  # noqa: PLR0912 - one flat case a step
    l1, store = ports.l1, ports.store
    match step:
        case Recall(key):
            return l1.get(key) if l1 is not None else None
        case Fetch(key):
            return store.fetch(key)
        case Embed(text):
            return _require(ports.embedding).embed(text)
        case Nearest(partition, space, vector, k):
            return store.nearest(partition, space, vector, k)
        case Mark():
            return l1.mark if l1 is not None else None
        case Promote(entry, since):
            return l1.put(entry, since=since) if l1 is not None else None
        case Write(entry):
            return store.write(entry)
        case Forget(key):
            return l1.discard(key) if l1 is not None else None
        case CheckEpoch():
            return l1.observe(store.epoch()) if l1 is not None else None
        case Touch(key, expires):
            if l1 is not None:
                l1.touch(key, expires)
            return store.touch(key, expires)
        # L1 last, and whatever the store does: a lookup that read the store just before cannot bring the entry back.
        case Remove(keys):
            try:
                return store.remove(keys)
            finally:
                if l1 is not None:
                    for key in keys:
                        l1.discard(key)
        case Clear(selection):
            try:
                return store.clear(selection)
            finally:
                if l1 is not None:
                    l1.clear(selection)
        case Sweep(now, limit):
            return store.sweep(now, limit)
        case _:
            assert_never(step)


async def _perform_async(step: AnyStep, ports: Ports) -> Any:
    """As `_perform`, with what may wait moved off the loop.

    Memory steps stay: a thread costs more than they do. `Nearest` and `Write` go to a worker even for a store in
    memory, for they work on an index that may take milliseconds (and import numpy the first time).
    """
    match step:
        case Embed(text):
            return await _require(ports.embedding).aembed(text)
        case Recall() | Mark() | Promote() | Forget():
            return _perform(step, ports)
        case Fetch() | CheckEpoch() | Touch() | Remove() if not ports.store.blocking:
            return _perform(step, ports)
        case _:
            return await asyncio.get_running_loop().run_in_executor(ports.workers.executor(), _perform, step, ports)


def _require(embedding: Embedding | None) -> Embedding:
    if embedding is None:
        raise RuntimeError("a plan asked for an embedding although the cache has no embedder")
    return embedding


def _failure(step: AnyStep, error: Exception, ports: Ports) -> StepFailed:
    """The failed step as a miss reason. The detail names types only: foreign texts may quote a prompt."""
    failed = StepFailed(*_reason(step, error))
    failed.__cause__ = error
    ports.report(step, failed, error)
    return failed


def _reason(step: AnyStep, error: Exception) -> tuple[MissReason, str]:
    kind = type(error).__name__
    match error:
        case QueryTooLongError():
            return MissReason.EXACT_ONLY, ExactOnly.TOO_LONG
        case UnknownWordsError():
            return MissReason.EXACT_ONLY, ExactOnly.UNKNOWN_WORDS
        case EmbedderTimeoutError():
            return MissReason.EMBEDDER_SLOW, kind
        case UnreadableEntryError():
            return MissReason.UNREADABLE, kind
        case _ if isinstance(step, Embed):
            return MissReason.EMBEDDER_FAILED, kind
        case _:
            return MissReason.STORE_FAILED, f"{type(step).__name__}: {kind}"

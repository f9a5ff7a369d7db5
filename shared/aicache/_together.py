"""Several plans side by side: their reads of the store are asked together, and so in one round trip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from aicache._steps import AnyStep, Fetch, Nearest, Plan, StepFailed, Together

__all__ = ["together"]

R = TypeVar("R")


def together(plans: Sequence[Plan[R]]) -> Plan[list[R]]:
    """The results of all plans, in their order. Each does what it would do alone.

    Plans go on one after the other as long as they ask for anything but a read of the store; when all that have not
    ended wait for one, the reads are asked together.
    """
    results: dict[int, R] = {}
    try:
        waiting: dict[int, Fetch | Nearest] = {}
        for place, plan in enumerate(plans):
            yield from _advance(place, plan, None, waiting, results)
        while waiting:
            reads, waiting = waiting, {}
            replies = yield from _read(tuple(reads.values()))
            for place, reply in zip(reads, replies, strict=True):
                yield from _advance(place, plans[place], reply, waiting, results)
    finally:
        for plan in plans:
            plan.close()
    return [results[place] for place in range(len(plans))]


def _read(reads: tuple[Fetch | Nearest, ...]) -> Plan[Sequence[object]]:
    """The replies, or for each what they failed with together."""
    try:
        return (yield from Together(reads))
    except StepFailed as failed:
        return [failed] * len(reads)


def _advance(
    place: int, plan: Plan[R], reply: object, waiting: dict[int, Fetch | Nearest], results: dict[int, R]
) -> Plan[None]:
    """Let one plan go on with a reply until it asks for a read or ends."""
    try:
        while True:
            step = plan.throw(reply) if isinstance(reply, StepFailed) else plan.send(reply)
            if isinstance(step, (Fetch, Nearest)):
                waiting[place] = step
                return
            reply = yield from _carry_out(step)
    except StopIteration as stop:
        results[place] = stop.value


def _carry_out(step: AnyStep) -> Plan[object]:
    try:
        return (yield step)
    except StepFailed as failed:
        return failed

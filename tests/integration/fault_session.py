"""An application that uses a cache while a fault happens, and what it saw: one cell of the fault matrix.

The cache is made as users make it, with the default deadlines; only the breaker's reset is shorter. It is asked many
different questions, in the same words and in others, and each answer names its question, so that a wrong one shows.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, Literal

from fault_list import Expected, Fault
from langchain_core.outputs import Generation

from aicache import MissReason, PartState, SkipReason, Stats
from aicache.stores.redis import RedisStore
from aicache.testing import FakeEmbedder
from langchain_aicache import AICache

__all__ = ["GIVE_UP", "MODEL", "SEEDS", "Cell", "Mode", "Operation", "Session", "Terms", "answer", "question"]

Mode = Literal["sync", "async"]
Operation = Literal["lookup", "update", "memory"]
"""`memory`: lookups of what L1 holds. The others are made without L1, so that the store is asked."""

MODEL: Final = "a model"
SEEDS: Final = 16
"""Answers that are there before the fault."""
NEW: Final = itertools.count(1000)
"""Questions that nobody has asked before."""
GIVE_UP: Final = 20.0
"""Seconds after which a service that has not resumed never will."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How a fault is tried."""

    lasts: float = 1.0
    """Seconds."""
    reset: float = 0.5
    """The breaker's."""
    failures: int = 5
    """The breaker's."""
    pause: float = 0.005
    """Seconds between two calls: so many that a long outage stays within what a cache keeps unwritten."""
    grace: float = 0.05
    """Seconds that a call may take longer than its deadline."""
    timed: bool = True
    """Whether the rules count that depend on the machine's speed."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What the application saw of one fault, from its begin until service had resumed."""

    fault: Fault
    mode: Mode
    operation: Operation
    calls: int
    exceptions: tuple[str, ...]
    """The types of those that reached the application."""
    wrong: int
    """Answers to another question."""
    deadline: float
    longest: float
    """Seconds of the longest call."""
    asked: int
    """Calls during the fault that would have been served without it."""
    served: int
    """Those of them that were served: answered, or written."""
    opened: bool
    """The breaker opened during the fault."""
    refused: int
    """Calls that an open breaker ended."""
    refused_median: float
    """Seconds that half of them took at most."""
    refused_work: float
    """Seconds of processor time that 99 of 100 of them took at most: on a shared machine others get their turn too."""
    work_while_open: int
    """Calls of the store and of the embedder during them."""
    resumed: float | None
    """Seconds from the end of the fault to the first call that was served; None: never."""
    replayed: int
    """Answers that could not be written at first and were later."""
    caught_up: float | None
    """Seconds from the end of the fault until no answer waited any more; None: never."""
    lost: int
    """Answers that the cache says it gave up, for it keeps only so many."""
    missing: int
    """Answers that were there before or were produced meanwhile, and are not there afterwards."""

    @property
    def expected(self) -> Expected:
        """What was to become of the calls during the fault."""
        if self.operation == "memory":
            return self.fault.memory
        return self.fault.lookups if self.operation == "lookup" else self.fault.updates


def question(number: int, *, reworded: bool = False) -> str:
    """A question about a thing of its own, whose name resembles no other's."""
    letters = "".join(chr(ord("a") + digit % 26) for digit in sha256(b"%d" % number).digest())
    thing = f"{letters[:14]} {letters[14:28]}"
    return f"How can I repair my {thing} please?" if reworded else f"How do I repair my {thing}?"


def answer(number: int) -> list[Generation]:
    """The answer to question `number`, and to no other."""
    return [Generation(text=f"about {question(number)}")]


def _counted(name: str) -> Callable[..., Any]:
    method = getattr(RedisStore, name)

    def call(self: CountedStore, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return method(self, *args, **kwargs)

    return call


class CountedStore(RedisStore):
    """A store that counts the calls of the operations that go to the server."""

    calls = 0


for _name in ("fetch", "nearest", "write", "touch", "remove", "sweep", "epoch"):
    for _half in (_name, f"a{_name}"):
        setattr(CountedStore, _half, _counted(_half))


@dataclass(slots=True)
class _Call:
    started: float
    seconds: float = 0.0
    worked_before: float = 0.0
    worked: float = 0.0
    """Of the thread, in seconds of processor time."""
    number: int = -1
    served: bool | None = None
    """None: it could not have been served."""
    wrong: bool = False
    refused: bool = False
    work: int = 0
    exception: str | None = None


@dataclass(slots=True)
class Session:
    """One application that uses one cache in one way."""

    fault: Fault
    mode: Mode
    operation: Operation
    url: str
    terms: Terms
    calls: list[_Call] = field(default_factory=list)
    made: float = field(default_factory=time.monotonic)
    began: float = 0.0
    ending: float = 0.0
    ended: float | None = None
    resumed: float | None = None
    caught_up: float | None = None
    opened: bool = False
    turn: Iterator[int] = field(default_factory=itertools.count)
    store: CountedStore = field(init=False)
    embedder: FakeEmbedder = field(default_factory=FakeEmbedder)
    cache: AICache = field(init=False)

    def __post_init__(self) -> None:
        self.store = CountedStore(self.url, max_connections=self.fault.max_connections)
        self.cache = AICache(
            self.store,
            embeddings=self.embedder,
            l1_entries=10_000 if self.operation == "memory" else 0,
            breaker_reset=self.terms.reset,
            breaker_failures=self.terms.failures,
        )

    @property
    def deadline(self) -> float:
        """Seconds the store may take for a call."""
        return 0.25 if self.operation == "update" else 0.1

    async def use(self, over: Callable[[], bool]) -> None:
        """Call until it is over, from as many tasks or threads as the fault wants; one goes on after its end."""

        def crowd_over() -> bool:
            return over() or self.ended is not None

        ends = [over] + [crowd_over] * (self.fault.callers - 1)
        if self.mode == "async":
            await asyncio.gather(*(self._caller(end) for end in ends))
        else:
            await asyncio.gather(*(asyncio.to_thread(self._in_thread, end) for end in ends))

    def _in_thread(self, over: Callable[[], bool]) -> None:
        asyncio.run(self._caller(over))

    async def _caller(self, over: Callable[[], bool]) -> None:
        while not over():
            call = await self._watched()
            self.calls.append(call)
            self._note(call)
            await asyncio.sleep(self.terms.pause)

    async def _watched(self) -> _Call:
        before = self.cache.stats()
        was_open, work = self._is_open(), self._work()
        call = _Call(time.monotonic())
        try:
            if self.operation == "update":
                await self._update(call)
            else:
                await self._lookup(call)
        except BaseException as error:  # noqa: BLE001 - that none comes is what is tried
            call.exception = type(error).__name__
        finally:
            call.worked = time.thread_time() - call.worked_before
            call.seconds = time.monotonic() - call.started
        after = self.cache.stats()
        # Where several call at once it cannot be told whose refusal it was.
        call.refused = was_open and self.fault.callers == 1 and _refusals(after) > _refusals(before)
        call.work = self._work() - work
        if self.operation == "update":
            call.served = after.stored > before.stored
        return call

    async def _lookup(self, call: _Call) -> None:
        """In turn: a question that is known, the same in other words, and one that nobody has asked."""
        turn = next(self.turn)
        way = 0 if self.operation == "memory" else turn % 3
        call.number = next(NEW) if way == 2 else (turn if self.operation == "memory" else turn // 3) % SEEDS
        asked = question(call.number, reworded=way == 1)
        call.started, call.worked_before = time.monotonic(), time.thread_time()
        found = self.cache.lookup(asked, MODEL) if self.mode == "sync" else await self.cache.alookup(asked, MODEL)
        call.served = None if way == 2 else found is not None
        call.wrong = found is not None and (way == 2 or found[0].text != answer(call.number)[0].text)

    async def _update(self, call: _Call) -> None:
        call.number = next(NEW)
        asked, reply = question(call.number), answer(call.number)
        call.started, call.worked_before = time.monotonic(), time.thread_time()
        if self.mode == "sync":
            self.cache.update(asked, MODEL, reply)
        else:
            await self.cache.aupdate(asked, MODEL, reply)

    # What is read off the cache, between the calls.

    def _is_open(self) -> bool:
        return self.cache.health().parts["redis"].state is PartState.OPEN

    def _work(self) -> int:
        return self.store.calls + self.embedder.calls

    def _note(self, call: _Call) -> None:
        self.opened = self.opened or (call.started >= self.began > 0 and self._is_open())
        if self.ended is None or call.started < self.ended:
            return
        now = time.monotonic()
        if self.resumed is None and call.served:
            self.resumed = now - self.ended
        if self.caught_up is None and self.resumed is not None and self.cache.stats().pending == 0:
            self.caught_up = now - self.ended

    def is_over(self) -> bool:
        """True when the fault has ended and all is as before, or never will be."""
        if self.ended is None:
            return False
        if self.operation == "memory":
            return True
        return self.caught_up is not None or time.monotonic() > self.ended + GIVE_UP

    # What is made of it.

    def cell(self, missing: int) -> Cell:
        """The result."""
        calls = [call for call in self.calls if call.started >= self.began]
        refused = [call for call in calls if call.refused]
        took = sorted(call.seconds for call in refused) or [0.0]
        worked = sorted(call.worked for call in refused) or [0.0]
        meanwhile = [call for call in calls if call.started + call.seconds < self.ending]
        stats = self.cache.stats()
        return Cell(
            fault=self.fault,
            mode=self.mode,
            operation=self.operation,
            calls=len(calls),
            exceptions=tuple(sorted({call.exception for call in calls if call.exception is not None})),
            wrong=sum(call.wrong for call in calls),
            deadline=self.deadline,
            longest=max((call.seconds for call in calls), default=0.0),
            asked=sum(call.served is not None for call in meanwhile),
            served=sum(call.served is True for call in meanwhile),
            opened=self.opened,
            refused=len(refused),
            refused_median=took[len(took) // 2],
            refused_work=worked[len(worked) * 99 // 100],
            work_while_open=sum(call.work for call in refused),
            resumed=self.resumed,
            replayed=stats.replayed,
            caught_up=self.caught_up,
            lost=stats.lost,
            missing=missing,
        )

    def owed(self) -> list[int]:
        """The questions whose answers must be there afterwards."""
        kept = list(range(SEEDS)) if self.fault.keeps else []
        if self.operation != "update":
            return kept
        since = 0.0 if self.fault.keeps else self.began
        return kept + [call.number for call in self.calls if call.started >= since]

    def is_warm(self) -> bool:
        """True when connections are open, and L1 answers what it is to answer."""
        from_memory = {call.number for call in self.calls[-2 * SEEDS :] if call.served and not call.work}
        # L1 begins anew when it first learns how many changes there were; where that failed, it asks again after 1 s.
        unlearned = any(step == "checkepoch" for step, _ in self.cache.stats().failed_steps)
        filled = len(from_memory) == SEEDS and time.monotonic() > self.made + 1.5 * unlearned
        if len(self.calls) >= 2 * SEEDS and (self.operation != "memory" or filled):
            return True
        return time.monotonic() > self.made + GIVE_UP

    async def close(self) -> None:
        """Close the cache."""
        if self.mode == "sync":
            await asyncio.to_thread(self.cache.close)
        else:
            await self.cache.aclose()


def _refusals(stats: Stats) -> int:
    return stats.misses.get(MissReason.UNAVAILABLE, 0) + stats.not_stored.get(SkipReason.UNAVAILABLE, 0)

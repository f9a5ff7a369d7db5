"""The fault matrix: each fault of `fault_list` against a cache that an application is using, and what that sees.

with Stage(server_of) as stage:
    cells = run_fault(fault, stage, [("sync", "lookup"), ("async", "update")], Terms())
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import redis
from fault_list import Fault, Scene
from fault_session import GIVE_UP, MODEL, SEEDS, Cell, Mode, Operation, Session, Terms, answer, question
from redis_servers import Node, wait_until

from aicache.stores.redis import RedisStore
from aicache.testing import FakeEmbedder, FaultProxy
from langchain_aicache import AICache

__all__ = ["ALL_CELLS", "Stage", "breaches", "run_cell", "run_fault"]

ALL_CELLS: Final[tuple[tuple[Mode, Operation], ...]] = (
    ("sync", "lookup"),
    ("async", "lookup"),
    ("sync", "update"),
    ("async", "update"),
    ("sync", "memory"),
    ("async", "memory"),
)

OPEN_COSTS: Final = 0.001
"""Seconds that an open breaker may cost a call."""
PATIENT: Final[dict[str, Any]] = {"timeout": 10.0, "connect_timeout": 10.0}


def breaches(cell: Cell, terms: Terms) -> list[str]:
    """The rules that the cell breaks, in words."""
    rules = {
        f"exceptions reached the application: {', '.join(cell.exceptions)}": not cell.exceptions,
        f"{cell.wrong} wrong answers": not cell.wrong,
        f"{cell.missing} answers are missing afterwards, {cell.lost} given up": cell.missing <= cell.lost,
        f"a call took {cell.longest:.3f} s": cell.longest <= cell.deadline + terms.grace,
        f"{cell.work_while_open} calls of store or embedder while the breaker was open": not cell.work_while_open,
    }
    if cell.operation != "memory":
        resumes_within = terms.reset + 1 if terms.timed else GIVE_UP
        resumed = "never" if cell.resumed is None else f"after {cell.resumed:.2f} s"
        rules[f"service resumed {resumed}"] = cell.resumed is not None and cell.resumed <= resumes_within
        rules["answers still wait to be written"] = cell.caught_up is not None
    if terms.timed:
        costs = max(cell.refused_median, cell.refused_work)
        rules[f"an open breaker cost {costs * 1000:.2f} ms"] = costs < OPEN_COSTS
    served = f"{cell.served} of {cell.asked} calls were served meanwhile"
    match cell.expected:
        case "works":
            # A call may miss its deadline on a machine that is busy with other things.
            rules[served] = cell.served == cell.asked > 0 if terms.timed else cell.served > 0
        case "misses" | "fails":
            rules[served] = cell.served == 0 < cell.asked
    if cell.expected == "fails":
        rules["the breaker did not open"] = cell.opened and cell.refused > 0
    return [text for text, kept in rules.items() if not kept]


class Stage:
    """The servers that faults happen to, and the ways there."""

    def __init__(self, server_of: Callable[[str], Any]) -> None:
        self._server_of = server_of
        self._proxy: FaultProxy | None = None

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        if self._proxy is not None:
            self._proxy.close()

    def scene(self, fault: Fault, seconds: float) -> Scene:
        """The place of a fault, whole and empty."""
        server = self._server_of({"server": "standalone", "network": "standalone"}.get(fault.kind, fault.kind))
        if self._proxy is None:
            self._proxy = FaultProxy("127.0.0.1", self._server_of("standalone").port)
        server.flush()
        return Scene(server, self._proxy, seconds, lambda: self._server_of("cluster"))

    def mend(self, scene: Scene) -> None:
        """Make whole what the fault has left broken, and what it has not ended because something went wrong."""
        if isinstance(scene.server, Node):
            if not _is_sound(scene.server):
                scene.server.reset()
            scene.proxy.set("pass")
            scene.proxy.route("127.0.0.1", scene.server.port)
        else:
            scene.server.restart()


def _is_sound(node: Node) -> bool:
    try:
        return bool(node.awake and node.command("SET", "sound", "yes", "EX", 1))
    except (redis.RedisError, OSError):
        return False


# ------------------------------------------------------------------------------------------------ one fault


def run_cell(fault: Fault, stage: Stage, mode: Mode, operation: Operation, terms: Terms) -> Cell:
    """Try one fault on one way of using a cache."""
    (cell,) = run_fault(fault, stage, [(mode, operation)], terms)
    return cell


def run_fault(fault: Fault, stage: Stage, wanted: Sequence[tuple[Mode, Operation]], terms: Terms) -> tuple[Cell, ...]:
    """Try one fault on several ways of using a cache, each a cache of its own, at the same time.

    Together they say as much about what is right as one by one, but not about how long it takes.
    """
    scene = stage.scene(fault, terms.lasts)
    direct = scene.server.url
    _write_seeds(direct)
    way = direct if fault.kind != "network" else scene.proxy.url
    url = way.replace("://", f"://{fault.credentials}", 1)
    try:
        return asyncio.run(_run(stage, scene, [Session(fault, *one, url, terms) for one in wanted]))
    finally:
        stage.mend(scene)


async def _run(stage: Stage, scene: Scene, sessions: Sequence[Session]) -> tuple[Cell, ...]:
    direct = scene.server.url
    (fault, terms) = sessions[0].fault, sessions[0].terms
    # Each sync caller has a thread, and the fault needs one to begin and to end.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(fault.callers * len(sessions) + 4))
    try:
        await asyncio.gather(*(one.use(one.is_warm) for one in sessions))
        happening = fault.happens(scene)
        await asyncio.to_thread(happening.__enter__)
        for one in sessions:
            one.began = time.monotonic()
        using = asyncio.gather(*(one.use(one.is_over) for one in sessions))
        try:
            await asyncio.sleep(terms.lasts)
            for one in sessions:
                one.ending = time.monotonic()
            await asyncio.to_thread(happening.__exit__, None, None, None)
            if not fault.keeps:
                await asyncio.to_thread(_write_seeds, direct)
        finally:
            for one in sessions:
                one.ended = time.monotonic()
            await using
        # Only now: service has to resume without what is still broken, but those who look here need not wait for it.
        await asyncio.to_thread(stage.mend, scene)
        missing = [await asyncio.to_thread(_missing, direct, one.owed()) for one in sessions]
        return tuple(one.cell(count) for one, count in zip(sessions, missing, strict=True))
    finally:
        for one in sessions:
            await one.close()


@contextlib.contextmanager
def _bystander(url: str) -> Iterator[AICache]:
    """Another program with a cache on the same server, which is in no hurry."""
    store = RedisStore(url, **PATIENT)
    with AICache(store, embeddings=FakeEmbedder(), l1_entries=0, lookup_timeout=10.0, update_timeout=10.0) as cache:
        yield cache


def _write_seeds(url: str) -> None:
    with _bystander(url) as cache:
        for number in range(SEEDS):
            cache.update(question(number), MODEL, answer(number))
        assert cache.stats().stored == SEEDS, cache.stats()


def _missing(url: str, numbers: Sequence[int]) -> int:
    """How many of these questions are not answered any more, or not rightly."""
    with _bystander(url) as cache:
        left = list(numbers)

        def all_there() -> bool:
            # A group that has just been through a failover may refuse one more call; an answer that is gone stays so.
            left[:] = [number for number in left if cache.lookup(question(number), MODEL) != answer(number)]
            return not left

        with contextlib.suppress(TimeoutError):
            wait_until(all_there, "the answers are there", within=1.0)
        return len(left)

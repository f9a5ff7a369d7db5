"""A load on a Redis cluster whose servers are killed, paused and resharded meanwhile: what callers of a cache notice.

    with cluster() as servers:
        print(run_load(servers, 60.0).table())

Sixteen async clients and eight threads share one `AICache`, as in a server that has both. Each asks questions: ones
that were asked before, the same in other words, new ones; and writes: an answer after each miss, now and then an answer
again. An answer names its question, so that a wrong one is noticed. Clients do not ask as fast as they can: they pause
between calls, as applications do, so that what is measured is the cache and not the queue for Python's lock.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from langchain_core.outputs import Generation
from load_result import ASK, KEEP, LIMITS, Call, LateCall, LoadResult, PhaseResult
from redis_groups import Cluster
from redis_servers import SLOTS, wait_until

from aicache.testing import FakeEmbedder
from langchain_aicache import AICache

__all__ = ["PHASES", "questions_are_far_apart", "run_load"]

PHASES: Final = ("calm", "killed", "paused", "resharding", "recovered")
"""Each takes a fifth of the time, and at least as long as its fault takes to be mended."""
TASKS: Final = 16
THREADS: Final = 8
MODELS: Final = 12
"""Each is a partition, whose keys are on one server: this many are on all three."""
COMMON: Final = 40
"""Questions a model is asked again and again."""
L1_ENTRIES: Final = 100
"""Fewer than there are common questions, so that most hits come from the servers."""


def run_load(servers: Cluster, seconds: float, *, pause: float = 0.1, seed: int = 0, **options: Any) -> LoadResult:
    """Put a load on a whole and empty cluster for at least so many seconds; it is whole again afterwards.

    Args:
        servers: the cluster.
        seconds: of all phases together.
        pause: seconds a client waits between two calls, on average.
        seed: of the choice of questions.
        options: of the cache.
    """
    load = _Load(pause, seed)
    settings: dict[str, Any] = {"l1_entries": L1_ENTRIES, "on_outcome": load.note_outcome, **options}
    with AICache(servers.url, embeddings=FakeEmbedder(256), **settings) as cache:
        wait_until(lambda: _is_warm(cache), "the cache answers")
        load.run(cache, lambda: _order_faults(servers, seconds, load))
        _settle(cache)
        stats = cache.stats()
    kept = sorted(load.kept)
    return LoadResult(
        phases=tuple(load.result(number, name) for number, name in enumerate(PHASES)),
        pending=stats.pending,
        replayed=stats.replayed,
        lost=stats.lost,
        missing=_count_missing(servers, kept),
        kept=len(kept),
        misses=load.misses,
        late=tuple(load.late_calls()),
        first_error=load.first_error,
    )


# -------------------------------------------------------------------------------------------- what is asked

_SYLLABLES: Final = ("ba", "do", "fi", "gu", "ka", "le", "mo", "nu", "pra", "qui", "ro", "sta", "tre", "vo", "wi", "ze")
_REWORDINGS: Final = (
    "How do I connect the {} to the {} {}?",
    "how can I connect the {} to the {} {}",
    "Please, how do you connect the {} to the {} {}?",
    "How would I connect my {} to a {} {}?",
)
"""They differ in words that weigh little, to the fake embedder and to the guards."""


def _words(number: int) -> list[str]:
    """Three made-up words that no other question has."""
    chance = random.Random(number)
    return ["".join(chance.choices(_SYLLABLES, k=4)) for _ in range(3)]


def _question(number: int, wording: int) -> str:
    return _REWORDINGS[wording].format(*_words(number))


def _answer(model: int, number: int) -> str:
    return f"Model {model} answers question {number}."


def questions_are_far_apart(count: int) -> float:
    """The greatest cosine of two different questions among the first: it must be far below the threshold."""
    embedder = FakeEmbedder(256)
    vectors = embedder.embed([_question(number, number % len(_REWORDINGS)) for number in range(count)])
    return max(
        sum(a * b for a, b in zip(one, other, strict=True))
        for place, one in enumerate(vectors)
        for other in vectors[:place]
    )


# -------------------------------------------------------------------------------------------- the load

_NAP: Final = 0.01


class _Load:
    """The clients, and what they have noticed."""

    def __init__(self, pause: float, seed: int) -> None:
        self.kept: set[tuple[int, int]] = set()
        self.misses: Counter[str] = Counter()
        self.first_error = ""
        self._pause = pause
        self._seed = seed
        self._over = threading.Event()
        self._phase = 0
        self._began: list[float] = []
        self._calls: list[Call] = []  # Appending is safe from any thread.
        self._lags: dict[str, list[tuple[int, float, float]]] = {"task": [], "thread": []}
        """Phase, when an idle one lay down, and how much too late it got up."""
        self._l1_hits: Counter[int] = Counter()
        self._new = COMMON
        self._lock = threading.Lock()

    def note_outcome(self, outcome: Any, _: float) -> None:
        """What the cache says of a lookup."""
        reason = getattr(outcome, "reason", None)
        with self._lock:
            if reason is not None:
                self.misses[str(reason)] += 1
            elif outcome.tier == "l1":
                self._l1_hits[self._phase] += 1

    def enter(self, phase: str) -> None:
        """Calls that begin from now on belong to this phase."""
        self._phase = PHASES.index(phase)
        self._began.append(time.perf_counter())

    def wait(self, seconds: float) -> None:
        """Let the load go on for so long, or until it has failed."""
        self._over.wait(seconds)

    def run(self, cache: AICache, order: Callable[[], None]) -> None:
        """Let the clients work while the faults are ordered; ends with these."""
        failures: list[BaseException] = []

        def ordering() -> None:
            try:
                order()
            except BaseException as error:  # noqa: BLE001 - raised below, in the thread that waits
                failures.append(error)
            finally:
                self._over.set()

        threads = [threading.Thread(target=ordering), threading.Thread(target=self._measure_lag)]
        threads += [threading.Thread(target=self._work, args=(cache, seat)) for seat in range(THREADS)]
        try:
            asyncio.run(self._work_in_tasks(cache, threads))
        finally:
            self._over.set()
        for thread in threads:
            thread.join()
        self._began.append(time.perf_counter())
        if failures:
            raise failures[0]

    async def _work_in_tasks(self, cache: AICache, threads: Sequence[threading.Thread]) -> None:
        while not await _is_warm_in_loop(cache):  # noqa: ASYNC110 - no server tells when it is ready
            await asyncio.sleep(0.1)
        cache.reset_stats()
        self.misses.clear()
        for thread in threads:
            thread.start()
        clients = (self._awork(cache, THREADS + seat) for seat in range(TASKS))
        await asyncio.gather(self._measure_loop_lag(), *clients)

    # ------------------------------------------------------------------------------------ one client

    def _work(self, cache: AICache, seat: int) -> None:
        chance = random.Random(self._seed * 1000 + seat)
        while not self._over.wait(chance.uniform(0, 2 * self._pause)):
            model, number, prompt, rewrite = self._choose(chance)
            with self._timed(ASK, "thread") as told:
                told.found = None if rewrite else cache.lookup(prompt, _llm(model))
                told.verdict = "" if rewrite else _judge(told.found, model, number)
            if told.verdict in {"", "miss"}:
                with self._timed(KEEP, "thread"):
                    cache.update(prompt, _llm(model), [Generation(text=_answer(model, number))])
                self._note_kept(model, number)

    async def _awork(self, cache: AICache, seat: int) -> None:
        chance = random.Random(self._seed * 1000 + seat)
        while not self._over.is_set():
            await asyncio.sleep(chance.uniform(0, 2 * self._pause))
            model, number, prompt, rewrite = self._choose(chance)
            with self._timed(ASK, "task") as told:
                told.found = None if rewrite else await cache.alookup(prompt, _llm(model))
                told.verdict = "" if rewrite else _judge(told.found, model, number)
            if told.verdict in {"", "miss"}:
                with self._timed(KEEP, "task"):
                    await cache.aupdate(prompt, _llm(model), [Generation(text=_answer(model, number))])
                self._note_kept(model, number)

    def _choose(self, chance: random.Random) -> tuple[int, int, str, bool]:
        """Model, number and wording of the next question, and whether it is written without being asked."""
        model = chance.randrange(MODELS)
        dice = chance.random()
        number = min(int(chance.expovariate(4 / COMMON)), COMMON - 1)
        if dice < 0.15:
            with self._lock:
                number = self._new = self._new + 1
        wording = 0 if dice < 0.60 else chance.randrange(1, len(_REWORDINGS))
        return model, number, _question(number, wording), dice >= 0.95

    def _note_kept(self, model: int, number: int) -> None:
        with self._lock:
            self.kept.add((model, number))

    @contextmanager
    def _timed(self, kind: str, half: str) -> Iterator[_Told]:
        told = _Told()
        phase, started = self._phase, time.perf_counter()
        try:
            yield told
        except Exception as error:  # noqa: BLE001 - what is counted here
            told.verdict = "error"
            self.first_error = self.first_error or repr(error)
        if kind == KEEP or told.verdict:
            self._calls.append(Call(phase, kind, half, started, time.perf_counter() - started, told.verdict))

    # ------------------------------------------------------------------------------------ how busy the process is

    def _measure_lag(self) -> None:
        while not self._over.is_set():
            started = time.perf_counter()
            time.sleep(_NAP)
            self._lags["thread"].append((self._phase, started, time.perf_counter() - started - _NAP))

    async def _measure_loop_lag(self) -> None:
        while not self._over.is_set():
            started = time.perf_counter()
            await asyncio.sleep(_NAP)
            self._lags["task"].append((self._phase, started, time.perf_counter() - started - _NAP))

    def late_calls(self) -> Iterator[LateCall]:
        """The calls that took longer than they may by themselves."""
        for call in self._calls:
            if call.seconds > LIMITS[call.kind]:
                end = call.started + call.seconds
                lags = [
                    lag for _, began, lag in self._lags[call.half] if began < end and began + _NAP + lag > call.started
                ]
                lag = max(lags, default=0.0)
                if call.seconds - lag > LIMITS[call.kind]:
                    yield LateCall(PHASES[call.phase], call.kind, call.half, call.seconds, lag)

    def result(self, number: int, name: str) -> PhaseResult:
        """What was noticed in a phase."""
        calls = [call for call in self._calls if call.phase == number]
        verdicts = Counter(call.verdict for call in calls)
        times = {kind: sorted(call.seconds for call in calls if call.kind == kind) for kind in (ASK, KEEP)}
        return PhaseResult(
            name=name,
            seconds=self._began[number + 1] - self._began[number],
            lookups=len(times[ASK]),
            hits=verdicts["hit"],
            from_l1=self._l1_hits[number],
            wrong=verdicts["wrong"],
            errors=verdicts["error"],
            lookup=times[ASK],
            update=times[KEEP],
            lag=max((lag for lags in self._lags.values() for phase, _, lag in lags if phase == number), default=0.0),
        )


@dataclass(slots=True)
class _Told:
    """What a call was told."""

    found: Sequence[Generation] | None = None
    verdict: str = ""


def _llm(model: int) -> str:
    return f"model {model}"


def _judge(found: Sequence[Generation] | None, model: int, number: int) -> str:
    if found is None:
        return "miss"
    return "hit" if [one.text for one in found] == [_answer(model, number)] else "wrong"


# -------------------------------------------------------------------------------------------- the faults


def _order_faults(servers: Cluster, seconds: float, load: _Load) -> None:
    """The phases, one after the other. Each leaves the cluster whole."""
    part = seconds / len(PHASES)
    chance = random.Random(0)
    load.enter("calm")
    load.wait(part)
    load.enter("killed")
    servers.kill_primary(chance.randrange(SLOTS))
    load.wait(part)
    servers.restart()
    load.enter("paused")
    servers.pause_primary(chance.randrange(SLOTS))
    load.wait(part / 2)
    servers.resume()
    servers.wait_ready()
    load.wait(part / 2)
    load.enter("resharding")
    until = time.monotonic() + part
    slots = _slots_in_use(servers)
    while time.monotonic() < until:
        for slot in slots:
            servers.reshard([slot])
            load.wait(part / 100)
    servers.wait_ready()
    load.enter("recovered")
    load.wait(part)


def _slots_in_use(servers: Cluster) -> list[int]:
    from redis.crc import key_slot

    found: set[int] = set()
    for node in servers.primaries():
        with node.client(decode_responses=False) as client:
            found |= {key_slot(key) for key in client.scan_iter(count=1000)}
    return sorted(found)


# -------------------------------------------------------------------------------------------- before and after


_FIRST: Final = 1_000_000
"""A question that no client asks."""


def _is_warm(cache: AICache) -> bool:
    """True when every partition answers a reworded question: connections, scripts and modules are there then."""
    for model in range(MODELS):
        cache.update(_question(_FIRST, 0), _llm(model), [Generation(text="warm")])
    return all(cache.lookup(_question(_FIRST, 1), _llm(model)) for model in range(MODELS))


async def _is_warm_in_loop(cache: AICache) -> bool:
    """The same for the connections of the running loop."""
    return all([await cache.alookup(_question(_FIRST, 2), _llm(model)) for model in range(MODELS)])


def _settle(cache: AICache) -> None:
    """Look things up until what waits to be written is written, or it is plain that it will not be."""

    def is_drained() -> bool:
        cache.lookup(f"Is anybody there at {time.monotonic()}?", _llm(0))
        return cache.stats().pending == 0

    wait_until(is_drained, "the answers that wait are written")


def _count_missing(servers: Cluster, kept: Sequence[tuple[int, int]]) -> int:
    """Of the answers kept, those that a cache without memory of its own does not find."""
    with AICache(servers.url, embeddings=FakeEmbedder(256), l1_entries=0, lookup_timeout=5.0) as cache:
        return sum(
            _judge(cache.lookup(_question(number, 0), _llm(model)), model, number) != "hit" for model, number in kept
        )

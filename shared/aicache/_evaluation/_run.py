"""One replay of a stream through a real cache, and what came of it."""

from __future__ import annotations

import hashlib
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from aicache._errors import AICacheError
from aicache._evaluation._embedded import Embedded, TableEmbedder, prompt_of
from aicache._evaluation._settings import Learned, Setting
from aicache._evaluation._store import ReplayStore
from aicache._evaluation._streams import Scenario, Stream
from aicache._evaluation._world import Given, World
from aicache._model import Hit, Miss, MissReason, NotStored
from aicache._open import CacheOptions, open_cache
from aicache.cache import Question, SemanticCache

__all__ = ["SETTLED", "START", "Result", "replay"]

START: Final = 2000
"""Requests counted apart, while a matcher still learns."""
SETTLED: Final = 1000
"""The running error is taken from here on: among few requests one wrong answer is a large share."""
_TICK: Final = 100

_FAULTS: Final = frozenset(
    {
        MissReason.UNKEYABLE,
        MissReason.UNREADABLE,
        MissReason.STORE_FAILED,
        MissReason.EMBEDDER_FAILED,
        MissReason.EMBEDDER_SLOW,
        MissReason.UNAVAILABLE,
        MissReason.INTERNAL,
    }
)
"""What never happens in memory. A cache goes on after it; an evaluation must not, for its figures would be of that."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a replay gave."""

    outcomes: bytes = field(repr=False)
    """One byte a request, in order: 0 miss, 1 right hit, 2 wrong hit. A hit whose truth the file does not tell is 1."""
    misses: Mapping[str, int] = field(default_factory=dict)
    """How many misses had which reason."""
    decisions: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Microseconds from the end of the search to the end of `lookup`: median, mean, 99th percentile."""
    update_most: float = 0.0
    """Milliseconds of the longest `update`, which here also learns."""
    alarms: int = 0
    """How often the matcher found that answers had changed."""

    @property
    def half(self) -> int:
        """Where the second half begins."""
        return len(self.outcomes) // 2

    def hit_rate(self, start: int = 0, end: int | None = None) -> float:
        """Share of the requests that were served."""
        part = self.outcomes[start:end]
        return (len(part) - part.count(0)) / max(1, len(part))

    def wrong(self, start: int = 0, end: int | None = None) -> float:
        """Share of the requests that were served wrongly."""
        part = self.outcomes[start:end]
        return part.count(2) / max(1, len(part))

    def wrong_per_hit(self, start: int = 0, end: int | None = None) -> float:
        """Share of the hits that were wrong."""
        part = self.outcomes[start:end]
        return part.count(2) / max(1, len(part) - part.count(0))

    def worst_running(self) -> float:
        """The largest share of wrong answers among all requests so far, from request 1000 on."""
        wrong, worst = 0, 0.0
        for count, outcome in enumerate(self.outcomes, 1):
            wrong += outcome == 2
            if count >= SETTLED:
                worst = max(worst, wrong / count)
        return worst

    def figures(self) -> dict[str, Any]:
        """All of it as numbers with names."""
        return {
            "requests": len(self.outcomes),
            "hits": len(self.outcomes) - self.outcomes.count(0),
            "wrong": self.outcomes.count(2),
            "hit_rate": self.hit_rate(),
            "wrong_per_request": self.wrong(),
            "wrong_per_hit": self.wrong_per_hit(),
            "running_maximum": self.worst_running(),
            "second_half": {
                "hit_rate": self.hit_rate(self.half),
                "wrong_per_request": self.wrong(self.half),
                "wrong_per_hit": self.wrong_per_hit(self.half),
            },
            "start": {
                "requests": min(START, len(self.outcomes)),
                "hit_rate": self.hit_rate(0, START),
                "wrong_per_request": self.wrong(0, START),
                "wrong_per_hit": self.wrong_per_hit(0, START),
            },
            "misses": dict(self.misses),
            "alarms": self.alarms,
            "decision_us": dict(zip(("median", "mean", "p99"), self.decisions, strict=True)),
            "longest_update_ms": self.update_most,
        }


def replay(
    stream: Stream,
    embedded: Embedded,
    setting: Setting,
    scenario: Scenario,
    tick: Callable[[int], None] = lambda _: None,
) -> Result:
    """Put all questions to a cache that is empty at the start: a hit inserts nothing, a miss brings a fresh answer.

    Raises:
        AICacheError: the cache reported a fault.
    """
    world, store = World(stream, scenario), ReplayStore(stream)
    cache = _open(store, TableEmbedder(stream, embedded), setting, scenario, world)
    run = _Run(stream, world, store, cache)
    try:
        for at, question in enumerate(scenario.sequence(stream)):
            run.request(at, question)
            if (at + 1) % _TICK == 0:
                tick(_TICK)
        tick(len(stream.texts) % _TICK)
        return run.result()
    finally:
        cache.close()


def _open(
    store: ReplayStore, embedder: TableEmbedder, setting: Setting, scenario: Scenario, world: World
) -> SemanticCache:
    options: CacheOptions = setting.options()
    if isinstance(setting, Learned):
        coin = random.Random(f"coin {scenario.seed}")  # noqa: S311 - a simulation
        options["comparator"] = world
        options["coin"] = coin.random
    # Lessons are learned at once, in `update`: then one seed gives one result.
    return open_cache(store, embedder, options, background="inline")


class _Run:
    """Counts while the questions come."""

    def __init__(self, stream: Stream, world: World, store: ReplayStore, cache: SemanticCache) -> None:
        self._stream = stream
        self._world = world
        self._store = store
        self._cache = cache
        self._outcomes = bytearray(len(stream.texts))
        self._misses: Counter[str] = Counter()
        self._decisions: list[float] = []
        self._update_most = 0.0

    def request(self, at: int, question: int) -> None:
        """One lookup, and the update that follows a miss."""
        text = self._stream.texts[question]
        prompt = partial(prompt_of, text, self._stream.group(question))
        asked = Question(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest(), prompt)
        fresh = self._world.answer(question, at)
        self._store.begin(question)
        found = self._cache.lookup(lambda: asked, _itself)
        done = time.perf_counter()
        if self._store.searched is not None:
            self._decisions.append(done - self._store.searched)
        if isinstance(found, Hit):
            self._outcomes[at] = 2 if self._world.truth(fresh, Given.of(found.entry.answer)) is False else 1
            return
        if found.reason in _FAULTS:
            raise AICacheError(f"the cache reported a fault ({found.reason}: {found.detail})")
        self._misses[found.reason] += 1
        self._update(asked, fresh)

    def _update(self, asked: Question, fresh: Given) -> None:
        began = time.perf_counter()
        outcome = self._cache.update(lambda: asked, lambda: fresh.answer)
        self._update_most = max(self._update_most, time.perf_counter() - began)
        if isinstance(outcome, NotStored):
            raise AICacheError(f"the cache did not keep an answer ({outcome.reason}: {outcome.detail})")

    def result(self) -> Result:
        """What it came to."""
        ordered = sorted(self._decisions) or [0.0]
        learned = self._cache.stats().learned
        return Result(
            bytes(self._outcomes),
            dict(self._misses),
            (
                ordered[len(ordered) // 2] * 1e6,
                sum(ordered) / len(ordered) * 1e6,
                ordered[int(0.99 * len(ordered))] * 1e6,
            ),
            self._update_most * 1e3,
            0 if learned is None else learned.alarms,
        )


def _itself(hit: Hit) -> Hit | Miss:
    return hit

"""One run of a stream through the matcher core, and what came of it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from aicache._evaluation._search import Nearest, Search
from aicache._evaluation._streams import Scenario, Stream
from aicache._evaluation._world import Given, World
from aicache._guards import Parsed
from aicache._learned import Audit, Learner, Neighbour, Serve, Ticket, fit

__all__ = ["START", "K", "Result", "Timing", "best_threshold", "by_threshold", "learned"]

K: Final = 10
START: Final = 2000
"""Requests counted apart, while the matcher still learns."""
_SETTLED: Final = 1000
"""The running error is taken from here on: among few requests one wrong answer is a large share."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Microseconds a decision (mean, and the 99th percentile); milliseconds a refit (mean, most); refits."""

    decision: float = 0.0
    decision_p99: float = 0.0
    refit: float = 0.0
    refit_most: float = 0.0
    refits: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """What a run gave. A hit whose truth the file does not tell counts as a hit that is not wrong."""

    outcomes: bytes
    """One byte a request, in order: 0 miss, 1 right hit, 2 wrong hit."""
    audits: int = 0
    alarms: int = 0
    timing: Timing = Timing()

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
            if count >= _SETTLED:
                worst = max(worst, wrong / count)
        return worst


@dataclass(frozen=True, slots=True)
class _Near:
    """An entry near a question."""

    question: int
    score: float
    cluster: int
    size: int
    answer: Given


class _Entries:
    """What is cached, and which entries have the same answer as far as found out; a store keeps this with them."""

    def __init__(self, nearest: Nearest) -> None:
        self._search = Search(nearest)
        self._answers: dict[int, Given] = {}
        self._clusters: dict[int, int] = {}
        self._sizes: dict[int, int] = {}

    def near(self, question: int) -> list[_Near]:
        found = []
        for other, score in self._search.find(question, K):
            cluster = self._clusters[other]
            found.append(_Near(other, score, cluster, self._sizes[cluster], self._answers[other]))
        return found

    def add(self, question: int, answer: Given, like: int | None) -> None:
        cluster = self._clusters[question] = question if like is None else self._clusters[like]
        self._sizes[cluster] = self._sizes.get(cluster, 0) + 1
        self._answers[question] = answer
        self._search.add(question)


@dataclass(slots=True)
class _Clock:
    """Adds up times; reads the process' own clock, for the evaluation only."""

    decisions: list[float]
    refits: list[float]

    def timing(self) -> Timing:
        if not self.decisions:
            return Timing()
        ordered = sorted(self.decisions)
        return Timing(
            sum(ordered) / len(ordered) * 1e6,
            ordered[int(0.99 * len(ordered))] * 1e6,
            sum(self.refits) / max(1, len(self.refits)) * 1e3,
            max(self.refits, default=0.0) * 1e3,
            len(self.refits),
        )


def learned(
    stream: Stream, nearest: Nearest, scenario: Scenario, learner: Learner, parse: Callable[[str], Parsed]
) -> Result:
    """Replay the stream through the learned matcher, with an empty cache at the start."""
    world, entries = World(stream, scenario), _Entries(nearest)
    coin = random.Random(f"coin {scenario.seed}")  # noqa: S311 - a simulation
    outcomes, audits, clock = bytearray(len(stream.texts)), 0, _Clock([], [])
    for at, question in enumerate(scenario.sequence(stream)):
        found = entries.near(question)
        query = parse(stream.texts[question])
        questions = [parse(stream.texts[entry.question]) for entry in found]  # A cache keeps the last ones, too.
        began = time.perf_counter()
        near = [
            Neighbour(entry.score, parsed, b"%d" % entry.cluster, entry.size)
            for entry, parsed in zip(found, questions, strict=True)
        ]
        decision = learner.decide(query, near, coin.random())
        clock.decisions.append(time.perf_counter() - began)
        fresh = world.answer(question, at)
        if isinstance(decision, Serve):
            outcomes[at] = 2 if world.truth(fresh, found[0].answer) is False else 1
            continue
        audits += isinstance(decision, Audit)
        like = _update(learner, decision.ticket, fresh, found, world)
        entries.add(question, fresh, like)
        _refit(learner, clock)
    return Result(bytes(outcomes), audits, learner.ledger.alarms, clock.timing())


def _update(learner: Learner, ticket: Ticket | None, fresh: Given, near: Sequence[_Near], world: World) -> int | None:
    """Deliver the fresh answer; the entry nearby whose answer is the same, or None."""
    if not near:
        return None
    first = near[0]
    verdict = world.compare(fresh, first.answer)
    if ticket is not None and verdict is None:
        learner.forget(ticket)
    elif ticket is not None and verdict is not None:
        learner.take([learner.label(ticket, ok=verdict)])
    if verdict:
        return first.question
    tried = {first.cluster}
    for entry in near[1:]:
        if entry.cluster not in tried:
            tried.add(entry.cluster)
            if world.compare(fresh, entry.answer):
                return entry.question
    return None


def _refit(learner: Learner, clock: _Clock) -> None:
    lessons = learner.due()
    if lessons is not None:
        began = time.perf_counter()
        learner.adopt(fit(lessons, learner.snapshot().weights))
        clock.refits.append(time.perf_counter() - began)


def by_threshold(stream: Stream, nearest: Nearest, scenario: Scenario, threshold: float) -> Result:
    """Replay the stream with a plain threshold."""
    world, search = World(stream, scenario), Search(nearest)
    stored: dict[int, Given] = {}
    outcomes = bytearray(len(stream.texts))
    for at, question in enumerate(scenario.sequence(stream)):
        found = search.find(question, 1)
        fresh = world.answer(question, at)
        if found and found[0][1] >= threshold:
            outcomes[at] = 2 if world.truth(fresh, stored[found[0][0]]) is False else 1
        else:
            search.add(question)
            stored[question] = fresh
    return Result(bytes(outcomes))


def best_threshold(stream: Stream, nearest: Nearest, scenario: Scenario, rate: float) -> tuple[float, Result]:
    """The threshold that would have served most with at most this share wrong, known only in hindsight."""
    low, high = 0.5, 1.0
    best = by_threshold(stream, nearest, scenario, high)
    for _ in range(10):
        middle = (low + high) / 2
        tried = by_threshold(stream, nearest, scenario, middle)
        if tried.wrong() <= rate:
            high, best = middle, tried
        else:
            low = middle
    return high, best

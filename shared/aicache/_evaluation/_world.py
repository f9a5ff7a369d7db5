"""The truth of one run: what the application's model would answer now, and whether two answers are the same."""

from __future__ import annotations

import random
from dataclasses import dataclass

from aicache._evaluation._streams import Scenario, Stream

__all__ = ["Given", "World"]


@dataclass(frozen=True, slots=True)
class Given:
    """An answer: to which question, and whether it was given after the change."""

    question: int
    late: bool


class World:
    """Answers questions truly, and compares answers as reliably as the scenario says."""

    def __init__(self, stream: Stream, scenario: Scenario) -> None:
        """The same stream and scenario give the same world."""
        self._stream = stream
        self._changing = scenario.changing(stream)
        self._half = len(stream.texts) // 2
        self._noise = scenario.noise
        self._chance = random.Random(f"comparator {scenario.seed}")  # noqa: S311 - a simulation

    def answer(self, question: int, at: int) -> Given:
        """The fresh answer to a question that comes as number `at`."""
        return Given(question, at >= self._half and self._stream.classes[question] in self._changing)

    def truth(self, a: Given, b: Given) -> bool | None:
        """Whether two answers are the same; None where the file does not say."""
        same = self._stream.same(a.question, b.question)
        return same and a.late == b.late

    def compare(self, a: Given, b: Given) -> bool | None:
        """What the comparator says: the truth, but now and then it calls equal answers different."""
        same = self.truth(a, b)
        return False if same and self._noise and self._chance.random() < self._noise else same

"""The truth of one run: what the application's model would answer now, and whether two answers are the same."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from functools import lru_cache

from aicache._evaluation._streams import Scenario, Stream
from aicache._learned import Reading
from aicache._model import Answer

__all__ = ["Given", "World"]


@dataclass(frozen=True, slots=True)
class Given:
    """What an answer says: its class, and whether it was given after the change."""

    name: int
    late: bool

    @property
    def answer(self) -> Answer:
        """It as a cache keeps it."""
        return _answer(self.name, self.late)

    @staticmethod
    def of(answer: Answer) -> Given:
        """What a kept answer says."""
        name, late = answer.body.split()
        return Given(int(name), late == b"late")


@lru_cache(maxsize=100_000)
def _answer(name: int, late: bool) -> Answer:  # noqa: FBT001 - a key of the memo
    body = b"%d %s" % (name, b"late" if late else b"early")
    return Answer(body, hashlib.sha256(body).digest())


class World:
    """Answers questions truly, and compares answers as reliably as the scenario says.

    It is a comparator: what it is asked about are answers that it has given.
    """

    def __init__(self, stream: Stream, scenario: Scenario) -> None:
        """The same stream and scenario give the same world."""
        self._stream = stream
        self._changing = scenario.changing(stream)
        self._half = len(stream.texts) // 2
        self._noise = scenario.noise
        self._chance = random.Random(f"comparator {scenario.seed}")  # noqa: S311 - a simulation
        self._given: dict[bytes, Given] = {}

    @property
    def immediate(self) -> bool:
        """True: it computes."""
        return True

    def answer(self, question: int, at: int) -> Given:
        """The fresh answer to a question that comes as number `at`."""
        name = self._stream.classes[question]
        given = Given(name, at >= self._half and name in self._changing)
        self._given[given.answer.digest] = given
        return given

    def truth(self, a: Given, b: Given) -> bool | None:
        """Whether two answers are the same; None where the file does not say."""
        same = self._stream.same(a.name, b.name)
        return same and a.late == b.late

    def same(self, a: Reading, b: Reading) -> bool | None:
        """What the comparator says: the truth, but now and then it calls equal answers different."""
        same = self.truth(self._given[a.digest], self._given[b.digest])
        return False if same and self._noise and self._chance.random() < self._noise else same

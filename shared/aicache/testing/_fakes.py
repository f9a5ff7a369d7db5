"""Stand-ins for the ports: a clock, an embedder and a store that do what a test tells them."""

from __future__ import annotations

import hashlib
import math
import re
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal, ParamSpec, TypeVar

from aicache._errors import QueryTooLongError, StoreError
from aicache._fork import in_forked_child
from aicache._model import Space, Vector
from aicache.stores.base import Store
from aicache.testing._around import StoreAround, chosen_methods

__all__ = ["FailingStore", "FakeClock", "FakeEmbedder"]

P = ParamSpec("P")
R = TypeVar("R")


class FakeClock:
    """A clock that moves only when told to."""

    def __init__(self, wall: float = 1_000_000.0, monotonic: float = 0.0) -> None:
        self._wall = wall
        self._monotonic = monotonic

    def wall(self) -> float:
        """Seconds since the epoch, as set."""
        return self._wall

    def monotonic(self) -> float:
        """Seconds since the clock was made, as advanced."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks.

        Raises:
            ValueError: the time is negative; only the wall clock may go back (`set_wall`).
        """
        if seconds < 0:
            raise ValueError("seconds: give 0 or more; to move the wall clock back, use set_wall")
        self._wall += seconds
        self._monotonic += seconds

    def set_wall(self, seconds: float) -> None:
        """Let the wall clock jump, as a corrected system clock does."""
        self._wall = seconds


_WORD: Final = re.compile(r"\w+")
_LIGHT_WORDS: Final = frozenset(
    _WORD.findall(
        "a an and are at be can could do does for from how i in is it me my of on or please that the there this "
        "to was we what when where which who will with would you your"
    )
)
"""Words in which rewordings differ; they weigh little."""


class FakeEmbedder:
    """An embedder without a model: rewordings are near, unrelated texts far, and the same on every machine.

    A text becomes a signed hash of its words and of their letter triples, of length 1. `calls` counts calls of
    `embed`, `embedded` the texts in them. Set `fail_with` to make every call raise it, `returns` to get
    unusable vectors, `max_words` to have longer texts refused.
    """

    def __init__(
        self,
        dimension: int = 128,
        *,
        fingerprint: str = "fake",
        max_words: int | None = None,
        fail_with: BaseException | None = None,
        returns: Literal["vectors", "nan", "zero", "wrong_dimension"] = "vectors",
    ) -> None:
        self.dimension = dimension
        self.max_words = max_words
        self.fail_with = fail_with
        self.returns = returns
        self.calls = 0
        self.embedded = 0
        self._fingerprint = fingerprint
        self._lock = threading.Lock()
        in_forked_child(self._renew_lock)

    def _renew_lock(self) -> None:
        """In a forked child: the lock may be held by a thread that is not there."""
        self._lock = threading.Lock()

    @property
    def fingerprint(self) -> str:
        """The name given at construction."""
        return self._fingerprint

    @property
    def space(self) -> Space:
        """The space of its vectors."""
        return f"{self._fingerprint}/{self.dimension}"

    def vector(self, text: str) -> Vector:
        """The vector of a text as entries hold it; counts as no call and never fails."""
        return struct.pack(f"<{self.dimension}f", *self._components(text))

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector a text, unless told otherwise."""
        with self._lock:
            self.calls += 1
            self.embedded += len(texts)
        if self.fail_with is not None:
            raise self.fail_with
        for text in texts:
            if self.max_words is not None and len(_WORD.findall(text)) > self.max_words:
                raise QueryTooLongError(f"A text has more than {self.max_words} words; match it exactly.")
        if self.returns == "nan":
            return [[math.nan] * self.dimension for _ in texts]
        if self.returns == "zero":
            return [[0.0] * self.dimension for _ in texts]
        extra = [0.5] if self.returns == "wrong_dimension" else []
        return [self._components(text) + extra for text in texts]

    def _components(self, text: str) -> list[float]:
        components = [0.0] * self.dimension
        for feature, weight in _features(text):
            place = int.from_bytes(hashlib.blake2b(feature.encode(), digest_size=8).digest(), "little")
            components[(place >> 1) % self.dimension] += weight if place & 1 else -weight
        norm = math.hypot(*components)
        if not norm:  # Features may cancel out; the result must still be a direction.
            components[0] = norm = 1.0
        return [component / norm for component in components]


def _features(text: str) -> Iterable[tuple[str, float]]:
    words = _WORD.findall(text.lower())
    if not words:
        yield f"no words: {text}", 1.0
    for word in words:
        weight = 0.15 if word in _LIGHT_WORDS else 1.0
        yield word, weight
        padded = f"<{word}>"
        for start in range(len(padded) - 2):
            yield padded[start : start + 3], weight * 0.3


class FailingStore(StoreAround):
    """A store around another one whose chosen methods raise; `calls` counts the calls of each method.

    `fail("fetch", "write")` begins it, `recover()` ends it. Without names, `fail()` means every method but
    `close`. It writes many at once and keeps lessons if the store inside does. Of more than one fault, and of async
    callers, `ChaosStore` knows.
    """

    def __init__(self, store: Store, *methods: str, error: BaseException | None = None) -> None:
        super().__init__(store)
        self.calls: Counter[str] = Counter()
        self._lock = threading.Lock()
        in_forked_child(self._renew_lock)
        self._failing: frozenset[str] = frozenset()
        self._error: BaseException = StoreError("The store was told to fail.")
        if methods or error is not None:
            self.fail(*methods, error=error)

    def _renew_lock(self) -> None:
        """In a forked child: the lock may be held by a thread that is not there."""
        self._lock = threading.Lock()

    def fail(self, *methods: str, error: BaseException | None = None) -> None:
        """Let these methods raise `error` from now on.

        Raises:
            ValueError: a store has no such method.
        """
        chosen = chosen_methods("methods", methods)
        if error is not None:
            self._error = error
        self._failing = chosen

    def recover(self) -> None:
        """Let all methods work again."""
        self._failing = frozenset()

    def _pass(self, method: str, act: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        self._enter(method)
        return act(*args, **kwargs)

    def _enter(self, method: str) -> None:
        with self._lock:
            self.calls[method] += 1
        if method in self._failing:
            raise self._error

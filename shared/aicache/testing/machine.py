"""A store against a plain dict: random operations by hypothesis, neighbours computed by brute force.

class MyStoreMachine(StoreMachine):
    def make_store(self) -> Store:
        return MyStore()

TestMyStore = MyStoreMachine.TestCase
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aicache._model import CacheKey, Entry, Partition, Selection, Vector
from aicache.stores.base import Store
from aicache.testing._builders import make_entry, make_key, make_partition, make_vector

__all__ = ["StoreMachine"]

_PARTITIONS = (
    make_partition("p"),
    make_partition("q"),
    make_partition("p", tenant="other"),
    make_partition("p", namespace="other", model="other"),
)
_KEYS = tuple(make_key(f"question {number}", partition=home) for home in _PARTITIONS for number in range(6))
_SPACES = ("one/4", "two/4")
_DIMENSION = 4

_keys = st.sampled_from(_KEYS)
_tags = st.lists(st.sampled_from(("red", "blue", "ré'd%")), unique=True, max_size=3)
_moments = st.integers(0, 20).map(float)
# Few directions, so that equal and opposite vectors and ties are common.
_vectors = (
    st.lists(st.integers(-2, 2), min_size=_DIMENSION, max_size=_DIMENSION)
    .filter(any)
    .map(lambda components: make_vector(*components))
)
_selections = st.builds(
    Selection,
    namespace=st.none() | st.sampled_from([home.namespace for home in _PARTITIONS]),
    tenant=st.none() | st.sampled_from([home.tenant for home in _PARTITIONS]),
    model=st.none() | st.sampled_from([home.model for home in _PARTITIONS]),
    tag=st.none() | st.sampled_from(("red", "blue", "ré'd%", "none")),
)


class StoreMachine(RuleBasedStateMachine):
    """The stateful test of a store; a subclass says how to make an empty one."""

    tolerance: float = 1e-5
    """How far a score may be from the true cosine."""

    def __init__(self) -> None:
        super().__init__()
        self.store = self.make_store()
        self.model: dict[CacheKey, Entry] = {}
        self.writes = 0

    def make_store(self) -> Store:
        """A new, empty store."""
        raise NotImplementedError("StoreMachine: define make_store in a subclass")

    def teardown(self) -> None:
        """Close the store."""
        self.store.close()

    @rule(
        key=_keys,
        vector=st.none() | _vectors,
        space=st.sampled_from(_SPACES),
        expires=st.none() | _moments,
        tags=_tags,
        body=st.binary(max_size=40),
    )
    def write(
        self,
        *,
        key: CacheKey,
        vector: Vector | None,
        space: str,
        expires: float | None,
        tags: list[str],
        body: bytes,
    ) -> None:
        """Write an entry, new or in place of another."""
        self.writes += 1
        entry = make_entry(
            f"question {self.writes}",
            key=key,
            body=body,
            vector=vector,
            space=None if vector is None else space,
            expires=expires,
            tags=tags,
        )
        self.store.write(entry)
        self.model[key] = entry

    @rule(key=_keys)
    def fetch(self, key: CacheKey) -> None:
        """Fetch returns what the model holds."""
        assert self.store.fetch(key) == self.model.get(key)

    @rule(key=_keys, expires=st.none() | _moments)
    def touch(self, key: CacheKey, expires: float | None) -> None:
        """Touch changes the expiry of an entry that is there."""
        self.store.touch(key, expires)
        if key in self.model:
            self.model[key] = replace(self.model[key], expires=expires)

    @rule(keys=st.lists(_keys, max_size=4, unique=True))
    def remove(self, keys: list[CacheKey]) -> None:
        """Remove counts what was there."""
        assert self.store.remove(keys) == sum(self.model.pop(key, None) is not None for key in keys)

    @rule(selection=_selections)
    def clear(self, selection: Selection) -> None:
        """Clear takes the selection and nothing else."""
        chosen = [key for key, entry in self.model.items() if _selected(entry, selection)]
        assert self.store.clear(selection) == len(chosen)
        for key in chosen:
            del self.model[key]

    @rule(now=_moments, limit=st.integers(0, 5))
    def sweep(self, now: float, limit: int) -> None:
        """Sweep takes expired entries, up to the limit; which of them is the store's choice."""
        expired = [key for key, entry in self.model.items() if entry.expires is not None and entry.expires <= now]
        assert self.store.sweep(now, limit) == min(limit, len(expired))
        for key in expired:
            if self.store.fetch(key) is None:
                del self.model[key]

    @precondition(lambda self: bool(self.model))
    @rule(
        partition=st.sampled_from(_PARTITIONS),
        space=st.sampled_from(_SPACES),
        vector=_vectors,
        k=st.integers(1, 8),
    )
    def nearest(self, partition: Partition, space: str, vector: Vector, k: int) -> None:
        """The k nearest, in order, with true cosines; among equals the store may choose."""
        true = {
            entry.key: _cosine(vector, entry.vector)
            for entry in self.model.values()
            if entry.vector is not None and entry.space == space and entry.key.partition == partition
        }
        found = self.store.nearest(partition, space, vector, k)
        scores = [one.score for one in found]
        assert scores == sorted(scores, reverse=True)
        assert len({one.entry.key for one in found}) == len(found) == min(k, len(true))
        for one, best in zip(found, sorted(true.values(), reverse=True), strict=False):
            assert one.entry == self.model[one.entry.key]
            assert one.score <= 1.0
            assert abs(one.score - true[one.entry.key]) <= self.tolerance
            assert abs(one.score - best) <= 2 * self.tolerance

    @invariant()
    def size_is_the_number_of_entries(self) -> None:
        """Size counts the model's entries."""
        assert self.store.size().entries == len(self.model)


def _selected(entry: Entry, selection: Selection) -> bool:
    home = entry.key.partition
    return (
        selection.namespace in (None, home.namespace)
        and selection.tenant in (None, home.tenant)
        and selection.model in (None, home.model)
        and (selection.tag is None or selection.tag in entry.tags)
    )


def _cosine(one: Vector, other: Vector) -> float:
    a, b = _floats(one), _floats(other)
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def _floats(vector: Vector) -> Sequence[float]:
    return memoryview(vector).cast("f")

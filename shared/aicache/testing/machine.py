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

from aicache._model import CacheKey, Entry, Search, Selection, Vector
from aicache.stores.base import BulkStore, LessonStore, Store
from aicache.testing._builders import make_entry, make_key, make_partition, make_vector
from aicache.testing._contract_removal import selected

__all__ = ["StoreMachine"]

_PARTITIONS = (
    make_partition("p"),
    make_partition("q"),
    make_partition("p", tenant="other", model_name="large"),
    make_partition("p", namespace="other", model="other", model_name="large"),
)
_KEYS = tuple(make_key(f"question {number}", partition=home) for home in _PARTITIONS for number in range(6))
_SPACES = ("one/4", "two/4")
_DIMENSION = 4

_ASKERS = tuple(make_key(f"asker {number}", partition=home) for home in _PARTITIONS for number in range(2))

_keys = st.sampled_from(_KEYS)
_askers = st.sampled_from(_ASKERS)
# Those of a partition are of no other: only their numbers are drawn.
_clusters = st.sampled_from((None, 0, 1, 2))
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
    model_name=st.none() | st.sampled_from([home.model_name for home in _PARTITIONS]),
    tags=st.sampled_from(((), ("red",), ("blue",), ("ré'd%",), ("none",), ("red", "blue"))),
    written_before=st.none() | _moments,
)


class StoreMachine(RuleBasedStateMachine):
    """The stateful test of a store; a subclass says how to make an empty one.

    The rules about clusters hold for a `LessonStore`, those about many entries at once for a `BulkStore`.
    """

    tolerance: float = 1e-5
    """How far a score may be from the true cosine."""

    def __init__(self) -> None:
        super().__init__()
        self.store = self.make_store()
        self.model: dict[CacheKey, Entry] = {}
        self.blocked: set[tuple[CacheKey, CacheKey]] = set()
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
        created=_moments,
        expires=st.none() | _moments,
        tags=_tags,
        body=st.binary(max_size=40),
        cluster=_clusters,
        among=st.booleans(),
    )
    def write(
        self,
        *,
        key: CacheKey,
        vector: Vector | None,
        space: str,
        created: float,
        expires: float | None,
        tags: list[str],
        body: bytes,
        cluster: int | None,
        among: bool,
    ) -> None:
        """Write an entry, new or in place of another; alone, or among two where a store can."""
        self.writes += 1
        entry = make_entry(
            f"question {self.writes}",
            key=key,
            body=body,
            vector=vector,
            space=None if vector is None else space,
            created=created,
            expires=expires,
            tags=tags,
            cluster=None if cluster is None or not isinstance(self.store, LessonStore) else _cluster(key, cluster),
        )
        if among and isinstance(self.store, BulkStore):
            self.store.write_many([replace(entry, query="replaced at once"), entry])
        else:
            self.store.write(entry)
        self.model[key] = entry

    @rule(key=_keys, cluster=st.integers(0, 2))
    def join(self, key: CacheKey, cluster: int) -> None:
        """Join changes the cluster of an entry that is there."""
        if not isinstance(self.store, LessonStore):
            return
        self.store.join(key, _cluster(key, cluster))
        if key in self.model:
            self.model[key] = replace(self.model[key], cluster=_cluster(key, cluster))

    @rule(selection=_selections)
    def list_entries(self, selection: Selection) -> None:
        """All of the selection is listed, as it is."""
        if not isinstance(self.store, BulkStore):
            return
        listed = self.store.entries(selection)
        assert {entry.key: entry for entry in listed} == {
            key: entry for key, entry in self.model.items() if selected(entry, selection)
        }
        assert len({entry.key for entry in listed}) == len(listed)

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

    @rule(keys=st.lists(_keys, max_size=4, unique=True), by_id=st.booleans())
    def remove(self, keys: list[CacheKey], by_id: bool) -> None:  # noqa: FBT001 - hypothesis passes names
        """Remove counts what was there, and a dry run counts the same."""
        given = [CacheKey.of_id(key.id) for key in keys] if by_id else keys
        there = sum(key in self.model for key in keys)
        assert self.store.remove(given, dry_run=True) == there
        assert self.store.remove(given) == there
        for key in keys:
            self.model.pop(key, None)

    @rule(keys=st.lists(_keys, max_size=4))
    def remove_nothing(self, keys: list[CacheKey]) -> None:
        """A dry run of remove takes nothing."""
        assert self.store.remove(keys, dry_run=True) == len(set(keys) & self.model.keys())

    @rule(selection=_selections)
    def clear(self, selection: Selection) -> None:
        """Clear takes the selection and nothing else."""
        chosen = [key for key, entry in self.model.items() if selected(entry, selection)]
        assert self.store.clear(selection) == len(chosen)
        for key in chosen:
            del self.model[key]

    @rule(selection=_selections)
    def clear_nothing(self, selection: Selection) -> None:
        """A dry run of clear counts the selection and takes nothing."""
        chosen = [key for key, entry in self.model.items() if selected(entry, selection)]
        assert self.store.clear(selection, dry_run=True) == len(chosen)

    @rule(asker=_askers, entry=_keys, by_id=st.booleans())
    def block(self, asker: CacheKey, entry: CacheKey, by_id: bool) -> None:  # noqa: FBT001 - hypothesis passes names
        """A blocked pair stays blocked, whatever becomes of the entry."""
        if by_id:
            self.store.block(CacheKey.of_id(asker.id), CacheKey.of_id(entry.id))
        else:
            self.store.block(asker, entry)
        self.blocked.add((asker, entry))

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
        asker=_askers,
        anybody=st.booleans(),
        space=st.sampled_from(_SPACES),
        vector=_vectors,
        k=st.integers(1, 8),
    )
    def nearest(self, asker: CacheKey, anybody: bool, space: str, vector: Vector, k: int) -> None:  # noqa: FBT001 - as above
        """The k nearest, in order, with true cosines, without those blocked; among equals the store may choose."""
        true = {
            entry.key: _cosine(vector, entry.vector)
            for entry in self.model.values()
            if entry.vector is not None
            and entry.space == space
            and entry.key.partition == asker.partition
            and (anybody or (asker, entry.key) not in self.blocked)
        }
        found = self.store.nearest(Search(asker.partition, space, vector, k, None if anybody else asker))
        scores = [one.score for one in found]
        assert scores == sorted(scores, reverse=True)
        assert len({one.entry.key for one in found}) == len(found) == min(k, len(true))
        for one, best in zip(found, sorted(true.values(), reverse=True), strict=False):
            assert one.entry == self.model[one.entry.key]
            assert one.score <= 1.0
            assert abs(one.score - true[one.entry.key]) <= self.tolerance
            assert abs(one.score - best) <= 2 * self.tolerance
            assert one.cluster_size == self._cluster_size(one.entry.cluster)

    @precondition(lambda self: bool(self.model))
    @rule(
        selection=_selections,
        space=st.sampled_from(_SPACES),
        vector=_vectors,
        min_score=st.sampled_from((-1.0, -0.4, 0.15, 0.77)),
    )
    def similar(self, selection: Selection, space: str, vector: Vector, min_score: float) -> None:
        """All of the selection that is near enough, in order; what is on the bound within the tolerance may be in."""
        true = {
            entry.id: _cosine(vector, entry.vector)
            for entry in self.model.values()
            if entry.vector is not None and entry.space == space and selected(entry, selection)
        }
        found = self.store.similar(selection, space, vector, min_score)
        scores = [one.score for one in found]
        assert scores == sorted(scores, reverse=True)
        listed = {one.key.id: one for one in found}
        assert len(listed) == len(found)
        for name, score in true.items():
            if abs(score - min_score) > self.tolerance:
                assert (name in listed) == (score > min_score)
        by_id = {entry.id: entry for entry in self.model.values()}
        for name, one in listed.items():
            assert (one.query, one.created) == (by_id[name].query, by_id[name].created)
            assert abs(one.score - true[name]) <= self.tolerance

    def _cluster_size(self, cluster: bytes | None) -> int:
        return 1 if cluster is None else sum(entry.cluster == cluster for entry in self.model.values())

    @invariant()
    def size_is_the_number_of_entries(self) -> None:
        """Size counts the model's entries."""
        assert self.store.size().entries == len(self.model)


def _cluster(key: CacheKey, number: int) -> bytes:
    return key.partition.id[:15] + bytes([number])


def _cosine(one: Vector, other: Vector) -> float:
    a, b = _floats(one), _floats(other)
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def _floats(vector: Vector) -> Sequence[float]:
    return memoryview(vector).cast("f")

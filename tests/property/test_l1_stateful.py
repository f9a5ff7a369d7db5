"""`EntryTable` and `L1Cache` against a plain dict, step by step."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from aicache._eviction import EVICTIONS
from aicache._model import Entry, Selection, StoreSize
from aicache.stores._table import EntryTable
from aicache.stores.l1 import L1Cache
from aicache.testing._builders import make_entry, make_key, make_partition, make_vector
from aicache.testing._contract_removal import selected

PARTITIONS = [
    make_partition(tenant=tenant, model=model, model_name=name)
    for tenant in "pq"
    for model, name in (("m", None), ("n", "o"))
]
KEYS = [make_key(f"q{number}", partition=partition) for partition in PARTITIONS for number in range(2)][:6]
TAGS = ["x", "y"]
CLUSTERS = [bytes([number]) * 16 for number in range(3)]
LEAST = make_entry("q", body=b"").weight
"""What the lightest entry weighs."""
L1_BYTES = 4 * LEAST + 3_100
"""Room for the heaviest entry and a few light ones."""

moments = st.integers(0, 20).map(float)
times = st.none() | moments
entries = st.builds(
    lambda key, size, created, expires, tags, vector, cluster: make_entry(
        "q", key=key, body=b"x" * size, created=created, expires=expires, tags=tags, vector=vector, cluster=cluster
    ),
    st.sampled_from(KEYS),
    st.sampled_from([0, 10, 300, 900, 3_000]),
    moments,
    times,
    st.lists(st.sampled_from(TAGS), max_size=2),
    st.none() | st.just(make_vector(1, 2, 3)),
    st.none() | st.sampled_from(CLUSTERS),
)
tags = st.sampled_from(TAGS)
tenants = st.sampled_from([partition.tenant for partition in PARTITIONS])
models = st.sampled_from([partition.model for partition in PARTITIONS])
names = st.sampled_from([partition.model_name for partition in PARTITIONS])
selections = st.one_of(
    st.builds(Selection, tags=st.lists(tags, min_size=1, max_size=2).map(tuple)),
    st.builds(Selection, tenant=tenants),
    st.builds(
        Selection,
        namespace=st.none() | st.just(PARTITIONS[0].namespace),
        tenant=st.none() | tenants,
        model=st.none() | models,
        model_name=st.none() | names,
        tags=st.just(()) | tags.map(lambda tag: (tag,)),
        written_before=times,
    ),
)


def expired(entry: Entry, now: float) -> bool:
    return entry.expires is not None and entry.expires <= now


class TableMachine(RuleBasedStateMachine):
    """Every policy: what is held and what left are the same at every step. LRU: who leaves, too."""

    @initialize(name=st.sampled_from(EVICTIONS), max_entries=st.integers(1, 8), max_bytes=st.integers(LEAST, 6 * LEAST))
    def construct(self, name: str, max_entries: int, max_bytes: int) -> None:
        self.name, self.max_entries, self.max_bytes = name, max_entries, max_bytes
        self.left: list[Entry] = []
        self.held: dict[bytes, Entry] = {}  # the least recently used first
        self.table = EntryTable(
            max_entries=max_entries, max_bytes=max_bytes, eviction_name=name, on_removed=self.left.append
        )

    def settle(self) -> list[Entry]:
        """The entries reported as removed since the last time; each was held, as it was when it left."""
        left, self.left[:] = list(self.left), []
        for entry in left:
            assert self.held.pop(entry.key.digest) == entry
        return left

    @rule(entry=entries)
    def put(self, entry: Entry) -> None:
        digest = entry.key.digest
        old = self.held.get(digest)
        kept = self.table.put(entry)
        if old is not None:
            assert self.left.pop(0) == old, "a replaced entry is reported, before any other"
            del self.held[digest]
        if entry.weight > self.max_bytes:
            assert not kept
            assert self.left == []
            return
        self.held[digest] = entry
        order = list(self.held.values())
        left = self.settle()
        assert kept == (digest in self.held)
        if self.name == "lru":
            assert left == order[: len(left)], "the least recently used first"
            assert kept
        if left:
            size = sum(one.weight for one in order) - sum(one.weight for one in left[:-1])
            count = len(order) - len(left) + 1
            assert size > self.max_bytes or count > self.max_entries, "no more left than had to"

    @rule(key=st.sampled_from(KEYS))
    def get(self, key: object) -> None:
        digest = key.digest  # type: ignore[attr-defined]
        assert self.table.get(digest) == self.held.get(digest)
        if digest in self.held:
            self.held[digest] = self.held.pop(digest)

    @rule(key=st.sampled_from(KEYS), expires=times)
    def touch(self, key: object, expires: float | None) -> None:
        digest = key.digest  # type: ignore[attr-defined]
        self.table.touch(digest, expires)
        if digest in self.held:
            self.held[digest] = replace(self.held[digest], expires=expires)

    @rule(key=st.sampled_from(KEYS), cluster=st.sampled_from(CLUSTERS))
    def join(self, key: object, cluster: bytes) -> None:
        digest = key.digest  # type: ignore[attr-defined]
        self.table.join(digest, cluster)
        if digest in self.held:
            self.held[digest] = replace(self.held[digest], cluster=cluster)

    @rule(keys=st.lists(st.sampled_from(KEYS), max_size=3))
    def remove(self, keys: list[object]) -> None:
        digests = {key.digest for key in keys}  # type: ignore[attr-defined]
        expected = digests & self.held.keys()
        assert self.table.count([key.digest for key in keys]) == len(expected)  # type: ignore[attr-defined]
        assert self.table.remove([key.digest for key in keys]) == len(expected)  # type: ignore[attr-defined]
        assert {entry.key.digest for entry in self.settle()} == expected

    @rule(selection=selections)
    def clear(self, selection: Selection) -> None:
        expected = {digest for digest, entry in self.held.items() if selected(entry, selection)}
        assert {entry.key.digest for entry in self.table.select(selection)} == expected
        assert self.table.clear(selection) == len(expected)
        assert {entry.key.digest for entry in self.settle()} == expected

    @rule(now=st.integers(0, 20).map(float), limit=st.integers(0, 4))
    def sweep(self, now: float, limit: int) -> None:
        due = [entry for entry in self.held.values() if expired(entry, now)]
        assert self.table.sweep(now, limit) == min(limit, len(due))
        left = self.settle()
        assert all(expired(entry, now) for entry in left)
        first = sorted(entry.expires for entry in due if entry.expires is not None)
        assert [entry.expires for entry in left] == first[: len(left)], "the first to expire first"

    @invariant()
    def bounds_hold_and_sums_agree(self) -> None:
        size = self.table.size()
        assert size == StoreSize(len(self.held), sum(entry.weight for entry in self.held.values()))
        assert size.entries <= self.max_entries
        assert size.bytes <= self.max_bytes
        for key in KEYS:
            assert self.table.peek(key.digest) == self.held.get(key.digest), "what left is gone"
        assert self.table.cluster_size(None) == 1
        for cluster in CLUSTERS:
            members = sum(entry.cluster == cluster for entry in self.held.values())
            assert self.table.cluster_size(cluster) == max(members, 1)


TableMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestTableMatchesADict = TableMachine.TestCase


class L1Machine(RuleBasedStateMachine):
    """L1 returns what was put last, or nothing; never what was removed, replaced or forgotten."""

    @initialize(name=st.sampled_from(EVICTIONS), max_entries=st.integers(1, 8))
    def construct(self, name: str, max_entries: int) -> None:
        self.l1 = L1Cache(max_entries=max_entries, max_bytes=L1_BYTES, eviction=name)
        self.max_entries = max_entries
        self.put_last: dict[bytes, Entry] = {}
        self.epoch: int | None = None

    @rule(entry=entries)
    def put(self, entry: Entry) -> None:
        self.l1.put(entry)
        self.put_last[entry.key.digest] = replace(entry, vector=None, space=None)

    @rule(key=st.sampled_from(KEYS), expires=times)
    def touch(self, key: object, expires: float | None) -> None:
        held = self.l1.get(key)  # type: ignore[arg-type]
        self.l1.touch(key, expires)  # type: ignore[arg-type]
        if held is not None:
            self.put_last[held.key.digest] = replace(held, expires=expires)

    @rule(key=st.sampled_from(KEYS))
    def discard(self, key: object) -> None:
        self.l1.discard(key)  # type: ignore[arg-type]
        self.put_last.pop(key.digest, None)  # type: ignore[attr-defined]

    @rule(selection=selections)
    def clear(self, selection: Selection) -> None:
        held = [entry for key in KEYS if (entry := self.l1.get(key)) is not None]
        assert self.l1.clear(selection) == sum(selected(entry, selection) for entry in held)
        self.put_last = {digest: entry for digest, entry in self.put_last.items() if not selected(entry, selection)}

    @rule(epoch=st.integers(0, 2))
    def observe(self, epoch: int) -> None:
        self.l1.observe(epoch)
        if self.epoch not in (None, epoch):
            self.put_last.clear()
        self.epoch = epoch

    @invariant()
    def holds_nothing_but_what_was_put_last(self) -> None:
        held = [entry for key in KEYS if (entry := self.l1.get(key)) is not None]
        assert all(entry == self.put_last.get(entry.key.digest) for entry in held)
        size = self.l1.size()
        assert size == StoreSize(len(held), sum(entry.weight for entry in held))
        assert size.entries <= self.max_entries
        assert size.bytes <= L1_BYTES

    @rule(entry=entries)
    def a_lone_entry_is_kept(self, entry: Entry) -> None:
        self.l1.clear(Selection())
        self.put_last.clear()
        self.put(entry)
        assert self.l1.get(entry.key) == self.put_last[entry.key.digest]


L1Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestL1ReturnsWhatWasPutLast = L1Machine.TestCase

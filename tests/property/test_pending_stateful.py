"""Pending updates against a plain list, and a store against what it must hold in the end."""

from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aicache import StoreError
from aicache._model import CacheKey, Entry, Selection
from aicache._pending import PATIENCE, PendingUpdate, PendingUpdates
from aicache.testing import make_entry, make_key

MAX_ENTRIES = 4
NAMES = st.sampled_from("abcdef")
SIZES = st.sampled_from([1, 500, 3_000])
LIVES = st.sampled_from([None, 1.0, 5.0])
MAX_BYTES = 3 * make_entry("a", body=b"x" * 500).weight + 3_000


class PendingMachine(RuleBasedStateMachine):
    """The model is a list of (entry, failures), oldest first, and counters."""

    def __init__(self) -> None:
        super().__init__()
        self.pending = PendingUpdates(max_entries=MAX_ENTRIES, max_bytes=MAX_BYTES)
        self.model: list[tuple[Entry, int]] = []
        self.replayed = self.lost = 0
        self.now = 1_000.0
        self.version = 0

    def _make(self, name: str, size: int, life: float | None) -> Entry:
        self.version += 1
        expires = None if life is None else self.now + life
        return make_entry(name, str(self.version), body=b"x" * size, created=self.now, expires=expires)

    def _drop(self, unwanted: Callable[[Entry], bool]) -> None:
        self.model = [kept for kept in self.model if not unwanted(kept[0])]

    def _model_add(self, entry: Entry) -> None:
        self._drop(lambda kept: kept.key == entry.key)
        self.model.append((entry, 0))
        while len(self.model) > MAX_ENTRIES or sum(kept.weight for kept, _ in self.model) > MAX_BYTES:
            del self.model[0]
            self.lost += 1

    @rule(name=NAMES, size=SIZES, life=LIVES)
    def add(self, name: str, size: int, life: float | None) -> None:
        entry = self._make(name, size, life)
        self.pending.add(PendingUpdate(entry))
        self._model_add(entry)

    @rule(name=NAMES)
    def supersede(self, name: str) -> None:
        assert self.pending.supersede(make_entry(name)) is False
        self._drop(lambda kept: kept.key == make_key(name))

    @rule(names=st.lists(NAMES, max_size=3))
    def forget(self, names: list[str]) -> None:
        keys = [make_key(name) for name in names]
        self.pending.forget(keys)
        self._drop(lambda kept: kept.key in keys)

    @rule()
    def clear(self) -> None:
        self.pending.clear(Selection())
        self.model.clear()

    @rule(seconds=st.sampled_from([0.5, 2.0, 10.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(succeeding=st.integers(0, MAX_ENTRIES))
    def drain(self, succeeding: int) -> None:
        """So many writes succeed, the next one fails."""
        written: list[Entry] = []

        def write(update: PendingUpdate) -> None:
            if len(written) == succeeding:
                raise StoreError("down")
            written.append(update.entry)

        failed = False
        try:
            self.pending.drain(write, self._no_removal, self.now)
        except StoreError:
            failed = True
        expected = self._model_drain(succeeding)
        assert written == expected
        assert failed == (len(expected) == succeeding and self.model_failed)

    def _model_drain(self, succeeding: int) -> list[Entry]:
        written: list[Entry] = []
        self.model_failed = False
        while self.model:
            entry, failures = self.model.pop(0)
            if entry.expires is not None and entry.expires <= self.now:
                continue
            if len(written) == succeeding:
                self.model_failed = True
                if failures + 1 >= PATIENCE:
                    self.model.append((entry, 0))
                else:
                    self.model.insert(0, (entry, failures + 1))
                break
            written.append(entry)
        self.replayed += len(written)
        return written

    @staticmethod
    def _no_removal(key: CacheKey) -> None:
        raise AssertionError("nothing was forgotten while it was being written")

    @precondition(lambda self: self.model)
    @rule(name=NAMES, fails=st.booleans(), what=st.sampled_from(["answer", "forget", "clear", "nothing"]))
    def drain_one_while_something_happens(self, name: str, fails: bool, what: str) -> None:
        """A store that holds one version of each key must end with the newest one, or with none once it was removed."""
        store: dict[CacheKey, Entry] = {}
        latest: dict[CacheKey, Entry | None] = {}
        meddled = False

        def meddle() -> None:
            nonlocal meddled
            meddled = True
            match what:
                case "answer":
                    newer = self._make(name, 1, None)
                    overtakes = self.pending.supersede(newer)
                    store[newer.key] = newer
                    if overtakes:
                        self.pending.add(PendingUpdate(newer))
                    latest[newer.key] = newer
                case "forget":
                    self.pending.forget([make_key(name)])
                    store.pop(make_key(name), None)
                    latest[make_key(name)] = None
                case "clear":
                    self.pending.clear(Selection())
                    store.clear()
                    latest.update({entry.key: None for entry, _ in self.model})

        def write(update: PendingUpdate) -> None:
            if not meddled:
                meddle()
                if fails:
                    raise StoreError("down")
            store[update.entry.key] = update.entry

        def remove(key: CacheKey) -> None:
            store.pop(key, None)

        for _ in range(2):
            try:
                self.pending.drain(write, remove, self.now)
            except StoreError:
                continue
        for key, wanted in latest.items():
            if meddled:
                assert store.get(key) is wanted
        assert not self.pending.waiting
        self.model.clear()
        counts = self.pending.counts
        self.replayed, self.lost = counts.replayed, counts.lost

    @invariant()
    def counts_agree(self) -> None:
        counts = self.pending.counts
        assert counts.waiting == len(self.model) <= MAX_ENTRIES
        assert counts.bytes == sum(entry.weight for entry, _ in self.model) <= MAX_BYTES
        assert (counts.replayed, counts.lost) == (self.replayed, self.lost)
        assert self.pending.waiting == bool(self.model)


PendingMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestPending = PendingMachine.TestCase

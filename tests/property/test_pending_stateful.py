"""Pending updates against a plain list, and a store against what it must hold in the end."""

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

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


@dataclass(eq=False)
class DirectCall:
    """A direct write as its caller and its thread see it."""

    entry: Entry
    begun: bool = False
    calling: bool = True
    awaited: bool = True


class DirectWritesMachine(RuleBasedStateMachine):
    """Callers, calls and removals in any order: once all is over the store holds the last answer or none, never what
    was cleared and never an older answer that landed after a newer one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pending = PendingUpdates()
        self.bounded = False
        self.store: dict[CacheKey, Entry] = {}
        self.calls: list[DirectCall] = []
        self.given: dict[CacheKey, list[Entry]] = {}
        """The answers since the key was last cleared, oldest first."""
        self.certain: dict[CacheKey, Entry | None] = {}
        """The last answer, once it has landed or was kept to be written later."""
        self.version = 0

    @initialize(bounded=st.booleans())
    def begin(self, bounded: bool) -> None:
        self.bounded = bounded
        if bounded:
            self.pending = PendingUpdates(max_entries=1)

    @rule(name=st.sampled_from("ab"))
    def answer(self, name: str) -> None:
        self.version += 1
        entry = make_entry(name, str(self.version))
        self.pending.supersede(entry)
        self.calls.append(DirectCall(entry))
        self.given.setdefault(entry.key, []).append(entry)
        self.certain[entry.key] = None

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 20))
    def call_begins(self, which: int) -> None:
        call = self.calls[which % len(self.calls)]
        if not call.begun:
            call.begun = self.pending.begins(call.entry)
            assert call.begun == call.awaited
            call.calling = call.begun

    @precondition(lambda self: any(call.begun and call.calling for call in self.calls))
    @rule(which=st.integers(0, 20), lands=st.booleans(), says_so=st.booleans())
    def call_ends(self, which: int, lands: bool, says_so: bool) -> None:
        open_calls = [call for call in self.calls if call.begun and call.calling]
        call = open_calls[which % len(open_calls)]
        call.calling = False
        if lands:
            self.store[call.entry.key] = call.entry
        if lands and says_so:
            self.pending.ended(call.entry)
            call.awaited = False
            self._is_certain(call.entry)
        else:
            self.pending.stopped(call.entry)

    @precondition(lambda self: any(call.awaited for call in self.calls))
    @rule(which=st.integers(0, 20), keeps=st.booleans())
    def caller_leaves(self, which: int, keeps: bool) -> None:
        waiting = [call for call in self.calls if call.awaited]
        call = waiting[which % len(waiting)]
        call.awaited = False
        if keeps:
            self.pending.add_failed(PendingUpdate(call.entry))
            self._is_certain(call.entry)
        else:
            self.pending.left(call.entry)

    def _is_certain(self, entry: Entry) -> None:
        if self.given.get(entry.key, [])[-1:] == [entry]:
            self.certain[entry.key] = entry

    @rule(name=st.sampled_from("ab"), everything=st.booleans())
    def remove(self, name: str, everything: bool) -> None:
        if everything:
            self.pending.clear(Selection())
            self.store.clear()
            self.given.clear()
        else:
            key = make_key(name)
            self.pending.forget([key])
            self.store.pop(key, None)
            self.given.pop(key, None)

    @rule(
        fails=st.booleans(), first=st.sampled_from(["answer", "end", "remove", "nothing"]), name=st.sampled_from("ab")
    )
    def drain(self, fails: bool, first: str, name: str) -> None:
        """Before its first write or removal takes effect something else happens."""
        acts = {
            "answer": lambda: self.answer(name),
            "remove": lambda: self.remove(name, False),
            "end": lambda: (
                self.call_ends(0, True, True) if any(call.begun and call.calling for call in self.calls) else None
            ),
            "nothing": lambda: None,
        }
        todo = [acts[first]]

        def happen() -> None:
            if todo:
                todo.pop()()
                if fails:
                    raise StoreError("down")

        def write(update: PendingUpdate) -> None:
            happen()
            self.store[update.entry.key] = update.entry

        def remove(key: CacheKey) -> None:
            happen()
            self.store.pop(key, None)

        try:
            self.pending.drain(write, remove, 0.0)
        except StoreError:
            return

    @rule()
    def all_ends(self) -> None:
        for call in self.calls:
            if call.begun and call.calling:
                self.store[call.entry.key] = call.entry
                self.pending.ended(call.entry)
                self._is_certain(call.entry)
            elif call.awaited:
                self.pending.left(call.entry)
        self.calls.clear()
        self.drain(False, "nothing", "a")
        assert not self.pending.waiting
        assert not self.pending._direct
        for name in "ab":
            key = make_key(name)
            held, given = self.store.get(key), self.given.get(key, [])
            assert held is None or held in given
            last = self.certain.get(key) if given else None
            if last is not None and not self.bounded:
                assert held is last


DirectWritesMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestDirectWrites = DirectWritesMachine.TestCase
PendingMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestPending = PendingMachine.TestCase

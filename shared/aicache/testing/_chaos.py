"""A store that misbehaves as told: for tests of an application whose cache is in trouble."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar, Unpack, cast

from aicache._errors import UnreadableEntryError
from aicache._fork import in_forked_child
from aicache._model import CacheKey, Candidate, Entry, Listed, Search, Selection, Space, Vector
from aicache.stores.base import AsyncStore, BulkStore, Store
from aicache.testing._around import BulkAround, StoreAround
from aicache.testing._chaos_faults import ChaosFaults, Fate, Faults

__all__ = ["ChaosStore"]

P = ParamSpec("P")
R = TypeVar("R")

_WRITES: Final = frozenset({"write", "write_many"})
_COUNTED: Final = frozenset({"remove", "clear"})
"""What counts the entries it removes."""
_CHANGES: Final = _WRITES | _COUNTED | {"touch", "join"}
"""What a store that lags behind carries out later."""


class ChaosStore(StoreAround):
    """A store around another one that misbehaves as told, for sync and for async callers.

        chaos = ChaosStore(MemoryStore(), error_rate=0.2)
        cache = AICache(chaos)
        chaos.set(hang=1.0, only=["fetch"])  # from now on this, and nothing else
        chaos.calm()

    What befalls a call is drawn from the seed, the method and the number of the method's earlier calls: a test that
    makes the same calls meets the same faults. Of one call: first the delay, then the hang, then the error.

    `calls` counts the calls of each method, `faults` what was done to them: `error`, `delay`, `hang`, `lost write`,
    `damage`, `held back`. Async calls (`afetch`) count as their sync twins.

    It takes part in a cache as a networked store does: behind L1, and with deadlines, which cut what hangs. It writes
    many at once (`BulkStore`) and keeps lessons (`LessonStore`) if the store inside does.

    Args:
        store: what is inside.
        seed: another one gives other faults.
        sleep, asleep: how a delay is waited for.
        longest_hang: seconds after which a hang ends by itself: a thread's would else keep the program from ending.
        faults: as for `set`.

    Raises:
        ValueError: a fault makes no sense.
    """

    bounded = False
    """Calls may hang for ever, so that a sync call with a deadline is carried out in a thread."""

    def __init__(
        self,
        store: Store,
        *,
        seed: int = 0,
        sleep: Callable[[float], object] = time.sleep,
        asleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        longest_hang: float = 30.0,
        **faults: Unpack[ChaosFaults],
    ) -> None:
        super().__init__(store)
        self.calls: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self._native = store if isinstance(store, AsyncStore) else None
        self._seed = seed
        self._sleep = sleep
        self._asleep = asleep
        self._longest_hang = longest_hang
        self._lock = threading.Lock()
        self._faults = Faults.of(faults)
        self._hanging: set[Future[None]] = set()
        self._releases = 0
        self._held_back: list[Callable[[], object]] = []
        in_forked_child(self._begin_anew)

    def _begin_anew(self) -> None:
        """In a forked child: the threads that held the lock, or hang, are not there."""
        self._lock = threading.Lock()
        self._hanging = set()

    # ---------------------------------------------------------------------------------------- what is ordered

    def set(self, **faults: Unpack[ChaosFaults]) -> None:
        """Misbehave so from now on, and in no other way. What hangs goes on.

        Where `stale` ends, what was held back is carried out here, blocking.

        Raises:
            ValueError: a fault makes no sense; all stays as it was.
        """
        wanted = Faults.of(faults)
        with self._lock:
            self._faults = wanted
            held_back = [] if wanted.stale else self._held_back
            if not wanted.stale:
                self._held_back = []
        self.release()
        for change in held_back:
            change()

    def calm(self) -> None:
        """Misbehave no longer: as `set` without faults."""
        self.set()

    def release(self) -> None:
        """Let the calls that hang go on; later ones hang again."""
        with self._lock:
            self._releases += 1
            hanging, self._hanging = self._hanging, set()
        for one in hanging:
            one.set_result(None)

    @property
    def hanging(self) -> int:
        """Calls that hang now."""
        return len(self._hanging)

    @property
    def blocking(self) -> bool:
        """True, whatever is inside: it may wait."""
        return True

    def close(self) -> None:
        """Close the store inside; what hangs goes on."""
        self.release()
        super().close()

    # ---------------------------------------------------------------------------------------- the async half

    async def afetch(self, key: CacheKey) -> Entry | None:
        """As `AsyncStore.afetch`."""
        return await self._apass("fetch", self._store.fetch, key)

    async def anearest(self, search: Search) -> Sequence[Candidate]:
        """As `AsyncStore.anearest`."""
        return await self._apass("nearest", self._store.nearest, search)

    async def awrite(self, entry: Entry) -> None:
        """As `AsyncStore.awrite`."""
        await self._apass("write", self._store.write, entry)

    async def atouch(self, key: CacheKey, expires: float | None) -> None:
        """As `AsyncStore.atouch`."""
        await self._apass("touch", self._store.touch, key, expires)

    async def aremove(self, keys: Sequence[CacheKey], *, dry_run: bool = False) -> int:
        """As `AsyncStore.aremove`."""
        return await self._apass("remove", self._store.remove, keys, dry_run=dry_run)

    async def aclear(self, selection: Selection, *, dry_run: bool = False) -> int:
        """As `AsyncStore.aclear`."""
        return await self._apass("clear", self._store.clear, selection, dry_run=dry_run)

    async def asimilar(self, selection: Selection, space: Space, vector: Vector, min_score: float) -> Sequence[Listed]:
        """As `AsyncStore.asimilar`."""
        return await self._apass("similar", self._store.similar, selection, space, vector, min_score)

    async def ablock(self, asker: CacheKey, entry: CacheKey) -> None:
        """As `AsyncStore.ablock`."""
        await self._apass("block", self._store.block, asker, entry)

    async def asweep(self, now: float, limit: int) -> int:
        """As `AsyncStore.asweep`."""
        return await self._apass("sweep", self._store.sweep, now, limit)

    async def aepoch(self) -> int:
        """As `AsyncStore.aepoch`."""
        return await self._apass("epoch", self._store.epoch)

    async def aclose(self) -> None:
        """As `AsyncStore.aclose`."""
        self.release()
        await self._apass("close", self._store.close)

    # ---------------------------------------------------------------------------------------- one call

    @classmethod
    def _parts(cls, store: Store) -> tuple[type, ...]:
        parts = super()._parts(store)
        return (_AsyncBulk, *parts) if isinstance(store, BulkStore) else parts

    def _pass(self, method: str, act: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        fate = self._draw(method)
        if fate.delay:
            self._sleep(fate.delay)
        if fate.hangs:
            self._hang(fate)
        if self._ends_early(fate, method, act, args, kwargs):
            return cast("R", None)
        return self._damaged(fate, act(*args, **kwargs))

    async def _apass(self, method: str, act: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """As `_pass`. `act` is the sync twin, used where the store inside has no other."""
        fate = self._draw(method)
        if fate.delay:
            await self._asleep(fate.delay)
        if fate.hangs:
            await self._ahang(fate)
        if self._ends_early(fate, method, act, args, kwargs):
            return cast("R", None)
        # None too where a store with an async half lists and writes many in its sync half only.
        twin: Callable[P, Awaitable[R]] | None = getattr(self._native, f"a{method}", None)
        if twin is not None:
            return self._damaged(fate, await twin(*args, **kwargs))
        if self._store.blocking:
            return self._damaged(fate, await asyncio.to_thread(act, *args, **kwargs))
        return self._damaged(fate, act(*args, **kwargs))

    def _draw(self, method: str) -> Fate:
        """What befalls this call; counts it."""
        with self._lock:
            number = self.calls[method]
            self.calls[method] += 1
            chance = random.Random(f"{self._seed} {method} {number}")  # noqa: S311 - repeatable, no secret
            fate = self._faults.draw(method, chance, self._releases)
            self._count(delay=bool(fate.delay), hang=fate.hangs, error=fate.error is not None)
            return fate

    def _count(self, **happened: bool) -> None:
        self.faults.update(name.replace("_", " ") for name, true in happened.items() if true)

    def _ends_early(
        self, fate: Fate, method: str, act: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> bool:
        """Whether the call ends here as if it were carried out. One that is to count what it removes becomes a dry run.

        Raises:
            BaseException: the one it was told to raise.
        """
        if fate.error is not None:
            raise fate.error.with_traceback(None)  # Else each raise would add to the traceback of the one before.
        if fate.loses and method in _WRITES:
            with self._lock:
                self._count(lost_write=True)
            return True
        if not fate.stale or method not in _CHANGES or kwargs.get("dry_run"):
            return False
        with self._lock:
            self._held_back.append(partial(act, *args, **kwargs))
            self._count(held_back=True)
        if method not in _COUNTED:
            return True
        kwargs["dry_run"] = True
        return False

    def _damaged(self, fate: Fate, found: R) -> R:
        """What was found without what is damaged.

        Raises:
            UnreadableEntryError: it was one entry, and it is.
        """
        if not fate.damage:
            return found
        if isinstance(found, Entry) and fate.damages():
            with self._lock:
                self._count(damage=True)
            raise UnreadableEntryError("The entry was damaged by a test.")
        if isinstance(found, Sequence) and found and isinstance(found[0], Candidate | Entry):
            left = [one for one in found if not fate.damages()]
            with self._lock:
                self.faults["damage"] += len(found) - len(left)
            return cast("R", left)
        return found

    # ---------------------------------------------------------------------------------------- hanging

    def _hang(self, fate: Fate) -> None:
        end = self._begin_to_hang(fate)
        with suppress(TimeoutError):
            end.result(self._longest_hang)
        self._stop_hanging(end)

    async def _ahang(self, fate: Fate) -> None:
        end = self._begin_to_hang(fate)
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.wrap_future(end), self._longest_hang)
        finally:
            self._stop_hanging(end)

    def _stop_hanging(self, end: Future[None]) -> None:
        with self._lock:
            self._hanging.discard(end)

    def _begin_to_hang(self, fate: Fate) -> Future[None]:
        end: Future[None] = Future()
        end.set_running_or_notify_cancel()  # From now on whoever waits may be cancelled, and `release` still ends it.
        with self._lock:
            if fate.releases == self._releases:
                self._hanging.add(end)
            else:  # It was released before it began.
                end.set_result(None)
        return end


class _AsyncBulk(BulkAround):
    """The async half of `BulkStore`, for a `ChaosStore` around a store that has one half at least."""

    async def awrite_many(self: Any, entries: Sequence[Entry]) -> None:
        """As `AsyncBulkStore.awrite_many`."""
        await self._apass("write_many", self._store.write_many, entries)

    async def aentries(self: Any, selection: Selection) -> Sequence[Entry]:
        """As `AsyncBulkStore.aentries`."""
        found: Sequence[Entry] = await self._apass("entries", self._store.entries, selection)
        return found

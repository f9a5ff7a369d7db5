"""A store around another one: what the stores that misbehave as told have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Final, ParamSpec, TypeVar, cast

from aicache._model import CacheKey, Candidate, Entry, Listed, Search, Selection, Space, StoreSize, Vector
from aicache.stores.base import BulkStore, Lessons, LessonStore, Store

__all__ = ["STORE_METHODS", "BulkAround", "StoreAround", "chosen_methods"]

P = ParamSpec("P")
R = TypeVar("R")

STORE_METHODS: Final = frozenset(
    {
        "fetch",
        "nearest",
        "write",
        "touch",
        "remove",
        "clear",
        "similar",
        "block",
        "sweep",
        "size",
        "epoch",
        "close",
        "write_many",
        "entries",
        "append_lessons",
        "lessons",
        "keep_summary",
        "summary",
        "forget_lessons",
        "join",
    }
)
"""The methods of `Store`, `BulkStore` and `LessonStore`; async twins are called the same with an `a` before it."""


def chosen_methods(parameter: str, names: Iterable[str]) -> frozenset[str]:
    """These methods; without names all but `close`, which must work for a test to end.

    Raises:
        ValueError: a store has no such method.
    """
    chosen = frozenset(names)
    if unknown := chosen - STORE_METHODS:
        raise ValueError(f"{parameter}: a store has no method {min(unknown)!r}")
    return chosen or STORE_METHODS - {"close"}


class StoreAround(ABC):
    """A `Store` that hands each call to `_pass`, which may carry it out on the store inside.

    It is a `BulkStore` or a `LessonStore` if the one inside is. Whoever wants to know asks whether the class has the
    methods, so an instance becomes one of a subclass that has them.
    """

    @classmethod
    def _parts(cls, store: Store) -> tuple[type, ...]:
        """What the class has to be extended by to go around this store."""
        bulk = (BulkAround,) if isinstance(store, BulkStore) else ()
        return (*bulk, _LessonsAround) if isinstance(store, LessonStore) else bulk

    def __init__(self, store: Store) -> None:
        self._store = store
        self.__class__ = _extended(type(self), *self._parts(store))

    @abstractmethod
    def _pass(self, method: str, act: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Carry out `act`, which is this method of the store inside, or misbehave."""

    @property
    def name(self) -> str:
        """The name of the store inside."""
        return self._store.name

    @property
    def blocking(self) -> bool:
        """What the store inside says."""
        return self._store.blocking

    @property
    def seen_epoch(self) -> int | None:
        """What the store inside says, None if nothing."""
        seen: int | None = getattr(self._store, "seen_epoch", None)
        return seen

    @property
    def facts(self) -> Mapping[str, str]:
        """What the store inside says of itself."""
        facts: Mapping[str, str] = getattr(self._store, "facts", {})
        return facts

    def fetch(self, key: CacheKey) -> Entry | None:
        """As `Store.fetch`."""
        return self._pass("fetch", self._store.fetch, key)

    def nearest(self, search: Search) -> Sequence[Candidate]:
        """As `Store.nearest`."""
        return self._pass("nearest", self._store.nearest, search)

    def write(self, entry: Entry) -> None:
        """As `Store.write`."""
        self._pass("write", self._store.write, entry)

    def touch(self, key: CacheKey, expires: float | None) -> None:
        """As `Store.touch`."""
        self._pass("touch", self._store.touch, key, expires)

    def remove(self, keys: Sequence[CacheKey], *, dry_run: bool = False) -> int:
        """As `Store.remove`."""
        return self._pass("remove", self._store.remove, keys, dry_run=dry_run)

    def clear(self, selection: Selection, *, dry_run: bool = False) -> int:
        """As `Store.clear`."""
        return self._pass("clear", self._store.clear, selection, dry_run=dry_run)

    def similar(self, selection: Selection, space: Space, vector: Vector, min_score: float) -> Sequence[Listed]:
        """As `Store.similar`."""
        return self._pass("similar", self._store.similar, selection, space, vector, min_score)

    def block(self, asker: CacheKey, entry: CacheKey) -> None:
        """As `Store.block`."""
        self._pass("block", self._store.block, asker, entry)

    def sweep(self, now: float, limit: int) -> int:
        """As `Store.sweep`."""
        return self._pass("sweep", self._store.sweep, now, limit)

    def size(self) -> StoreSize:
        """As `Store.size`."""
        return self._pass("size", self._store.size)

    def epoch(self) -> int:
        """As `Store.epoch`."""
        return self._pass("epoch", self._store.epoch)

    def close(self) -> None:
        """As `Store.close`."""
        self._pass("close", self._store.close)


class BulkAround(StoreAround):
    """The methods of `BulkStore`, around a store that has them."""

    def write_many(self, entries: Sequence[Entry]) -> None:
        """As `BulkStore.write_many`."""
        self._pass("write_many", cast("BulkStore", self._store).write_many, entries)

    def entries(self, selection: Selection) -> Sequence[Entry]:
        """As `BulkStore.entries`."""
        return self._pass("entries", cast("BulkStore", self._store).entries, selection)


class _LessonsAround(StoreAround):
    """The methods of `LessonStore`, around a store that has them."""

    def append_lessons(self, log: bytes, lessons: Sequence[bytes]) -> int:
        """As `LessonStore.append_lessons`."""
        return self._pass("append_lessons", self._inside.append_lessons, log, lessons)

    def lessons(self, log: bytes, after: int) -> Lessons:
        """As `LessonStore.lessons`."""
        return self._pass("lessons", self._inside.lessons, log, after)

    def keep_summary(self, log: bytes, position: int, summary: bytes) -> None:
        """As `LessonStore.keep_summary`."""
        self._pass("keep_summary", self._inside.keep_summary, log, position, summary)

    def summary(self, log: bytes) -> tuple[int, bytes] | None:
        """As `LessonStore.summary`."""
        return self._pass("summary", self._inside.summary, log)

    def forget_lessons(self, log: bytes) -> None:
        """As `LessonStore.forget_lessons`."""
        self._pass("forget_lessons", self._inside.forget_lessons, log)

    def join(self, key: CacheKey, cluster: bytes) -> None:
        """As `LessonStore.join`."""
        self._pass("join", self._inside.join, key, cluster)

    @property
    def _inside(self) -> LessonStore:
        return cast("LessonStore", self._store)


Around = TypeVar("Around", bound=StoreAround)


@cache
def _extended(cls: type[Around], *parts: type) -> type[Around]:
    """The class with these parts; the same each time, and named as before."""
    missing = tuple(part for part in parts if not issubclass(cls, part))
    if not missing:
        return cls
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return cast("type[Around]", type(cls.__name__, (cls, *missing), names))

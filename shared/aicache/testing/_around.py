"""A store around another one: what the stores that misbehave as told have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, ParamSpec, TypeVar

from aicache._model import CacheKey, Candidate, Entry, Listed, Search, Selection, Space, StoreSize, Vector
from aicache.stores.base import Store

__all__ = ["STORE_METHODS", "StoreAround", "chosen_methods"]

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
    }
)
"""The methods of `Store`; those of `AsyncStore` are called the same with an `a` before it."""


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
    """A `Store` that hands each call to `_pass`, which may carry it out on the store inside."""

    def __init__(self, store: Store) -> None:
        self._store = store

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

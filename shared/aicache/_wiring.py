"""From a store, an embedding, a verification and limits to the ports that a driver acts on."""

from __future__ import annotations

from collections.abc import Callable

from aicache._breaker import Breaker
from aicache._clock import Clock
from aicache._driver import Embedding, Ports, Verification
from aicache._errors import QueryTooLongError, UnknownWordsError, UnreadableEntryError, UnwritableEntryError
from aicache._health import PartHealth
from aicache._pending import PendingUpdates
from aicache._replay import Replay
from aicache._resilience import Resilience
from aicache._steps import AnyStep, StepFailed
from aicache._workers import Workers
from aicache.stores.base import AsyncStore, Store
from aicache.stores.l1 import L1Cache, L1Circle

__all__ = ["is_networked", "wire"]


def wire(
    store: Store,
    l1: L1Cache | None,
    embedding: Embedding | None,
    verification: Verification | None,
    *,
    resilience: Resilience,
    clock: Clock,
    report: Callable[[AnyStep, StepFailed, BaseException], None],
    on_change: Callable[[str, PartHealth], None],
) -> Ports:
    """The ports of one cache, each part behind a breaker of its own.

    Args:
        report: called for every failed step.
        on_change: called with a part's name when its breaker opens, half opens or closes.
    """
    native = store if isinstance(store, AsyncStore) and getattr(store, "native", True) else None

    def guard(part: str, *harmless: type[Exception]) -> Breaker:
        return Breaker(
            part,
            clock=clock,
            failures=resilience.breaker_failures,
            reset=resilience.breaker_reset,
            harmless=harmless,
            on_change=on_change,
        )

    store_breaker = guard(store.name, UnreadableEntryError, UnwritableEntryError)
    embed_breaker = guard("embedder", QueryTooLongError, UnknownWordsError)
    workers = Workers()
    pending = PendingUpdates(max_entries=resilience.pending_entries, max_bytes=resilience.pending_bytes)
    circle = L1Circle(l1, store)
    pending.on_written = lambda update: (circle.forget if update.again else circle.replaced)(update.entry.key)
    pending.on_removed = circle.forget
    replay = Replay(
        pending,
        store=store,
        native=native,
        embedding=embedding,
        store_breaker=store_breaker,
        embed_breaker=embed_breaker,
        workers=workers,
        clock=clock,
        slow_after=resilience.update_seconds(networked=is_networked(store)),
    )
    return Ports(
        store=store,
        native=native,
        bounded=_is_bounded(store),
        heard=(lambda: store.seen_epoch) if hasattr(store, "seen_epoch") else None,
        l1=l1,
        circle=circle,
        embedding=embedding,
        verification=verification,
        workers=workers,
        clock=clock,
        store_breaker=store_breaker,
        embed_breaker=embed_breaker,
        verify_breaker=guard("verifier"),
        replay=replay,
        report=report,
    )


def is_networked(store: Store) -> bool:
    """Whether calls of this store may wait for something outside this machine, and so need a deadline."""
    return isinstance(store, AsyncStore) or not _is_bounded(store)


def _is_bounded(store: Store) -> bool:
    return bool(getattr(store, "bounded", True))

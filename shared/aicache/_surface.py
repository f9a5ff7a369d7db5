"""What every adapter's cache offers beside its framework's own port: statistics, upkeep, scopes, closing."""

from __future__ import annotations

from aicache._closing import Closing
from aicache._health import Health
from aicache._model import StoreSize
from aicache._scopes import ScopeBlock
from aicache._stats import Stats
from aicache.cache import SemanticCache

__all__ = ["Surface"]


class Surface(Closing):
    """The methods of a cache that are the same for every framework; an adapter's cache inherits them."""

    _core: SemanticCache

    def report(self, entry_id: str, *, wrong: bool) -> bool:
        """Say whether a hit was right; whether an entry was removed for it.

        A wrong one is removed everywhere, and the question that met it by meaning is never matched with it again.

        Args:
            entry_id: what the answer carries: `["aicache"]["entry_id"]`.
            wrong: True: it answered another question. False only counts.

        Raises:
            ConfigurationError: this is no such id.
            StoreError: the store could not be reached; report it again.
        """
        return self._core.report(entry_id, wrong=wrong)

    async def areport(self, entry_id: str, *, wrong: bool) -> bool:
        """As `report`, without blocking the event loop."""
        return await self._core.areport(entry_id, wrong=wrong)

    def stats(self) -> Stats:
        """Counters and latencies; `print(cache.stats())` shows them as a table."""
        return self._core.stats()

    def reset_stats(self) -> None:
        """Count from zero again."""
        self._core.reset_stats()

    def health(self) -> Health:
        """How the store and the embedder are: up, degraded or open, since when and why. Asks neither."""
        return self._core.health()

    def size(self) -> StoreSize:
        """Entries and bytes in the store.

        Raises:
            StoreError: the store could not be read.
        """
        return self._core.size()

    def sweep(self) -> int:
        """Remove some expired entries now; how many. Updates do so once a minute by themselves."""
        return self._core.sweep()

    # -------------------------------------------------------------------------------------------- scopes

    def bypass(self) -> ScopeBlock:
        """`with cache.bypass(): ...`: neither read nor write (any cache) inside the block."""
        return self._core.bypass()

    def refresh(self) -> ScopeBlock:
        """`with cache.refresh(): ...`: ask the model anew and keep its answer in place of the cached one."""
        return self._core.refresh()

    def tagged(self, *tags: str) -> ScopeBlock:
        """`with cache.tagged("prices"): ...`: answers stored inside carry the tags; see `clear(tag=...)`."""
        return self._core.tagged(*tags)

    def scope(
        self,
        *,
        bypass: bool = False,
        refresh: bool = False,
        tags: tuple[str, ...] = (),
        sources: tuple[str, ...] = (),
        ttl: float | None = None,
    ) -> ScopeBlock:
        """All of these in one block: `with cache.scope(ttl=60, sources=("handbook.pdf",)): ...`."""
        return self._core.scope(bypass=bypass, refresh=refresh, tags=tags, sources=sources, ttl=ttl)

    # --------------------------------------------------------------------------------------------- close

    def close(self) -> None:
        """Release files and threads; lookups after it are misses."""
        self._core.close()

    async def aclose(self) -> None:
        """As `close`, without blocking the event loop."""
        await self._core.aclose()

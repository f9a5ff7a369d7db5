"""LangChain's cache port, answered by the core.

LangChain hands over two strings, the serialised prompt and the description of the model, and expects None or a list of
fresh generations. Exceptions here would reach the application, so everything that can fail runs inside the core, which
contains it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, Unpack, get_args

from langchain_core.caches import RETURN_VAL_TYPE, BaseCache
from langchain_core.outputs import Generation

from aicache._errors import ConfigurationError
from aicache._explain import Explanation
from aicache._health import Health
from aicache._model import Answer, Hit, Miss, NotStored, Prompt, StoreSize, Unkeyable
from aicache._open import CacheOptions, open_cache
from aicache._scopes import ScopeBlock
from aicache._stats import Stats
from aicache.cache import Ask, Question
from aicache.stores.base import Store
from langchain_aicache._answers import HitMark, from_answer, to_answer
from langchain_aicache._embeddings import to_embedder
from langchain_aicache._llm_string import ModelReader
from langchain_aicache._prompts import read_prompt

if TYPE_CHECKING:
    from langchain_aicache._explain import Asked

__all__ = ["AICache"]

UsageOnHit: TypeAlias = Literal["original", "zero"]


class AICache(BaseCache):
    """An answer cache for LangChain: `set_llm_cache(AICache())`, and nothing else changes.

    Args:
        store: where answers are kept: None for a SQLite file in the user's cache folder, `memory://`,
            `sqlite:///path.db`, or a `Store`.
        embeddings: what turns questions into vectors: a LangChain `Embeddings`, a model name or folder, a callable,
            an `Embedder`; None for the local model if its extra is installed; False for exact matching only.
        usage_on_hit: the token usage a hit reports: `original` (what the answer once cost) or `zero`.
        cache_truncated: keep answers that the model broke off for length or a content filter; default False.
        options: see `aicache.CacheOptions`.

    Raises:
        ConfigurationError: an argument is wrong; the text begins with its name.
        MissingExtraError: `embeddings` names a model whose extra is not installed.
    """

    def __init__(
        self,
        store: str | Store | None = None,
        *,
        embeddings: object = None,
        usage_on_hit: UsageOnHit = "original",
        cache_truncated: bool = False,
        **options: Unpack[CacheOptions],
    ) -> None:
        if usage_on_hit not in get_args(UsageOnHit):
            raise ConfigurationError("usage_on_hit", f'give "original" or "zero"; got {usage_on_hit!r}')
        self._usage_on_hit: UsageOnHit = usage_on_hit
        self._keep_truncated = cache_truncated
        self._read_model = ModelReader()
        self._core = open_cache(store, to_embedder(embeddings), options)

    # ------------------------------------------------------------------------------- LangChain's port

    def lookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """The generations cached for this prompt and model, fresh objects, or None. Never raises."""
        return _or_none(self._core.lookup(self._ask(prompt, llm_string), self._decode))

    async def alookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """As `lookup`, without blocking the event loop."""
        return _or_none(await self._core.alookup(self._ask(prompt, llm_string), self._decode))

    def update(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """Keep the model's generations. Never raises; what is not kept is counted in `stats().not_stored`."""
        self._core.update(self._ask(prompt, llm_string), self._encoder(return_val))

    async def aupdate(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """As `update`, without blocking the event loop."""
        await self._core.aupdate(self._ask(prompt, llm_string), self._encoder(return_val))

    def clear(self, **kwargs: Any) -> None:
        """Remove entries of this namespace: all, or those that agree with every argument given.

        Args:
            **kwargs: `tag`, `tenant` (texts), `llm_string` (LangChain's description of a model), and
                `all_tenants=True` for everybody's; without `tenant` it is the cache's own.

        Raises:
            ConfigurationError: there is no such argument, or the model cannot be told from its description.
            StoreError: the store could not be reached.
        """
        self._core.clear(**self._clearing(kwargs))

    async def aclear(self, **kwargs: Any) -> None:
        """As `clear`, without blocking the event loop."""
        await self._core.aclear(**self._clearing(kwargs))

    # ------------------------------------------------------------------------------------ asked by people

    def explain(self, prompt: Asked, llm: object) -> Explanation:
        """What the cache would do with this prompt now, and why; nothing is changed or counted.

        Args:
            prompt: what `llm.invoke` takes (text, messages, a prompt value), or LangChain's serialised form.
            llm: the model, also with bound tools or parameters, or LangChain's description of it.

        Raises:
            ConfigurationError: `llm` is neither.
        """
        # Imported here: LangChain's models take half a second, and a cache that only answers needs none of them.
        from langchain_aicache._explain import describe

        text, llm_string = describe(prompt, llm)
        return self._core.explain(self._ask(text, llm_string))

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
        self, *, bypass: bool = False, refresh: bool = False, tags: tuple[str, ...] = (), ttl: float | None = None
    ) -> ScopeBlock:
        """All of these in one block: `with cache.scope(ttl=60, tags=("prices",)): ...`."""
        return self._core.scope(bypass=bypass, refresh=refresh, tags=tags, ttl=ttl)

    # --------------------------------------------------------------------------------------------- close

    def close(self) -> None:
        """Release files and threads; lookups after it are misses."""
        self._core.close()

    async def aclose(self) -> None:
        """As `close`, without blocking the event loop."""
        await self._core.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # ------------------------------------------------------------------------------------------ translation

    def _ask(self, prompt: str, llm_string: str) -> Ask:
        return lambda: self._question(prompt, llm_string)

    def _question(self, prompt: str, llm_string: str) -> Question | Unkeyable:
        model = self._read_model(llm_string)
        if isinstance(model, Unkeyable):
            return model
        # The model's digest has a fixed length, so that no separator can be forged.
        raw = sha256(model + prompt.encode("utf-8", "surrogatepass")).digest()
        return Question(raw, lambda: _read(prompt, model))

    def _decode(self, hit: Hit) -> list[Generation]:
        return from_answer(hit.entry.answer, hit=HitMark.of(hit), usage_on_hit=self._usage_on_hit)

    def _encoder(self, generations: Sequence[Generation]) -> Callable[[], Answer | NotStored]:
        return lambda: to_answer(generations, keep_truncated=self._keep_truncated)

    def _clearing(self, arguments: dict[str, Any]) -> dict[str, Any]:
        known = {"tag", "tenant", "llm_string", "all_tenants"}
        for name, value in arguments.items():
            if name not in known:
                raise ConfigurationError(name, f"clear() takes {', '.join(sorted(known))}, or nothing for all")
            if name == "all_tenants" and isinstance(value, bool):
                continue
            if not isinstance(value, str):
                raise ConfigurationError(name, f"give a text; got {type(value).__name__}")
        wanted: dict[str, Any] = {
            name: arguments[name] for name in ("tag", "tenant", "all_tenants") if name in arguments
        }
        if "llm_string" in arguments:
            model = self._read_model(arguments["llm_string"])
            if isinstance(model, Unkeyable):
                raise ConfigurationError("llm_string", f"this model is never cached: {model.why}")
            wanted["model"] = model
        return wanted


def _or_none(answer: list[Generation] | Miss) -> list[Generation] | None:
    return None if isinstance(answer, Miss) else answer


def _read(prompt: str, model: bytes) -> Prompt | Unkeyable:
    reading = read_prompt(prompt)
    return reading if isinstance(reading, Unkeyable) else Prompt(*reading, model)

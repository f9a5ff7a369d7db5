"""LangChain's cache port, answered by the core.

LangChain hands over two strings, the serialised prompt and the description of the model, and expects None or a list of
fresh generations. Exceptions here would reach the application, so everything that can fail runs inside the core, which
contains it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, Unpack, get_args

from langchain_core.caches import RETURN_VAL_TYPE, BaseCache
from langchain_core.outputs import Generation

from aicache._errors import ConfigurationError
from aicache._explain import Explanation
from aicache._invalidation import Invalidation, What
from aicache._model import Answer, Hit, Miss, NotStored, Prompt, Unkeyable
from aicache._open import CacheOptions, open_cache
from aicache._surface import Surface
from aicache.cache import Ask, Question
from aicache.stores.base import Store
from langchain_aicache._answers import HitMark, from_answer, read_answer, to_answer
from langchain_aicache._embeddings import to_embedder
from langchain_aicache._llm_string import ModelReader, NamedModel
from langchain_aicache._prompts import read_prompt

if TYPE_CHECKING:
    from langchain_aicache._explain import Asked

__all__ = ["AICache"]

UsageOnHit: TypeAlias = Literal["original", "zero"]


class AICache(Surface, BaseCache):
    """An answer cache for LangChain: `set_llm_cache(AICache())`, and nothing else changes.

    Args:
        store: where answers are kept: None for a SQLite file in the user's cache folder, `memory://`, `redis://...`,
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
        self._core = open_cache(store, to_embedder(embeddings), options, read=read_answer)

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

    def lookup_many(self, prompts: Sequence[str], llm_string: str) -> list[RETURN_VAL_TYPE | None]:
        """As `lookup` of each; a Redis is asked for all of them in one or two round trips."""
        asks = [self._ask(prompt, llm_string) for prompt in prompts]
        return [_or_none(answer) for answer in self._core.lookup_many(asks, self._decode)]

    async def alookup_many(self, prompts: Sequence[str], llm_string: str) -> list[RETURN_VAL_TYPE | None]:
        """As `lookup_many`, without blocking the event loop."""
        asks = [self._ask(prompt, llm_string) for prompt in prompts]
        return [_or_none(answer) for answer in await self._core.alookup_many(asks, self._decode)]

    # --------------------------------------------------------------------------------------- invalidation

    def clear(self, **kwargs: Any) -> None:
        """Remove entries of this namespace: all, or those that agree with every argument given.

        Args:
            **kwargs: as for `invalidate`, and `llm_string`, LangChain's description of a model.

        Raises:
            ConfigurationError: there is no such argument, or the model cannot be told from its description.
            StoreError: the store could not be reached.
        """
        described = self._describe(kwargs.pop("llm_string"), "llm_string") if "llm_string" in kwargs else None
        self._core.clear(described=described, **kwargs)

    async def aclear(self, **kwargs: Any) -> None:
        """As `clear`, without blocking the event loop."""
        described = self._describe(kwargs.pop("llm_string"), "llm_string") if "llm_string" in kwargs else None
        await self._core.aclear(described=described, **kwargs)

    def invalidate(
        self, prompt: Asked | None = None, *, llm: object = None, dry_run: bool = False, **what: Unpack[What]
    ) -> Invalidation:
        """Take answers back, for all processes that share the store: `cache.invalidate(source="handbook.pdf")`.

        Args:
            prompt: with `llm`: the answer to exactly this, given as to `explain`.
            llm: without `prompt`: only answers of this very model, its parameters and tools.
            dry_run: True: say what would go, and change nothing.
            what: which entries; see `aicache.What`.

        Raises:
            ConfigurationError: an argument is wrong, or none is given.
            StoreError: the store could not be reached; entries in this process are gone, those in the store may not be.
            EmbedderError: there is no vector for `like`.
        """
        ask, described = self._meant(prompt, llm)
        return self._core.invalidate(ask, described=described, dry_run=dry_run, **what)

    async def ainvalidate(
        self, prompt: Asked | None = None, *, llm: object = None, dry_run: bool = False, **what: Unpack[What]
    ) -> Invalidation:
        """As `invalidate`, without blocking the event loop."""
        ask, described = self._meant(prompt, llm)
        return await self._core.ainvalidate(ask, described=described, dry_run=dry_run, **what)

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

    # ------------------------------------------------------------------------------------------ translation

    def _ask(self, prompt: str, llm_string: str) -> Ask:
        return lambda: self._question(prompt, llm_string)

    def _question(self, prompt: str, llm_string: str) -> Question | Unkeyable:
        model = self._read_model(llm_string)
        if isinstance(model, Unkeyable):
            return model
        # The model's digest has a fixed length, so that no separator can be forged.
        raw = sha256(model.model + prompt.encode("utf-8", "surrogatepass")).digest()
        return Question(raw, lambda: _read(prompt, model))

    def _decode(self, hit: Hit) -> list[Generation]:
        return from_answer(hit.entry.answer, hit=HitMark.of(hit), usage_on_hit=self._usage_on_hit)

    def _encoder(self, generations: Sequence[Generation]) -> Callable[[], Answer | NotStored]:
        return lambda: to_answer(generations, keep_truncated=self._keep_truncated)

    def _meant(self, prompt: Asked | None, llm: object) -> tuple[Ask | None, bytes | None]:
        """One prompt of one model, or all of a model."""
        if llm is None:
            if prompt is not None:
                raise ConfigurationError("llm", "give the model with the prompt: the same prompt is an entry for each")
            return None, None
        from langchain_aicache._explain import describe

        text, llm_string = describe("" if prompt is None else prompt, llm)
        if prompt is not None:
            return self._ask(text, llm_string), None
        return None, self._describe(llm_string, "llm")

    def _describe(self, llm_string: object, parameter: str) -> bytes:
        if not isinstance(llm_string, str):
            raise ConfigurationError(parameter, f"give a text; got {type(llm_string).__name__}")
        model = self._read_model(llm_string)
        if isinstance(model, Unkeyable):
            raise ConfigurationError(parameter, f"this model is never cached: {model.why}")
        return model.model


def _or_none(answer: list[Generation] | Miss) -> list[Generation] | None:
    return None if isinstance(answer, Miss) else answer


def _read(prompt: str, model: NamedModel) -> Prompt | Unkeyable:
    reading = read_prompt(prompt)
    return reading if isinstance(reading, Unkeyable) else Prompt(*reading, model.model, model_name=model.name)

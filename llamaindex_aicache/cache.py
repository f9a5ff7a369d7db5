"""The cache as a LlamaIndex application sees it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Self, TypeAlias, TypeVar, Unpack, get_args

from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.llms import LLM
from llama_index.core.prompts import BasePromptTemplate

from aicache._errors import ConfigurationError
from aicache._explain import Explanation
from aicache._invalidation import Invalidation, What
from aicache._model import Unkeyable
from aicache._open import CacheOptions, open_cache
from aicache._surface import Surface
from aicache.cache import Ask
from aicache.stores.base import Store
from llamaindex_aicache._answers import reading
from llamaindex_aicache._calls import Call, Calls
from llamaindex_aicache._embedder import to_embedder
from llamaindex_aicache._embeddings import VectorFormat
from llamaindex_aicache._install import Installation, InstallScope, install, uninstall
from llamaindex_aicache._key_values import KeyValues
from llamaindex_aicache._kvstore import AICacheKVStore
from llamaindex_aicache._models_swap import ModelSwapper, Swappable, owner_of

__all__ = ["AICache"]

M = TypeVar("M", bound=Swappable)

Asked: TypeAlias = str | Sequence[ChatMessage] | BasePromptTemplate
"""What a model is asked: a text, messages, or a template whose variables are given beside it."""

VECTORS: Final = "vector"
"""The kind of blobs that vectors of embedding models are."""


class AICache(Surface, KeyValues):
    """An answer cache for LlamaIndex: `AICache().install()`, and nothing else changes.

    It is a key-value store too, for a model's field `embeddings_cache`; `wrap` and `install` need no such field.

    Args:
        store: where answers are kept: None for a SQLite file in the user's cache folder, `memory://`, `redis://...`,
            `sqlite:///path.db`, or a `Store`.
        embeddings: what turns questions into vectors to be matched by meaning: a LlamaIndex `BaseEmbedding`, a model
            name or folder, a callable, an `Embedder`; None for the local model if its extra is installed; False for
            exact matching only.
        cache_truncated: keep answers that the model broke off for length or a content filter; default False.
        vector_format: how vectors of cached embedding models are kept: `float32` (default), `float16`, `int8`.
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
        cache_truncated: bool = False,
        vector_format: VectorFormat = "float32",
        **options: Unpack[CacheOptions],
    ) -> None:
        if vector_format not in get_args(VectorFormat):
            raise ConfigurationError("vector_format", f'give "float32", "float16" or "int8"; got {vector_format!r}')
        self._core = open_cache(store, to_embedder(embeddings), options, read=reading)
        self._vector_format: VectorFormat = vector_format
        self._calls = Calls(self._core, keep_truncated=cache_truncated)
        self._key_values = AICacheKVStore(self)
        self._wrapped = self._swapper(is_explicit=True)
        self._installations: tuple[Installation, ...] = ()

    # ---------------------------------------------------------------------------------------- which models

    def install(self, scope: InstallScope = "settings") -> Self:
        """Cache every model that `Settings` hands out, set before or after; returns the cache.

        The last one installed acts. Installing a cache again changes its scope.

        Args:
            scope: `settings`; or `all`: also models made from now on and passed to LlamaIndex explicitly.

        Raises:
            ConfigurationError: there is no such scope.
        """
        before = self._installations
        self._install(scope)
        self._uninstall(before)
        return self

    def uninstall(self) -> None:
        """Leave LlamaIndex as it was: `Settings`, and all models that this cache has swapped, wrapped ones too."""
        self._uninstall(self._installations)
        self._wrapped.restore_all()

    @contextmanager
    def installed(self, scope: InstallScope = "settings") -> Iterator[Self]:
        """`with cache.installed(): ...`: installed inside the block only.

        Raises:
            ConfigurationError: there is no such scope.
        """
        installation = self._install(scope)
        try:
            yield self
        finally:
            self._uninstall((installation,))

    def wrap(self, model: M) -> M:
        """Cache this model, language model or embedding model; returns the same object.

        One that another cache has wrapped changes to this one.

        Raises:
            ConfigurationError: it is no such model, or its class cannot be extended.
        """
        if not isinstance(model, Swappable):
            raise ConfigurationError("model", f"give an LLM or a BaseEmbedding; got {type(model).__qualname__}")
        self._wrapped.swap(model)
        return model

    def unwrap(self, model: M) -> M:
        """Cache this model no longer; returns the same object. One that this cache does not cache stays as it is."""
        owner = owner_of(model)
        for mine in (self._wrapped, *(each.swapper for each in self._installations)):
            if owner is mine:
                mine.restore(model)
        return model

    def _install(self, scope: InstallScope) -> Installation:
        if scope not in get_args(InstallScope):
            raise ConfigurationError("scope", f'give "settings" or "all"; got {scope!r}')
        installation = Installation(self._swapper(is_explicit=False), scope)
        self._installations = (*self._installations, installation)
        install(installation)
        return installation

    def _uninstall(self, installations: tuple[Installation, ...]) -> None:
        self._installations = tuple(each for each in self._installations if each not in installations)
        for installation in installations:
            uninstall(installation)

    def _swapper(self, *, is_explicit: bool) -> ModelSwapper:
        return ModelSwapper(self._calls, self._core.blobs(VECTORS), self._vector_format, is_explicit=is_explicit)

    # --------------------------------------------------------------------------------------- invalidation

    def clear(self, *, llm: LLM | None = None, **what: Unpack[What]) -> None:
        """Remove entries of this namespace: all, or those that agree with every argument given.

        Args:
            llm: only answers of this very model and its parameters.
            what: as for `invalidate`.

        Raises:
            ConfigurationError: there is no such argument, or the model is never cached.
            StoreError: the store could not be reached.
        """
        self._core.clear(described=self._described(llm), **what)

    async def aclear(self, *, llm: LLM | None = None, **what: Unpack[What]) -> None:
        """As `clear`, without blocking the event loop."""
        await self._core.aclear(described=self._described(llm), **what)

    def invalidate(
        self, prompt: Asked | None = None, *, llm: LLM | None = None, dry_run: bool = False, **what: Unpack[What]
    ) -> Invalidation:
        """Take answers back, for all processes that share the store: `cache.invalidate(source="handbook.pdf")`.

        Args:
            prompt: with `llm`: the answer to exactly this: a text, or messages.
            llm: without `prompt`: only answers of this very model and its parameters.
            dry_run: True: say what would go, and change nothing.
            what: which entries; see `aicache.What`.

        Raises:
            ConfigurationError: an argument is wrong, or none is given.
            StoreError: the store could not be reached; entries in this process are gone, those in the store may not be.
            EmbedderError: there is no vector for `like`.
        """
        ask = None if prompt is None else self._ask(prompt, llm, {})
        described = self._described(llm) if ask is None else None
        return self._core.invalidate(ask, described=described, dry_run=dry_run, **what)

    async def ainvalidate(
        self, prompt: Asked | None = None, *, llm: LLM | None = None, dry_run: bool = False, **what: Unpack[What]
    ) -> Invalidation:
        """As `invalidate`, without blocking the event loop."""
        ask = None if prompt is None else self._ask(prompt, llm, {})
        described = self._described(llm) if ask is None else None
        return await self._core.ainvalidate(ask, described=described, dry_run=dry_run, **what)

    # ------------------------------------------------------------------------------------ asked by people

    def explain(self, prompt: Asked, llm: LLM, **kwargs: Any) -> Explanation:
        """What the cache would do with this prompt now, and why; nothing is changed or counted.

        Args:
            prompt: messages, as for `llm.chat`; a text, as for `llm.chat` of a chat model and `llm.complete` of others;
                a template, as for `llm.predict`.
            llm: the model; wrapped or not.
            kwargs: of a template: its variables; else the other arguments of the call, such as `tools`.

        Raises:
            ConfigurationError: `llm` is no model.
        """
        return self._core.explain(self._ask(prompt, llm, kwargs))

    def _ask(self, prompt: Asked, llm: LLM | None, kwargs: dict[str, Any]) -> Ask:
        if not isinstance(llm, BaseLLM):
            raise ConfigurationError("llm", "give the model with the prompt: the same prompt is an entry for each")
        return self._calls.asked(_read_call(prompt, llm, kwargs))

    def _described(self, llm: LLM | None) -> bytes | None:
        if llm is None:
            return None
        model = self._calls.read_model(llm)
        if isinstance(model, Unkeyable):
            raise ConfigurationError("llm", f"this model is never cached: {model.why}")
        return model.model

    # --------------------------------------------------------------------------------------------- close

    def close(self) -> None:
        """Uninstall, and release files and threads; lookups after it are misses."""
        self.uninstall()
        super().close()

    async def aclose(self) -> None:
        """As `close`, without blocking the event loop."""
        self.uninstall()
        await super().aclose()


def _read_call(prompt: Asked, llm: BaseLLM, kwargs: dict[str, Any]) -> Call:
    """The call that would ask this."""
    is_chat = not isinstance(prompt, str) or llm.metadata.is_chat_model
    if isinstance(prompt, BasePromptTemplate) and isinstance(llm, LLM):
        noted = (prompt, kwargs)
        if llm.metadata.is_chat_model:
            return Call(llm, True, llm._get_messages(prompt, **kwargs), False, {}, noted)  # noqa: FBT003
        return Call(llm, False, llm._get_prompt(prompt, **kwargs), True, {}, noted)  # noqa: FBT003
    if isinstance(prompt, str) and is_chat:
        prompt = [ChatMessage(role=MessageRole.USER, content=prompt)]
    return Call(llm, is_chat, prompt, is_formatted=False, kwargs=kwargs)

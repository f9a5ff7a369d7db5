"""Which objects are swapped, and how: language models, structured models around them, embedding models."""

from __future__ import annotations

from typing import Any, TypeAlias

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.llms.structured_llm import StructuredLLM

from aicache._blobs import Blobs
from llamaindex_aicache._calls import Calls
from llamaindex_aicache._embedding_swap import attach_vectors
from llamaindex_aicache._embeddings import VectorCache, VectorFormat
from llamaindex_aicache._methods import attach_calls
from llamaindex_aicache._noted import attach_notes
from llamaindex_aicache._swap import Swapper, swapper_of

__all__ = ["ModelSwapper", "Swappable", "owner_of"]

Swappable: TypeAlias = BaseLLM | BaseEmbedding


class ModelSwapper:
    """Swaps models of both kinds for one cache and one purpose, and restores them.

    Args:
        calls: what is done about a language model's calls.
        blobs: where vectors are kept.
        vector_format: their format.
        is_explicit: whether somebody named the very models; an installation leaves these as they are.
    """

    def __init__(self, calls: Calls, blobs: Blobs, vector_format: VectorFormat, *, is_explicit: bool) -> None:
        self.is_explicit = is_explicit
        self._calls = calls
        self._llms: Swapper[BaseLLM] = Swapper(self._attach, owner=self)
        self._vectors = VectorCache(blobs, vector_format)
        self._embedders: Swapper[BaseEmbedding] = Swapper(self._attach_vectors, owner=self)

    def swap(self, model: Swappable) -> None:
        """Let this very object ask the cache; one that asks another changes to this one.

        Raises:
            ConfigurationError: Python refuses to change its class.
        """
        owner = owner_of(model)
        if owner is self:
            return
        if owner is not None:
            owner.restore(model)
        if isinstance(model, BaseEmbedding):
            self._embedders.swap(model)
            return
        if isinstance(model, StructuredLLM):
            self.swap(model.llm)
        self._llms.swap(model)

    def restore(self, model: Swappable) -> None:
        """Give a model that was swapped here its own class back."""
        if owner_of(model) is not self:
            return
        if isinstance(model, BaseEmbedding):
            self._embedders.restore(model)
            return
        if isinstance(model, StructuredLLM):
            self.restore(model.llm)
        self._llms.restore(model)

    def restore_all(self) -> None:
        """Give all that are still alive their own classes back. Others, as of a copy being called, add nothing."""
        self._llms.restore_all()
        self._embedders.restore_all()

    def _attach(self, swapped: type[BaseLLM], swapper: Swapper[BaseLLM]) -> None:
        attach_notes(swapped)
        if issubclass(swapped, StructuredLLM):
            return  # it returns objects, made of an answer of the model inside, which is cached
        attach_calls(swapped, swapper, self._calls)
        self._attach_structured(swapped)

    def _attach_vectors(self, swapped: type[BaseEmbedding], swapper: Swapper[BaseEmbedding]) -> None:
        attach_vectors(swapped, swapper, self._vectors)

    def _attach_structured(self, swapped: type[Any]) -> None:
        def as_structured_llm(model: Any, *args: Any, **kwargs: Any) -> Any:
            structured = getattr(super(swapped, model), "as_structured_llm")(*args, **kwargs)  # noqa: B009 - only LLM has it
            if owner_of(model) is self and isinstance(structured, StructuredLLM):
                self.swap(structured)
            return structured

        if hasattr(swapped, "as_structured_llm"):
            as_structured_llm.__doc__ = swapped.as_structured_llm.__doc__
            as_structured_llm.__wrapped__ = swapped.as_structured_llm  # type: ignore[attr-defined]
            swapped.as_structured_llm = as_structured_llm


def owner_of(model: object) -> ModelSwapper | None:
    """Who swapped this model; None if nobody did."""
    swapper = swapper_of(model)
    owner = None if swapper is None else swapper.owner
    return owner if isinstance(owner, ModelSwapper) else None

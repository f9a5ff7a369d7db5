"""A LlamaIndex embedding model as the embedder that questions are matched by."""

from __future__ import annotations

from collections.abc import Sequence

from llama_index.core.base.embeddings.base import BaseEmbedding

from aicache._errors import ConfigurationError
from aicache._model import Unkeyable
from aicache.embedders._select import chosen_embedder
from aicache.embedders.base import Embedder
from aicache.embedders.sentence_transformers import refuse_long
from llamaindex_aicache._embeddings import describe

__all__ = ["LlamaIndexEmbedder", "to_embedder"]

_SHOWN: int = 16
"""Digits of the model's hash that its vectors are known by."""


class LlamaIndexEmbedder:
    """A LlamaIndex `BaseEmbedding` as an embedder.

    Questions are compared with questions, so both sides are embedded as queries. It always runs in a thread: many
    models' async methods compute where they stand, and would block the event loop.

    Args:
        model: what makes the vectors.

    Raises:
        ConfigurationError: the model cannot be told from others.
    """

    def __init__(self, model: BaseEmbedding) -> None:
        described = describe(model)
        if isinstance(described, Unkeyable):
            raise ConfigurationError(
                "embeddings",
                f"{described.why}: give CallableEmbedder(model.get_query_embedding, name=...) the name of the model",
            )
        kind = vars(type(model)).get("__aicache_original__", type(model))
        self._model = model
        # Neither events nor a rate limiter nor another cache: the application did not ask for these vectors.
        self._embed = kind._get_query_embedding
        self._fingerprint = f"llamaindex:{kind.__module__}.{kind.__qualname__},{described.hex()[:_SHOWN]}"

    @property
    def fingerprint(self) -> str:
        """Class, and a hash of the parameters that are no credentials."""
        return self._fingerprint

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector a text.

        Raises:
            QueryTooLongError: a text is longer than a local model takes.
        """
        local = getattr(self._model, "_model", None)
        if type(local).__module__.partition(".")[0] == "sentence_transformers":
            refuse_long(local, texts)  # it would cut the text silently; a service refuses by itself
        return [self._embed(self._model, text) for text in texts]


def to_embedder(embeddings: object) -> Embedder | None:
    """The embedder that a user of the LlamaIndex adapter means.

    Args:
        embeddings: a LlamaIndex `BaseEmbedding`; None for the local model, or exact matching where its extra is not
            installed; else as `aicache.embedders._select.resolve_embedder` takes it.

    Raises:
        ConfigurationError: it is none of these, or a model that cannot be told from others.
        MissingExtraError: it names a model, and the extra that runs it is not installed.
    """
    return LlamaIndexEmbedder(embeddings) if isinstance(embeddings, BaseEmbedding) else chosen_embedder(embeddings)

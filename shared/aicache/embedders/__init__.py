"""Embedders: text to vector.

The names are imported when they are first used, for a cache without an embedder needs none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from aicache.embedders.base import Embedder

if TYPE_CHECKING:
    from aicache.embedders._select import default_embedder, resolve_embedder
    from aicache.embedders.callables import CallableEmbedder
    from aicache.embedders.onnx import OnnxEmbedder
    from aicache.embedders.sentence_transformers import SentenceTransformerEmbedder

__all__ = [
    "CallableEmbedder",
    "Embedder",
    "OnnxEmbedder",
    "SentenceTransformerEmbedder",
    "default_embedder",
    "resolve_embedder",
]

_HOMES: Final = {
    "CallableEmbedder": "callables",
    "OnnxEmbedder": "onnx",
    "SentenceTransformerEmbedder": "sentence_transformers",
    "default_embedder": "_select",
    "resolve_embedder": "_select",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

"""Vectors of embedding models as blobs: what identifies a model, how a vector becomes bytes, reads and writes of many.

A vector belongs to the model with all its parameters, to its kind (a query or a text, which asymmetric models embed
differently) and to the very text.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from hashlib import sha256
from pathlib import PurePath
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding

from aicache._blobs import Blobs
from aicache._errors import ConfigurationError
from aicache._model import Unkeyable
from llamaindex_aicache._engines import name_of_engine
from llamaindex_aicache._models import COUNTERS
from llamaindex_aicache._swap import swapper_of
from llamaindex_aicache._values import UnseenError, counted, dump, name_of_class

__all__ = ["Kind", "VectorCache", "VectorFormat", "describe"]

Kind: TypeAlias = Literal["query", "text"]
VectorFormat: TypeAlias = Literal["float32", "float16", "int8"]
Embedding: TypeAlias = list[float]

# ------------------------------------------------------------------------------------------- the model

IRRELEVANT: Final = frozenset(
    {
        "cache_dir",
        "cache_folder",
        "device",
        "embed_batch_size",
        "embeddings_cache",
        "num_workers",
        "parallel_process",
        "show_progress_bar",
        "threads",
    }
)
"""Settings, with or without an underscore before them, by which a model finds or computes a vector, and the same one.
What concerns credentials and transport is left out besides."""

_WRAPPED: Final = "_langchain_embedding"
"""Where `LangchainEmbedding` keeps the model that it stands for."""


def describe(model: BaseEmbedding) -> bytes | Unkeyable:
    """32 bytes that are equal for models that make equal vectors, in every process; or why there are none.

    A hash over the class, all fields but credentials, transport and what is irrelevant, and the private attributes that
    hold plain values (a mode, an instruction), models, or weights that were handed in. Other private objects, such as
    clients, do not count: they come and go with the first call.
    """
    try:
        return sha256(b"llamaindex embedding 1 " + dump(_described(model))).digest()
    except UnseenError as error:
        return Unkeyable(str(error))
    except RecursionError:
        return Unkeyable("the model's parameters are nested too deeply")
    except Exception as error:  # noqa: BLE001 - what the application's own classes keep may raise anything
        return Unkeyable(f"the model cannot be described ({type(error).__name__})")


def _described(model: BaseEmbedding) -> list[Any]:
    kind = type(model) if swapper_of(model) is None else type(model).__bases__[0]
    fields = {**vars(model), **(model.__pydantic_extra__ or {})}
    kept = counted((name, value) for name, value in fields.items() if _counts(name, value))
    private = model.__pydantic_private__ or {}
    held = (*fields.items(), *private.items())
    inside = {name: _described(value) for name, value in held if isinstance(value, BaseEmbedding)}
    wrapped = private.get(_WRAPPED)
    return [
        name_of_class(kind),
        kept,
        dict(sorted(inside.items())),
        _plain_ones(private),
        _engines(private, fields),
        None if wrapped is None else [name_of_class(type(wrapped)), _plain_ones(vars(wrapped))],
    ]


def _counts(name: str, value: object) -> bool:
    is_client = name.endswith(("client", "session"))
    return name.lstrip("_") not in IRRELEVANT and not is_client and not isinstance(value, BaseEmbedding)


def _engines(private: Mapping[str, object], fields: Mapping[str, object]) -> dict[str, str]:
    """What the model was handed in by the application, and not made by the names in its fields."""
    names = {value for value in fields.values() if type(value) is str}
    found: dict[str, str] = {}
    for attribute, value in sorted(private.items()):
        if value is None or isinstance(value, (BaseEmbedding, *_PLAIN)):
            continue
        name = name_of_engine(value, attribute)
        if name is not None and name not in names:
            found[attribute] = name
    return found


_PLAIN: Final = (str, bool, int, float, list, tuple, dict, Enum, PurePath)


def _plain_ones(attributes: Mapping[str, object]) -> dict[str, Any]:
    """Those that hold settings and no object. One that is None until the first call must not count after it."""
    kept: dict[str, Any] = {}
    for name, value in attributes.items():
        if name not in COUNTERS and _counts(name, value) and isinstance(value, _PLAIN):
            with suppress(UnseenError):  # it holds objects
                kept |= counted([(name.lstrip("_"), value)])
    return dict(sorted(kept.items()))


# ------------------------------------------------------------------------------------------ the vectors

_HEADER: Final = struct.Struct("<BIf")
"""Format, dimension, and what the numbers are multiplied by (1, but for int8)."""
_CODES: Final[Mapping[VectorFormat, int]] = {"float32": 1, "float16": 2, "int8": 3}
_TYPES: Final[Mapping[VectorFormat, str]] = {"float32": "<f4", "float16": "<f2", "int8": "|i1"}
_INT8_MOST: Final = 127


def to_bytes(vector: Sequence[float], form: VectorFormat) -> bytes | None:
    """The vector in this format; None if it has none: no numbers, or one that is not finite or too large for it."""
    try:
        numbers = np.asarray(vector, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    if numbers.ndim != 1 or not numbers.size:
        return None
    scale = 1.0
    if form == "int8":
        scale = float(np.float32(np.abs(numbers).max() / _INT8_MOST)) or 1.0
        if not np.isfinite(scale):
            return None
        packed = np.clip(np.rint(numbers / scale), -_INT8_MOST, _INT8_MOST)
    else:
        packed = numbers
    with np.errstate(over="ignore", invalid="ignore"):
        typed = packed.astype(_TYPES[form])
    if not np.isfinite(numbers).all() or (form != "int8" and not np.isfinite(typed).all()):
        return None
    return _HEADER.pack(_CODES[form], numbers.size, scale) + typed.tobytes()


def from_bytes(stored: bytes, form: VectorFormat) -> Embedding | None:
    """The vector that `to_bytes` packed in this format; None for anything else."""
    if len(stored) < _HEADER.size:
        return None
    code, dimension, scale = _HEADER.unpack_from(stored)
    kind = np.dtype(_TYPES[form])
    if code != _CODES[form] or not dimension or len(stored) != _HEADER.size + dimension * kind.itemsize:
        return None
    numbers = np.frombuffer(stored, kind, offset=_HEADER.size).astype(np.float64)
    if form == "int8":
        numbers *= scale
    if not np.isfinite(numbers).all():
        return None
    vector: Embedding = numbers.tolist()
    return vector


# -------------------------------------------------------------------------------------------- the cache


class VectorCache:
    """Vectors by model, kind and text. Never raises; what is not there, is damaged or has another size is None.

    Args:
        blobs: where they are kept.
        vector_format: `float32` (default); `float16` takes half, `int8` a quarter of the bytes and rounds the numbers.

    Raises:
        ConfigurationError: there is no such format.
    """

    def __init__(self, blobs: Blobs, vector_format: VectorFormat = "float32") -> None:
        if vector_format not in get_args(VectorFormat):
            raise ConfigurationError("vector_format", f'give "float32", "float16" or "int8"; got {vector_format!r}')
        self._blobs = blobs
        self._format: VectorFormat = vector_format
        self._sizes: dict[bytes, int] = {}
        """Dimension of a model's vectors, as it last computed them."""

    def describe(self, model: BaseEmbedding) -> bytes | None:
        """As the function; None, said once in the log, for a model that cannot be told from others."""
        described = describe(model)
        if isinstance(described, Unkeyable):
            self._blobs.warn(f"vectors of {type(model).__qualname__} are not cached: {described.why}")
            return None
        return described

    def get_many(self, model: bytes, kind: Kind, texts: Sequence[str]) -> list[Embedding | None]:
        """The vectors of these texts, in their order; `model` is what `describe` returned."""
        shelf = self._shelf(model, kind)
        if _is_single_query(kind, texts):
            return self._read(model, [self._blobs.get(shelf, texts[0])])
        return self._read(model, self._blobs.get_many(shelf, texts))

    async def aget_many(self, model: bytes, kind: Kind, texts: Sequence[str]) -> list[Embedding | None]:
        """As `get_many`, without blocking the event loop."""
        shelf = self._shelf(model, kind)
        if _is_single_query(kind, texts):
            return self._read(model, [await self._blobs.aget(shelf, texts[0])])
        return self._read(model, await self._blobs.aget_many(shelf, texts))

    def put_many(self, model: bytes, kind: Kind, texts: Sequence[str], vectors: Sequence[Sequence[float]]) -> None:
        """Keep these vectors; one that the format cannot hold is left out."""
        shelf, pairs = self._shelf(model, kind), self._pack(model, texts, vectors)
        if _is_single_query(kind, texts):
            for text, blob in pairs:
                self._blobs.put(shelf, text, blob)
        elif pairs:
            self._blobs.put_many(shelf, pairs)

    async def aput_many(
        self, model: bytes, kind: Kind, texts: Sequence[str], vectors: Sequence[Sequence[float]]
    ) -> None:
        """As `put_many`, without blocking the event loop."""
        shelf, pairs = self._shelf(model, kind), self._pack(model, texts, vectors)
        if _is_single_query(kind, texts):
            for text, blob in pairs:
                await self._blobs.aput(shelf, text, blob)
        elif pairs:
            await self._blobs.aput_many(shelf, pairs)

    def _shelf(self, model: bytes, kind: Kind) -> str:
        """The format is part of it: a vector rounded to a byte does not stand in for a whole one."""
        return f"{model.hex()} {kind} {self._format}"

    def _read(self, model: bytes, blobs: Iterable[bytes | None]) -> list[Embedding | None]:
        vectors = [None if blob is None else from_bytes(blob, self._format) for blob in blobs]
        sizes = {len(vector) for vector in vectors if vector is not None}
        wanted = self._sizes.get(model)
        if len(sizes) > 1 or (wanted is not None and sizes - {wanted}):
            # The model changed behind its name. Which size it has now shows when it computes.
            return [vector if vector is not None and len(vector) == wanted else None for vector in vectors]
        return vectors

    def _pack(self, model: bytes, texts: Sequence[str], vectors: Sequence[Sequence[float]]) -> list[tuple[str, bytes]]:
        pairs: list[tuple[str, bytes]] = []
        for text, vector in zip(texts, vectors, strict=True):
            blob = to_bytes(vector, self._format)
            if blob is None:
                self._blobs.drop(1)
                self._blobs.warn(f"a vector was not cached, for {self._format} cannot hold it")
            else:
                pairs.append((text, blob))
                self._sizes[model] = len(vector)
        return pairs


def _is_single_query(kind: Kind, texts: Sequence[str]) -> bool:
    return kind == "query" and len(texts) == 1

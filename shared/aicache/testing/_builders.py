"""Builders of model values, with defaults for all a test does not care about."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Sequence

from aicache._model import Answer, CacheKey, Entry, Partition, Space, Usage, Vector

__all__ = ["make_entry", "make_key", "make_partition", "make_vector"]

_USAGE = Usage(input_tokens=7, output_tokens=3)


def make_partition(
    name: str = "default",
    *,
    namespace: str = "namespace",
    tenant: str = "tenant",
    model: str = "model",
    model_name: str | None = None,
) -> Partition:
    """A partition; equal arguments give equal partitions."""
    named = () if model_name is None else (model_name,)
    return Partition(
        id=_hash("partition", name, namespace, tenant, model, *named)[:16],
        namespace=_hash("namespace", namespace)[:16],
        tenant=_hash("tenant", tenant)[:16],
        model=_hash("model", model, *named)[:16],
        model_name=b"" if model_name is None else _hash("model name", model_name)[:16],
    )


def make_key(query: str = "How do I reset my password?", *, partition: Partition | None = None) -> CacheKey:
    """The key of a query in a partition; equal arguments give equal keys."""
    partition = partition or make_partition()
    return CacheKey(partition, hashlib.sha256(partition.id + query.encode()).digest())


def make_vector(*components: float) -> Vector:
    """A unit vector in this direction: `make_vector(1, 0)`.

    Raises:
        ValueError: all components are 0.
    """
    norm = math.hypot(*components)
    if not norm:
        raise ValueError("components: give at least one that is not 0; a zero vector has no direction")
    return struct.pack(f"<{len(components)}f", *(component / norm for component in components))


def make_entry(
    query: str = "How do I reset my password?",
    answer: str = "Use the link on the sign-in page.",
    *,
    partition: Partition | None = None,
    key: CacheKey | None = None,
    body: bytes | None = None,
    usage: Usage | None = _USAGE,
    created: float = 1_000.0,
    expires: float | None = None,
    space: Space | None = None,
    vector: Vector | None = None,
    tags: Sequence[str] = (),
    cluster: bytes | None = None,
) -> Entry:
    """An entry; with a vector and no space, the space is `fake/<dimension>`."""
    if vector is not None and space is None:
        space = f"fake/{len(vector) // 4}"
    return Entry(
        key=key or make_key(query, partition=partition),
        query=query,
        answer=Answer(
            body=json.dumps({"text": answer}).encode() if body is None else body,
            digest=_hash("answer", answer)[:16],
            usage=usage,
        ),
        created=created,
        expires=expires,
        space=space,
        vector=vector,
        tags=tuple(tags),
        cluster=cluster,
    )


def _hash(*parts: str) -> bytes:
    return hashlib.sha256("\x00".join(parts).encode()).digest()

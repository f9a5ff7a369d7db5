"""The identity of a prompt: fixed-size hashes over everything that can change its answer.

Each hash begins with a tag of its own (domain separation), and every field inside one has a fixed length, a length
before it, or the last place: no two different inputs give the same bytes to hash. A change of what is hashed, here, in
`_prompt` or in an adapter's canonical bytes, must change `SCHEMA`, or old entries are found under new rules; a test
with golden vectors notices.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from aicache._model import CacheKey, Partition, Query

__all__ = ["SCHEMA", "identify", "model_hash", "model_name_hash", "namespace_hash", "tenant_hash"]

SCHEMA: Final = "aicache/1"
"""Version of the key; part of every hash."""

_NAMESPACE: Final = f"{SCHEMA} namespace\0".encode()
_NO_TENANT: Final = f"{SCHEMA} tenant none\0".encode()
_TENANT: Final = f"{SCHEMA} tenant\0".encode()
_MODEL: Final = f"{SCHEMA} model\0".encode()
_MODEL_NAME: Final = f"{SCHEMA} model name\0".encode()
_PARTITION: Final = f"{SCHEMA} partition\0".encode()
_ENTRY: Final = f"{SCHEMA} entry\0".encode()

_GROUP: Final = 16
"""Bytes of a hash that names a group: 2**64 groups until two of them are expected to collide."""


def identify(query: Query, *, namespace: str, tenant: str | None) -> CacheKey:
    """The key of a query: equal when, and only when, all that counts is equal.

    Args:
        query: the prompt, split by `aicache._prompt.split`.
        namespace: the user's prefix; entries of different namespaces never meet.
        tenant: whose entry it is; None (no tenants) differs from every text, the empty one included.
    """
    # Full digests go into the partition; only the published ids are cut.
    group = sha256(_NAMESPACE + _utf8(namespace)).digest()
    owner = _tenant(tenant)
    model = sha256(_MODEL + query.model).digest()
    kind = _utf8(query.kind)
    whole = sha256(
        b"".join((_PARTITION, group, owner, model, len(kind).to_bytes(4, "big"), kind, query.frame))
    ).digest()
    name = b"" if query.model_name is None else model_name_hash(query.model_name)
    partition = Partition(whole[:_GROUP], group[:_GROUP], owner[:_GROUP], model[:_GROUP], name)
    return CacheKey(partition, sha256(_ENTRY + whole + _utf8(query.text)).digest())


def namespace_hash(namespace: str) -> bytes:
    """16 bytes that stand for a namespace: `Partition.namespace`."""
    return sha256(_NAMESPACE + _utf8(namespace)).digest()[:_GROUP]


def tenant_hash(tenant: str | None) -> bytes:
    """16 bytes that stand for a tenant: `Partition.tenant`."""
    return _tenant(tenant)[:_GROUP]


def model_hash(model: bytes) -> bytes:
    """16 bytes that stand for a model's canonical bytes: `Partition.model`."""
    return sha256(_MODEL + model).digest()[:_GROUP]


def model_name_hash(name: str) -> bytes:
    """16 bytes that stand for the name of a model: `Partition.model_name`."""
    return sha256(_MODEL_NAME + _utf8(name)).digest()[:_GROUP]


def _tenant(tenant: str | None) -> bytes:
    return sha256(_NO_TENANT if tenant is None else _TENANT + _utf8(tenant)).digest()


def _utf8(text: str) -> bytes:
    # Python's str may hold lone surrogates; a strict encoding would make such a prompt fail instead of miss.
    return text.encode("utf-8", "surrogatepass")

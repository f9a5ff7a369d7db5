"""LangChain embeddings as embedders of the core."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import PurePath
from typing import Final
from urllib.parse import urlsplit

from langchain_core.embeddings import Embeddings
from pydantic import BaseModel, SecretBytes, SecretStr

from aicache._errors import ConfigurationError
from aicache.embedders._select import chosen_embedder
from aicache.embedders.base import Embedder
from aicache.embedders.sentence_transformers import refuse_long

__all__ = ["LangChainEmbedder", "to_embedder"]

IDENTITY: Final = (
    "model",
    "model_name",
    "model_id",
    "model_kwargs",
    "repo_id",
    "deployment",
    "azure_deployment",
    "endpoint_name",
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

LOCATIONS: Final = ("model_path", "model_url", "model_uri")
"""Attributes that say where the weights are; hashed, for they may hold a key or a user's name."""

_MODEL: Final = ("model", "model_name", "model_id", "repo_id", "deployment", "azure_deployment", "endpoint_name")
"""Those of `IDENTITY` that name the model. With one of them no other attribute is asked."""
_CREDENTIAL: Final = re.compile(
    r"(?:.*_)?(?:key|apikey|token|secret|password|passwd|credentials?|auth|authorization|cookies?|headers?)",
    re.IGNORECASE,
)


class _UnseenError(Exception):
    """A value is an object, whose content cannot be seen."""


class LangChainEmbedder:
    """LangChain `Embeddings` as an embedder.

    Questions are compared with questions, so both sides use `embed_query`. The identity is the class with the
    attributes that name the model; for a class that names none, with a hash of all its texts and numbers. A class that
    keeps its model in an object needs `name`.

    Args:
        embeddings: what makes the vectors.
        name: the identity of the model, in place of class and attributes.

    Raises:
        ConfigurationError: it needs a name.
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
        ConfigurationError: it is none of these, or a LangChain `Embeddings` that does not show its model.
        MissingExtraError: it names a model, and the extra that runs it is not installed.
    """
    return LangChainEmbedder(embeddings) if isinstance(embeddings, Embeddings) else chosen_embedder(embeddings)


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
    located = ((attribute, _text(embeddings, attribute)) for attribute in LOCATIONS)
    parts.extend(f"{attribute}={_short_hash(text)}" for attribute, text in located if text)
    if endpoint := _named_endpoint(embeddings):
        parts.append(f"endpoint={endpoint}")
    elif not any(_text(embeddings, attribute) for attribute in (*_MODEL, *LOCATIONS)):
        parts.extend(_digest(embeddings))
    return ",".join(parts)


def _text(embeddings: Embeddings, attribute: str) -> str:
    value = getattr(embeddings, attribute, None)
    return value.strip() if isinstance(value, str) else ""


def _named_endpoint(embeddings: Embeddings) -> str:
    """Databricks and MLflow: the name of the served model stands where others have an address."""
    endpoint = _text(embeddings, "endpoint")
    return endpoint if re.fullmatch(r"[\w.-]+", endpoint) else ""


def _digest(embeddings: Embeddings) -> Iterator[str]:
    """A hash of all that is seen of embeddings that do not name their model; none where they have no attribute.

    Private attributes count, for that is where a class of one's own keeps its model.

    Raises:
        ConfigurationError: an attribute is an object: the model may be in there.
    """
    try:
        seen = {
            name: _seen(value) for name, value in sorted(_attributes(embeddings).items()) if not _is_secret(name, value)
        }
    except (_UnseenError, RecursionError):
        raise ConfigurationError(
            "embeddings",
            f"{type(embeddings).__qualname__} does not show which model it runs: give "
            "CallableEmbedder(embeddings.embed_query, name=...) the name of the model",
        ) from None
    if seen:
        yield f"attributes={_short_hash(ascii(seen))}"


def _attributes(embeddings: Embeddings) -> dict[str, object]:
    """The attributes of the object, and the plain ones of its classes."""
    found: dict[str, object] = {}
    for kind in reversed(type(embeddings).__mro__):
        if kind not in (object, Embeddings, BaseModel):
            found |= {
                name: value
                for name, value in vars(kind).items()
                if not name.startswith("_") and isinstance(value, str | bool | int | float)
            }
    private = getattr(embeddings, "__pydantic_private__", None)
    return found | vars(embeddings) | (private or {})


def _seen(value: object) -> object:
    """The value as a literal that is equal for equal values, in every process.

    Raises:
        _UnseenError: there is an object in it.
    """
    match value:
        case None | str() | bool() | int() | float() | bytes():
            return value
        case PurePath():
            return str(value)
        case Embeddings():
            return _identity(value)
        case Mapping():
            items = [(_seen(key), _seen(item)) for key, item in value.items() if not _is_secret(key, item)]
            return sorted(map(ascii, items))
        case list() | tuple():
            return [_seen(item) for item in value]
        case set() | frozenset():
            return sorted(ascii(_seen(item)) for item in value)
        case _:
            raise _UnseenError


def _is_secret(name: object, value: object) -> bool:
    return isinstance(value, SecretStr | SecretBytes) or (
        isinstance(name, str) and _CREDENTIAL.fullmatch(name) is not None
    )


def _plain(value: object) -> str | None:
    match value:
        case str() | bool() | int() | float():
            return str(value)
        case dict() if value:
            # Hashed, for options are whatever the user passes through, an access token too.
            return _short_hash(json.dumps(value, sort_keys=True, default=_type_name))
        case _:
            return None


def _short_hash(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _type_name(value: object) -> str:
    return type(value).__qualname__

"""A LlamaIndex model, reduced to what can change its answer.

A model is its class, its fields, and a little of what it keeps privately. Secrets, headers that only say who asks,
timeouts and clients are left out, so that two customers' keys share answers exactly when the application lets them
(see `namespace` and `tenant`). Fields are mutable, and nothing tells when one changes: a description is remembered by
the JSON of all that it is made from, not by the model's identity.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from hashlib import sha256
from pathlib import PurePath
from types import FunctionType, MappingProxyType
from typing import Any, Final

import orjson
from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.base.llms.types import LLMMetadata
from llama_index.core.llms.structured_llm import StructuredLLM
from llama_index.core.prompts.base import BasePromptTemplate
from llama_index.core.types import BaseOutputParser
from pydantic import BaseModel

from aicache._memo import Memo
from aicache._model import Unkeyable
from llamaindex_aicache._engines import name_of_engine
from llamaindex_aicache._values import UnseenError, counted, dump, is_secret, name_of_class, plain

__all__ = ["COUNTERS", "ModelReader", "NamedModel", "describe"]

_TAG: Final = b"llamaindex/1 "
_UNNAMED: Final = frozenset({"", "unknown"})
_NAMES: Final = ("model", "model_name", "model_id", "deployment_name", "engine")
_PROMPTING: Final = ("messages_to_prompt", "completion_to_prompt", "query_wrapper_prompt", "output_parser")
"""Fields that `model_dump` leaves out although they shape what the model is sent."""
_NO_FIELDS: Final[Mapping[str, None]] = MappingProxyType({"callback_manager": None, "rate_limiter": None})
"""Fields of the core's that are no part of the model."""
_VALUES: Final = (str, int, float, list, tuple, dict, set, frozenset, Enum, PurePath, BaseModel)
"""Types of private attributes that hold settings; others are objects at work."""
COUNTERS: Final = frozenset({"_calls", "_call_count", "_num_calls", "_n_calls", "_count", "_counter"})
"""Private numbers that change with each call and that no request holds."""
_CONTINUED: Final = ("_previous_response_id", "previous_response_id", "track_previous_responses")
"""With these the provider keeps the conversation, and the messages do not tell it."""


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A model as the key sees it, and by the name its provider gave it."""

    model: bytes
    """32 bytes that are equal for models that answer alike."""
    name: str | None
    """None where it has none."""


class ModelReader:
    """Reads models, and remembers the last ones."""

    __slots__ = ("_memo",)

    def __init__(self, size: int = 256) -> None:
        self._memo: Memo[tuple[type, bytes], NamedModel] = Memo(size)

    def __call__(self, llm: BaseLLM) -> NamedModel | Unkeyable:
        """The model, or why no key can be made of it. Raises nothing that a field or property raises."""
        try:
            # Before the fields: the first read of it may fill some (Ollama asks its server for the context's size).
            metadata = llm.metadata
            state = _state(llm, metadata)
            known = None if state is None else self._memo.get((type(llm), state))
            if known is None:
                known = NamedModel(sha256(_TAG + dump(describe(llm))).digest(), _name(llm, metadata))
                if state is not None:
                    self._memo.put((type(llm), state), known)
            return known
        except UnseenError as error:
            return Unkeyable(str(error))
        except RecursionError:
            return Unkeyable("the model's parameters are nested too deeply")
        except Exception as error:  # noqa: BLE001 - properties of the application's models may raise anything
            return Unkeyable(f"the model cannot be described ({type(error).__name__})")


# ------------------------------------------------------------------------------------------------------- memory


def _state(llm: BaseLLM, metadata: LLMMetadata) -> bytes | None:
    """A hash of all that a description is made from; None where JSON does not hold it, and nothing is remembered."""
    try:
        fields = {**llm.__dict__, **_NO_FIELDS}
        privates = {name: _shown_private(name, value) for name, value in (llm.__pydantic_private__ or {}).items()}
        seen = [fields, llm.__pydantic_extra__, metadata.__dict__, privates]
        return sha256(orjson.dumps(seen, default=_shown, option=_STRICT)).digest()
    except TypeError:
        return None


_STRICT: Final = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS


def _shown(value: Any) -> str:
    if type(value) is FunctionType and value.__closure__ is None and value.__module__.startswith("llama_index."):
        return f"\0{value.__module__}.{value.__qualname__}"
    raise TypeError


def _shown_private(name: str, value: Any) -> Any:
    if value is None or isinstance(value, _VALUES) or _is_function(value) or _is_langchain(value):
        return value  # JSON, or else nothing is remembered
    return f"\0{_base_url(value)}\0{name_of_engine(value, name)}"


# -------------------------------------------------------------------------------------------------- description


def describe(llm: BaseLLM) -> list[Any]:
    """All that counts of a model, in JSON types and without secrets.

    Raises:
        UnseenError: a field holds an object that cannot be seen, or the model depends on more than what it is sent.
    """
    if isinstance(llm, StructuredLLM):
        raise UnseenError("a structured model returns objects; the model inside it is cached")
    if not isinstance(llm, BaseLLM):
        raise UnseenError("this is no LlamaIndex model")
    metadata = llm.metadata
    fields = llm.__dict__  # a dump would build other objects of what they hold
    if any(fields.get(name) for name in _CONTINUED) or any((llm.__pydantic_private__ or {}).get(n) for n in _CONTINUED):
        raise UnseenError("the provider keeps the conversation")
    return [
        name_of_class(type(llm)),  # a class that caches has the name of the one it stands for
        counted(_counting_fields(llm, fields, _excluded(type(llm)))),
        _described_prompting(fields),
        plain(metadata.__dict__),
        _described_privates(llm, fields),
    ]


def _name(llm: BaseLLM, metadata: LLMMetadata) -> str | None:
    name = metadata.model_name
    if name and name not in _UNNAMED:
        return name
    found = (llm.__dict__.get(each) for each in _NAMES)
    return next((each for each in found if isinstance(each, str) and each), None)


# ------------------------------------------------------------------------------------------------------ fields


@lru_cache(maxsize=256)
def _excluded(cls: type[BaseLLM]) -> frozenset[str]:
    """Fields that are no part of the model: a dump leaves them out, and they are no classes or functions."""
    return frozenset(name for name, field in cls.model_fields.items() if field.exclude)


def _counting_fields(llm: BaseLLM, fields: Mapping[str, Any], excluded: frozenset[str]) -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        if name in _NO_FIELDS or name in _PROMPTING or _is_client(name):
            continue
        if isinstance(value, BaseLLM):
            yield name, describe(value)
        elif name not in excluded or isinstance(value, type):
            yield name, value
    yield from (llm.__pydantic_extra__ or {}).items()


def _is_client(name: str) -> bool:
    return name.endswith(("client", "session")) or name.startswith(("_client", "client_"))


def _described_prompting(fields: Mapping[str, Any]) -> list[Any]:
    found: list[Any] = []
    for name in _PROMPTING:
        value = fields.get(name)
        if isinstance(value, BaseOutputParser):
            found.append(name_of_class(type(value)))  # what it adds to a prompt stands in the prompt
        elif isinstance(value, BasePromptTemplate):
            found.append([name_of_class(type(value)), value.get_template(), plain(value.kwargs, name)])
        else:
            found.append(plain(value, name))
    return found


# ---------------------------------------------------------------------------------------------------- privates


def _described_privates(llm: BaseLLM, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Private settings that integrations keep (a dict of parameters, a function), and what was handed in.

    Objects are taken to be made from the fields, but for models and clients: those carry settings of their own.
    """
    kept: dict[str, Any] = {}
    # What has another name or address was handed in by the application; all else was made by the model, perhaps later.
    given = {form for value in fields.values() if type(value) is str for form in (value, value.rstrip("/"))}
    for name, value in (llm.__pydantic_private__ or {}).items():
        if value is None or name in COUNTERS or is_secret(name.lstrip("_")):
            continue
        if isinstance(value, _VALUES) and not isinstance(value, BaseLLM):
            try:
                kept.update(counted([(name.lstrip("_"), value)]))
            except UnseenError:
                continue  # a registry of objects
        elif isinstance(value, BaseLLM):
            kept[name] = describe(value)
        elif _is_langchain(value):
            kept[name] = _described_langchain(value)
        elif _is_function(value):
            kept[name] = plain(value, name)
        elif (engine := name_of_engine(value, name)) is not None and engine not in given:
            kept[name] = engine
        elif (url := _base_url(value)) is not None and url not in given:
            kept[name] = counted([("url", url)])
    return kept


def _is_function(value: Any) -> bool:
    return type(value).__name__ in {"function", "method", "partial", "builtin_function_or_method"}


def _base_url(client: Any) -> str | None:
    """The address of a client of the usual kinds (openai, anthropic, httpx)."""
    url = getattr(client, "base_url", None)
    return None if url is None else str(url).rstrip("/")


def _is_langchain(value: Any) -> bool:
    return any(cls.__module__.startswith("langchain_core.language_models") for cls in type(value).__mro__)


def _described_langchain(model: Any) -> list[str]:
    """A LangChain model as LangChain itself describes it to a cache, read by our LangChain adapter."""
    from langchain_aicache._llm_string import read_llm_string

    core = sys.modules["langchain_core.language_models"]
    if isinstance(model, core.BaseChatModel):
        described = model._get_llm_string()  # what LangChain keys its own cache by
    elif isinstance(model, core.BaseLLM):
        described = str(sorted({**model.dict(), "stop": None}.items()))
    else:
        raise UnseenError("the key cannot see into the LangChain model")
    read = read_llm_string(described)
    if isinstance(read, Unkeyable):
        raise UnseenError(read.why)
    return [name_of_class(type(model)), read.model.hex()]

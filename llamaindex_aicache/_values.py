"""Values as JSON that tells them apart: parameters of models, arguments of calls, parts of messages.

`plain` turns a value into JSON types and gives up (`UnseenError`) where it cannot see all of it: two values with equal
results mean the same to a model. Whatever is no JSON is tagged with its kind, and no text can pass for a tag. What is
secret or concerns only the transport is left out by name (`counted`).
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import math
import operator
import re
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from hashlib import sha256
from pathlib import PurePath
from typing import Any, Final, is_typeddict
from uuid import UUID

import orjson
from pydantic import AnyUrl, BaseModel, SecretBytes, SecretStr, TypeAdapter

from llamaindex_aicache._records import fields_of

__all__ = ["Role", "UnseenError", "counted", "dump", "is_secret", "name_of_class", "plain", "role_of", "schema_of"]

_TAG: Final = "\0"
"""The key of a tagged value; a mapping that holds it as a key of its own is written as pairs."""

_TRANSPORT: Final = frozenset(
    {
        # how the answer travels
        "timeout", "request_timeout", "connect_timeout", "read_timeout", "default_timeout", "keep_alive",
        "max_retries", "retries", "num_retries", "retry_on_error", "reuse_client", "stream", "streaming",
        "stream_options", "proxy", "proxies", "verify_ssl", "ssl_verify",
        # for people and tracers
        "callback_manager", "callbacks", "rate_limiter", "verbose", "show_progress", "class_name",
        # the provider's own prompt cache
        "prompt_cache_key", "prompt_cache_retention",
    }
)  # fmt: skip
"""Names that mean the transport wherever they stand."""

_HEADERS: Final = re.compile(r"(?:\w+_)?headers")
_SECRET: Final = re.compile(
    r"(?:\w+_)?(?:api_?key|secret|secrets|password|passwd|credentials?|authorization|auth|cookies?|access_?key(?:_id)?"
    r"|private_key|secret_key|signing_key|subscription_key|account_key|service_account_(?:info|key|file)|bearer)"
    r"(?:_\w+)?"
    r"|(?:\w+_)?(?:key|keys)"
    # not `stop_token`, `eos_token`, `max_tokens`: a token there is a piece of text
    r"|(?:(?:\w+_)?(?:api|access|auth|bearer|session|refresh|id|security|hf|hub|bot|csrf|github|user|personal|client"
    r"|oauth|jwt|sas|service|ad|azure_ad|aws_session|huggingface|replicate|nvidia|cohere)_)?token(?:_provider)?",
    re.IGNORECASE,
)
_MUTE_HEADER: Final = re.compile(
    r"(?:.*-)?authorization|(?:.*-)?api-?key|.*(?:secret|password|token|credential|cookie|auth).*"
    r"|ocp-apim-subscription-key"
    # in which form it travels; not accept-language, which may choose the language of the answer
    r"|(?:.*-)?user-agent|accept(?:-encoding|-charset)?|content-(?:type|length|encoding)|connection"
    r"|(?:x-(?:amz|ms)-)?date|x-amz-content-sha256|x-stainless-.*"
    # which request it is
    r"|(?:.*-)?(?:request|correlation|invocation)-?id|(?:.*-)?idempotency-key"
    r"|(?:.*-)?(?:trace|span)(?:-?(?:id|parent|state|context))?|baggage|b3|x-b3-.*|x-datadog-.*"
)
"""Headers that do not change the answer, in lower case and with hyphens. All others count: one that is not known may
choose the provider, the configuration or the customer, and to count one too many costs only hits."""
_URL_OWNER: Final = re.compile(r"(?<=://)[^/@\s]+@")
_URL_QUERY: Final = re.compile(r"([?&])([^=&#]+)=[^&#]*")

_OWN_PACKAGE: Final = "llama_index."
_BODIES: Final = frozenset({"additional_kwargs", "model_kwargs", "generate_kwargs", "llm_kwargs"})
"""Settings whose own entries are settings."""
_SCHEMAS: Final = frozenset(
    {"tools", "functions", "tool_choice", "function_call", "response_format", "format", "json_schema", "output_cls"}
)
"""Settings that describe data."""


class UnseenError(Exception):
    """Something that can change the answer cannot be seen; the text says what."""


def dump(value: Any) -> bytes:
    """Canonical bytes of plain JSON, in the order in which it stands."""
    try:
        return bytes(memoryview(orjson.dumps(value)))
    except TypeError:  # lone surrogates, integers beyond 64 bits, deep nesting: Python's own writer knows the first two
        return json.dumps(value, separators=(",", ":")).encode()


# ---------------------------------------------------------------------------------------------------- settings


def counted(fields: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The named settings that can change an answer, made plain, sorted by name.

    Raises:
        UnseenError: one of them cannot be seen.
    """
    kept: dict[str, Any] = {}
    for name, value in sorted(fields, key=_NAME):
        role = role_of(name)
        if role is Role.SETTING:
            if value is None or type(value) in _ATOMS:
                kept[name] = value
            elif not isinstance(value, SecretStr | SecretBytes):
                kept[name] = _setting(value, name)
        elif role is Role.BODY and isinstance(value, Mapping):
            kept[name] = counted((str(key), item) for key, item in value.items())
        elif role is Role.HEADERS and isinstance(value, Mapping) and (headers := _headers(value)):
            kept[name] = headers
    return kept


class Role(enum.Enum):
    """What the name of a setting says of it."""

    SETTING = enum.auto()
    BODY = enum.auto()
    """Its own entries are settings."""
    HEADERS = enum.auto()
    LEFT_OUT = enum.auto()
    """A secret, or the transport."""


@functools.lru_cache(maxsize=4096)
def role_of(name: str) -> Role:
    """What a setting of this name is."""
    if name in _TRANSPORT or is_secret(name):
        return Role.LEFT_OUT
    if _HEADERS.fullmatch(name):
        return Role.HEADERS
    return Role.BODY if name in _BODIES else Role.SETTING


def is_secret(name: str) -> bool:
    """Whether a setting of this name holds a secret."""
    return _SECRET.fullmatch(name.replace("-", "_")) is not None


_NAME: Final = operator.itemgetter(0)
_ATOMS: Final = frozenset({bool, int})


def _headers(headers: Mapping[Any, Any]) -> list[tuple[str, str]]:
    """The headers that count, hashed, for any of them may turn out to be a secret; case and order mean nothing."""
    named = [(str(name).lower(), value) for name, value in headers.items()]
    return sorted(
        (name, sha256(repr(value).encode("utf-8", "surrogatepass")).hexdigest())
        for name, value in named
        if not _MUTE_HEADER.fullmatch(name.replace("_", "-"))
    )


def _setting(value: Any, name: str) -> Any:
    """As `plain`, without the secrets inside."""
    kind = type(value)
    if kind is str:
        return without_credentials(value) if "://" in value else value
    if value is None or kind is bool or kind is int:
        return value
    if name in _SCHEMAS:
        return plain(value, name)  # `key` and `token` are names of fields there
    if isinstance(value, AnyUrl | PurePath):
        return without_credentials(str(value))
    if isinstance(value, BaseModel):
        return counted(fields_of(value).items())
    if kind is list or kind is tuple:
        return [_setting(item, name) for item in value]
    if isinstance(value, Mapping) and all(type(key) is str for key in value) and _TAG not in value:
        kept = {}
        for key, item in value.items():
            if role_of(key) is Role.HEADERS and isinstance(item, Mapping):
                kept[key] = _headers(item)
            elif key in _TRANSPORT or role_of(key) is not Role.LEFT_OUT:  # `stream` in a body may mean anything
                kept[key] = _setting(item, key if key in _SCHEMAS else name)
        return kept
    return plain(value, name)


def without_credentials(text: str) -> str:
    """A text with its URLs free of user, password and secret parameters."""
    text = _URL_OWNER.sub("", text)
    return _URL_QUERY.sub(lambda found: found[1] if is_secret(found[2]) else found[0], text) if "?" in text else text


# ------------------------------------------------------------------------------------------------------ values


def plain(value: Any, name: str = "") -> Any:
    """The value in JSON types.

    Args:
        value: anything.
        name: where it stands, for the error's text.

    Raises:
        UnseenError: it is, or holds, an object of which only class or address is known.
    """
    kind = type(value)
    if kind is str or value is None or kind is bool or kind is int:
        return value
    if kind is float:
        return value if math.isfinite(value) else {_TAG: ["float", repr(value)]}
    if kind is list or kind is tuple:
        return [plain(item, name) for item in value]
    if isinstance(value, Mapping):
        if all(type(key) is str for key in value) and _TAG not in value:
            # In its order: a model fills the fields of a schema in the order in which they stand.
            return {key: plain(item, name or key) for key, item in value.items()}
        return {_TAG: ["pairs", sorted(([plain(k, name), plain(v, name)] for k, v in value.items()), key=repr)]}
    return _plain_object(value, name)


def _plain_object(value: Any, name: str) -> Any:
    if isinstance(value, type):
        return {_TAG: ["class", schema_of(value)]}
    if isinstance(value, enum.Enum):
        return {_TAG: ["enum", type(value).__qualname__, plain(value.value, name)]}
    if isinstance(value, bytes | bytearray | memoryview):
        return {_TAG: ["bytes", sha256(value).hexdigest()]}
    if isinstance(value, BaseModel):
        # Like the mapping it is dumped to: a cached answer holds that in its place.
        return {each: plain(item, name or each) for each, item in fields_of(value).items()}
    if is_dataclass(value):
        fields = {each.name: plain(getattr(value, each.name), each.name) for each in dataclasses.fields(value)}
        return {_TAG: ["dataclass", type(value).__qualname__, fields]}
    if isinstance(value, set | frozenset):
        return {_TAG: ["set", sorted((plain(item, name) for item in value), key=repr)]}
    if isinstance(value, datetime | date | time | timedelta | Decimal | UUID | PurePath | AnyUrl):
        return {_TAG: [type(value).__name__, str(value)]}
    if callable(value):
        return {_TAG: ["function", *_function(value, name)]}
    for base in (str, int, float):
        if isinstance(value, base):  # a subclass
            return plain(base(value), name)
    raise UnseenError(f"the key cannot see into {_shown(name)}, a {type(value).__qualname__}")


def _shown(name: str) -> str:
    return f"the parameter {name:.40}" if name else "a value"


# --------------------------------------------------------------------------------------------------- functions


def _function(function: Callable[..., Any], name: str) -> list[Any]:
    """The function by its name and, unless LlamaIndex ships it, by what it does.

    The name alone would be wrong for two lambdas of one module, or for a function defined anew in a notebook.
    """
    if isinstance(function, functools.partial):
        return ["partial", *(plain(part, name) for part in (function.func, function.args, function.keywords))]
    if isinstance(function, types.MethodType):
        if isinstance(function.__self__, type):
            return [name_of_class(function.__self__), *_function(function.__func__, name)]
        raise UnseenError(f"the key cannot see into {_shown(name)}, a method of an object")
    if isinstance(function, types.BuiltinFunctionType) and isinstance(function.__self__, types.ModuleType | None):
        return [f"{function.__module__}.{function.__qualname__}"]
    if not isinstance(function, types.FunctionType):
        raise UnseenError(f"the key cannot see into {_shown(name)}, a {type(function).__qualname__}")
    named = f"{function.__module__}.{function.__qualname__}"
    if function.__module__.startswith(_OWN_PACKAGE) and function.__closure__ is None:
        return [named]
    return [named, *_behaviour(function, name)]


def _behaviour(function: types.FunctionType, name: str) -> list[Any]:
    """Its code, defaults, the variables it closes over, and the plain global values it reads."""
    try:
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
    except ValueError as error:  # a cell that is still empty
        raise UnseenError(f"the key cannot see into {_shown(name)}, a function not yet complete") from error
    read = {
        each: value
        for each in function.__code__.co_names
        if isinstance(value := function.__globals__.get(each), str | int | float | tuple)
    }
    surroundings = [cells, function.__defaults__, function.__kwdefaults__, read]
    return [_code(function.__code__), *(plain(each, name) for each in surroundings)]


def _code(code: types.CodeType) -> str:
    constants = [_code(each) if isinstance(each, types.CodeType) else repr(each) for each in code.co_consts]
    return sha256(repr([code.co_code, constants, code.co_names, code.co_freevars]).encode()).hexdigest()


# ----------------------------------------------------------------------------------------------------- classes


def name_of_class(cls: type) -> str:
    """Module and name of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


@functools.lru_cache(maxsize=256)
def schema_of(cls: Any) -> str:
    """A class by its name and JSON schema, its fields in their order: all that a model is told of it.

    Raises:
        UnseenError: it has none.
    """
    return f"{cls.__qualname__} {_schema(cls)}"


def _schema(cls: Any) -> str:
    if cls.__module__ == "builtins":
        return ""
    try:
        if hasattr(cls, "model_json_schema"):
            return json.dumps(cls.model_json_schema())
        if is_typeddict(cls) or issubclass(cls, enum.Enum) or hasattr(cls, "__dataclass_fields__"):
            return json.dumps(TypeAdapter(cls).json_schema())
    except Exception as error:  # the application's own code may raise anything
        raise UnseenError(f"the class {cls.__qualname__:.40} gives no JSON schema") from error
    raise UnseenError(f"the key cannot see into the class {cls.__qualname__:.40}")

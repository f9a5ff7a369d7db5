"""LangChain's description of a model, reduced to what can change its answer.

A serialisable model is described as `<JSON of its fields>---<repr of the sorted call parameters>`, any other as the
repr alone. Where that can be parsed, what concerns only the transport is left out, and a class is replaced by its JSON
schema: the description holds its name only, and a changed schema would find the old answers.

The description may hold secrets (headers, proxies), so nothing of it leaves this module: the result is a hash.
"""

from __future__ import annotations

import ast
import builtins
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, is_typeddict

from aicache._memo import Memo
from aicache._model import Unkeyable

__all__ = ["ModelReader", "NamedModel", "read_llm_string"]

_TRANSPORT: Final = frozenset(
    {
        # how the answer travels
        "streaming", "stream", "stream_usage", "stream_options", "disable_streaming", "stream_chunk_timeout",
        "request_timeout", "default_request_timeout", "timeout", "max_retries", "http_socket_options",
        "openai_proxy", "anthropic_proxy",
        # LangChain's note for its tracer
        "ls_structured_output_format",
        # the provider's own prompt cache
        "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options",
    }
)  # fmt: skip
"""Names that mean the transport wherever they stand."""
_LANGCHAINS: Final = frozenset({"callbacks", "callback_manager", "verbose", "cache", "profile"})
"""Fields that LangChain gives every model. A model of the user's own may mean something else by such a name."""
_HEADERS: Final = frozenset({"default_headers", "extra_headers", "headers"})
_MUTE_HEADER: Final = re.compile(
    # whose the request is
    r"(?:.*-)?authorization|(?:.*-)?api-?key|ocp-apim-subscription-key|x-amz-security-token|(?:x-)?auth-token"
    r"|(?:set-)?cookie"
    # in which form it travels; not accept-language, which may choose the language of the answer
    r"|(?:.*-)?user-agent|accept(?:-encoding|-charset)?|content-(?:type|length|encoding)|connection"
    r"|(?:x-(?:amz|ms)-)?date|x-amz-content-sha256|x-stainless-.*"
    # which request it is
    r"|(?:.*-)?(?:request|correlation|invocation)-?id|(?:.*-)?idempotency-key"
    r"|(?:.*-)?(?:trace|span)(?:-?(?:id|parent|state|context))?|baggage|b3|x-b3-.*|x-datadog-.*"
)
"""Headers that do not change the answer, in lower case and with hyphens. All others count: one that is not known
may choose the provider, the configuration or the customer, and to count one too many costs only hits."""
_OBJECTS: Final = re.compile(r"(?:.*_)?client|session|credentials|rate_limiter|custom_get_token_ids")
"""Parameters left out where they are an object; a text there may name something."""
_CONTINUED: Final = frozenset({"previous_response_id", "conversation", "use_previous_response_id"})
"""With these the provider keeps the conversation, and the prompt does not tell it."""


@dataclass(frozen=True, slots=True)
class _LeftOut:
    """The names that do not count in one place of a description."""

    always: frozenset[str] = frozenset()
    unless_text: frozenset[str] = frozenset()
    unless_seen: frozenset[str] = frozenset()


_OF_FIELDS: Final = _LeftOut(
    # A serialisable model's names for tracing. In a description by parameters `name` may be the model's own.
    always=_TRANSPORT | {"name", "metadata", "tags", "tiktoken_model_name"},
    # None of LangChain's own is a text, so that a text there is the user's.
    unless_text=_LANGCHAINS | {"proxy", "proxies"},
)
_OF_PARAMETERS: Final = _LeftOut(always=_TRANSPORT, unless_seen=_LANGCHAINS)
_OF_BODIES: Final = {"model_kwargs": _LeftOut(always=_TRANSPORT), "extra_body": _LeftOut()}
"""Parameters whose own entries are sent to the provider."""

_TOKEN: Final = re.compile(
    r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|<class '(?P<name>[^'\n]+)'>|<[^<>]*(?:<[^<>]*>[^<>]*)*>""", re.DOTALL
)
"""A string literal (left as it is), the repr of a class, or that of another object."""
_ENUM_MEMBER: Final = re.compile(r"<[\w.]+\.\w+: .+>", re.DOTALL)
_UNSEEN: Final = re.compile(r" at 0x|<class '|<enum '|\b(?:previous_response_id|conversation)'(?:, |: )(?!None)")
_TAG: Final = b"langchain/1 "

# The three kinds of objects in a repr; see `_mark_objects`.
_CLASS: Final = "class"
_MEMBER: Final = "member"
_OPAQUE: Final = "object"


class _UnkeyableError(Exception):
    """The description leaves out something that can change the answer; the text says what."""


_NAMES: Final = ("model", "model_name", "model_id", "deployment_name", "azure_deployment", "repo_id")
"""Fields and parameters that hold a model's name. `model` first: so a call names another one than its model object."""


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A model as the key sees it, and by the name its provider gave it."""

    model: bytes
    """32 bytes that are equal for models that answer alike."""
    name: str | None
    """None where the description shows none."""


@dataclass(frozen=True, slots=True)
class _Read:
    model: NamedModel | Unkeyable
    classes: tuple[tuple[str, type], ...] = ()
    """The classes whose schemas are part of `model`."""


class ModelReader:
    """Reads descriptions, and remembers the last ones.

    A class that was defined anew under its old name (a notebook cell run again) is noticed: a memory keyed by the
    description alone would go on with the old schema.
    """

    __slots__ = ("_memo",)

    def __init__(self, size: int = 256) -> None:
        self._memo: Memo[str, _Read] = Memo(size)

    def __call__(self, llm_string: str) -> NamedModel | Unkeyable:
        """As `read_llm_string`."""
        known = self._memo.get(llm_string)
        if known is None or (known.classes and any(_resolve(name) is not cls for name, cls in known.classes)):
            known = _read(llm_string)
            if isinstance(known.model, NamedModel):
                self._memo.put(llm_string, known)
        return known.model


def read_llm_string(llm_string: str) -> NamedModel | Unkeyable:
    """The model of a description, or why no key can be made of it.

    Takes 50 to 100 us, and a millisecond where a class has to be turned into a schema: see `ModelReader`.
    """
    return _read(llm_string).model


def _read(llm_string: str) -> _Read:
    serialised, parameters = _parts(llm_string)
    try:
        source, classes = _mark_objects(parameters)
        schemas = tuple(_Schema(name, cls) for name, cls in classes)
        fields = None if serialised is None else _read_serialised(serialised)
        counted = _read_parameters(parameters, source, schemas)
    except _UnkeyableError as error:
        return _Read(Unkeyable(str(error)))
    except RecursionError:
        return _Read(Unkeyable("the model's parameters are nested too deeply"))
    # ascii(), for what repr() shows as it is depends on Python's version of Unicode.
    digest = sha256(_TAG + ascii([fields, counted]).encode()).digest()
    return _Read(
        NamedModel(digest, _name(counted, fields)), tuple((name, cls) for name, cls in classes if cls is not None)
    )


def _name(parameters: object, fields: object) -> str | None:
    """The model's name: what a call asks for comes before what the model object was made with."""
    for source in (parameters, fields[1] if isinstance(fields, list) else None):
        if isinstance(source, dict):
            for each in _NAMES:
                if isinstance(name := source.get(each), str) and name:
                    return name
    return None


def _parts(llm_string: str) -> tuple[dict[str, Any] | None, str]:
    """The JSON of the model's fields, if there is any, and the repr of the parameters."""
    if llm_string.startswith("{"):
        try:
            serialised, end = json.JSONDecoder().raw_decode(llm_string)
        except (ValueError, RecursionError):
            return None, llm_string
        # The decoder finds the end: "---" may also stand inside a field.
        if isinstance(serialised, dict) and llm_string.startswith("---", end):
            return serialised, llm_string[end + 3 :]
    return None, llm_string


# ------------------------------------------------------------------------------------------------------ fields


def _read_serialised(serialised: dict[str, Any]) -> object:
    fields = serialised.get("kwargs")
    if serialised.get("type") != "constructor" or not isinstance(fields, dict):
        raise _UnkeyableError("the model is described by its name only")
    return [serialised.get("id"), _keep(fields, _OF_FIELDS)]


def _keep(fields: Mapping[Any, Any], left_out: _LeftOut) -> dict[Any, Any]:
    """The fields that count, in their order."""
    kept: dict[Any, Any] = {}
    for name, value in fields.items():
        if isinstance(name, str):
            if _is_left_out(name, value, left_out):
                continue
            if name in _CONTINUED and value:
                raise _UnkeyableError(f"the provider keeps the conversation ({name})")
            if name in _HEADERS and isinstance(value, Mapping | None):
                if counted := _counted(value or {}):
                    kept[name] = counted
                continue
        if name in _OF_BODIES and isinstance(value, Mapping):
            kept[name] = _keep(value, _OF_BODIES[name])
        else:
            kept[name] = _see(value, name)
    return kept


def _is_left_out(name: str, value: object, left_out: _LeftOut) -> bool:
    if name in left_out.always or name.endswith("api_key") or _is_secret(value):
        return True
    if name in left_out.unless_text:
        return not isinstance(value, str)
    if name in left_out.unless_seen:
        return _is_unseen(value)
    return (value is None or _is_opaque(value)) and _OBJECTS.fullmatch(name) is not None


def _see(value: Any, name: object) -> Any:
    """The value, if all of it can be seen.

    Raises:
        _UnkeyableError: an object is known by its class or address only.
    """
    if _is_opaque(value):
        raise _UnkeyableError(f"the key cannot see into the parameter {name!s:.40}")
    if isinstance(value, _Schema):
        return (..., _CLASS, value.text())
    if isinstance(value, dict):
        # A model inside a model.
        if value.get("lc") == 1 and value.get("type") == "constructor" and isinstance(value.get("kwargs"), dict):
            return {**value, "kwargs": _keep(value["kwargs"], _OF_FIELDS)}
        return {_see(key, name): _see(item, name) for key, item in value.items()}
    if isinstance(value, tuple) and value[:2] == (..., _MEMBER):
        return value
    if isinstance(value, list | tuple):
        return type(value)(_see(item, name) for item in value)
    if isinstance(value, set):
        return (..., "set", sorted(ascii(_see(item, name)) for item in value))
    return value


def _counted(headers: Mapping[Any, Any]) -> list[tuple[str, Any]]:
    """The headers that count, in lower case; neither the case nor the order of their names means anything."""
    named = [(str(_see(name, "headers")).lower(), value) for name, value in headers.items()]
    seen = [(name, _see(value, name)) for name, value in named if not _MUTE_HEADER.fullmatch(name.replace("_", "-"))]
    return sorted(seen, key=ascii)


def _is_secret(value: object) -> bool:
    return isinstance(value, dict) and value.get("lc") == 1 and value.get("type") == "secret"


def _is_unseen(value: object) -> bool:
    """Whether nothing is seen of the value; a list of callbacks is a list of objects."""
    if isinstance(value, list):
        return all(_is_unseen(item) for item in value)
    return value is None or _is_opaque(value)


def _is_opaque(value: object) -> bool:
    if isinstance(value, dict):
        return value.get("lc") == 1 and value.get("type") == "not_implemented"
    return value is ... or value == (..., _OPAQUE)


# -------------------------------------------------------------------------------------------------- parameters


def _mark_objects(source: str) -> tuple[str, list[tuple[str, type | None]]]:
    """The repr with its objects replaced by literals that begin with `...`, which no repr of a value does."""
    classes: list[tuple[str, type | None]] = []

    def literal(match: re.Match[str]) -> str:
        token = match[0]
        if not token.startswith("<"):
            return token
        if name := match["name"]:
            classes.append((name, _resolve(name)))
            return f"(...,{_CLASS!r},{len(classes) - 1})"
        if " at 0x" not in token and _ENUM_MEMBER.fullmatch(token):
            return f"(...,{_MEMBER!r},{token!r})"
        return f"(...,{_OPAQUE!r})"

    return (_TOKEN.sub(literal, source) if "<" in source else source), classes


def _read_parameters(raw: str, source: str, schemas: Sequence[_Schema]) -> object:
    try:
        pairs = ast.literal_eval(source)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return _as_it_is(raw)
    if not isinstance(pairs, list) or not all(isinstance(p, tuple) and len(p) == 2 for p in pairs):
        return _as_it_is(raw)
    parameters = {name: _with_schemas(value, schemas) for name, value in pairs}
    if parameters.get("stop", ...) is None:
        del parameters["stop"]
    return _keep(parameters, _OF_PARAMETERS)


def _as_it_is(raw: str) -> str:
    """A repr that is no literal, where it shows all there is."""
    if _UNSEEN.search(raw):
        raise _UnkeyableError("the model's parameters hold an object that the key cannot see into")
    if raw.startswith("[("):
        try:
            nodes = list(ast.walk(ast.parse(raw, mode="eval")))
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return raw
        # `list[app.Answer]`, `app.Answer | None`: types, of which only the name is seen.
        if any(isinstance(node, ast.Subscript | ast.BinOp) for node in nodes):
            raise _UnkeyableError("the model's parameters hold a type that the key cannot see into")
    return raw


def _with_schemas(value: Any, schemas: Sequence[_Schema]) -> Any:
    if isinstance(value, tuple) and value[:1] == (...,):
        return schemas[value[2]] if value[1] == _CLASS else value
    if isinstance(value, list | tuple | set):
        return type(value)(_with_schemas(item, schemas) for item in value)
    if isinstance(value, dict):
        return {_with_schemas(key, schemas): _with_schemas(item, schemas) for key, item in value.items()}
    return value


# ----------------------------------------------------------------------------------------------------- classes


@dataclass(frozen=True, slots=True)
class _Schema:
    """A class among the parameters; its schema is made only if the parameter counts."""

    name: str
    cls: type | None

    def text(self) -> str:
        """The class's JSON schema, its fields in their order: a model fills them in that order.

        Raises:
            _UnkeyableError: the class is not found, or gives no schema.
        """
        if self.cls is None:
            raise _UnkeyableError("a class among the model's parameters cannot be found by its name")
        if self.cls.__module__ == "builtins":
            return self.name
        try:
            return f"{self.name} {json.dumps(_json_schema(self.cls))}"
        except Exception as error:
            raise _UnkeyableError("a class among the model's parameters gives no JSON schema") from error


def _json_schema(cls: Any) -> object:
    if hasattr(cls, "model_json_schema"):
        return cls.model_json_schema()
    if is_typeddict(cls):
        from langchain_core.utils.function_calling import convert_to_json_schema

        return convert_to_json_schema(cls)
    from pydantic import TypeAdapter

    return TypeAdapter(cls).json_schema()


def _resolve(name: str) -> type | None:
    """The class of this full name among the modules already imported; None for a local or replaced one.

    Looks into dictionaries and calls nothing: attribute access can run a module's code.
    """
    parts = name.split(".")
    if len(parts) == 1:
        found = vars(builtins).get(name)
        return found if isinstance(found, type) else None
    for depth in range(len(parts) - 1, 0, -1):
        found = sys.modules.get(".".join(parts[:depth]))
        for part in parts[depth:]:
            found = getattr(found, "__dict__", {}).get(part)
        if isinstance(found, type) and f"{found.__module__}.{found.__qualname__}" == name:
            return found
    return None

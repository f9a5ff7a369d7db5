"""What responses carry beside the answer, as JSON and back: `additional_kwargs` and the provider's own response.

An object of a provider's (`ChatCompletion`, `ChoiceDeltaToolCall`, `ToolSelection`) comes back as a `Record`, which
reads like a mapping and like the object. Its class does not come back: no class name ever comes from stored bytes.
"""

from __future__ import annotations

import math
from base64 import b64decode, b64encode
from collections.abc import Mapping
from datetime import date, datetime
from enum import Enum
from typing import Any, Final

from llama_index.core.base.llms.types import ChatMessage, MessageRole
from pydantic import BaseModel

__all__ = ["TAG", "Record", "UnpackableError", "cast_message", "fields_of", "pack", "pack_raw", "unpack"]

TAG: Final = "\0"
"""The key that marks what is no plain JSON: `{TAG: ["record", {...}]}`, `{TAG: ["bytes", base64]}`."""


class UnpackableError(Exception):
    """A value that JSON does not bring back; the text names its type."""


class Record(dict[str, Any]):
    """A mapping whose entries can be read as attributes too, as those of the object that it was."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            value = self[name]
        except KeyError:
            raise AttributeError(name) from None
        seen = _seen(value)
        if seen is not value:
            self[name] = seen  # what is changed through an attribute is changed here
        return seen

    def model_dump(self, **_: Any) -> dict[str, Any]:
        """A plain copy, as of the pydantic object that it was."""
        return {name: _plain(value) for name, value in self.items()}


def _seen(value: Any) -> Any:
    if type(value) is dict:
        return Record(value)
    if type(value) is list and any(type(item) is dict for item in value):
        return [_seen(item) for item in value]
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def cast_message(role: MessageRole, blocks: list[Any], kwargs: dict[str, Any]) -> ChatMessage:
    """A message of these very parts, which are known to be valid: half the time of the validating constructor.

    Made with the method that unpickling uses.
    """
    made = ChatMessage.__new__(ChatMessage)
    made.__setstate__(
        {
            "__dict__": {"role": role, "additional_kwargs": kwargs, "blocks": blocks},
            "__pydantic_fields_set__": {"role", "additional_kwargs", "blocks"},
            "__pydantic_extra__": None,
            "__pydantic_private__": None,
        }
    )
    return made


# --------------------------------------------------------------------------------------------- without loss


def pack(value: Any) -> Any:
    """The value in JSON types.

    Raises:
        UnpackableError: it would not come back.
    """
    kind = type(value)
    if kind is str or value is None or kind is bool or kind is int:
        return value
    if kind is float and math.isfinite(value):
        return value
    if kind is list:
        return [pack(item) for item in value]
    if kind is dict:
        return _pack_mapping(value)
    if kind is Record:
        return {TAG: ["record", _pack_mapping(_plain(value))]}
    if kind is bytes:
        return {TAG: ["bytes", b64encode(value).decode()]}
    if isinstance(value, str) and isinstance(value, Enum):
        return value.value  # equal to it
    if isinstance(value, BaseModel):
        return {TAG: ["record", _pack_fields(value)]}
    raise UnpackableError(kind.__qualname__)


def _pack_mapping(mapping: Mapping[Any, Any]) -> dict[str, Any]:
    if not all(type(name) is str for name in mapping) or TAG in mapping:
        raise UnpackableError("a mapping with keys that are no plain text")
    return {name: pack(item) for name, item in mapping.items()}


def _pack_fields(model: BaseModel) -> dict[str, Any]:
    """The fields of an object; the objects in them need no mark, for a record shows its mappings as records."""
    return {name: _unmarked(pack(value)) for name, value in fields_of(model).items()}


def fields_of(model: BaseModel) -> dict[str, Any]:
    """The values of a pydantic object, those beyond its fields included; not what its class keeps for itself."""
    own = {name: value for name, value in model.__dict__.items() if not name.startswith("_")}
    return {**own, **(model.__pydantic_extra__ or {})}


def _unmarked(packed: Any) -> Any:
    if type(packed) is dict:
        if type(inner := packed.get(TAG)) is list and inner[0] == "record":
            return inner[1]
        return packed
    return [_unmarked(item) for item in packed] if type(packed) is list else packed


def unpack(value: Any) -> Any:
    """The value of packed JSON.

    Raises:
        ValueError: this is no packed JSON.
    """
    if type(value) is list:
        return [unpack(item) for item in value]
    if type(value) is not dict:
        return value
    if TAG not in value:
        return {name: unpack(item) for name, item in value.items()}
    kind, content = value[TAG]
    if kind == "record":
        return Record({name: unpack(item) for name, item in content.items()})
    if kind == "bytes":
        return b64decode(content, validate=True)
    raise ValueError(kind)


# ------------------------------------------------------------------------------------------------- with loss


def pack_raw(raw: Any) -> Any:
    """A provider's response, as much of it as is JSON: what cannot be kept is left out, for it is no part of the
    answer. A mapping stays one, an object becomes a record, anything else None.
    """
    if isinstance(raw, Mapping):
        return {TAG: ["record", _lossy(raw)]} if isinstance(raw, Record) else _lossy(raw)
    return {TAG: ["record", _lossy(raw)]} if isinstance(raw, BaseModel) else None


_NOTHING: Final = object()


def _lossy(value: Any) -> Any:
    kind = type(value)
    if kind is str or value is None or kind is bool:
        return value
    if kind is int:
        return value if -(2**63) <= value < 2**64 else _NOTHING  # what JSON writers here can hold
    if kind is float:
        return value if math.isfinite(value) else _NOTHING
    if isinstance(value, Enum):
        return value.value if isinstance(value.value, str | int) else value.name
    if isinstance(value, BaseModel):
        value = fields_of(value)
    if isinstance(value, Mapping):
        found = {str(name): _lossy(item) for name, item in value.items() if name != TAG}
        return {name: item for name, item in found.items() if item is not _NOTHING}
    if isinstance(value, list | tuple):
        return [item for each in value if (item := _lossy(each)) is not _NOTHING]
    return value.isoformat() if isinstance(value, datetime | date) else _NOTHING

"""LlamaIndex's messages and prompts, read into neutral turns.

What cannot change the model's answer is left out, so that a conversation has one key whether its earlier answers came
from the model or from a cache. Everything is read at once, and not when the core asks for it: an application goes on
to change the messages that it passed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.tools.types import BaseTool

from aicache._model import Prompt, Turn, Unkeyable
from aicache.cache import Question
from llamaindex_aicache._models import NamedModel
from llamaindex_aicache._templates import Filled, cut_out, filled_from, is_question
from llamaindex_aicache._turns import read_turns
from llamaindex_aicache._values import UnseenError, counted, dump, plain, schema_of

__all__ = ["CHAT", "TEXT", "Filled", "chat_question", "completion_question", "filled_from"]

CHAT: Final = "llamaindex-chat"
TEXT: Final = "llamaindex-text"
"""The kinds of prompts; LangChain's have others, for the two frameworks' answers are encoded differently."""

_ABSENT: Final = frozenset(
    {"tools", "tool_choice", "functions", "function_call", "response_format", "stop", "tool_dict"}
)
"""Arguments for which None means that they were not given; elsewhere it may mean the provider's default."""
_FALSE_ABSENT: Final = frozenset({"tool_required", "formatted"})


def chat_question(
    model: NamedModel, messages: Sequence[ChatMessage], kwargs: Mapping[str, Any], filled: Filled | None = None
) -> Question | Unkeyable:
    """The question that a chat call asks.

    Args:
        model: who is asked.
        messages: the conversation.
        kwargs: the call's other arguments.
        filled: the template that the messages were made from, if it is known.
    """
    return _question(CHAT, model, lambda: read_turns(messages), kwargs, filled)


def completion_question(
    model: NamedModel,
    prompt: str,
    formatted: bool,  # noqa: FBT001 - as in LlamaIndex
    kwargs: Mapping[str, Any],
    filled: Filled | None = None,
) -> Question | Unkeyable:
    """The question that a completion call asks.

    Args:
        model: who is asked.
        prompt: the text.
        formatted: whether it has the model's own format already.
        kwargs: the call's other arguments.
        filled: the template that the text was made from, if it is known.
    """
    if type(prompt) is not str:
        return Unkeyable("the prompt is no text")
    return _question(TEXT, model, lambda: (Turn("human", prompt),), {**kwargs, "formatted": bool(formatted)}, filled)


def _question(
    kind: str,
    model: NamedModel,
    read: Callable[[], tuple[Turn, ...]],
    kwargs: Mapping[str, Any],
    filled: Filled | None,
) -> Question | Unkeyable:
    try:
        parameters = _read_arguments(kwargs)
        turns = read()
    except UnseenError as error:
        return Unkeyable(str(error))
    except RecursionError:
        return Unkeyable("a message is nested too deeply")
    except OSError:
        return Unkeyable("a file of a message cannot be read")
    described = model.model + dump(parameters) if parameters else model.model
    given = parameters.get("model")
    name = given if isinstance(given, str) else model.name
    rows = dump([[turn.role, turn.text, len(turn.extra)] for turn in turns]) + b"".join([turn.extra for turn in turns])
    template = None if filled is None else cut_out(filled, turns)
    if filled is None or template is None:
        prompt = Prompt(kind, turns, described, model_name=name)
        return Question(_hash(kind.encode(), described, rows), lambda: prompt)
    query = filled.query
    written = query.encode("utf-8", "surrogatepass")

    def read_prompt() -> Prompt:
        if is_question(query):
            return Prompt(kind, turns, described, template, query, name)
        return Prompt(kind, turns, described, _hash(template, written), "", name)  # to be matched exactly

    return Question(_hash(kind.encode(), described, rows, template, written), read_prompt)


def _hash(*parts: bytes) -> bytes:
    # The length before each part: ("ab", "c") and ("a", "bc") differ.
    digest = sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


# ---------------------------------------------------------------------------------------------------- arguments


def _read_arguments(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call that can change its answer.

    Raises:
        UnseenError: one of them cannot be seen, or the provider keeps the conversation.
    """
    if not kwargs:
        return {}
    if kwargs.get("previous_response_id") or kwargs.get("conversation"):
        raise UnseenError("the provider keeps the conversation")
    return counted(
        (name, _read_tools(value) if name == "tools" else value)
        for name, value in kwargs.items()
        if not (value is None and name in _ABSENT) and not (value is False and name in _FALSE_ABSENT)
    )


def _read_tools(tools: Any) -> Any:
    """Tools as a model is told of them: name, description and schema."""
    if not isinstance(tools, Iterable) or isinstance(tools, str | Mapping):
        return tools
    return [_read_tool(tool) if isinstance(tool, BaseTool) else plain(tool, "tools") for tool in tools]


def _read_tool(tool: BaseTool) -> list[Any]:
    about = tool.metadata
    schema = None if about.fn_schema is None else schema_of(about.fn_schema)
    return [about.name, about.description, schema]

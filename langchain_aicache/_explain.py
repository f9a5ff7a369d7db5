"""The two strings that LangChain would hand to the cache for a prompt and a model.

Made with the private methods that `invoke` itself uses, for there are no public ones; a test compares the result with
what a real `invoke` hands over, at the oldest and the newest langchain-core.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from langchain_core.language_models import BaseChatModel, BaseLLM
from langchain_core.language_models._utils import _normalize_messages
from langchain_core.load import dumps
from langchain_core.messages import BaseMessage
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import RunnableBinding

from aicache._errors import ConfigurationError

__all__ = ["Asked", "describe"]

Asked: TypeAlias = str | PromptValue | Sequence[Any]
"""What a model's `invoke` takes: text, a prompt value, messages (or what converts to them)."""


def describe(prompt: Asked, llm: object) -> tuple[str, str]:
    """Prompt and model as LangChain's `lookup` gets them.

    Raises:
        ConfigurationError: `llm` is no model, binding or text.
    """
    model, kwargs = _unbind(llm)
    if isinstance(model, str):
        return _as_text(prompt), model
    stop = kwargs.pop("stop", None)
    if isinstance(model, BaseChatModel):
        # The description of structured output travels beside the parameters and is no part of the key.
        for name in ("ls_structured_output_format", "structured_output_format"):
            kwargs.pop(name, None)
        messages = _normalize_messages(model._convert_input(prompt).to_messages())
        return _serialise(messages), model._get_llm_string(stop=stop, **kwargs)
    if isinstance(model, BaseLLM):
        described = str(sorted({**model.dict(), "stop": stop}.items()))
        return model._convert_input(prompt).to_string(), described
    raise ConfigurationError("llm", f"give a LangChain model, or its llm_string; got {type(llm).__name__}")


def _unbind(llm: object) -> tuple[object, dict[str, Any]]:
    """The model inside bindings (`bind`, `bind_tools`, `with_config`), and the parameters they add; outer ones win."""
    kwargs: dict[str, Any] = {}
    while isinstance(llm, RunnableBinding):
        kwargs = {**llm.kwargs, **kwargs}
        llm = llm.bound
    return llm, kwargs


def _as_text(prompt: Asked) -> str:
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, PromptValue):
        return _serialise(prompt.to_messages())
    messages = [message for message in prompt if isinstance(message, BaseMessage)]
    if len(messages) == len(prompt):
        return _serialise(messages)
    raise ConfigurationError("prompt", "beside an llm_string give a text, a prompt value or messages")


def _serialise(messages: Sequence[BaseMessage]) -> str:
    return dumps([message.model_copy(update={"id": None}) for message in messages])

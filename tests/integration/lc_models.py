"""Chat models for tests: they count their calls and answer by a rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolCall, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import PrivateAttr

USAGE = {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18}


class CountingModel(BaseChatModel):
    """Answers `reply(messages)`; `calls` counts real calls."""

    model: str = "counting-1"
    temperature: float = 0.0
    reply: Callable[[list[BaseMessage]], AIMessage]
    _calls: list[list[BaseMessage]] = PrivateAttr(default_factory=list)

    @property
    def calls(self) -> int:
        return len(self._calls)

    @property
    def _llm_type(self) -> str:
        return "counting"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model, "temperature": self.temperature}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        self._calls.append(messages)
        return ChatResult(generations=[ChatGeneration(message=self.reply(messages))])

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: str | None = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        chosen = {} if tool_choice is None else {"tool_choice": tool_choice}
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **chosen, **kwargs)


def echo(messages: list[BaseMessage]) -> AIMessage:
    """The question back, so that a wrong answer shows."""
    return AIMessage(f"answer to: {messages[-1].text}", usage_metadata=USAGE)  # type: ignore[arg-type]


class Agent:
    """The reply rule of an agent: first look up the order, then the weather, then answer; a new random id each call."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, messages: list[BaseMessage]) -> AIMessage:
        seen = [message for message in messages if isinstance(message, ToolMessage)]
        question = next(message.text for message in messages if isinstance(message, HumanMessage))
        if len(seen) == 0:
            return self._call("find_order", {"number": "7"})
        if len(seen) == 1:
            return self._call("weather", {"city": str(seen[0].content)})
        return AIMessage(f"{question}: {seen[0].content}, {seen[1].content}", usage_metadata=USAGE)  # type: ignore[arg-type]

    def _call(self, name: str, args: dict[str, Any]) -> AIMessage:
        self.made += 1
        call = ToolCall(name=name, args=args, id=f"call_{id(self)}_{self.made}")
        return AIMessage("", tool_calls=[call], usage_metadata=USAGE)  # type: ignore[arg-type]

"""LlamaIndex models for tests: they count their calls and answer by a rule."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
    TextBlock,
    ToolCallBlock,
)
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.tools import BaseTool
from pydantic import Field, PrivateAttr

USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}

Reply = Callable[[Sequence[ChatMessage], dict[str, Any]], ChatMessage]


def echo(messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> ChatMessage:
    """The question back, so that a wrong answer shows."""
    return said(f"answer to: {messages[-1].content}")


def said(text: str) -> ChatMessage:
    return ChatMessage(role=MessageRole.ASSISTANT, content=text)


def words(text: str) -> list[str]:
    """The text in pieces that add up to it."""
    return [word + " " for word in text.split(" ")[:-1]] + text.split(" ")[-1:] if text else []


class TextModel(CustomLLM):
    """Completes text; its chat is LlamaIndex's own, which calls `complete`."""

    model: str = "text-1"
    temperature: float = 0.0
    reply: Callable[[str], str] = Field(default=lambda prompt: f"answer to: {prompt}", exclude=True)
    _calls: list[str] = PrivateAttr(default_factory=list)

    @property
    def calls(self) -> int:
        return len(self._calls)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name=self.model, is_chat_model=False)

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        self._calls.append(prompt)
        return CompletionResponse(text=self.reply(prompt), raw={"usage": USAGE})

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        def gen() -> CompletionResponseGen:
            self._calls.append(prompt)
            whole = ""
            for word in words(self.reply(prompt)):
                whole += word
                yield CompletionResponse(text=whole, delta=word)

        return gen()


class ChatModel(FunctionCallingLLM):
    """A chat model that calls functions, with asynchronous methods of its own."""

    model: str = "chat-1"
    temperature: float = 0.0
    api_key: str = Field(default="", exclude=True)
    is_function_calling: bool = True
    reply: Reply = Field(default=echo, exclude=True)
    _calls: list[Sequence[ChatMessage]] = PrivateAttr(default_factory=list)

    @property
    def calls(self) -> int:
        return len(self._calls)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(
            model_name=self.model, is_chat_model=True, is_function_calling_model=self.is_function_calling
        )

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return self._respond(messages, kwargs)

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return self._respond(messages, kwargs)

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        def gen() -> ChatResponseGen:
            yield from self._pieces(messages, kwargs)

        return gen()

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        async def gen() -> ChatResponseAsyncGen:
            for piece in self._pieces(messages, kwargs):
                yield piece

        return gen()

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text=self._respond([user(prompt)], kwargs).message.content or "")

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text=self._respond([user(prompt)], kwargs).message.content or "")

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        def gen() -> CompletionResponseGen:
            for piece in self._pieces([user(prompt)], kwargs):
                yield CompletionResponse(text=piece.message.content or "", delta=piece.delta)

        return gen()

    @llm_completion_callback()
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        async def gen() -> CompletionResponseAsyncGen:
            for piece in self._pieces([user(prompt)], kwargs):
                yield CompletionResponse(text=piece.message.content or "", delta=piece.delta)

        return gen()

    def _respond(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> ChatResponse:
        self._calls.append(list(messages))
        return ChatResponse(message=self.reply(messages, kwargs), raw={"usage": USAGE})

    def _pieces(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> ChatResponseGen:
        self._calls.append(list(messages))
        message = self.reply(messages, kwargs)
        whole = ""
        for word in words(message.content or ""):
            whole += word
            yield ChatResponse(message=said(whole), delta=word)
        if calls := [block for block in message.blocks if isinstance(block, ToolCallBlock)]:
            blocks = [*([TextBlock(text=whole)] if whole else []), *calls]
            last = ChatMessage(
                role=MessageRole.ASSISTANT, blocks=blocks, additional_kwargs=dict(message.additional_kwargs)
            )
            yield ChatResponse(message=last, delta="")

    def _prepare_chat_with_tools(  # noqa: PLR0917 - LlamaIndex's port
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        asked = [user_msg if isinstance(user_msg, ChatMessage) else user(user_msg)] if user_msg else []
        return {
            "messages": [*(chat_history or []), *asked],
            "tools": [tool.metadata.to_openai_tool() for tool in tools],
            "tool_required": tool_required,
            **kwargs,
        }

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        calls = [block for block in response.message.blocks if isinstance(block, ToolCallBlock)]
        if error_on_no_tool_call and not calls:
            raise ValueError("no tool call")
        return [
            ToolSelection(
                tool_id=call.tool_call_id or "",
                tool_name=call.tool_name,
                tool_kwargs=json.loads(call.tool_kwargs) if isinstance(call.tool_kwargs, str) else call.tool_kwargs,
            )
            for call in calls
        ]


def user(prompt: str) -> ChatMessage:
    return ChatMessage(role=MessageRole.USER, content=prompt)


def calling(name: str, arguments: dict[str, Any], number: int = 1) -> ChatMessage:
    """A message that calls a tool, as models send it: a block, and the provider's form beside it."""
    written = json.dumps(arguments)
    raw = {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": written}}
    return ChatMessage(
        role=MessageRole.ASSISTANT,
        blocks=[ToolCallBlock(tool_call_id=f"call_{number}", tool_name=name, tool_kwargs=arguments)],
        additional_kwargs={"tool_calls": [raw]},
    )


class Agent:
    """The reply rule of an agent: first look up the order, then the weather, then answer; a new id for each call."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> ChatMessage:
        seen = [message.content or "" for message in messages if message.role == MessageRole.TOOL]
        self.made += 1
        number = id(self) + self.made
        if len(seen) == 0:
            return calling("find_order", {"number": "7"}, number)
        if len(seen) == 1:
            return calling("weather", {"city": seen[0]}, number)
        return said(f"It is {seen[1]}, and the order is in {seen[0]}.")


def reacting(messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> ChatMessage:
    """The same by ReAct's rules, in text."""
    seen = [message for message in messages if (message.content or "").startswith("Observation:")]
    if len(seen) == 0:
        return said('Thought: I need a tool.\nAction: find_order\nAction Input: {"number": "7"}')
    if len(seen) == 1:
        return said('Thought: I need another.\nAction: weather\nAction Input: {"city": "Paris 7"}')
    return said("Thought: I can answer without using any more tools.\nAnswer: It is sunny in Paris.")


def find_order(number: str) -> str:
    """Find the city of an order."""
    return f"Paris {number}"


def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"sunny in {city}"

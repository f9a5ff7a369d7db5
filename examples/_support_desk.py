"""A small support desk for the examples: its questions, its right answers, and a chat model to answer them.

The model is a real provider's when its key is in the environment and its LangChain package is installed, else a
stand-in that looks the answer up and waits as long as a hosted model would.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompts import ChatPromptTemplate

__all__ = ["PROMPT", "Model", "Question", "StandInChatModel", "choose_model", "load_answers", "load_questions"]

HERE = Path(__file__).resolve().parent

PROMPT = ChatPromptTemplate.from_messages(
    [
        (
            "system",
            "You answer for the support desk of Larkbox, an app that stores and syncs files for teams. "
            "Answer in at most three sentences, from the handbook. Say so when the handbook has no answer.",
        ),
        ("human", "{question}"),
    ]
)


@dataclass(frozen=True, slots=True)
class Question:
    """One line of `support_questions.jsonl`."""

    text: str
    answer_id: str
    """Names the right answer; two questions with one answer_id may share a cached answer."""
    kind: str
    """`new`, `repeat` (the very same text), `variant` (case, typing errors), `reworded`, or `near-miss` (much like
    an earlier question, but with another answer)."""


def load_questions() -> list[Question]:
    """The questions in the order in which customers ask them."""
    lines = (HERE / "support_questions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = (json.loads(line) for line in lines)
    return [Question(row["question"], row["answer_id"], row["kind"]) for row in rows]


@cache
def load_answers() -> dict[str, str]:
    """The right answers by their id."""
    answers: dict[str, str] = json.loads((HERE / "support_answers.json").read_text(encoding="utf-8"))
    return answers


@cache
def _answer_by_question() -> dict[str, str]:
    return {question.text: load_answers()[question.answer_id] for question in load_questions()}


class StandInChatModel(BaseChatModel):
    """A chat model for machines without a provider's key: it looks the answer up and waits.

    Tokens are estimated at four characters each.
    """

    delay: float = 0.8
    """Seconds a call takes. Not an identifying parameter: it does not change the answer."""

    @property
    def _llm_type(self) -> str:
        return "support-desk-stand-in"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": "support-desk-stand-in", "edition": 1}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002 - LangChain's signature
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002 - LangChain's signature
        **kwargs: Any,  # noqa: ARG002 - LangChain's signature
    ) -> ChatResult:
        time.sleep(self.delay)
        text = _answer_by_question().get(
            messages[-1].text, "The handbook has no answer to that. A colleague will write to you."
        )
        read, written = _tokens([message.text for message in messages]), _tokens([text])
        message = AIMessage(
            text,
            usage_metadata={"input_tokens": read, "output_tokens": written, "total_tokens": read + written},
            response_metadata={"finish_reason": "stop"},
        )
        return ChatResult(generations=[ChatGeneration(message=message)])


def _tokens(texts: Sequence[str]) -> int:
    return sum(len(text) for text in texts) // 4


@dataclass(frozen=True, slots=True)
class Model:
    """A chat model, what to call it, and what its tokens cost."""

    chat: BaseChatModel
    label: str
    prices: tuple[float, float]
    """Assumed US dollars per million input and output tokens."""


@dataclass(frozen=True, slots=True)
class _Provider:
    key: str
    package: str
    name: str
    model: str
    prices: tuple[float, float]


# List prices of small models as of 2025; `--prices` of the quickstart overrides them.
_PROVIDERS = (
    _Provider("OPENAI_API_KEY", "langchain_openai", "openai", "gpt-4.1-mini", (0.40, 1.60)),
    _Provider("ANTHROPIC_API_KEY", "langchain_anthropic", "anthropic", "claude-haiku-4-5", (1.00, 5.00)),
)
_STAND_IN_PRICES = (0.40, 1.60)


def choose_model(*, delay: float = 0.8, stand_in: bool = False) -> Model:
    """The first provider with a key and a package, else the stand-in, whose label says why it was taken."""
    reason = "as asked for" if stand_in else "no API key found"
    for provider in () if stand_in else _PROVIDERS:
        if not os.environ.get(provider.key):
            continue
        if find_spec(provider.package) is None:
            reason = (
                f"{provider.key} is set, but its package is missing: pip install {provider.package.replace('_', '-')}"
            )
            continue
        return Model(_connect(provider), f"{provider.name}: {provider.model}", provider.prices)
    label = f"stand-in model, fixed delay {delay:g} s ({reason})"
    return Model(StandInChatModel(delay=delay), label, _STAND_IN_PRICES)


def _connect(provider: _Provider) -> BaseChatModel:
    if provider.name == "openai":
        from langchain_openai import ChatOpenAI

        return ChatOpenAI(model=provider.model, temperature=0)
    from langchain_anthropic import ChatAnthropic

    return ChatAnthropic(model_name=provider.model, temperature=0, timeout=None, stop=None)

"""Which models answer alike, and that no secret is part of what says so."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from langchain_core.language_models import FakeListChatModel
from llama_index.core.base.llms.types import LLMMetadata
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.mock import MockFunctionCallingLLM, MockLLM
from llama_index.core.prompts import PromptTemplate
from llama_index.llms.openai import OpenAI, OpenAIResponses
from openai import OpenAI as Client
from pydantic import BaseModel, Field, PrivateAttr, SecretStr

from aicache._model import Unkeyable
from llamaindex_aicache._models import ModelReader, NamedModel, describe

SECRET = "sk-very-secret-4711"


def made(**changes: Any) -> OpenAI:
    return OpenAI(**{"model": "gpt-4o-mini", "api_key": SECRET, **changes})


def key(llm: Any) -> bytes:
    read = ModelReader()(llm)
    assert isinstance(read, NamedModel), read
    return read.model


def why(llm: Any) -> str:
    read = ModelReader()(llm)
    assert isinstance(read, Unkeyable)
    return read.why


class Style(Enum):
    PLAIN = "plain"
    RICH = "rich"


class Options(BaseModel):
    top_k: int = 1
    token: SecretStr = SecretStr(SECRET)


class Local(CustomLLM):
    """A model of an application."""

    path: str = "a.bin"
    style: Style = Style.PLAIN
    options: Options = Options()
    stop_token: str = "</s>"
    access_token: str = "one"
    weights: Any = None
    inner: Any = None
    notes: list[str] = Field(default=[], exclude=True)
    _config: dict[str, Any] = PrivateAttr(default_factory=dict)
    _calls: int = PrivateAttr(0)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata()

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise NotImplementedError

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise NotImplementedError


class Unlucky(Local):
    @property
    def metadata(self) -> LLMMetadata:
        raise ConnectionError("no server")


CHANGES: dict[str, dict[str, Any]] = {
    "model": {"model": "gpt-4o"},
    "temperature": {"temperature": 0.7},
    "max_tokens": {"max_tokens": 5},
    "host": {"api_base": "https://eu.example.com/v1"},
    "parameters": {"additional_kwargs": {"top_p": 0.1}},
    "body": {"additional_kwargs": {"extra_body": {"provider": "b"}}},
    "system_prompt": {"system_prompt": "Be brief."},
    "strict": {"strict": True},
    "route": {"default_headers": {"X-Route": "eu"}},
    "prompting": {"completion_to_prompt": lambda text: f"[{text}]"},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_model_differs_by_what_can_change_an_answer(change: dict[str, Any]) -> None:
    assert key(made(**change)) != key(made())


ALIKE: dict[str, dict[str, Any]] = {
    "api_key": {"api_key": "another"},
    "timeout": {"timeout": 5.0},
    "retries": {"max_retries": 9},
    "client": {"http_client": httpx.Client(), "reuse_client": False},
    "callbacks": {"callback_manager": CallbackManager([])},
    "authorization": {"default_headers": {"Authorization": f"Bearer {SECRET}", "User-Agent": "mine"}},
    "secret header": {"default_headers": {"X-Shop-Token": SECRET}},
    "nested secrets": {"additional_kwargs": {"extra_headers": {"api-key": SECRET}, "timeout": 3}},
    "password in the address": {"api_base": f"https://user:{SECRET}@api.openai.com/v1"},
}


@pytest.mark.parametrize("change", ALIKE.values(), ids=ALIKE.keys())
def test_models_that_differ_in_secrets_and_transport_only_are_one(change: dict[str, Any]) -> None:
    expected = made(additional_kwargs={}, api_base="https://api.openai.com/v1")
    assert key(made(**{"api_base": "https://api.openai.com/v1", **change})) == key(expected)


def test_no_secret_is_in_a_description() -> None:
    llm = made(
        default_headers={"Authorization": SECRET, "X-Unknown": SECRET},
        api_base=f"https://me:{SECRET}@example.com/v1?api-key={SECRET}&x=1",
        additional_kwargs={
            "extra_headers": {"X-Other": SECRET},
            "extra_body": {"auth": {"key": SECRET}, "password": SECRET},
            "api_key": SECRET,
        },
    )
    described = orjson.dumps([describe(llm), describe(Local(access_token=SECRET))])
    assert SECRET.encode() not in described
    assert b"example.com" in described


def test_a_field_that_changes_is_noticed() -> None:
    read = ModelReader()
    llm: Any = made(additional_kwargs={"logit_bias": {}})
    seen = {read(llm)}
    llm.temperature = 0.9
    seen.add(read(llm))
    llm.additional_kwargs["logit_bias"]["50256"] = -100
    seen.add(read(llm))
    llm.completion_to_prompt = str.upper
    seen.add(read(llm))
    assert len(seen) == 4


def test_a_key_that_is_rotated_changes_nothing() -> None:
    read, llm = ModelReader(), made()
    before = read(llm)
    llm.api_key = "rotated"
    assert read(llm) == before


def test_a_client_made_on_the_first_call_changes_nothing_and_one_with_another_address_does() -> None:
    llm = made()
    before = key(llm)
    assert llm._get_client() is not None
    assert key(llm) == before
    other = Client(api_key=SECRET, base_url="https://eu.example.com/v1")
    assert key(made(openai_client=other)) != before


def test_the_name_is_what_the_provider_calls_the_model() -> None:
    read = ModelReader()
    named = [read(llm) for llm in (made(), MockLLM(), Local())]
    assert [each.name for each in named if isinstance(each, NamedModel)] == ["gpt-4o-mini", None, None]


def test_classes_differ_and_a_class_that_stands_for_another_by_name_does_not() -> None:
    class Sub(MockLLM):
        pass

    class Twin(MockLLM):
        __module__ = MockLLM.__module__
        __qualname__ = MockLLM.__qualname__

    assert key(Sub(max_tokens=1)) != key(MockLLM(max_tokens=1))
    assert key(Twin(max_tokens=1)) == key(MockLLM(max_tokens=1))


def test_fields_of_every_kind_count_and_secret_ones_do_not() -> None:
    base = key(Local())
    for change in (
        {"path": "b.bin"},
        {"style": Style.RICH},
        {"options": Options(top_k=2)},
        {"stop_token": "<end>"},
        {"weights": Path("w.bin")},
        {"weights": b"\0"},
        {"weights": {1: 2}},
        {"weights": float("inf")},
        {"weights": 2**70},
        {"inner": MockLLM(max_tokens=1)},
    ):
        assert key(Local(**change)) != base, change
    assert key(Local(access_token="two", options=Options(token=SecretStr("x")), notes=["a"])) == base


def test_models_inside_models_are_read_too() -> None:
    assert key(Local(inner=MockLLM(max_tokens=1))) != key(Local(inner=MockLLM(max_tokens=2)))


def test_private_settings_count_and_a_private_counter_does_not() -> None:
    llm = Local()
    base = key(llm)
    llm._calls = 7
    assert key(llm) == base
    llm._config = {"top_k": 3}
    assert key(llm) != base


def prefixed(prefix: str) -> Any:
    return lambda text: prefix + text


def test_functions_are_told_apart_by_what_they_do() -> None:
    functions: list[Any] = [
        None,
        lambda text: text + "!",
        lambda text: text + "?",
        prefixed("a"),
        prefixed("b"),
        lambda text, end=".": text + end,
    ]
    made = [key(MockLLM(completion_to_prompt=each)) for each in functions]
    assert len(set(made)) == len(made)
    assert key(MockLLM(completion_to_prompt=prefixed("a"))) == made[3]


def test_a_private_function_counts() -> None:
    plain = MockFunctionCallingLLM()
    other = MockFunctionCallingLLM(response_generator=lambda messages, **_: messages[-1])
    assert key(plain) != key(other)


def test_prompt_templates_of_a_model_count() -> None:
    one, other = (Local(query_wrapper_prompt=PromptTemplate(text)) for text in ("A {query_str}", "B {query_str}"))
    assert key(one) != key(other)


def test_what_cannot_be_seen_is_unkeyable_and_says_why() -> None:
    assert "weights" in why(Local(weights=object()))
    assert "weights" in why(Local(weights=[{"a": object()}]))
    assert "method of an object" in why(Local(weights=Local().complete))
    assert "ConnectionError" in why(Unlucky())
    loop: list[Any] = []
    loop.append(loop)
    assert "nested" in why(Local(weights=loop))


def test_a_structured_model_is_left_to_the_model_inside_it() -> None:
    assert "inside" in why(MockLLM().as_structured_llm(Options))


def test_a_model_whose_provider_keeps_the_conversation_is_unkeyable() -> None:
    assert "conversation" in why(OpenAIResponses(api_key=SECRET, track_previous_responses=True))
    llm = OpenAIResponses(api_key=SECRET)
    assert isinstance(ModelReader()(llm), NamedModel)
    llm._previous_response_id = "resp_1"
    assert "conversation" in why(llm)


class OfLangChain(Local):
    _llm: Any = PrivateAttr(None)


def test_a_langchain_model_inside_is_read_as_langchain_describes_it() -> None:
    made = [OfLangChain() for _ in range(3)]
    for llm, answers in zip(made, (["a"], ["b"], ["b"]), strict=True):
        llm._llm = FakeListChatModel(responses=answers)
    first, second, third = map(key, made)
    assert first != second == third
    assert key(OfLangChain()) not in {first, second}

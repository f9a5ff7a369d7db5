"""The real OpenAI model of LlamaIndex behind AICache, on an HTTP transport that counts its requests."""

from __future__ import annotations

import gc
import importlib.util
import inspect
import json
import logging
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from li_models import find_order, user, weather
from llama_index.core import Settings
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

from aicache.testing import FakeEmbedder
from llamaindex_aicache import AICache

if TYPE_CHECKING:
    from redis_servers import Node

if importlib.util.find_spec("openai") is None and not os.environ.get("CI"):  # CI must have it, and fails without
    pytest.skip("llama-index-llms-openai is not installed", allow_module_level=True)

from llama_index.llms.openai import OpenAI

pytestmark = [  # LlamaIndex's own
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*was deleted before being closed:ResourceWarning"),
]

ASKED = "How do I reset my password?"
REWORDED = "How can I reset my password please?"
KEY = "sk-secret-of-this-test-4711"
HEADER = "header-secret-of-this-test-0815"
USAGE = {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}
HEAD = {"id": "chatcmpl-1", "created": 1, "model": "gpt-4o-mini"}
WORDS = ["On ", "the ", "sign-in ", "page."]


class Server:
    """Answers like OpenAI: a text, or tool calls one after the other where tools are offered."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []

    @property
    def calls(self) -> int:
        return len(self.requests)

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self._answer)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content)
        self.requests.append(asked)
        message = self._message(asked)
        if not asked.get("stream"):
            reason = "tool_calls" if message.get("tool_calls") else "stop"
            choice = {"index": 0, "finish_reason": reason, "message": {"role": "assistant", **message}}
            return httpx.Response(200, json={**HEAD, "object": "chat.completion", "choices": [choice], "usage": USAGE})
        return httpx.Response(
            200, headers={"content-type": "text/event-stream"}, text="".join(self._events(message)) + "data: [DONE]\n\n"
        )

    def _message(self, asked: dict[str, Any]) -> dict[str, Any]:
        offered = [tool["function"]["name"] for tool in asked.get("tools") or []]
        results = [message["content"] for message in asked["messages"] if message["role"] == "tool"]
        if "response_format" in asked:
            return {"content": '{"good": true, "reason": "it works"}'}
        if "find_order" in offered and not results:
            return self._call("find_order", {"number": "7"})
        if "weather" in offered and len(results) == 1:
            return self._call("weather", {"city": results[0]})
        return {"content": f"It is {results[1]}." if results else "".join(WORDS)}

    def _call(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        function = {"name": name, "arguments": json.dumps(arguments)}
        return {"content": None, "tool_calls": [{"id": f"call_{self.calls}", "type": "function", "function": function}]}

    def _events(self, message: dict[str, Any]) -> Iterator[str]:
        if calls := message.get("tool_calls"):
            deltas = [{"tool_calls": [{"index": 0, **calls[0]}]}]
        else:
            deltas = [{"content": word + " "} for word in message["content"].split(" ")]
        for delta in [{"role": "assistant", "content": ""}, *deltas]:
            yield self._chunk([{"index": 0, "delta": delta, "finish_reason": None}])
        yield self._chunk([{"index": 0, "delta": {}, "finish_reason": "stop"}])
        yield self._chunk([], usage=USAGE)

    @staticmethod
    def _chunk(choices: list[Any], **more: Any) -> str:
        return f"data: {json.dumps({**HEAD, 'object': 'chat.completion.chunk', 'choices': choices, **more})}\n\n"


def openai(server: Server, **more: Any) -> OpenAI:
    given: dict[str, Any] = {
        "model": "gpt-4o-mini",
        "api_key": KEY,
        "default_headers": {"Authorization": HEADER, "X-Api-Key": HEADER},
        "http_client": httpx.Client(transport=server.transport()),
        "async_http_client": httpx.AsyncClient(transport=server.transport()),
        "max_retries": 0,
    }
    return OpenAI(**(given | more))


@pytest.fixture(params=["memory", "sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "redis":
        node: Node = request.getfixturevalue("redis_standalone")
        return node.url
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'answers.db'}"


@pytest.fixture
def cache(url: str, request: pytest.FixtureRequest) -> Iterator[AICache]:
    with AICache(url, embeddings=FakeEmbedder(), threshold=0.8, margin=0.0, namespace=request.node.nodeid) as opened:
        yield opened


async def call(llm: OpenAI, entry: str, question: str) -> Any:
    """The response, or the last piece of a stream."""
    found: Any = getattr(llm, entry)([user(question)] if "chat" in entry else question)
    if inspect.isawaitable(found):
        found = await found
    if isinstance(found, AsyncIterator):
        found = iter([piece async for piece in found])
    return list(found)[-1] if isinstance(found, Iterator) else found


ENTRIES = [
    "chat",
    "achat",
    "stream_chat",
    "astream_chat",
    "complete",
    "acomplete",
    "stream_complete",
    "astream_complete",
]


@pytest.mark.parametrize("entry", ENTRIES)
async def test_every_method_answers_repeated_and_reworded_questions_from_the_cache(cache: AICache, entry: str) -> None:
    server = Server()
    llm = cache.wrap(openai(server))
    assert isinstance(llm, OpenAI)
    first = await call(llm, entry, ASKED)
    again = await call(llm, entry, ASKED)
    reworded = await call(llm, entry, REWORDED)
    assert server.calls == 1
    texts = [each.message.content if isinstance(each, ChatResponse) else each.text for each in (first, again, reworded)]
    assert texts[0] == texts[1] == texts[2]
    assert "".join(WORDS) == (texts[0] or "").strip()
    assert reworded.additional_kwargs["aicache"]["match"] == "semantic"


def test_the_model_keeps_what_it_hides(cache: AICache) -> None:
    llm = openai(Server())
    before, dumped = llm._get_client(), llm.to_dict()
    cache.wrap(llm)
    assert llm._get_client() is before
    assert llm.to_dict() == dumped
    assert llm.metadata.is_function_calling_model
    assert type(llm).__name__ == "OpenAI"


async def test_an_agent_hits_on_every_step_of_its_second_run(cache: AICache) -> None:
    server = Server()
    tools: list[Any] = [FunctionTool.from_defaults(find_order), FunctionTool.from_defaults(weather)]
    agent = FunctionAgent(tools=tools, llm=cache.wrap(openai(server)))
    for _ in range(2):
        found = await agent.run(user_msg="What is the weather where my order is?")
        assert str(found).strip() == "It is sunny in Paris 7."
    assert server.calls == 3
    del agent, found
    gc.collect()  # LlamaIndex leaves the file of an unused memory open, which must not be said in another test


class Verdict(BaseModel):
    """What the model thinks."""

    good: bool
    reason: str


@pytest.mark.parametrize("form", ["whole", "stream"])
def test_structured_output_comes_back_as_the_same_object(cache: AICache, form: str) -> None:
    from llama_index.core.prompts import PromptTemplate

    server = Server()
    llm = cache.wrap(openai(server))
    template = PromptTemplate("Judge this: {query_str} Now.")
    for question in (ASKED, REWORDED):
        if form == "whole":
            found: Any = llm.structured_predict(Verdict, template, query_str=question)
        else:
            found = list(llm.stream_structured_predict(Verdict, template, query_str=question))[-1]
        assert found.model_dump() == {"good": True, "reason": "it works"}
    assert server.calls == 1


def test_an_answer_in_a_conversation_counts_the_same_whether_it_was_a_hit(cache: AICache) -> None:
    server = Server()
    llm = cache.wrap(openai(server))
    for _ in range(2):
        history: list[ChatMessage] = [user(ASKED)]
        history.append(llm.chat(history).message)
        history.append(user("And then?"))
        llm.chat(history)
    assert server.calls == 2
    assert "aicache" not in json.dumps(server.requests)


def test_an_error_of_the_provider_passes_and_leaves_nothing(cache: AICache) -> None:
    from openai import AuthenticationError

    refusing = httpx.MockTransport(lambda _: httpx.Response(401, json={"error": {"message": "no"}}))
    llm = cache.wrap(openai(Server(), http_client=httpx.Client(transport=refusing)))
    for _ in range(2):
        with pytest.raises(AuthenticationError):
            llm.chat([user(ASKED)])
    assert cache.stats().stored == 0


def test_no_secret_is_in_a_key_a_stored_byte_or_a_log_line(
    cache: AICache, url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    caplog.set_level(logging.DEBUG, "aicache")
    server = Server()
    llm = cache.wrap(openai(server))
    first, hit = llm.chat([user(ASKED)]), llm.chat([user(REWORDED)])
    list(llm.stream_chat([user("Where is my parcel?")]))
    assert server.calls == 2
    seen = [caplog.text, repr(cache.explain([user(ASKED)], llm)), str(cache.stats()), first.model_dump_json()]
    seen += [hit.model_dump_json(), repr(cache._calls.read_model(llm))]
    stored = _stored(url, tmp_path, request)
    assert stored or url == "memory://"
    for secret in (KEY, HEADER):
        assert [text for text in seen if secret in text] == []
        assert secret.encode() not in stored


def _stored(url: str, tmp_path: Path, request: pytest.FixtureRequest) -> bytes:
    """All bytes that the store holds."""
    if url.startswith("sqlite"):
        return b"".join(file.read_bytes() for file in tmp_path.iterdir())
    if url.startswith("redis"):
        import redis

        with redis.Redis.from_url(url) as client:
            return b"".join(key + (client.dump(key) or b"") for key in client.scan_iter())
    return b""


def test_another_key_shares_answers_only_within_its_tenant(cache: AICache) -> None:
    server = Server()
    cache.wrap(openai(server)).chat([user(ASKED)])
    other = cache.wrap(openai(server, api_key="sk-other", default_headers=None))
    assert other.chat([user(ASKED)]).additional_kwargs["aicache"]["match"] == "exact"
    changed = cache.wrap(openai(server, temperature=0.9))
    changed.chat([user(ASKED)])
    assert server.calls == 2


def test_settings_hand_it_out_cached(cache: AICache) -> None:
    server, before = Server(), dict(vars(Settings))
    try:
        with cache.installed():
            Settings.llm = openai(server)
            Settings.llm.complete(ASKED)
            Settings.llm.complete(ASKED)
            assert server.calls == 1
    finally:
        vars(Settings).clear()
        vars(Settings).update(before)

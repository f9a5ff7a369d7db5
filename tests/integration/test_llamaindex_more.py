"""The LlamaIndex adapter with real stores: other processes, calls side by side, secrets in odd places, torn streams."""

from __future__ import annotations

import gc
import json
import logging
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from li_models import ChatModel, find_order, said, user, weather
from llama_index.core import Document, MockEmbedding, Settings, VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import CitationQueryEngine, RouterQueryEngine
from llama_index.core.selectors import LLMSingleSelector
from llama_index.core.tools import FunctionTool, QueryEngineTool

from aicache.testing import FakeEmbedder
from llamaindex_aicache import AICache

with_openai: Any = pytest.importorskip("test_llamaindex_openai")  # the model on its fake transport
ASKED, REWORDED, USAGE = with_openai.ASKED, with_openai.REWORDED, with_openai.USAGE
openai = with_openai.openai

pytestmark = with_openai.pytestmark

OPTIONS: dict[str, Any] = {"threshold": 0.8, "margin": 0.0}


def opened(url: str, namespace: str) -> AICache:
    return AICache(url, embeddings=FakeEmbedder(), namespace=namespace, **OPTIONS)


@pytest.fixture(params=["memory", "sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "redis":
        return str(request.getfixturevalue("redis_standalone").url)
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'answers.db'}"


@pytest.fixture(params=["sqlite", "redis"])
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "redis":
        return str(request.getfixturevalue("redis_standalone").url)
    return f"sqlite:///{tmp_path / 'answers.db'}"


@pytest.fixture
def cache(url: str, request: pytest.FixtureRequest) -> Iterator[AICache]:
    with opened(url, request.node.nodeid) as made:
        yield made


@pytest.fixture
def settings() -> Iterator[None]:
    before = dict(vars(Settings))
    yield
    vars(Settings).clear()
    vars(Settings).update(before)


def test_no_secret_in_a_url_a_header_a_body_or_an_argument_is_shown_or_stored(
    cache: AICache, url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    caplog.set_level(logging.DEBUG, "aicache")
    secrets = [f"secret-number-{number}-4711" for number in range(11)]
    server = with_openai.Server()
    llm = cache.wrap(
        openai(
            server,
            api_key=secrets[0],
            api_base=f"https://user:{secrets[1]}@host.example/v1?api_key={secrets[2]}",
            default_headers={"X-Odd": secrets[3], "Authorization": f"Bearer {secrets[4]}", "Cookie": secrets[5]},
            additional_kwargs={
                "extra_headers": {"X-Other": secrets[6]},
                "extra_query": {"token": secrets[7]},
                "extra_body": {"api_key": secrets[8]},
            },
        )
    )
    headers = {"X-Each": secrets[9], "Authorization": secrets[10]}
    for _ in range(2):
        whole = llm.chat([user(ASKED)], extra_headers=headers)
        pieces = list(llm.stream_chat([user(REWORDED)], extra_headers=headers))
    assert server.calls == 1
    explained = cache.explain([user(ASKED)], llm, extra_headers=headers)
    seen = [record.getMessage() for record in caplog.records if record.name.startswith("aicache")]
    seen += [str(explained), repr(explained), repr(cache), str(cache.stats()), repr(cache.health())]
    seen += [whole.model_dump_json(), pieces[-1].model_dump_json(), repr(cache._calls.read_model(llm))]
    stored = with_openai._stored(url, tmp_path, request)
    assert stored or url == "memory://"
    for secret in secrets:
        assert [text for text in seen if secret in text] == []
        assert secret.encode() not in stored


class Parallel(with_openai.Server):  # type: ignore[misc]
    """Calls two tools at once, and speaks before; in a stream, the arguments come in parts."""

    def _message(self, asked: dict[str, Any]) -> dict[str, Any]:
        wanted: list[tuple[str, dict[str, Any]]] = [("find_order", {"number": "7"}), ("weather", {"city": "é"})]
        calls = [
            {
                "id": f"call_{self.calls}_{number}",
                "type": "function",
                "function": {"name": name, "arguments": json.dumps(given)},
            }
            for number, (name, given) in enumerate(wanted)
        ]
        return {"content": "Let me see.", "tool_calls": calls}

    def _events(self, message: dict[str, Any]) -> Iterator[str]:
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": word} for word in ("Let ", "me ", "see.")]
        for index, call in enumerate(message["tool_calls"]):
            name, given = call["function"].values()
            deltas.append({"tool_calls": [{**call, "index": index, "function": {"name": name, "arguments": ""}}]})
            for part in (given[:4], given[4:]):
                deltas.append({"tool_calls": [{"index": index, "function": {"arguments": part}}]})
        for delta in deltas:
            yield self._chunk([{"index": 0, "delta": delta, "finish_reason": None}])
        yield self._chunk([{"index": 0, "delta": {}, "finish_reason": "tool_calls"}])
        yield self._chunk([], usage=USAGE)


@pytest.mark.parametrize("first", ["chat_with_tools", "stream_chat_with_tools"])
def test_parallel_calls_text_and_usage_survive_in_either_direction(cache: AICache, first: str) -> None:
    server = Parallel()
    llm = cache.wrap(openai(server))
    tools = [FunctionTool.from_defaults(find_order), FunctionTool.from_defaults(weather)]

    def ask(name: str) -> list[Any]:
        found = getattr(llm, name)(tools, user_msg=ASKED, allow_parallel_tool_calls=True)
        return list(found) if name.startswith("stream") else [found]

    asked = [ask(name)[-1] for name in (first, "chat_with_tools", "stream_chat_with_tools")]
    assert server.calls == 1
    for last in asked:
        calls = llm.get_tool_calls_from_response(last)
        assert [(call.tool_name, call.tool_kwargs) for call in calls] == [
            ("find_order", {"number": "7"}),
            ("weather", {"city": "é"}),
        ]
        assert last.message.content == "Let me see."
        assert last.raw.usage.total_tokens == last.additional_kwargs["total_tokens"] == USAGE["total_tokens"]
    assert "".join(piece.delta or "" for piece in ask("stream_chat_with_tools")) == "Let me see."


@pytest.mark.parametrize("reason", ["length", None])
def test_a_stream_that_was_cut_off_or_never_ended_is_not_kept(cache: AICache, reason: str | None) -> None:
    class Cut(with_openai.Server):  # type: ignore[misc]
        def _events(self, message: dict[str, Any]) -> Iterator[str]:
            yield self._chunk(
                [{"index": 0, "delta": {"role": "assistant", "content": "On the"}, "finish_reason": None}]
            )
            if reason is not None:
                yield self._chunk([{"index": 0, "delta": {}, "finish_reason": reason}])
                yield self._chunk([], usage=USAGE)

    server = Cut()
    llm = cache.wrap(openai(server))
    for _ in range(2):
        list(llm.stream_chat([user(ASKED)]))
    assert (server.calls, cache.stats().stored) == (2, 0)


CHILD = """
import pathlib, pickle
from llama_index.core.llms import MockLLM
from aicache.testing import FakeEmbedder
from llamaindex_aicache import AICache

model = pickle.loads(pathlib.Path({pickled!r}).read_bytes())
print(type(model) is MockLLM)
with AICache({url!r}, embeddings=FakeEmbedder(), namespace={namespace!r}, threshold=0.8, margin=0.0) as cache:
    cache.wrap(model)
    print(model.complete({asked!r}).additional_kwargs["aicache"]["match"])
    print(list(model.stream_complete({reworded!r}))[-1].additional_kwargs["aicache"]["match"])
    print(cache.stats().stored)
"""


def test_another_process_unpickles_a_plain_model_and_hits_through_a_cache_of_its_own(
    shared_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    pickled = tmp_path / "model"
    names = {"url": shared_url, "namespace": request.node.nodeid, "asked": ASKED, "reworded": REWORDED}
    with opened(shared_url, request.node.nodeid) as cache:
        model = cache.wrap(MockLLM())
        model.complete(ASKED)
        pickled.write_bytes(pickle.dumps(model))
        code = CHILD.format(pickled=str(pickled), **names)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["True", "exact", "semantic", "0"]


def test_a_pipeline_with_workers_takes_a_wrapped_model(shared_url: str, request: pytest.FixtureRequest) -> None:
    with AICache(shared_url, embeddings=False, namespace=request.node.nodeid) as cache:
        pipeline = IngestionPipeline(transformations=[cache.wrap(MockEmbedding(embed_dim=3))], disable_cache=True)
        nodes = pipeline.run(documents=[Document(text=f"text {number}") for number in range(4)], num_workers=2)
    assert [node.embedding for node in nodes] == [[0.5] * 3] * 4


@pytest.mark.usefixtures("settings")
def test_an_installed_cache_that_nobody_holds_goes_on(url: str, request: pytest.FixtureRequest) -> None:
    before = type(Settings).__dict__["llm"]
    closing = AICache(url, embeddings=False, namespace=request.node.nodeid).install().close
    try:
        Settings.llm = MockLLM()
        Settings.llm.complete(ASKED)
        gc.collect()
        assert Settings.llm.complete(ASKED).additional_kwargs["aicache"]["match"] == "exact"
    finally:
        closing()
    assert type(Settings).__dict__["llm"] is before


@pytest.mark.usefixtures("settings")
async def test_routers_and_citations_answer_repeated_and_reworded_questions_from_the_cache(cache: AICache) -> None:
    def reply(messages: Any, _: Any) -> Any:
        is_choice = "choices" in str(messages[-1].content).lower()
        return said('[{"choice": 1, "reason": "it fits"}]' if is_choice else "By mail.")

    with cache.installed():
        Settings.llm = model = ChatModel(reply=reply, is_function_calling=False)
        Settings.embed_model = MockEmbedding(embed_dim=3)
        index = VectorStoreIndex.from_documents([Document(text="Passwords are reset by mail.")])
        tools = [
            QueryEngineTool.from_defaults(index.as_query_engine(), name=name, description=f"All about {name}")
            for name in ("orders", "accounts")
        ]
        router = RouterQueryEngine.from_defaults(tools, selector=LLMSingleSelector.from_defaults())
        for engine, calls in ((router, 2), (CitationQueryEngine.from_args(index), 3)):
            for question in (ASKED, ASKED, REWORDED):
                assert str(await engine.aquery(question)) == "By mail."
            assert model.calls == calls

"""What remains to be shown of the LlamaIndex adapter with real stores: other processes, parallel calls, odd secrets."""

from __future__ import annotations

import json
import logging
import multiprocessing
import pickle
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from li_models import find_order, user, weather
from llama_index.core.tools import FunctionTool

from aicache.testing import FakeEmbedder
from llamaindex_aicache import AICache

T = pytest.importorskip("test_llamaindex_openai")
ASKED, REWORDED = T.ASKED, T.REWORDED
pytestmark = T.pytestmark


@pytest.fixture(params=["memory", "sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "redis":
        return str(request.getfixturevalue("redis_standalone").url)
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'answers.db'}"


@pytest.fixture
def cache(url: str, request: pytest.FixtureRequest) -> Iterator[AICache]:
    with AICache(url, embeddings=FakeEmbedder(), threshold=0.8, margin=0.0, namespace=request.node.nodeid) as opened:
        yield opened


SECRETS = [f"the-secret-{i}-4711" for i in range(12)]


def test_secrets(cache, url, tmp_path, caplog, request):
    caplog.set_level(logging.DEBUG, "aicache")
    logging.getLogger("httpcore").setLevel(logging.ERROR)
    logging.getLogger("openai").setLevel(logging.ERROR)
    s = iter(SECRETS)
    server = T.Server()
    llm = cache.wrap(T.openai(server, api_key=next(s), api_base=f"https://u:{next(s)}@host.example/v1?api_key={next(s)}",
        default_headers={"X-Odd": next(s), "Authorization": "Bearer " + next(s), "Cookie": next(s)},
        additional_kwargs={"extra_headers": {"X-Other": next(s)}, "extra_query": {"token": next(s)}, "extra_body": {"api_key": next(s)}}))
    for _ in range(2):
        r = llm.chat([user(ASKED)], extra_headers={"X-Per-Call": SECRETS[9], "Authorization": SECRETS[10]})
        p = list(llm.stream_chat([user(REWORDED)], extra_body={"secret": SECRETS[11]}))
    assert server.calls == 2
    ex = cache.explain([user(ASKED)], llm, extra_headers={"X-Per-Call": SECRETS[9]})
    seen = [*(r.getMessage() for r in caplog.records if r.name.startswith("aicache")), str(ex), repr(ex), repr(cache), str(cache.stats()), repr(cache.stats()), repr(cache.health()), r.model_dump_json(), p[-1].model_dump_json(), repr(cache._calls.read_model(llm))]
    stored = T._stored(url, tmp_path, request)
    for x in SECRETS:
        assert not [t[:2000] for t in seen if x in t], x
        assert x.encode() not in stored


class Two(T.Server):
    def _message(self, asked):
        return {"content": "Let me see.", "tool_calls": [{"id": f"call_{self.calls}_{i}", "type": "function", "function": {"name": n, "arguments": json.dumps(a)}} for i, (n, a) in enumerate([("find_order", {"number": "7"}), ("weather", {"city": "é"})])]}
    def _events(self, message):
        yield self._chunk([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
        for w in ("Let ", "me ", "see."):
            yield self._chunk([{"index": 0, "delta": {"content": w}, "finish_reason": None}])
        for i, c in enumerate(message["tool_calls"]):
            args = c["function"]["arguments"]
            yield self._chunk([{"index": 0, "delta": {"tool_calls": [{"index": i, **c, "function": {"name": c["function"]["name"], "arguments": ""}}]}, "finish_reason": None}])
            for part in (args[:4], args[4:]):
                yield self._chunk([{"index": 0, "delta": {"tool_calls": [{"index": i, "function": {"arguments": part}}]}, "finish_reason": None}])
        yield self._chunk([{"index": 0, "delta": {}, "finish_reason": "tool_calls"}])
        yield self._chunk([], usage=T.USAGE)


@pytest.mark.parametrize("first", ["chat_with_tools", "stream_chat_with_tools"])
def test_parallel(cache, first):
    server = Two()
    llm = cache.wrap(T.openai(server))
    tools = [FunctionTool.from_defaults(find_order), FunctionTool.from_defaults(weather)]
    def ask(how):
        r = getattr(llm, how)(tools, user_msg=ASKED, allow_parallel_tool_calls=True)
        return list(r) if how.startswith("stream") else [r]
    orig = ask(first)
    hits = [ask("chat_with_tools"), ask("stream_chat_with_tools")]
    assert server.calls == 1
    want = [(c.tool_name, c.tool_kwargs) for c in llm.get_tool_calls_from_response(orig[-1])]
    assert len(want) == 2
    for h in hits:
        last = h[-1]
        assert [(c.tool_name, c.tool_kwargs) for c in llm.get_tool_calls_from_response(last)] == want
        assert last.message.content == "Let me see."
        assert last.raw.usage.total_tokens == 17 if hasattr(last.raw, "usage") else last.raw["usage"]["total_tokens"] == 17
        assert last.additional_kwargs.get("total_tokens") == 17
    assert "".join(p.delta or "" for p in hits[1]) == "Let me see."


CHILD = """
import sys, pickle, asyncio
sys.path.insert(0, {path!r})
import test_llamaindex_openai as T
from li_models import user
from llama_index.core.llms import MockLLM
m = pickle.load(open({file!r}, "rb"))
plain = type(m) is MockLLM
from aicache.testing import FakeEmbedder
from llamaindex_aicache import AICache
with AICache({url!r}, embeddings=FakeEmbedder(), threshold=0.8, margin=0.0, namespace="child") as c:
    c.wrap(m)
    a = m.complete({asked!r}); 
    b = [p for p in m.stream_complete("How can I reset my password please?")]
    print(plain, a.additional_kwargs["aicache"]["match"], b[-1].additional_kwargs["aicache"]["match"], c.stats().stored)
"""


def test_other_process(url, tmp_path):
    from llama_index.core.llms import MockLLM
    if url == "memory://":
        pytest.skip("one process")
    with AICache(url, embeddings=FakeEmbedder(), threshold=0.8, margin=0.0, namespace="child") as c:
        m = c.wrap(MockLLM())
        m.complete(ASKED)
        (tmp_path / "m.pickle").write_bytes(pickle.dumps(m))
        code = CHILD.format(path=str(Path(T.__file__).parent), file=str(tmp_path / "m.pickle"), url=url, asked=ASKED)
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
        assert out.stdout.split() == ["True", "exact", "semantic", "0"], out.stderr[-3000:]
        assert KEYLESS not in out.stdout


KEYLESS = "zzz"


def test_pipeline_workers(url, tmp_path):
    from llama_index.core import Document, MockEmbedding
    from llama_index.core.ingestion import IngestionPipeline
    if url == "memory://":
        pytest.skip("")
    with AICache(url, embeddings=False) as c:
        m = c.wrap(MockEmbedding(embed_dim=3))
        p = IngestionPipeline(transformations=[m], disable_cache=True)
        nodes = p.run(documents=[Document(text=f"t{i}") for i in range(4)], num_workers=2)
        assert [len(n.embedding) for n in nodes] == [3] * 4


def test_install_forgotten_reference(url):
    import gc
    from llama_index.core import Settings
    from llama_index.core.llms import MockLLM
    before = dict(vars(Settings))
    AICache(url, embeddings=False, namespace="gc").install()
    try:
        gc.collect()
        Settings.llm = MockLLM()
        Settings.llm.complete("a b"); gc.collect()
        assert Settings.llm.complete("a b").additional_kwargs["aicache"]
    finally:
        from llamaindex_aicache._install import _installed, uninstall
        for i in list(_installed._stack):
            uninstall(i)
        vars(Settings).clear(); vars(Settings).update(before)
        gc.collect()


def test_streaming_answer_not_kept_when_usage_missing_or_length(cache):
    class Cut(T.Server):
        def _events(self, message):
            yield self._chunk([{"index": 0, "delta": {"role": "assistant", "content": "On the"}, "finish_reason": None}])
            yield self._chunk([{"index": 0, "delta": {}, "finish_reason": "length"}])
            yield self._chunk([], usage=T.USAGE)
    class Torn(T.Server):
        def _events(self, message):
            yield self._chunk([{"index": 0, "delta": {"role": "assistant", "content": "On the"}, "finish_reason": None}])
    for kind in (Cut, Torn):
        server = kind()
        llm = cache.wrap(T.openai(server))
        list(llm.stream_chat([user(ASKED)])); list(llm.stream_chat([user(ASKED)]))
        print(kind, server.calls, cache.stats().stored)
    assert cache.stats().stored == 0

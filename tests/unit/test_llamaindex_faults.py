"""Faults that a hostile look at the LlamaIndex adapter was made for: wrong hits, lost parts, raised errors, processes."""

from __future__ import annotations

import asyncio
import copy
import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from li_models import ChatModel, TextModel, calling, find_order, said, user, weather
from llama_index.core import Settings
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseGen,
    CompletionResponse,
    LLMMetadata,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.llms import CustomLLM, MockLLM
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from aicache.testing import FakeEmbedder
from llamaindex_aicache import AICache, AICacheKVStore

ASKED = "How do I reset my password?"
REWORDED = "How can I reset my password please?"


@pytest.fixture
def cache() -> Iterator[AICache]:
    with AICache("memory://", embeddings=FakeEmbedder(), threshold=0.8, margin=0.0) as opened:
        yield opened


# ---- wrong hits


class Engine:
    def __init__(self, name): self.name_or_path = name
class Local(CustomLLM):
    """Runs a model object that it was given, as HuggingFaceLLM does."""
    context_window: int = 100
    _model: Any = PrivateAttr()
    def __init__(self, model: Any, **kw: Any) -> None:
        super().__init__(**kw)
        self._model = model
    @property
    def metadata(self): return LLMMetadata(model_name="default")
    @llm_completion_callback()
    def complete(self, prompt, formatted=False, **kw): return CompletionResponse(text=self._model.name_or_path)
    @llm_completion_callback()
    def stream_complete(self, prompt, formatted=False, **kw): raise NotImplementedError


def test_private_model_objects(cache):
    a, b = cache.wrap(Local(Engine("a"))), cache.wrap(Local(Engine("b")))
    assert a.complete("x").text == "a"
    assert b.complete("x").text == "b"


def test_throw_swallowed(cache):
    class M(TextModel):
        @llm_completion_callback()
        def stream_complete(self, prompt, formatted=False, **kwargs):
            def gen():
                self._calls.append(prompt)
                try:
                    yield CompletionResponse(text="half", delta="half")
                    yield CompletionResponse(text="half whole", delta=" whole")
                except ValueError:
                    return
            return gen()
    m = cache.wrap(M())
    g = m.stream_complete(ASKED)
    next(g)
    with pytest.raises((StopIteration, ValueError)):
        g.throw(ValueError("x"))
    g.close()
    assert cache.stats().stored == 0


def test_reader_changes_piece(cache):
    m = cache.wrap(ChatModel())
    for piece in m.stream_chat([user(ASKED)]):
        piece.message.blocks[0].text = "POISON"
        piece.message.additional_kwargs["x"] = "POISON"
        piece.additional_kwargs["y"] = "POISON"
    got = m.chat([user(ASKED)])
    assert "POISON" not in got.model_dump_json()


def test_reader_changes_tool_call(cache):
    m = cache.wrap(ChatModel(reply=lambda *_: calling("find_order", {"number": "7"})))
    for piece in m.stream_chat([user(ASKED)]):
        for b in piece.message.blocks:
            if isinstance(b, ToolCallBlock):
                b.tool_kwargs["number"] = "POISON"
    got = m.chat([user(ASKED)])
    assert "POISON" not in got.model_dump_json()


def test_response_changed_after(cache):
    m = cache.wrap(ChatModel())
    r = m.chat([user(ASKED)])
    r.message.blocks[0].text = "POISON"
    assert "POISON" not in m.chat([user(ASKED)]).model_dump_json()


def test_thinking(cache):
    msg = ChatMessage(role="assistant", blocks=[ThinkingBlock(content="hm", additional_information={"signature": "s"}), TextBlock(text="a b"), ToolCallBlock(tool_call_id="1", tool_name="t", tool_kwargs={"a": [1, None]})])
    m = cache.wrap(ChatModel(reply=lambda *_: msg))
    a, b = m.chat([user(ASKED)]), m.chat([user(ASKED)])
    assert b.additional_kwargs["aicache"]
    assert a.message == b.message and a.raw == b.raw
    last = list(m.stream_chat([user(ASKED)]))[-1]
    assert last.message.blocks == msg.blocks


class Odd:
    pass


def test_unserialisable(cache):
    m = cache.wrap(ChatModel(reply=lambda *_: ChatMessage(role="assistant", content="x", additional_kwargs={"o": Odd()})))
    for _ in range(2):
        assert m.chat([user(ASKED)]).message.content == "x"
    assert cache.stats().stored == 0
    assert m.calls == 2


def test_slots_frozen_setattr(cache):
    class Slotted(TextModel):
        __slots__ = ("extra_slot",)
    class Strict(TextModel):
        def __setattr__(self, name, value):
            if name.startswith("__"): raise RuntimeError(name)
            super().__setattr__(name, value)
    for kind in (Slotted, Strict):
        m = kind()
        cache.wrap(m)
        m.complete(kind.__name__); m.complete(kind.__name__)
        assert m.calls == 1, kind
        cache.unwrap(m)
        assert type(m) is kind


# ---- processes

def test_fork(cache):
    m = cache.wrap(TextModel())
    m.complete(ASKED)
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            a = m.complete(ASKED)
            m.complete("another one")
            b = m.complete("another one")
            p = pickle.loads(pickle.dumps(m)).complete(ASKED)
            os.write(w, repr(("aicache" in a.additional_kwargs, "aicache" in b.additional_kwargs, "aicache" in p.additional_kwargs)).encode())
        except BaseException as e:
            os.write(w, repr(e).encode())
        finally:
            os._exit(0)
    os.close(w)
    out = os.read(r, 1000)
    os.waitpid(pid, 0)
    assert out == b"(True, True, True)"


def test_unpickle_elsewhere(cache, tmp_path):
    m = cache.wrap(MockLLM())
    (tmp_path / "p").write_bytes(pickle.dumps(m))
    out = subprocess.run([sys.executable, "-c", f"import pickle; m=pickle.load(open({str(tmp_path/'p')!r},'rb')); from llama_index.core.llms import MockLLM; print(type(m) is MockLLM, m.complete('a b').text)"], capture_output=True, text=True, check=False)
    assert out.stdout.strip() == "True a b", out.stderr


def test_pickled_embeddings_cache(cache):
    from llama_index.core import MockEmbedding
    e = MockEmbedding(embed_dim=3, embeddings_cache=cache)
    copy.deepcopy(e)
    pickle.loads(pickle.dumps(e))


# --- settings
def test_settings_reset(cache):
    before = dict(vars(Settings))
    try:
        cache.install(); cache.install()
        Settings.llm = MockLLM()
        first = Settings.llm
        Settings._llm = None
        Settings.llm = None  # MockLLM
        Settings.llm.complete("a"); Settings.llm.complete("a")
        assert sum(cache.stats().hits.values()) == 1
        cache.uninstall()
        assert type(Settings.llm) is MockLLM and type(first) is MockLLM
    finally:
        cache.uninstall()
        vars(Settings).clear(); vars(Settings).update(before)


def test_type_call_while_swapped(cache):
    m = cache.wrap(MockLLM())
    other = type(m)(max_tokens=3)
    assert other.complete("a b c d").text
    again = type(m).from_dict(m.to_dict())
    assert again.complete("q").text == "q"


async def test_gather_and_threads(cache):
    m = cache.wrap(ChatModel())
    got = await asyncio.gather(*[m.achat([user(f"question {i%5}")]) for i in range(50)])
    assert [g.message.content for g in got] == [f"answer to: question {i%5}" for i in range(50)]


async def test_gen_never_started(cache):
    m = cache.wrap(ChatModel())
    g = m.stream_chat([user(ASKED)])
    del g
    a = await m.astream_chat([user(ASKED)])
    await a.aclose()
    a = await m.astream_chat([user(ASKED)])
    del a
    gc.collect()
    assert cache.stats().stored == 0
    m.chat([user(ASKED)])
    # hit streams abandoned
    g = m.stream_chat([user(ASKED)]); next(g); g.close()
    a = await m.astream_chat([user(ASKED)]); await a.__anext__(); await a.aclose()
    a = await m.astream_chat([user(ASKED)]); await a.__anext__(); del a
    gc.collect()


def test_chat_of_str(cache):
    m = cache.wrap(ChatModel())
    with pytest.raises(Exception):
        m.chat("hello")
    m.chat([])if False else None


def test_images_differ(cache):
    from llama_index.core.base.llms.types import ImageBlock
    m = cache.wrap(ChatModel(reply=lambda ms, k: said(str(m.calls))))
    def msg(b): return ChatMessage(role="user", blocks=[TextBlock(text="What is in it?"), ImageBlock(image=b)])
    png = b"\x89PNG\r\n\x1a\n" + b"0" * 30
    a = m.chat([msg(png)]); b = m.chat([msg(png + b"1")]); c = m.chat([msg(png)])
    assert m.calls == 2 and a.message.content == c.message.content != b.message.content


def test_tools_differ(cache):
    m = cache.wrap(ChatModel(reply=lambda ms, k: said(str(m.calls))))
    def f(a: int) -> str:
        "Do."
        return ""
    def g(a: str) -> str:
        "Do."
        return ""
    tf = FunctionTool.from_defaults(f, name="t"); tg = FunctionTool.from_defaults(g, name="t")
    m.chat_with_tools([tf], user_msg=ASKED); m.chat_with_tools([tg], user_msg=ASKED)
    m.chat_with_tools([tf], user_msg=ASKED, tool_required=True)
    assert m.calls == 3
    m.chat_with_tools([tf], user_msg=REWORDED)
    assert m.calls == 3


def test_refine_query_in_context(cache):
    m = cache.wrap(ChatModel(reply=lambda ms, k: said(str(m.calls))))
    t = PromptTemplate("Context: {context_str}\nQuery: {query_str}\nAnswer:")
    m.predict(t, context_str=f"FAQ {ASKED} By mail", query_str=ASKED)
    m.predict(t, context_str=f"FAQ {REWORDED} By mail", query_str=REWORDED)
    assert m.calls == 2
    m.predict(t, context_str="FAQ", query_str=ASKED)
    m.predict(t, context_str="FAQ", query_str=REWORDED)
    assert m.calls == 3


def test_history(cache):
    m = cache.wrap(ChatModel(reply=lambda ms, k: said(str(m.calls))))
    m.chat([user("a"), said("b"), user(ASKED)])
    m.chat([user("a"), said("c"), user(ASKED)])
    m.chat([said("b"), user("a"), user(ASKED)])
    m.chat([ChatMessage(role="system", content="a"), said("b"), user(ASKED)])
    m.chat([ChatMessage(role="tool", content=ASKED, additional_kwargs={"tool_call_id": "1"})])
    m.chat([ChatMessage(role="tool", content=REWORDED, additional_kwargs={"tool_call_id": "1"})])
    m.chat([said(ASKED)]); m.chat([said(REWORDED)])
    m.chat([ChatMessage(role="system", content=ASKED)]); m.chat([ChatMessage(role="system", content=REWORDED)])
    assert m.calls == 10


def test_generic_exception_in_callback(cache):
    from llama_index.core.callbacks import CallbackManager
    from llama_index.core.callbacks.base_handler import BaseCallbackHandler
    class H(BaseCallbackHandler):
        def on_event_start(self, *a, **k): raise RuntimeError("mine")
        def on_event_end(self, *a, **k): pass
        def start_trace(self, *a, **k): pass
        def end_trace(self, *a, **k): pass
    m = ChatModel()
    cache.wrap(m).chat([user(ASKED)])
    m.callback_manager = CallbackManager([H([], [])])
    with pytest.raises(RuntimeError):
        m.chat([user(ASKED)])
    m.callback_manager = CallbackManager([])
    assert m.chat([user(ASKED)]).additional_kwargs["aicache"]



# ---- batch 2

class Bare(CustomLLM):
    """No decorators at all, and a generator that swallows what is thrown."""
    _calls: list = PrivateAttr(default_factory=list)
    @property
    def metadata(self): return LLMMetadata(model_name="bare")
    def complete(self, prompt, formatted=False, **kw):
        self._calls.append(prompt)
        return CompletionResponse(text="half whole")
    def stream_complete(self, prompt, formatted=False, **kw):
        self._calls.append(prompt)
        try:
            yield CompletionResponse(text="half", delta="half")
            yield CompletionResponse(text="half whole", delta=" whole")
        except ValueError:
            return
    async def astream_complete(self, prompt, formatted=False, **kw):
        async def gen():
            self._calls.append(prompt)
            try:
                yield CompletionResponse(text="half", delta="half")
                yield CompletionResponse(text="half whole", delta=" whole")
            except ValueError:
                return
        return gen()


async def test_bare_throw(cache):
    m = cache.wrap(Bare())
    g = m.stream_complete(ASKED)
    next(g)
    with pytest.raises(StopIteration):
        g.throw(ValueError("x"))
    a = await m.astream_complete(ASKED)
    await a.__anext__()
    with pytest.raises(StopAsyncIteration):
        await a.athrow(ValueError("x"))
    assert cache.stats().stored == 0
    assert [p.delta for p in m.stream_complete(ASKED)] == ["half", " whole"]
    assert m.complete(ASKED).additional_kwargs["aicache"]


def test_predict_on_bare(cache):
    m = cache.wrap(Bare())
    t = PromptTemplate("Q {query_str} {context_str} end")
    m.predict(t, query_str=ASKED, context_str="c")
    m.predict(t, query_str=REWORDED, context_str="c")
    assert len(m._calls) == 1
    s = m.as_structured_llm(Verdict)


class Verdict(BaseModel):
    ok: bool


class PeftLike(Engine):
    def __init__(self, name): super().__init__(name); self.peft_config = {"default": 1}


def test_peft(cache):
    a, b = cache.wrap(Local(PeftLike("a"))), cache.wrap(Local(PeftLike("a")))
    a.complete("x"); b.complete("x")
    assert cache.stats().stored == 0
    print(cache.explain("x", a))
    assert "adapters" in str(cache.explain("x", a))


def test_embedding_engine(cache):
    from llama_index.core.embeddings import BaseEmbedding
    from llama_index.core import MockEmbedding
    class Adapter(BaseEmbedding):
        _base: Any = PrivateAttr()
        _eng: Any = PrivateAttr()
        def __init__(self, base, eng, **kw):
            super().__init__(**kw); self._base = base; self._eng = eng
        def _get_text_embedding(self, t): return [float(len(self._eng.name_or_path))] * self._base.embed_dim
        def _get_query_embedding(self, t): return self._get_text_embedding(t)
        async def _aget_query_embedding(self, t): return self._get_text_embedding(t)
    a = cache.wrap(Adapter(MockEmbedding(embed_dim=2), Engine("a")))
    b = cache.wrap(Adapter(MockEmbedding(embed_dim=3), Engine("a")))
    c = cache.wrap(Adapter(MockEmbedding(embed_dim=3), Engine("bb")))
    assert [len(x.get_text_embedding("t")) for x in (a, b)] == [2, 3]
    assert c.get_text_embedding("t")[0] == 2.0


def test_scope_all_openai(cache):
    import httpx, test_llamaindex_openai as T
    class Mine(T.OpenAI):
        def __init__(self, **kw):
            super().__init__(**kw)
            assert self.model == "gpt-4o-mini"
            self.additional_kwargs = {"seed": 1}
    server = T.Server()
    with cache.installed("all"):
        class Later(MockLLM):
            pass
        m = Mine(model="gpt-4o-mini", api_key="sk-1", http_client=httpx.Client(transport=server.transport()))
        assert isinstance(m, Mine)
        m.complete("a"); m.complete("a")
        assert server.calls == 1
        l = Later(); l.complete("z z"); assert l.complete("z z").additional_kwargs["aicache"]
        d = T.OpenAI.from_dict({**m.to_dict(), "api_key": "x"})
        assert "OpenAI" in repr(type(d))
        copy.deepcopy(m).complete("a"); m.model_copy().complete("a"); copy.copy(m).complete("a")
        assert server.calls == 1
    assert type(m) is Mine and type(l) is Later
    l2 = Later(); l2.complete("q")


def test_uninstall_order():
    before = dict(vars(Settings)), type(Settings).llm, MockLLM.__init__
    a, b = AICache("memory://", embeddings=False), AICache("memory://", embeddings=False)
    try:
        a.install("all"); b.install()
        Settings.llm = MockLLM()
        m = MockLLM()  # all: a's? the newest that covers new ones
        Settings.llm.complete("x"); m.complete("x")
        print(a.stats().lookups, b.stats().lookups)
        a.uninstall()
        Settings.llm.complete("x")
        assert b.stats().lookups == 2
        b.uninstall()
        assert type(Settings.llm) is MockLLM and type(m) is MockLLM
        assert type(Settings).llm is before[1]
    finally:
        a.close(); b.close()
        vars(Settings).clear(); vars(Settings).update(before[0])


def test_keyboard_interrupt(cache):
    def reply(*_): raise KeyboardInterrupt
    m = cache.wrap(ChatModel(reply=reply))
    with pytest.raises(KeyboardInterrupt):
        m.chat([user(ASKED)])
    with pytest.raises(KeyboardInterrupt):
        list(m.stream_chat([user(ASKED)]))
    m.reply = lambda *_: said("fine")
    assert "aicache" not in m.chat([user(ASKED)]).additional_kwargs
    assert m.chat([user(ASKED)]).additional_kwargs["aicache"]


async def test_cancelled(cache):
    class Slow(ChatModel):
        @llm_chat_callback()
        async def achat(self, messages, **kw):
            await asyncio.sleep(30)
    m = cache.wrap(Slow())
    t = asyncio.create_task(m.achat([user(ASKED)]))
    await asyncio.sleep(0.05)
    t.cancel()
    with pytest.raises(asyncio.CancelledError):
        await t
    assert cache.stats().stored == 0


def test_learned_options_with_structured(cache):
    s = cache.wrap(ChatModel(reply=lambda *_: calling("Verdict", {"ok": True}))).as_structured_llm(Verdict)
    for _ in range(2):
        r = s.chat([user(ASKED)])
        assert r.raw.ok is True
    assert s.llm.calls == 1
    s2 = copy.deepcopy(s)
    assert s2.chat([user(ASKED)]).raw.ok is True


def test_cross_thread_stream(cache):
    m = cache.wrap(ChatModel())
    for _ in range(2):
        g = m.stream_chat([user(ASKED)])
        out = []
        t = threading.Thread(target=lambda: out.extend(g)); t.start(); t.join()
        assert "".join(p.delta for p in out) == f"answer to: {ASKED}"
    assert m.calls == 1


def test_async_stream_hit_in_two_loops(cache):
    m = cache.wrap(ChatModel())
    async def go():
        return [p.delta async for p in await m.astream_chat([user(ASKED)])]
    assert asyncio.run(go()) == asyncio.run(go())
    assert m.calls == 1


def test_hugging_like_template_objects(cache):
    m = cache.wrap(MockLLM())
    t = ChatPromptTemplate.from_messages([("system", "You {tone}"), ("user", "{query_str}")])
    m.predict(t, tone="a", query_str=ASKED); m.predict(t, tone="b", query_str=ASKED)
    assert sum(cache.stats().hits.values()) == 0
    m.predict(t, tone="b", query_str=REWORDED)
    assert sum(cache.stats().hits.values()) == 1


def test_in_progress_other_model(cache):
    inner = cache.wrap(ChatModel(model="inner"))
    outer = cache.wrap(ChatModel(model="outer", reply=lambda ms, k: inner.chat(ms).message))
    outer.chat([user(ASKED)])
    assert inner.chat([user(ASKED)]).additional_kwargs["aicache"]


# ---- learned

def learned(**kw):
    return AICache("memory://", embeddings=FakeEmbedder(), **kw)


@pytest.mark.parametrize("entry", ["chat", "stream_chat"])
async def test_shadow(entry):
    with learned(shadow=True, threshold=0.8, margin=0.0, comparator=lambda a, b: True) as c:
        m = c.wrap(ChatModel())
        for q in (ASKED, ASKED, REWORDED):
            r = getattr(m, entry)([user(q)])
            if entry.startswith("stream"): list(r)
        assert m.calls == 3
        for _ in range(100):
            s = c.stats().shadow
            if sum(s.right.values()) + sum(s.wrong.values()) == 2: break
            await asyncio.sleep(0.02)
        assert sum(s.hits.values()) == 2, s
        assert sum(s.right.values()) + sum(s.wrong.values()) == 2, s
        assert c.stats().hits == {}


@pytest.mark.parametrize("entry", ["chat", "stream_chat", "achat", "astream_chat"])
async def test_learned(entry):
    seen = []
    def compare(a, b):
        seen.append((a, b))
        return True
    with learned(max_error_rate=0.05, comparator=compare, coin=lambda: 0.5) as c:
        m = c.wrap(ChatModel())
        for q in (ASKED, REWORDED, "How would I reset my password then?"):
            r = getattr(m, entry)([user(q)])
            if entry.startswith("a"): r = await r
            if entry == "stream_chat": list(r)
            if entry == "astream_chat": [x async for x in r]
        for _ in range(100):
            if seen: break
            await asyncio.sleep(0.02)
        print(seen, c.stats())
        assert seen
        assert all(a.startswith("answer to") and b.startswith("answer to") for a, b in seen)


async def test_judge_is_a_cached_model():
    judge = TextModel(reply=lambda p: "yes")
    with learned(max_error_rate=0.05, comparator=judge) as c:
        c.wrap(judge)
        m = c.wrap(ChatModel())
        for q in (ASKED, REWORDED, "How would I reset my password then?"):
            m.chat([user(q)])
        for _ in range(100):
            if judge.calls: break
            await asyncio.sleep(0.02)
        assert judge.calls
        assert c.stats().stored == 3

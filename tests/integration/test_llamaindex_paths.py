"""AICache behind LlamaIndex's real code paths: what an application calls, against models that count."""

from __future__ import annotations

import gc
import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import pytest
from li_models import Agent, ChatModel, TextModel, calling, find_order, reacting, said, user, weather
from llama_index.core import MockEmbedding, Settings, VectorStoreIndex
from llama_index.core.agent.react import ReActChatFormatter, ReActOutputParser
from llama_index.core.agent.workflow import AgentStream, AgentWorkflow, FunctionAgent, ReActAgent
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole
from llama_index.core.chat_engine.types import ChatMode
from llama_index.core.llms import MockLLM
from llama_index.core.llms.mock import MockFunctionCallingLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.prompts import PromptTemplate
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

from aicache import MissReason
from aicache.testing import FakeEmbedder
from llamaindex_aicache import AICache

if TYPE_CHECKING:
    from redis_servers import Node

# LlamaIndex's agents and structured models use what its own parts and pydantic call deprecated.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Skipping serialization of known unserializable key"),
    pytest.mark.filterwarnings("ignore:.*was deleted before being closed:ResourceWarning"),
]

ASKED = "How do I reset my password?"
REWORDED = "How can I reset my password please?"
STORES = ["memory", "sqlite", "l1+sqlite", "redis"]

PASSAGES = [
    "Passwords are reset on the sign-in page.",
    "Parcels are sent on Mondays.",
    "Bills are paid within a month.",
]


@pytest.fixture(params=STORES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        return "memory://"
    if request.param == "redis":
        node: Node = request.getfixturevalue("redis_standalone")
        return node.url
    return f"sqlite:///{tmp_path / 'answers.db'}"


@pytest.fixture
def cache(url: str, request: pytest.FixtureRequest) -> Iterator[AICache]:
    options: dict[str, Any] = {"l1_entries": 0} if request.node.callspec.params["url"] == "sqlite" else {}
    before = dict(vars(Settings))
    namespace = request.node.nodeid
    with AICache(url, embeddings=FakeEmbedder(), threshold=0.8, margin=0.0, namespace=namespace, **options) as opened:
        Settings.embed_model = MockEmbedding(embed_dim=8)
        opened.install()
        yield opened
    vars(Settings).clear()
    vars(Settings).update(before)


@pytest.fixture(autouse=True)
def leftovers(request: pytest.FixtureRequest) -> Iterator[None]:
    """LlamaIndex's agents leave the file of an unused memory open, which must not be said in another test."""
    yield
    if "agent" in request.node.name or "predict_and_call" in request.node.name:
        gc.collect()


def use(model: Any) -> Any:
    """The model, handed out by `Settings`."""
    Settings.llm = model
    return Settings.llm


def mark(response: Any) -> dict[str, Any]:
    found: dict[str, Any] = response.additional_kwargs.get("aicache", {})
    return found


async def finish(found: Any) -> Any:
    """What a call returns in the end, a stream as a list of its pieces."""
    if inspect.isawaitable(found):
        found = await found
    if isinstance(found, AsyncIterator):
        return [piece async for piece in found]
    return list(found) if isinstance(found, Iterator) else found


def words_of(found: Any) -> str:
    """The text of a response, or what the pieces of a stream add up to."""
    return "".join(piece.delta for piece in found) if isinstance(found, list) else found.message.content


# ------------------------------------------------------------------------------------------------- LlamaIndex's own


@pytest.mark.parametrize("make", [MockLLM, lambda: MockLLM(max_tokens=4), lambda: MockLLM(is_chat_model=True)])
async def test_llamaindexs_mock_model_is_cached(cache: AICache, make: Callable[[], MockLLM]) -> None:
    llm = use(make())
    for entry in ("chat", "achat", "stream_chat", "astream_chat"):
        cache.clear()
        first = await finish(getattr(llm, entry)([user(ASKED)]))
        again = await finish(getattr(llm, entry)([user(ASKED)]))
        assert words_of(again) == words_of(first)
        assert mark(again[-1] if isinstance(again, list) else again)["match"] == "exact"


async def test_llamaindexs_mock_of_a_function_calling_model_is_cached(cache: AICache) -> None:
    llm = use(MockFunctionCallingLLM(is_chat_model=True))
    for entry in ("chat", "achat", "stream_chat", "astream_chat"):
        found = await finish(getattr(llm, entry)([user(f"{ASKED} {entry}")]))
        again = await finish(getattr(llm, entry)([user(f"{ASKED} {entry}")]))
        assert isinstance(found, list) == isinstance(again, list)
        assert mark(again[-1] if isinstance(again, list) else again)["match"] == "exact"


# ------------------------------------------------------------------------------------------------------ structured


class Verdict(BaseModel):
    """What the model thinks."""

    good: bool
    reason: str


VERDICT = Verdict(good=True, reason="it works")
TEMPLATE = PromptTemplate("The handbook:\n{context_str}\n\nJudge the {mood} question: {query_str} Now!")
HANDBOOK = "Passwords are reset on the sign-in page. " * 20


def judging(messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> ChatMessage:
    return calling("Verdict", VERDICT.model_dump()) if "tools" in kwargs else said(VERDICT.model_dump_json())


@pytest.mark.parametrize("calls_functions", [True, False])
@pytest.mark.parametrize(
    "name", ["structured_predict", "astructured_predict", "stream_structured_predict", "astream_structured_predict"]
)
async def test_structured_predictions_match_the_templates_question(
    cache: AICache, name: str, calls_functions: bool
) -> None:
    llm = use(ChatModel(reply=judging, is_function_calling=calls_functions))
    for question in (ASKED, ASKED, REWORDED):
        found = await finish(
            getattr(llm, name)(Verdict, TEMPLATE, context_str=HANDBOOK, mood="kind", query_str=question)
        )
        last = found[-1] if isinstance(found, list) else found
        assert last.model_dump() == VERDICT.model_dump()
    assert llm.calls == 1
    await finish(getattr(llm, name)(Verdict, TEMPLATE, context_str=HANDBOOK + "!", mood="kind", query_str=ASKED))
    assert llm.calls == 2


@pytest.mark.parametrize("entry", ["chat", "achat", "stream_chat", "astream_chat"])
async def test_a_structured_model_hits_through_the_model_inside(cache: AICache, entry: str) -> None:
    llm = use(ChatModel(reply=judging))
    structured = llm.as_structured_llm(Verdict)
    for _ in range(2):
        found = await finish(getattr(structured, entry)([user(ASKED)]))
        last = found[-1] if isinstance(found, list) else found
        assert last.raw.model_dump() == VERDICT.model_dump()
    assert llm.calls == 1


async def test_a_changed_schema_of_the_same_name_asks_again(cache: AICache) -> None:
    llm = use(ChatModel(reply=judging))
    llm.structured_predict(Verdict, TEMPLATE, context_str="c", mood="kind", query_str=ASKED)
    changed = type("Verdict", (Verdict,), {"__annotations__": {"score": int}, "score": 0, "__doc__": Verdict.__doc__})
    llm.structured_predict(changed, TEMPLATE, context_str="c", mood="kind", query_str=ASKED)
    assert llm.calls == 2


# ----------------------------------------------------------------------------------------------------------- tools

TOOLS: list[Any] = [FunctionTool.from_defaults(find_order), FunctionTool.from_defaults(weather)]


@pytest.mark.parametrize(
    "name", ["chat_with_tools", "achat_with_tools", "stream_chat_with_tools", "astream_chat_with_tools"]
)
async def test_tool_calls_survive(cache: AICache, name: str) -> None:
    llm = use(ChatModel(reply=Agent()))
    found = []
    for _ in range(2):
        given = await finish(getattr(llm, name)(TOOLS, user_msg=ASKED))
        found.append(given[-1] if isinstance(given, list) else given)
    assert llm.calls == 1
    first, again = (llm.get_tool_calls_from_response(each)[0] for each in found)
    assert (
        (first.tool_name, first.tool_kwargs) == (again.tool_name, again.tool_kwargs) == ("find_order", {"number": "7"})
    )
    assert mark(found[1])["match"] == "exact"


def test_another_set_of_tools_asks_again(cache: AICache) -> None:
    llm = use(ChatModel(reply=Agent()))
    llm.chat_with_tools(TOOLS, user_msg=ASKED)
    llm.chat_with_tools(TOOLS[:1], user_msg=ASKED)
    llm.chat_with_tools(TOOLS, user_msg=ASKED, tool_required=True)
    assert llm.calls == 3


@pytest.mark.parametrize("name", ["predict_and_call", "apredict_and_call"])
async def test_predict_and_call_calls_the_tool_on_a_hit_too(cache: AICache, name: str) -> None:
    llm = use(ChatModel(reply=Agent()))
    for _ in range(2):
        found = await finish(getattr(llm, name)(TOOLS, user_msg=ASKED))
        assert found.response == "Paris 7"
    assert llm.calls == 1


async def test_predict_and_call_by_reasoning_is_cached(cache: AICache) -> None:
    llm = use(ChatModel(reply=reacting, is_function_calling=False))
    for _ in range(2):
        found = await llm.apredict_and_call(
            TOOLS, user_msg=ASKED, react_chat_formatter=ReActChatFormatter(), output_parser=ReActOutputParser()
        )
        assert found.response == "Paris 7"
    assert llm.calls == 1


# ---------------------------------------------------------------------------------------------------- query engines


def index() -> VectorStoreIndex:
    return VectorStoreIndex([TextNode(text=text, id_=f"node-{i}") for i, text in enumerate(PASSAGES)])


async def answer_of(response: Any) -> str:
    """The text of an engine's response, streamed or not."""
    stream = getattr(response, "response_gen", None)
    return str(response) if stream is None else "".join(await finish(stream))


def grounded(prompt: str) -> str:
    """An answer that tells prompts apart without repeating them."""
    return f"It is {crc32(prompt.encode())} in all."


def grounded_reply(messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> ChatMessage:
    return said(grounded("|".join(message.content or "" for message in messages)))


def chat_model() -> ChatModel:
    return ChatModel(reply=grounded_reply)


def text_model() -> TextModel:
    return TextModel(reply=grounded)


MODES = ["compact", "refine", "tree_summarize", "simple_summarize", "accumulate", "compact_accumulate"]


@pytest.mark.parametrize("make", [chat_model, text_model])
@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streaming"])
@pytest.mark.parametrize("mode", MODES)
async def test_query_engines_answer_repeated_and_reworded_questions_from_the_cache(
    cache: AICache, mode: str, streaming: bool, make: Callable[[], Any]
) -> None:
    if streaming and "accumulate" in mode:
        pytest.skip("LlamaIndex does not stream these")
    llm = use(make())
    engine: Any = index().as_query_engine(response_mode=mode, streaming=streaming, similarity_top_k=3)
    first = await answer_of(engine.query(ASKED))
    made = llm.calls
    assert await answer_of(engine.query(ASKED)) == first
    again = engine.query(REWORDED)
    assert await answer_of(again) == first
    assert llm.calls == made
    assert [each["match"] for each in again.metadata["aicache"]] == ["semantic"] * made
    await answer_of(engine.query("Where is my parcel?"))
    assert llm.calls == 2 * made


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streaming"])
@pytest.mark.parametrize("mode", ["compact", "refine", "tree_summarize"])
async def test_query_engines_hit_asynchronously(cache: AICache, mode: str, streaming: bool) -> None:
    llm = use(chat_model())
    engine: Any = index().as_query_engine(response_mode=mode, streaming=streaming, similarity_top_k=3)
    first = await answer_of(await engine.aquery(ASKED))
    made = llm.calls
    again = await engine.aquery(REWORDED)
    assert await answer_of(again) == first
    assert llm.calls == made
    assert len(again.metadata["aicache"]) == made


def test_other_passages_ask_again(cache: AICache) -> None:
    llm = use(ChatModel())
    synthesizer = get_response_synthesizer(response_mode="compact")  # type: ignore[arg-type]
    for text in PASSAGES:
        response: Any = synthesizer.synthesize(ASKED, [NodeWithScore(node=TextNode(text=text))])
        assert "aicache" not in response.metadata
    assert llm.calls == len(PASSAGES)


def test_a_query_engine_with_a_structured_model_hits(cache: AICache) -> None:
    llm = use(ChatModel(reply=judging))
    engine: Any = index().as_query_engine(llm=llm.as_structured_llm(Verdict))
    for question in (ASKED, REWORDED):
        assert engine.query(question).response.model_dump() == VERDICT.model_dump()
    assert llm.calls == 1


def test_embeddings_of_an_index_are_cached(cache: AICache) -> None:
    use(ChatModel())
    for _ in range(2):
        index().as_query_engine().query(ASKED)
    assert cache._core.blobs("vector").counts.found >= len(PASSAGES)


# ----------------------------------------------------------------------------------------------------- chat engines


@pytest.mark.parametrize("form", ["chat", "achat", "stream_chat", "astream_chat"])
@pytest.mark.parametrize("mode", ["simple", "context", "condense_question", "condense_plus_context"])
async def test_chat_engines_hit_on_every_turn_of_a_repeated_conversation(cache: AICache, mode: Any, form: str) -> None:
    llm = use(ChatModel())
    told = []
    for _ in range(2):
        engine = index().as_chat_engine(chat_mode=mode, memory=ChatMemoryBuffer.from_defaults(token_limit=3000))
        turns = []
        for question in (ASKED, "And how do I change it later?", "Thanks, anything else?"):
            response = await finish(getattr(engine, form)(question))
            match form:
                case "stream_chat":
                    turns.append("".join(response.response_gen))
                case "astream_chat":
                    turns.append("".join([token async for token in response.async_response_gen()]))
                case _:
                    turns.append(str(response))
        told.append((turns, llm.calls))
    assert told[0] == told[1]


def test_the_same_question_after_another_history_asks_again(cache: AICache) -> None:
    llm = use(ChatModel())
    for name in ("Ann", "Bob"):
        engine = index().as_chat_engine(chat_mode=ChatMode.SIMPLE)
        engine.chat(f"My name is {name}.")
        engine.chat("What is my name?")
    assert llm.calls == 4


# ------------------------------------------------------------------------------------------------------------ agents


async def run_agent(agent: Any) -> tuple[str, str]:
    """What an agent answers, and what it streams on the way."""
    handler = agent.run(user_msg="Where is my order and what is the weather there?")
    streamed = ""
    async for event in handler.stream_events():
        if isinstance(event, AgentStream):
            streamed += event.delta
    return str(await handler), streamed


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streaming"])
async def test_a_function_agent_hits_on_every_step_of_its_second_run(cache: AICache, streaming: bool) -> None:
    llm = use(ChatModel(reply=Agent()))
    agent = FunctionAgent(tools=TOOLS, llm=llm, system_prompt="Help with orders.", streaming=streaming)
    first = await run_agent(agent)
    assert first[0] == "It is sunny in Paris 7, and the order is in Paris 7."
    assert llm.calls == 3
    assert await run_agent(agent) == first
    assert llm.calls == 3


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streaming"])
async def test_a_reasoning_agent_hits_on_every_step_of_its_second_run(cache: AICache, streaming: bool) -> None:
    llm = use(ChatModel(reply=reacting, is_function_calling=False))
    agent = ReActAgent(tools=TOOLS, llm=llm, streaming=streaming)
    first = await run_agent(agent)
    assert first[0] == "It is sunny in Paris."
    assert llm.calls == 3
    assert await run_agent(agent) == first
    assert llm.calls == 3


async def test_a_workflow_of_agents_hits_on_every_step_of_its_second_run(cache: AICache) -> None:
    reply = Agent()
    handed: list[int] = []

    def handing(messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> ChatMessage:
        tools = {tool["function"]["name"] for tool in kwargs.get("tools", [])}
        if "handoff" in tools and "find_order" not in tools:
            handed.append(1)
            return calling("handoff", {"to_agent": "clerk", "reason": "it is about an order"}, len(handed))
        own = [message for message in messages if "clerk" not in (message.content or "")]
        return reply(own, kwargs)

    llm = use(ChatModel(reply=handing))
    desk = FunctionAgent(name="desk", description="Greets.", llm=llm, can_handoff_to=["clerk"])
    clerk = FunctionAgent(name="clerk", description="Knows orders.", tools=TOOLS, llm=llm)
    workflow = AgentWorkflow(agents=[desk, clerk], root_agent="desk")
    first = await run_agent(workflow)
    made = llm.calls
    assert made == 4
    assert await run_agent(workflow) == first
    assert llm.calls == made


async def test_an_agents_memory_is_part_of_the_question(cache: AICache) -> None:
    llm = use(ChatModel(reply=lambda messages, kwargs: said(f"{len(messages)} messages")))
    for _ in range(2):
        agent = FunctionAgent(tools=[], llm=llm, streaming=False)
        memory = ChatMemoryBuffer.from_defaults(token_limit=3000)
        for number in (1, 3):
            found = await agent.run(user_msg="How many messages?", memory=memory)
            assert str(found) == f"{number} messages"
    assert llm.calls == 2


# -------------------------------------------------------------------------------------------------- what is not kept


@pytest.mark.parametrize("finish_reason", ["length", "content_filter"])
def test_a_truncated_answer_is_not_kept(cache: AICache, finish_reason: str) -> None:
    class Cutting(ChatModel):
        def _respond(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> ChatResponse:
            response = super()._respond(messages, kwargs)
            response.raw = {"choices": [{"finish_reason": finish_reason}]}
            return response

    llm = use(Cutting())
    llm.chat([user(ASKED)])
    llm.chat([user(ASKED)])
    assert llm.calls == 2


def test_an_answer_in_a_history_counts_the_same_whether_it_was_a_hit(cache: AICache) -> None:
    llm = use(ChatModel())
    for _ in range(2):
        history = [user(ASKED)]
        history.append(llm.chat(history).message)
        history.append(user("And then?"))
        last = llm.chat(history)
    assert llm.calls == 2
    assert mark(last)["match"] == "exact"
    assert [message.role for message in history] == [MessageRole.USER, MessageRole.ASSISTANT, MessageRole.USER]


def test_a_near_miss_is_not_served(cache: AICache) -> None:
    llm = use(ChatModel())
    llm.chat([user("How do I cancel the large order that I placed with your shop in 2023?")])
    answer = llm.chat([user("How do I cancel the large order that I placed with your shop in 2024?")])
    assert answer.message.content.endswith("2024?")
    assert cache.stats().misses[MissReason.GUARDED] == 1

"""AICache behind LangChain's real code paths: what an application calls, against models that count."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.caches import BaseCache
from langchain_core.globals import get_llm_cache, set_llm_cache
from langchain_core.language_models.fake import FakeListLLM
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolCall,
    messages_from_dict,
    messages_to_dict,
)
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from lc_models import USAGE, Agent, CountingModel, echo
from pydantic import BaseModel, create_model

from aicache import MissReason, bypass, refresh
from aicache.testing import FakeEmbedder
from langchain_aicache import AICache

ASKED = "How do I reset my password?"
REWORDED = "How can I reset my password please?"


@pytest.fixture(params=["memory", "sqlite", "l1+sqlite"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AICache]:
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'answers.db'}"
    options: dict[str, Any] = {"l1_entries": 0} if request.param == "sqlite" else {}
    with AICache(url, embeddings=FakeEmbedder(), threshold=0.8, margin=0.0, **options) as opened:
        before = get_llm_cache()
        set_llm_cache(opened)
        yield opened
        set_llm_cache(before)


def model(**more: Any) -> CountingModel:
    return CountingModel(reply=more.pop("reply", echo), **more)


def mark(message: AIMessage) -> dict[str, Any]:
    found: dict[str, Any] = message.response_metadata.get("aicache", {})
    return found


# ------------------------------------------------------------------------------------------ invoke and friends


def test_invoke_answers_repeated_and_reworded_questions_from_the_cache(cache: AICache) -> None:
    llm = model()
    first = llm.invoke(ASKED)
    again = llm.invoke(ASKED)
    reworded = llm.invoke(REWORDED)
    assert llm.calls == 1
    assert first.text == again.text == reworded.text
    assert mark(first) == {}
    assert mark(again)["match"] == "exact"
    assert mark(reworded)["match"] == "semantic"


async def test_ainvoke_answers_repeated_and_reworded_questions_from_the_cache(cache: AICache) -> None:
    llm = model()
    first = await llm.ainvoke(ASKED)
    assert (await llm.ainvoke(ASKED)).text == first.text
    assert (await llm.ainvoke(REWORDED)).text == first.text
    assert llm.calls == 1


def test_batch_keeps_the_order_of_its_questions(cache: AICache) -> None:
    llm = model()
    questions = [f"What is the price of article {number}?" for number in range(8)]
    first = [message.text for message in llm.batch(questions)]
    assert first == [f"answer to: {question}" for question in questions]
    assert [message.text for message in llm.batch(questions)] == first
    assert llm.calls == 8


async def test_abatch_keeps_the_order_of_its_questions(cache: AICache) -> None:
    llm = model()
    questions = [f"What is the price of article {number}?" for number in range(8)]
    first = [message.text for message in await llm.abatch(questions)]
    assert [message.text for message in await llm.abatch(questions)] == first
    assert llm.calls == 8


async def test_many_tasks_at_once_each_get_their_own_answer(cache: AICache) -> None:
    llm = model()
    questions = [f"What is the price of article {number}?" for number in range(20)]
    for _ in range(2):
        answers = await asyncio.gather(*(llm.ainvoke(question) for question in questions))
        assert [answer.text for answer in answers] == [f"answer to: {question}" for question in questions]
    assert llm.calls == 20


def test_a_chain_needs_no_change(cache: AICache) -> None:
    llm = model()
    prompt = ChatPromptTemplate.from_messages([("system", "You are the desk of {shop}."), ("human", "{question}")])
    chain = prompt | llm | StrOutputParser()
    first = chain.invoke({"shop": "Acme", "question": ASKED})
    assert chain.invoke({"shop": "Acme", "question": REWORDED}) == first
    assert llm.calls == 1
    chain.invoke({"shop": "Other", "question": ASKED})
    assert llm.calls == 2


def test_the_cache_may_be_given_to_one_model_only(cache: AICache) -> None:
    set_llm_cache(None)
    llm = model(cache=cache)
    llm.invoke(ASKED)
    llm.invoke(ASKED)
    assert llm.calls == 1


def test_a_text_model_is_cached_too(cache: AICache) -> None:
    llm = FakeListLLM(responses=["first", "second"])
    assert llm.invoke(ASKED) == "first"
    assert llm.invoke(ASKED) == "first"
    assert llm.invoke(REWORDED) == "first"


def test_a_text_that_looks_like_a_serialised_conversation_is_not_taken_for_it(cache: AICache) -> None:
    from langchain_core.load import dumps

    chat = CountingModel(reply=echo)
    chat.invoke([HumanMessage(ASKED)])
    plain = dumps([HumanMessage(ASKED)])
    llm_string = chat._get_llm_string(stop=None)
    assert cache.lookup(plain, llm_string) is not None
    assert cache.lookup(f"[{plain}]", llm_string) is None


# ------------------------------------------------------------------------------------------ what must be equal


@pytest.mark.parametrize(
    "change",
    [
        {"model": "counting-2"},
        {"temperature": 0.5},
    ],
)
def test_another_model_or_parameter_asks_again(cache: AICache, change: dict[str, Any]) -> None:
    model().invoke(ASKED)
    other = model(**change)
    other.invoke(ASKED)
    other.invoke(REWORDED)
    assert other.calls == 1


def test_another_stop_word_asks_again(cache: AICache) -> None:
    llm = model()
    llm.invoke(ASKED)
    llm.invoke(ASKED, stop=["\n"])
    assert llm.calls == 2


def test_a_near_miss_is_not_served(cache: AICache) -> None:
    llm = model()
    llm.invoke("How do I cancel the large order that I placed with your shop in 2023?")
    answer = llm.invoke("How do I cancel the large order that I placed with your shop in 2024?")
    assert answer.text.endswith("2024?")
    assert cache.stats().misses[MissReason.GUARDED] == 1


# --------------------------------------------------------------------------------------- tools and structure


@tool
def find_order(number: str) -> str:
    """Find the city of an order."""
    return f"Paris {number}"


@tool
def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"sunny in {city}"


def test_tool_calls_survive(cache: AICache) -> None:
    llm = model(reply=Agent()).bind_tools([find_order, weather])
    first, second = llm.invoke(ASKED), llm.invoke(ASKED)
    assert isinstance(second, AIMessage)
    assert second.tool_calls == first.tool_calls
    assert second.tool_calls[0]["name"] == "find_order"
    assert mark(second)["match"] == "exact"


def test_another_set_of_tools_asks_again(cache: AICache) -> None:
    llm = model(reply=Agent())
    llm.bind_tools([find_order]).invoke(ASKED)
    llm.bind_tools([find_order, weather]).invoke(ASKED)
    assert llm.calls == 2


class Verdict(BaseModel):
    """What the model thinks."""

    good: bool
    reason: str


def verdict(_: list[BaseMessage]) -> AIMessage:
    call = ToolCall(name="Verdict", args={"good": True, "reason": "r"}, id="v1")
    return AIMessage("", tool_calls=[call], usage_metadata=USAGE)  # type: ignore[arg-type]


def test_structured_output_comes_back_as_the_same_object(cache: AICache) -> None:
    llm = model(reply=verdict)
    structured = llm.with_structured_output(Verdict)
    assert structured.invoke(ASKED) == Verdict(good=True, reason="r")
    assert structured.invoke(ASKED) == Verdict(good=True, reason="r")
    assert llm.calls == 1


def test_a_changed_schema_of_the_same_name_asks_again(cache: AICache) -> None:
    llm = model(reply=verdict)
    llm.with_structured_output(Verdict).invoke(ASKED)
    changed = create_model("Verdict", __doc__=Verdict.__doc__, good=(bool, ...), reason=(str, ...), score=(int, 0))
    llm.with_structured_output(changed).invoke(ASKED)
    assert llm.calls == 2


def test_an_agent_hits_on_every_step_of_its_second_run(cache: AICache) -> None:
    agents = pytest.importorskip("langchain.agents", reason="create_agent needs the package langchain")
    llm = model(reply=Agent())
    agent = agents.create_agent(llm, tools=[find_order, weather], system_prompt="Help with orders.")
    question = {"messages": [HumanMessage("Where is my order and what is the weather there?")]}
    first = agent.invoke(question)["messages"]
    assert llm.calls == 3
    second = agent.invoke(question)["messages"]
    assert llm.calls == 3
    assert [message.text for message in second] == [message.text for message in first]
    steps = [message for message in second if isinstance(message, AIMessage)]
    assert [mark(step)["match"] for step in steps] == ["exact"] * 3


async def test_an_agent_hits_on_every_step_asynchronously(cache: AICache) -> None:
    agents = pytest.importorskip("langchain.agents", reason="create_agent needs the package langchain")
    llm = model(reply=Agent())
    agent = agents.create_agent(llm, tools=[find_order, weather])
    question = {"messages": [HumanMessage("Where is my order and what is the weather there?")]}
    await agent.ainvoke(question)
    await agent.ainvoke(question)
    assert llm.calls == 3


# ------------------------------------------------------------------------------------------------ multi-turn


def converse(llm: CountingModel, questions: list[str]) -> list[BaseMessage]:
    history: list[BaseMessage] = [SystemMessage("Be kind.")]
    for question in questions:
        history.append(HumanMessage(question))
        history.append(llm.invoke(history))
    return history


def test_a_repeated_conversation_hits_on_every_turn(cache: AICache) -> None:
    llm = model()
    questions = [ASKED, "And how do I change it later?", "Thanks, anything else?"]
    first = converse(llm, questions)
    second = converse(llm, questions)
    third = converse(llm, questions)
    assert llm.calls == 3
    assert [m.text for m in first] == [m.text for m in second] == [m.text for m in third]


def test_the_same_question_after_another_history_asks_again(cache: AICache) -> None:
    llm = model()
    converse(llm, ["My name is Ann.", "What is my name?"])
    converse(llm, ["My name is Bob.", "What is my name?"])
    assert llm.calls == 4


def test_hits_in_one_conversation_are_messages_of_their_own(cache: AICache) -> None:
    graph = pytest.importorskip("langgraph.graph.message", reason="needs langgraph")
    llm = model()
    llm.invoke(ASKED)
    one, two = llm.invoke(ASKED), llm.invoke(ASKED)
    assert len(graph.add_messages([one], [two])) == 2


# -------------------------------------------------------------------------------------------- what a hit is


def test_a_hit_reports_the_original_usage_and_can_be_written_and_read_again(cache: AICache) -> None:
    llm = model()
    llm.invoke(ASKED)
    hit = llm.invoke(ASKED)
    assert {name: hit.usage_metadata[name] for name in USAGE} == USAGE  # type: ignore[index, literal-required]
    assert messages_from_dict(messages_to_dict([hit])) == [hit]


def test_a_hit_without_known_usage_reports_zeros(cache: AICache) -> None:
    llm = model(reply=lambda messages: AIMessage("bare"))
    llm.invoke(ASKED)
    hit = llm.invoke(ASKED)
    assert messages_from_dict(messages_to_dict([hit])) == [hit]
    assert hit.usage_metadata is not None
    assert hit.usage_metadata["total_tokens"] == 0


def test_usage_on_hit_may_be_zero(tmp_path: Path) -> None:
    llm = model(cache=AICache("memory://", embeddings=False, usage_on_hit="zero"))
    llm.invoke(ASKED)
    hit = llm.invoke(ASKED)
    assert hit.usage_metadata is not None
    assert hit.usage_metadata["output_tokens"] == 0


def test_changing_a_hit_does_not_change_the_next(cache: AICache) -> None:
    llm = model(reply=Agent())
    llm.invoke(ASKED)
    spoilt = llm.invoke(ASKED)
    spoilt.content = "spoilt"
    spoilt.tool_calls[0]["args"]["number"] = "spoilt"
    spoilt.response_metadata["aicache"]["match"] = "spoilt"
    clean = llm.invoke(ASKED)
    assert clean.content == ""
    assert clean.tool_calls[0]["args"] == {"number": "7"}
    assert mark(clean)["match"] == "exact"


@pytest.mark.parametrize("finish", ["length", "content_filter"])
def test_a_truncated_answer_is_not_kept(cache: AICache, finish: str) -> None:
    llm = model(reply=lambda messages: AIMessage("half an ans", response_metadata={"finish_reason": finish}))
    llm.invoke(ASKED)
    llm.invoke(ASKED)
    assert llm.calls == 2


def test_a_truncated_answer_is_kept_when_asked() -> None:
    cache = AICache("memory://", embeddings=False, cache_truncated=True)
    llm = model(cache=cache, reply=lambda messages: AIMessage("half", response_metadata={"finish_reason": "length"}))
    llm.invoke(ASKED)
    llm.invoke(ASKED)
    assert llm.calls == 1


def test_an_empty_answer_is_not_kept(cache: AICache) -> None:
    llm = model(reply=lambda messages: AIMessage(""))
    llm.invoke(ASKED)
    llm.invoke(ASKED)
    assert llm.calls == 2


def test_a_model_that_raises_leaves_nothing(cache: AICache) -> None:
    class DownError(Exception):
        pass

    def down(messages: list[BaseMessage]) -> AIMessage:
        raise DownError

    broken = model(reply=down)
    with pytest.raises(DownError):
        broken.invoke(ASKED)
    assert cache.size().entries == 0
    assert model().invoke(ASKED).text == f"answer to: {ASKED}"


def test_a_stream_neither_reads_nor_writes(cache: AICache) -> None:
    class Streaming(CountingModel):
        pass

    llm = Streaming(reply=echo)
    list(llm.stream(ASKED))
    assert llm.calls == 1


# ------------------------------------------------------------------------------------- multimodal, long prompts


def test_a_question_with_an_image_is_matched_exactly_only(cache: AICache) -> None:
    llm = model()

    def ask(text: str, image: str) -> BaseMessage:
        return llm.invoke(
            [HumanMessage([{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": image}}])]
        )

    ask(ASKED, "data:image/png;base64,AAAA")
    ask(ASKED, "data:image/png;base64,AAAA")
    assert llm.calls == 1
    ask(REWORDED, "data:image/png;base64,AAAA")
    ask(ASKED, "data:image/png;base64,BBBB")
    assert llm.calls == 3


def test_a_rag_prompt_matches_the_question_and_wants_the_context_equal(cache: AICache) -> None:
    llm = model(reply=lambda messages: AIMessage("grounded"))
    template = "Use the following context to answer.\n\n{context}\n\nQuestion: {question}\nHelpful Answer:"
    prompt = ChatPromptTemplate.from_messages([("human", template)])
    chain = prompt | llm | StrOutputParser()
    context = "Passwords are reset on the sign-in page. " * 40
    chain.invoke({"context": context, "question": ASKED})
    chain.invoke({"context": context, "question": REWORDED})
    assert llm.calls == 1
    chain.invoke({"context": context + "!", "question": ASKED})
    assert llm.calls == 2


# ------------------------------------------------------------------------------------------ scopes, explain


def test_bypass_and_refresh_work_around_a_chain(cache: AICache) -> None:
    answers = iter("abc")
    llm = model(reply=lambda messages: AIMessage(next(answers)))
    with bypass():
        assert llm.invoke(ASKED).text == "a"
    assert llm.invoke(ASKED).text == "b"
    with refresh():
        assert llm.invoke(ASKED).text == "c"
    assert llm.invoke(ASKED).text == "c"


def test_a_scope_reaches_the_threads_of_a_batch(cache: AICache) -> None:
    llm = model()
    with cache.tagged("a"):
        llm.batch([ASKED, "Which planets have rings?"])
    cache.clear(tag="a")
    assert cache.size().entries == 0


@pytest.mark.parametrize("bound", [False, True])
def test_explain_sees_exactly_what_invoke_hands_over(cache: AICache, bound: bool) -> None:
    llm = model()
    runnable: Any = llm.bind_tools([find_order], tool_choice="any").bind(stop=["x"]) if bound else llm
    messages = [SystemMessage("s", id="1"), HumanMessage(ASKED, id="2")]
    runnable.invoke(messages)
    explanation = cache.explain(messages, runnable)
    assert "exact" in str(explanation).splitlines()[0]
    assert cache.explain([SystemMessage("t"), HumanMessage(ASKED)], runnable).outcome.reason is MissReason.ABSENT  # type: ignore[union-attr]


def test_explain_understands_text_models_and_llm_strings(cache: AICache) -> None:
    llm = FakeListLLM(responses=["first"])
    llm.invoke(ASKED)
    assert str(cache.explain(ASKED, llm)).startswith("hit: exact")
    assert str(cache.explain(ASKED, "some model")).startswith("miss: absent")


def test_clear_by_model_leaves_the_other_models(cache: AICache) -> None:
    one, two = model(), model(model="counting-2")
    one.invoke(ASKED)
    two.invoke(ASKED)
    cache.clear(llm_string=one._get_llm_string(stop=None))
    one.invoke(ASKED)
    two.invoke(ASKED)
    assert (one.calls, two.calls) == (2, 1)


async def test_aclear_removes_everything(cache: AICache) -> None:
    llm = model()
    await llm.ainvoke(ASKED)
    await cache.aclear()
    await llm.ainvoke(ASKED)
    assert llm.calls == 2


def test_it_is_a_langchain_cache(cache: AICache) -> None:
    assert isinstance(cache, BaseCache)

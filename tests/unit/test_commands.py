"""The command `aicache`: subcommands, and `aicache eval` from a file to a table, a picture and figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from aicache import __version__
from aicache._commands.main import main

FAKE = "aicache.testing:FakeEmbedder"
VERBS = ("block", "replace", "order", "find", "return")
NOUNS = ("card", "phone", "parcel", "ticket", "contract", "password")
FORMS = ("how do i {} my {}", "please tell me how i can {} my {}", "i want to {} the {}", "{} {}")


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    rows = [f"{form.format(verb, noun)},{noun}" for noun in NOUNS for verb in VERBS for form in FORMS]
    path = tmp_path / "questions.csv"
    path.write_text("text,intent\n" + "\n".join(rows) + "\n")
    return path


def evaluate(path: Path, *more: str) -> int:
    return main(["eval", str(path), "--embedder", FAKE, "--jobs", "1", "--seeds", "2", *more])


# -------------------------------------------------------------------------------------------------- the command


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"aicache {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["no-such-command"], ["eval"], ["eval", "q.csv", "--no-such-option"]])
def test_wrong_arguments_end_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: aicache" in capsys.readouterr().err


def test_help_lists_the_commands_and_each_command_has_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in ((["--help"], "calibrate"), (["eval", "--help"], "--max-error-rate")):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
        assert said in capsys.readouterr().out


def test_what_we_refuse_is_one_line_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(tmp_path / "missing.csv")]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == f"aicache eval: file: there is no file {tmp_path / 'missing.csv'}\n"


# --------------------------------------------------------------------------------------------------------- eval


def test_eval_prints_a_line_for_each_setting(labelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(labelled, "--threshold", "0.9", "0.8", "--plain", "--max-error-rate", "0.05") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("questions: 120 questions, 6 answers; order random, seeds 0 to 1; vectors of fake")
    settings = [line[:27].strip() for line in lines[2:7]]
    assert settings == [
        "threshold 0.900 alone",
        "threshold 0.800 alone",
        "threshold 0.900",
        "threshold 0.800",
        "5 % of requests",
    ]
    assert not any("ecommended" in line for line in lines)


def test_without_settings_the_defaults_are_tried_and_a_threshold_is_recommended(
    labelled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(labelled) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("threshold 0.970 ")
    assert lines[3].startswith("2 % of requests ")
    assert "recommended" in lines[-1]


def test_a_target_that_the_file_can_show_gives_an_option_to_paste(
    labelled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(labelled, "--target", "0.3") == 0
    assert "Recommended for these questions: threshold=0." in capsys.readouterr().out


def test_json_holds_every_seed_and_the_scenario(labelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    more = ("--per", "hits", "--certified", "--order", "blocked", "--drift", "0.5", "--noise", "0.1", "--floor", "0.1")
    assert evaluate(labelled, "--max-error-rate", "0.1", *more, "--json", str(out)) == 0
    read = json.loads(out.read_text())
    assert (read["order"], read["drift"], read["noise"], read["recommendation"]) == ("blocked", 0.5, 0.1, None)
    (setting,) = read["settings"]
    assert setting["setting"] == "10 % of hits, certified, floor 0.1"
    assert [one["requests"] for one in setting["seeds"]] == [120, 120]


def test_vectors_are_computed_once(labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "vectors"
    arguments = ("--threshold", "0.9", "--vectors", str(kept))
    assert evaluate(labelled, *arguments) == 0
    first = capsys.readouterr().out.splitlines()
    # Without the name of an embedder none is loaded.
    assert main(["eval", str(labelled), "--jobs", "1", "--seeds", "2", *arguments]) == 0
    again = capsys.readouterr().out.splitlines()
    assert again[0] == first[0]
    assert again[2][:150] == first[2][:150]


def test_an_embedder_may_be_a_function_of_the_user(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_vectors_for_eval.py").write_text(
        "def embed(text):\n    return [len(text), text.count('e') + 1.0]\n"
    )
    monkeypatch.chdir(tmp_path)
    more = ["--threshold", "0.9", "--jobs", "1", "--seeds", "1"]
    assert main(["eval", str(labelled), "--embedder", "my_vectors_for_eval:embed", *more]) == 0
    assert "120 questions" in capsys.readouterr().out
    assert main(["eval", str(labelled), "--embedder", "my_vectors_for_eval:missing", *more]) == 1
    assert "cannot be imported" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--seeds", "0"), "seeds: "),
        (("--jobs", "0"), "jobs: "),
        (("--limit", "0"), "limit: "),
        (("--drift", "2"), "drift: "),
        (("--threshold", "2"), "threshold: "),
        (("--max-error-rate", "2"), "max_error_rate: "),
        (("--target", "0"), "target: "),
        (("--plot", "out.gif"), "plot: "),
        (("--plot", "no/such/folder/out.png"), "plot: "),
        (("--json", "no/such/folder/out.json"), "json: "),
        (("--json", "."), "json: "),
        (("--vectors", "no/such/folder/vectors"), "vectors: "),
        (("--margin", "5"), "margin: "),
        (("--floor", "3"), "floor: "),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(
    labelled: Path, arguments: tuple[str, ...], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(labelled), "--embedder", FAKE, "--jobs", "1", "--seeds", "1", *arguments]) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith(f"aicache eval: {problem}")
    assert shown.out == "", "before anything is embedded or replayed"


def test_a_wrong_setting_is_refused_whatever_the_number_of_processes(
    labelled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(labelled), "--embedder", FAKE, "--jobs", "2", "--threshold", "2"]) == 1
    assert capsys.readouterr().err.startswith("aicache eval: threshold: ")


def test_an_embedder_that_fails_is_one_line_on_stderr(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_failing_vectors.py").write_text("def embed(text):\n    raise RuntimeError('out of order')\n")
    monkeypatch.chdir(tmp_path)
    assert main(["eval", str(labelled), "--embedder", "my_failing_vectors:embed", "--threshold", "0.9"]) == 1
    shown = capsys.readouterr()
    assert shown.err == "aicache eval: the embedder failed (RuntimeError: out of order)\n"


def test_plain_is_heard_where_no_threshold_is_named(labelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(labelled, "--plain") == 0
    assert "threshold 0.970 alone" in capsys.readouterr().out


def test_whoever_has_read_enough_ends_it_without_a_word(labelled: Path) -> None:
    arguments = ["eval", str(labelled), "--embedder", FAKE, "--jobs", "1", "--seeds", "1", "--threshold", "0.9", "0.95"]
    with subprocess.Popen(
        [sys.executable, "-m", "aicache", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        assert running.stderr.read() == b""
        assert running.wait() == 141


def test_calibrate_asks_nothing_where_the_result_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_unasked_model.py").write_text("def answer(question):\n    raise SystemExit('asked')\n")
    (tmp_path / "q.txt").write_text("one\ntwo\n")
    monkeypatch.chdir(tmp_path)
    for out in (".", "no/such/folder/c.json"):
        more = ["--model", "my_unasked_model:answer", "--embedder", "none", "--out", out]
        assert main(["calibrate", "q.txt", *more]) == 1
        assert capsys.readouterr().err.startswith("aicache calibrate: --out: ")


# --------------------------------------------------------------------------------------------------------- plot


def test_a_picture_shows_all_four_kinds_and_a_page_needs_nothing_else(labelled: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    page = tmp_path / "out.html"
    arguments = ("--threshold", "0.8", "0.9", "--max-error-rate", "0.05")
    assert evaluate(labelled, *arguments, "--plot", str(page)) == 0
    text = page.read_text()
    assert text.startswith("<!doctype html>")
    assert "<svg" in text
    for name in ("threshold 0.800 alone", "threshold 0.800", "5 % of requests", "5 % of requests, certified"):
        assert f"<td>{name}</td>" in text
    assert "<script" not in text
    assert "src=" not in text
    assert "<link" not in text


@pytest.mark.parametrize(("name", "begins"), [("out.png", b"\x89PNG"), ("out.svg", b"<?xml")])
def test_a_picture_may_stand_alone(labelled: Path, tmp_path: Path, name: str, begins: bytes) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / name
    assert evaluate(labelled, "--threshold", "0.9", "--max-error-rate", "0.1", "--plot", str(out)) == 0
    assert out.read_bytes().startswith(begins)


def test_without_matplotlib_the_extra_is_named_before_anything_is_replayed(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert evaluate(labelled, "--plot", str(tmp_path / "out.png")) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "pip install 'aicache[eval]'" in shown.err

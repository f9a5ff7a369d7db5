"""Every Python example of README.md and docs/ runs as it stands.

One process a document; each example has its own `__main__`, its own home folder and no cache left over from the one
before. "```python no-run" marks an example that needs a provider's key: it must compile.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from platformdirs import user_cache_path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

FENCE = re.compile(r"^```python[ ]*(?P<mark>[^\n]*)\n(?P<code>.*?)^```[ ]*$", re.MULTILINE | re.DOTALL)

# Reads [[line, code], ...] from stdin. Arguments: the document, a scratch folder, the folder of converted models. Every
# example gets an empty home, but not an unconverted model: converting takes half a minute.
RUNNER = """
import ast, asyncio, inspect, json, os, sys, tempfile, types

document, scratch, models = sys.argv[1:]
for line, code in json.load(sys.stdin):
    home = tempfile.mkdtemp(dir=scratch)
    os.environ |= {"HOME": home, "XDG_CACHE_HOME": home + "/cache"}
    os.makedirs(home + "/cache/aicache")
    os.symlink(models, home + "/cache/aicache/models")
    os.chdir(home)
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    padding = chr(10) * (line - 1)  # A traceback then shows the line of the document.
    compiled = compile(padding + code, document, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    pending = eval(compiled, module.__dict__)
    if inspect.iscoroutine(pending):
        asyncio.run(pending)
    if "langchain_core.globals" in sys.modules:
        sys.modules["langchain_core.globals"].set_llm_cache(None)
    print("ran", line, file=sys.__stdout__)
"""


@dataclass(frozen=True, slots=True)
class Example:
    """A fence: the line its code begins on, the code, and what stands behind `python`."""

    line: int
    code: str
    mark: str


def examples(document: Path) -> list[Example]:
    text = document.read_text(encoding="utf-8")
    return [
        Example(text.count("\n", 0, found.start("code")) + 1, found["code"], found["mark"].strip())
        for found in FENCE.finditer(text)
    ]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_example_of_a_document_runs(document: Path, tmp_path: Path) -> None:
    runnable = [(example.line, example.code) for example in examples(document) if example.mark == ""]
    if not runnable:
        return
    models = user_cache_path("aicache") / "models"
    models.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, document.name, str(tmp_path), str(models)],
        input=json.dumps(runnable),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert [int(line.split()[1]) for line in done.stdout.splitlines() if re.fullmatch(r"ran \d+", line)] == [
        line for line, _ in runnable
    ]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_an_example_that_is_not_run_says_so_in_one_way_and_compiles(document: Path) -> None:
    for example in examples(document):
        assert example.mark in {"", "no-run"}, f"{document.name}:{example.line}"
        compile(example.code, f"{document.name}:{example.line}", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_link_to_a_file_leads_to_one(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
    assert [target for target in targets if not (document.parent / target).exists()] == []

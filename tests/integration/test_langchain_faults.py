"""AICache on a SQLite file that is locked, full, read-only, damaged or gone: the application does not notice.

Each case asks a real model through LangChain, sync and async, and calls the cache's own four methods. The log says what
is wrong and what to do, nothing twice.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from langchain_core.language_models.fake import FakeListLLM
from langchain_core.outputs import Generation
from lc_models import CountingModel, echo

from aicache.testing import FakeClock, FakeEmbedder
from langchain_aicache import AICache

KEPT = "How do I reset my password?"
REWORDED = "How can I reset my password please?"
MODEL = CountingModel(reply=echo)._get_llm_string()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.db"


@pytest.fixture
def filled(path: Path) -> Path:
    """A file with the answer to one question, and some others."""
    with _open(path) as cache:
        _ask(cache, KEPT)
        for number in range(60):
            _ask(cache, f"What is the price of article {number}?")
    return path


def _open(path: Path, **more: object) -> AICache:
    # Without L1, so that every call goes to the file.
    options = {"l1_entries": 0, "threshold": 0.8, "margin": 0.0, **more}
    return AICache(f"sqlite:///{path}", embeddings=FakeEmbedder(), **options)  # type: ignore[arg-type]


def _ask(cache: AICache, question: str) -> bool:
    """Ask the application's model; whether it was called."""
    llm = CountingModel(reply=echo, cache=cache)
    assert llm.invoke(question).text in _right(question)
    return llm.calls > 0


async def _ask_async(cache: AICache, question: str) -> bool:
    llm = CountingModel(reply=echo, cache=cache)
    assert (await llm.ainvoke(question)).text in _right(question)
    return llm.calls > 0


def _right(question: str) -> list[str]:
    """What may be answered: one question has two wordings."""
    return [f"answer to: {wording}" for wording in ([KEPT, REWORDED] if question in {KEPT, REWORDED} else [question])]


async def _use(cache: AICache, label: str) -> None:
    """What an application does, and what LangChain does for it; none of it may raise."""
    for number in range(3):
        question = f"What is the {label} price of article {number} in euro?"
        assert _ask(cache, question)
        assert await _ask_async(cache, f"{question} And in dollars?")
        cache.lookup(question, MODEL)
        await cache.alookup(question, MODEL)
        cache.update(question, MODEL, [Generation(text="9")])
        await cache.aupdate(question, MODEL, [Generation(text="9")])


def _said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log says at the level a user sees; nothing of it twice, and in whole sentences."""
    said = [record.getMessage() for record in caplog.records if record.levelname in {"WARNING", "ERROR"}]
    assert [text for text, count in Counter(said).items() if count > 1] == []
    assert [text for text in said if ".." in text] == []
    return said


def _about(said: list[str], part: str) -> list[str]:
    return [text.partition(":")[0] for text in said if part in text]


# ------------------------------------------------------------------------------------ locked


async def test_a_locked_file_serves_what_it_holds_and_costs_no_answer(
    filled: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with _open(filled) as cache, closing(sqlite3.connect(filled, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert not _ask(cache, KEPT)
        assert not await _ask_async(cache, REWORDED)
        await _use(cache, "locked")
        other.execute("ROLLBACK")
        said = _said(caplog)
        assert _about(said, "locked by another program; close what holds it") == ["write failed"]
    assert cache.stats().failed_steps


async def test_a_file_that_another_program_has_for_itself_costs_no_answer(
    filled: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with _open(filled) as cache, closing(sqlite3.connect(filled, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("UPDATE state SET one = 1")
        assert _ask(cache, KEPT)
        await _use(cache, "locked")
        assert "fetch failed" in _about(_said(caplog), "locked by another program; close what holds it")


# ------------------------------------------------------------------------------------ full, read-only

_BEGIN = """
import asyncio, logging, os, resource, sys, tempfile
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_langchain_faults as faults

def warm():
    # Everything is imported first: Python itself may lie where only root can read.
    with tempfile.TemporaryDirectory() as folder, faults._open(Path(folder) / "answers.db") as cache:
        assert faults._ask(cache, faults.KEPT)
        assert not asyncio.run(faults._ask_async(cache, faults.REWORDED))

path = Path(sys.argv[1])
"""

_FULL = """
with faults._open(path) as cache:
    assert faults._ask(cache, faults.KEPT)
    if sys.argv[3] == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))
    number = 0
    while not cache.stats().failed_steps:
        cache.update(f"What does article {number} cost?", faults.MODEL, [faults.Generation(text="9" * 5_000)])
        number += 1
        assert number < 3_000
    assert number > 20
    asyncio.run(faults._use(cache, "full"))
    assert not faults._ask(cache, faults.KEPT)
    assert not faults._ask(cache, faults.REWORDED)
"""

_READ_ONLY = """
warm()
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
with faults._open(path) as cache:
    assert not faults._ask(cache, faults.KEPT)
    assert not asyncio.run(faults._ask_async(cache, faults.REWORDED))
    asyncio.run(faults._use(cache, "read-only"))
    assert not faults._ask(cache, faults.KEPT)
"""


def _script(source: str, path: Path, *arguments: str, before: tuple[str, ...] = ()) -> list[str]:
    """What the program says on its way; it must end well."""
    command = [*before, sys.executable, "-W", "error", "-c", _BEGIN + source, str(path), str(Path(__file__).parent)]
    run = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    said = run.stderr.splitlines()
    assert len(said) == len(set(said)), run.stderr
    return said


def test_a_limit_on_file_size_costs_no_answer(path: Path) -> None:
    said = _script(_FULL, path, "limit")
    assert _about(said, "limit on file size is reached; check both") == ["write failed"]


@pytest.mark.skipif(
    subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0,
    reason="this user may not mount a small disk; the test above needs none",
)
def test_a_full_disk_costs_no_answer(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    # The mount is seen by this one program and gone with it.
    mount = f'mount -t tmpfs -o size=4m tmpfs {disk} && exec "$@"'
    said = _script(_FULL, disk / "answers.db", "disk", before=("unshare", "--mount", "sh", "-c", mount, "sh"))
    assert _about(said, "the disk or the quota is full; free some space") == ["write failed"]


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that every user can reach, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize("folder_mode", [0o555, 0o777], ids=["folder read-only", "folder writable"])
def test_a_read_only_file_serves_what_it_holds_and_costs_no_answer(
    filled: Path, public_folder: Path, folder_mode: int
) -> None:
    target = public_folder / "answers"
    target.mkdir()
    shutil.copy(filled, target / "answers.db")
    (target / "answers.db").chmod(0o444)
    target.chmod(folder_mode)
    said = _script(_READ_ONLY, target / "answers.db")
    target.chmod(0o755)
    assert _about(said, "it is read-only, so cached answers are served but none is added") == ["write failed"]


# ------------------------------------------------------------------------------------ damaged


@pytest.mark.parametrize("opened", [False, True], ids=["before it is opened", "while it is open"])
@pytest.mark.parametrize("kept", [0, 8192], ids=["all of it", "all but its first page"])
async def test_a_damaged_file_is_set_aside_and_costs_no_answer(
    filled: Path, caplog: pytest.LogCaptureFixture, kept: int, *, opened: bool
) -> None:
    with _open(filled) as cache:
        if opened:
            assert not _ask(cache, KEPT)
        _damage(filled, kept)
        await _use(cache, "fair")
        _ask(cache, KEPT)
        assert not _ask(cache, KEPT), "a new file is in use"
        assert not await _ask_async(cache, REWORDED)
    assert filled.with_name("answers.db.corrupt-1").exists()
    assert [("set aside" in text, "Delete the old one" in text) for text in _said(caplog)] == [(True, True)]


def _damage(path: Path, kept: int) -> None:
    with path.open("r+b") as file:
        file.seek(kept)
        file.write(os.urandom(path.stat().st_size - kept))


async def test_damaged_entries_and_vectors_cost_no_answer(filled: Path, caplog: pytest.LogCaptureFixture) -> None:
    with _open(filled) as cache:
        assert not _ask(cache, REWORDED)
        with closing(sqlite3.connect(filled, isolation_level=None)) as other:
            other.execute("UPDATE vectors SET vector = zeroblob(length(vector)) WHERE id % 2")
            other.execute("UPDATE bodies SET body = zeroblob(length(body)) WHERE NOT id % 2")
        assert _ask(cache, KEPT), "damaged, and mended by this answer"
        assert not _ask(cache, KEPT)
        assert not await _ask_async(cache, REWORDED)
        await _use(cache, "fair")
    assert set(_about(_said(caplog), "the entry is ignored")) == {"fetch failed"}


# ------------------------------------------------------------------------------------ missing, gone


async def test_a_missing_folder_is_made_and_nothing_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with _open(tmp_path / "a" / "b" / "answers.db") as cache:
        await _use(cache, "fair")
        assert _ask(cache, KEPT)
        assert not await _ask_async(cache, REWORDED)
    assert _said(caplog) == []


async def test_a_folder_that_cannot_be_made_costs_no_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    with _open(tmp_path / "file" / "answers.db") as cache:
        await _use(cache, "fair")
        assert _ask(cache, KEPT)
    about = _about(_said(caplog), "its folder does not exist and cannot be made; make the folder, or give another path")
    assert {"fetch failed", "write failed"} <= set(about)


@pytest.mark.parametrize("whole_folder", [False, True], ids=["file", "folder"])
async def test_what_is_deleted_while_in_use_is_said_made_anew_and_costs_no_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, *, whole_folder: bool
) -> None:
    path = tmp_path / "folder" / "answers.db"
    clock = FakeClock()
    with _open(path, clock=clock) as cache:
        assert _ask(cache, KEPT)
        if whole_folder:
            shutil.rmtree(path.parent)
        else:
            path.unlink()
        await _use(cache, "fair")
        assert _ask(cache, KEPT)
        assert not _ask(cache, KEPT)
        assert not await _ask_async(cache, REWORDED)
    assert path.exists()
    assert [("was deleted while in use" in text, "Delete it only" in text) for text in _said(caplog)] == [(True, True)]


async def test_a_file_of_another_program_is_not_touched_and_costs_no_answer(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE recipes (name TEXT)")
    with _open(path) as cache:
        await _use(cache, "fair")
        assert _ask(cache, KEPT)
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("recipes",)]
    about = _about(_said(caplog), "the file of another program and was not touched; give another path")
    assert {"fetch failed", "write failed"} <= set(about)


def test_plain_models_are_served_too(filled: Path) -> None:
    with _open(filled) as cache, closing(sqlite3.connect(filled, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        llm = FakeListLLM(responses=["hello"], cache=cache)
        assert llm.invoke("Say hello to me.") == llm.invoke("Say hello to me.") == "hello"
        other.execute("ROLLBACK")

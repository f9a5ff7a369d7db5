"""Eight programs learn from one store: no lesson is lost, and all of them come to know the same."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from redis_servers import Node

from aicache._learned import Equal
from aicache._model import Answer, Hit, Miss, Prompt, Turn
from aicache._open import open_cache
from aicache.cache import Question, SemanticCache
from aicache.stores.redis import RedisStore
from aicache.testing import FakeEmbedder

PROGRAMS = 8
QUESTIONS = 150
"""Of each program."""
TOPICS = ("reset my password", "cancel the order", "change my address", "download an invoice", "track a parcel")
WAYS = ("how do I {}", "how can I {} please", "I want to {}", "what must I do to {}", "please {}", "where do I {}")


def traffic(seat: int) -> Iterator[tuple[str, str]]:
    """Questions in words of this program's own, and their answers."""
    chance = random.Random(seat)
    for number in range(QUESTIONS):
        topic = chance.choice(TOPICS)
        yield f"{chance.choice(WAYS).format(topic)} {'again ' * (number % 3)}said {seat} of {number}", topic


def open_one(store: str) -> SemanticCache:
    """One program's cache. Nothing that is right often enough is served by chance alone: all are drawn for an audit."""
    options: dict[str, Any] = {"max_error_rate": 0.1, "comparator": Equal(), "coin": lambda: 0.0}
    options |= {"lookup_timeout": None, "update_timeout": None}
    # On a busy machine a server may take longer than 0.1 s, which is no matter of this test.
    opened = RedisStore(store, timeout=30.0) if store.startswith("redis") else store
    return open_cache(opened, FakeEmbedder(), options, background="inline")  # type: ignore[arg-type]


def learn(store: str, seat: int) -> dict[str, int]:
    """What one program does; how many lookups had something to compare with."""
    compared = 0
    with open_one(store) as cache:
        for text, said in traffic(seat):
            raw = sha256(text.encode()).digest()
            prompt = Prompt("text", (Turn("human", text),), b"m")
            outcome = cache.lookup(lambda raw=raw, prompt=prompt: Question(raw, lambda: prompt), _whole)  # type: ignore[misc]
            assert isinstance(outcome, Miss)
            compared += bool(outcome.detail.startswith("risk") or outcome.reason == "audit")
            answer = Answer(said.encode(), sha256(said.encode()).digest()[:16])
            cache.update(lambda raw=raw, prompt=prompt: Question(raw, lambda: prompt), lambda answer=answer: answer)  # type: ignore[misc]
        failed = dict(cache.stats().failed_steps)
    assert failed == {}, failed
    return {"compared": compared}


def _whole(hit: Hit) -> Hit:
    return hit


def run_programs(store: str) -> int:
    """Lessons that eight programs had to send, run at the same time."""
    programs = [
        subprocess.Popen([sys.executable, __file__, store, str(seat)], stdout=subprocess.PIPE, text=True)
        for seat in range(PROGRAMS)
    ]
    said = [program.communicate(timeout=240)[0] for program in programs]
    assert [program.returncode for program in programs] == [0] * PROGRAMS
    return sum(json.loads(text)["compared"] for text in said)


def known_to(store: str) -> int:
    """Lessons that a program knows which starts now."""
    with open_one(store) as cache:
        cache.lookup(lambda: Question(b"wake up", lambda: Prompt("text", (Turn("human", "wake up"),), b"m")), _whole)
        learned = cache.stats().learned
    assert learned is not None
    return learned.lessons


@pytest.mark.slow
def test_eight_programs_with_one_file_lose_no_lesson(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'answers.db'}"
    sent = run_programs(store)
    assert sent > PROGRAMS * QUESTIONS * 0.9
    assert known_to(store) == sent


@pytest.mark.slow
def test_eight_programs_with_one_redis_lose_no_lesson(redis_standalone: Node) -> None:
    store = redis_standalone.url
    sent = run_programs(store)
    assert sent > PROGRAMS * QUESTIONS * 0.9
    assert known_to(store) == sent


if __name__ == "__main__":
    sys.stdout.write(json.dumps(learn(sys.argv[1], int(sys.argv[2]))))

"""(i) What compression and encryption save and cost: bytes, microseconds, and the share in an exact hit.

    python benchmarks/compression.py [--answers 40]

Answers are passages of the documentation in `docs/`, as chat answers with the metadata that providers send. Times are
those of `Codec.encode` and `Codec.decode` for the whole entry, 384-dimensional vector included; each is the median over
the answers of the best of 15 rounds. The peer of each share is an exact hit in the same run, through AICache and
without its memory tier, of the same answers uncompressed in a SQLite file.
"""

from __future__ import annotations

import argparse
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from pathlib import Path
from typing import Final

from langchain_core.load import dumps
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration

from aicache._codec import Codec
from aicache._envelope import _ZLIB, _ZSTD, _methods
from aicache._model import Answer, Entry
from aicache.stores.sqlite import SqliteStore
from aicache.testing import make_key, make_partition, make_vector
from langchain_aicache import AICache
from langchain_aicache._answers import to_answer

SIZES: Final = (512, 1024, 2048, 4096, 16384)
KEY: Final = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
QUESTION: Final = "How is this part of the cache meant to be used, and what does it cost?"
ROUNDS: Final = 15
REPEATS: Final = 10


def prose() -> str:
    """The documentation without its code and its tables, whose rows repeat themselves more than answers do."""
    pages = sorted((Path(__file__).parents[1] / "docs").glob("*.md"))
    text = "\n\n".join(page.read_text(encoding="utf-8") for page in pages)
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return re.sub(r"^(\||    ).*\n", "", text, flags=re.MULTILINE)


def generation(text: str) -> ChatGeneration:
    tokens = len(text) // 4
    message = AIMessage(
        text,
        id="run--0f6f1a2c-7f5e-4c0e-9f4e-3d1f2b7a9c55-0",
        usage_metadata={"input_tokens": 58, "output_tokens": tokens, "total_tokens": 58 + tokens},
        response_metadata={
            "model_name": "gpt-4o-2024-08-06",
            "finish_reason": "stop",
            "system_fingerprint": "fp_44709d6fcb",
            "service_tier": "default",
        },
    )
    return ChatGeneration(message=message, generation_info={"finish_reason": "stop", "logprobs": None})


def passages(size: int, count: int) -> list[str]:
    text = prose()
    step = (len(text) - size) // count
    return [text[start : start + size] for start in range(0, step * count, step)]


def entry_of(text: str, number: int) -> Entry:
    answer = to_answer([generation(text)])
    assert isinstance(answer, Answer)
    vector = make_vector(*(float(place % 17 + number) for place in range(384)))
    key = make_key(f"{QUESTION} {number}", partition=make_partition())
    return Entry(key, f"{QUESTION} {number}", answer, 1_000.0, 4e9, "all-MiniLM-L6-v2/384", vector, life=4e9)


def codec_of(method: int | None, keys: Sequence[str] | None) -> Codec:
    if method is None:
        return Codec(keys, compress_above=None)
    codec = Codec(keys, compress_above=0)
    codec._envelope._method = _methods()[method]
    return codec


def best_us(call: Callable[[], object], best: float = inf) -> float:
    """The least of this round and the rounds before."""
    started = time.perf_counter()
    for _ in range(REPEATS):
        call()
    return min(best, (time.perf_counter() - started) / REPEATS * 1e6)


class Variant:
    """One way to store the entries, with its best times so far: rounds alternate, so that a busy spell hits all."""

    def __init__(self, codec: Codec, entries: Sequence[Entry]) -> None:
        self.codec = codec
        self.entries = entries
        self.stored = [codec.encode(entry) for entry in entries]
        self.writes = [inf] * len(entries)
        self.reads = [inf] * len(entries)

    def run(self) -> None:
        encode, decode = self.codec.encode, self.codec.decode
        for place, (entry, stored) in enumerate(zip(self.entries, self.stored, strict=True)):
            self.writes[place] = best_us(partial(encode, entry), self.writes[place])
            read = partial(decode, entry.key, stored, expires=entry.expires, vector=entry.vector)
            self.reads[place] = best_us(read, self.reads[place])

    def medians(self) -> tuple[float, float, float]:
        """Bytes, and microseconds to write and to read."""
        return statistics.median(map(len, self.stored)), statistics.median(self.writes), statistics.median(self.reads)


def exact_hit_us(texts: Sequence[str]) -> float:
    """An exact hit that is read from the file."""
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder) / "answers.db", codec=Codec(compress_above=None))
        with AICache(store, embeddings=False, l1_entries=0) as cache:
            prompts = [dumps([HumanMessage(f"{QUESTION} {number}")]) for number in range(len(texts))]
            for prompt, text in zip(prompts, texts, strict=True):
                cache.update(prompt, "model", [generation(text)])
            assert all(cache.lookup(prompt, "model") for prompt in prompts)
            best = [inf] * len(prompts)
            for _ in range(ROUNDS):
                best = [
                    best_us(partial(cache.lookup, prompt, "model"), so_far)
                    for prompt, so_far in zip(prompts, best, strict=True)
                ]
            return statistics.median(best)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=40)
    count = parser.parse_args().answers
    methods = {"zlib": _ZLIB} | ({"zstd": _ZSTD} if _ZSTD in _methods() else {})
    print(f"{count} answers of each size; ratio: bytes / plain bytes; share: read us more than plain / exact hit us")
    print(f"{'text':>6} {'':12}{'bytes':>8}{'ratio':>7}{'write us':>10}{'read us':>9}{'exact hit us':>14}{'share':>8}")
    for size in SIZES:
        texts = passages(size, count)
        entries = [entry_of(text, number) for number, text in enumerate(texts)]
        variants = {"plain": Variant(codec_of(None, None), entries), "Fernet": Variant(codec_of(None, [KEY]), entries)}
        for name, method in methods.items():
            variants[name] = Variant(codec_of(method, None), entries)
            variants[f"{name}+Fernet"] = Variant(codec_of(method, [KEY]), entries)
        for _ in range(ROUNDS):
            for variant in variants.values():
                variant.run()
        hit = exact_hit_us(texts)
        plain_bytes, _, plain_read = variants["plain"].medians()
        for name, variant in variants.items():
            size_of, write, read = variant.medians()
            more = read - plain_read
            print(
                f"{size:>6} {name:12}{size_of:>8.0f}{size_of / plain_bytes:>7.2f}{write:>10.1f}{read:>9.1f}"
                f"{hit + more:>14.0f}{more / (hit + more):>8.1%}"
            )


if __name__ == "__main__":
    main()

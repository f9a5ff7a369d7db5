"""(d) What an entry costs: a 1 KB answer with a 384-dimensional vector, in memory and in a file.

    python benchmarks/bytes_per_entry.py [--entries 20000]

Memory is the growth of the process's resident set in a new interpreter for each store; InMemoryCache, which keeps no
vector, is the peer.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile

CODE = """
import gc, os, sys
from pathlib import Path
import numpy as np
from langchain_core.caches import InMemoryCache
from langchain_core.load import dumps
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration
from langchain_aicache import AICache

kind, count, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
random = np.random.default_rng(0)
class Embedder:
    fingerprint = "random-384"
    def embed(self, texts):
        return random.standard_normal((len(texts), 384), dtype=np.float32)
def resident():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
def make():
    if kind == "InMemoryCache":
        return InMemoryCache()
    if kind == "memory exact":
        return AICache("memory://", embeddings=False)
    url = "memory://" if kind == "memory" else f"sqlite:///{folder}/answers.db"
    return AICache(url, embeddings=Embedder(), l1_entries=0)
def fill(cache, start, stop):
    for number in range(start, stop):
        prompt = dumps([HumanMessage(f"How do I solve problem number {number} of my account?")])
        cache.update(prompt, "model", [ChatGeneration(message=AIMessage(f"{number:06d}" + "x" * 1018))])
cache = make()
fill(cache, 0, 200)
before = resident()
fill(cache, 200, 200 + count)
after = resident()
print((after - before) / count)
if kind == "sqlite":
    cache.close()
    print(sum(file.stat().st_size for file in Path(folder).iterdir()) / (200 + count))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=20_000)
    entries = parser.parse_args().entries
    print(f"bytes per entry, 1,024-byte answer, {entries} entries (vectors: 384 dimensions = 1,536 bytes of float32)")
    for kind in ("InMemoryCache", "memory exact", "memory", "sqlite"):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-c", CODE, kind, str(entries), folder]
            lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        print(
            f"  {kind:16} resident {float(lines[0]):>8.0f}" + (f"   file {float(lines[1]):>8.0f}" if lines[1:] else "")
        )


if __name__ == "__main__":
    main()

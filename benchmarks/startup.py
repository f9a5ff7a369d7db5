"""(c) From process start to the first semantic hit, and what was imported for it.

    python benchmarks/startup.py [--runs 5]

Each run is a new interpreter over a file that already holds one answer: import, open, embed the reworded question,
search, answer. Beside it, in turn, a process that only imports sentence-transformers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

OURS = """
import json, sys, time
started = time.perf_counter()
from langchain_aicache import AICache
from langchain_core.outputs import Generation
cache = AICache("sqlite:///" + sys.argv[1], threshold=0.9, embed_timeout=None)
if sys.argv[2] == "write":
    cache.update("How do I reset my password?", "model", [Generation(text="By mail.")])
else:
    exact = cache.lookup("How do I reset my password?", "model")
    first = time.perf_counter() - started
    reworded = cache.lookup("How can I reset my password?", "model")
    print(json.dumps({"exact": exact is not None, "semantic": reworded is not None, "first exact hit s": first,
        "first semantic hit s": time.perf_counter() - started, "torch": "torch" in sys.modules,
        "transformers": "transformers" in sys.modules}))
"""
THEIRS = """
import json, time
started = time.perf_counter()
import sentence_transformers
print(json.dumps(time.perf_counter() - started))
"""


def python(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True)
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "answers.db")
        python(OURS, file, "write")
        found = [json.loads(python(OURS, file, "read")) for _ in range(runs)]
    print(f"new process, median of {runs} runs: hits {found[0]['exact']} / {found[0]['semantic']} (exact / semantic)")
    for name in ("first exact hit s", "first semantic hit s"):
        print(f"  import + {name:22} {statistics.median(run[name] for run in found):.2f}")
    loaded = [name for name in ("torch", "transformers") if any(run[name] for run in found)]
    print(f"  torch or transformers imported: {', '.join(loaded) or 'neither'}")
    try:
        theirs = statistics.median(json.loads(python(THEIRS)) for _ in range(min(runs, 3)))
        ours = statistics.median(run["first semantic hit s"] for run in found)
        print(f"  import sentence_transformers alone: {theirs:.2f} s, {theirs / ours:.1f} x our first semantic hit")
    except subprocess.CalledProcessError:
        print("  sentence-transformers is not installed: nothing to compare with")


if __name__ == "__main__":
    main()

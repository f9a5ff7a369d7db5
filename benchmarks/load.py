"""16 async clients and 8 threads on a Redis cluster of which a primary is killed, one paused, and slots are moved.

    python benchmarks/load.py [--seconds 60] [--pause 0.1]

It starts six servers of its own (`.ci/get-redis` finds or fetches the program) and prints a Markdown table: hit rate,
latencies as the callers saw them, wrong answers and exceptions, phase by phase. Deadlines are the defaults: 100 ms
for a lookup, 250 ms for an update.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "integration"))

from load_run import run_load
from redis_servers import cluster


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--pause", type=float, default=0.1, help="seconds a client waits between two calls")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with cluster() as servers:
        result = run_load(servers, arguments.seconds, pause=arguments.pause, seed=arguments.seed)
    print(result.table())
    if result.first_error:
        print(result.first_error)
    return 1 if result.wrong or result.errors else 0


if __name__ == "__main__":
    raise SystemExit(main())

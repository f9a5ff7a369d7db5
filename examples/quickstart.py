"""A support desk with an answer cache: a plain `prompt | model | parser` over a file of real-life questions.

Run it twice: the second run finds the answers of the first one in the file. `--help` lists the options.
"""

from __future__ import annotations

import argparse
import sys
import time

from _support_desk import PROMPT, Model, choose_model, load_questions
from _table import Row, Table
from langchain_core.globals import set_llm_cache
from langchain_core.output_parsers import StrOutputParser
from platformdirs import user_cache_path

from aicache import AICacheError, Hit, Outcome
from langchain_aicache import AICache

__all__ = ["main"]

DEFAULT_FILE = user_cache_path("aicache") / "quickstart.db"


def main(options: argparse.Namespace) -> None:
    """Ask all questions and print what the cache made of each."""
    questions = load_questions()
    right_answer = {question.text: question.answer_id for question in questions}
    model = choose_model(delay=options.delay, stand_in=options.stand_in)
    prices = (options.prices[0], options.prices[1]) if options.prices else model.prices
    outcomes: list[Outcome] = []

    with AICache(
        options.store,
        threshold=options.threshold,
        margin=options.margin,
        prices=prices,
        on_outcome=lambda outcome, _seconds: outcomes.append(outcome),
    ) as cache:
        if options.fresh:
            cache.clear()
        _introduce(model, options, cache.size().entries)

        set_llm_cache(cache)  # The line that an application adds. The chain below does not know of it.
        chain = PROMPT | model.chat | StrOutputParser()

        table = Table(prices)
        table.head()
        for question in questions[: options.limit]:
            started = time.perf_counter()
            chain.invoke({"question": question.text})
            seconds = time.perf_counter() - started
            outcome = outcomes.pop()
            wrong = isinstance(outcome, Hit) and right_answer.get(outcome.entry.query) != question.answer_id
            table.add(Row(question, outcome, seconds, wrong))
        table.totals()
        set_llm_cache(None)
        if options.stats:
            print(f"\n{cache.stats()}")


def _introduce(model: Model, options: argparse.Namespace, entries: int) -> None:
    print(f"model  {model.label}")
    print(f"rules  threshold {options.threshold:g}, margin {options.margin:g}, and the guards")
    file = options.store.removeprefix("sqlite:///")
    if options.store == "memory://":
        print("cache  in memory only; nothing is kept")
    elif entries:
        print(f"cache  {entries} answers found from an earlier run in {file} (--fresh empties it)")
    else:
        print(f"cache  first run: {file} is empty; run again to see that it persists")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "--store", default=f"sqlite:///{DEFAULT_FILE}", help='"memory://" or "sqlite:///path.db" (default: %(default)s)'
    )
    add("--fresh", action="store_true", help="empty the cache first")
    add("--threshold", type=float, default=0.97, help="least cosine of a semantic hit (default: %(default)s)")
    add("--margin", type=float, default=0.05, help="lead over the nearest other answer (default: %(default)s)")
    add("--limit", type=int, metavar="N", help="ask the first N questions only")
    add("--delay", type=float, default=0.8, help="seconds the stand-in model takes (default: %(default)s)")
    add("--stand-in", action="store_true", help="use the stand-in model even if a provider's key is set")
    add("--stats", action="store_true", help="print the cache's own counters and latencies at the end")
    add("--prices", type=float, nargs=2, metavar=("IN", "OUT"), help="US dollars per million tokens")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main(_options())
    except AICacheError as problem:
        sys.exit(f"quickstart: {problem}")
    except KeyboardInterrupt:
        sys.exit("\nstopped; what was answered so far is kept")

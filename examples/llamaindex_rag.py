"""LlamaIndex with a cache: an index over this project's documentation, asked, asked again and asked in other words.

Passages are embedded once, also for later runs; questions are answered once each. Run it twice: the second run finds
both in the file. `--help` lists the options.
"""

from __future__ import annotations

import argparse
import sys
import time

from _docs_rag import QUESTIONS, SPLITTER, LocalEmbedding, Question, choose_model, load_documents
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.base.response.schema import StreamingResponse
from platformdirs import user_cache_path

from aicache import AICacheError
from aicache.embedders import default_embedder
from llamaindex_aicache import AICache

__all__ = ["main"]

DEFAULT_FILE = user_cache_path("aicache") / "llamaindex_rag.db"

LEGEND = """
exact: the same question; meaning: the same in other words, with its score; -: the model was asked; (s):
streamed. The time is that of the whole query engine: finding passages, then the model or the cache. A
reworded question is a hit only where the engine finds the same passages for it as before: with others, the
answer may be another.
"""


def main(options: argparse.Namespace) -> None:
    """Index the documentation, ask all questions, and index it once more."""
    embedder = default_embedder()  # The cache's own, by which it compares questions; here it finds passages as well.
    embedding = LocalEmbedding(embedder)
    model, label = choose_model(embedding, delay=options.delay, stand_in=options.stand_in)
    with AICache(options.store, embeddings=embedder) as cache:
        if options.fresh:
            cache.clear()
        print(f"model   {label}")
        print(f"cache   {introduce(options.store, cache.size().entries)}")

        cache.install()  # The line that an application adds. All below does not know of it.
        Settings.llm, Settings.embed_model, Settings.transformations = model, embedding, [SPLITTER]

        index = build_index(embedding, "index")
        print(f"\n{'':2} {'question':46} {'hit':13} {'ms':>6}  answer")
        for number, question in enumerate(QUESTIONS, start=1):
            ask(number, question, index)
        print(LEGEND)
        build_index(embedding, "again")
        print(f"\n{cache.stats()}")


def introduce(store: str, entries: int) -> str:
    """Where answers and vectors are kept, and how many are there."""
    if store == "memory://":
        return "in memory only; nothing is kept"
    where = store.removeprefix("sqlite:///") if store.startswith("sqlite:") else "the store"
    if entries:
        return f"{entries} answers and vectors found from an earlier run in {where} (--fresh empties it)"
    return f"first run: {where} is empty; run again to see that it persists"


def build_index(embedding: LocalEmbedding, title: str) -> VectorStoreIndex:
    """An index over all documents, and a line about what it took."""
    documents = load_documents()
    before, started = embedding.computed, time.perf_counter()
    index = VectorStoreIndex.from_documents(documents)
    seconds = time.perf_counter() - started
    passages, computed = len(index.index_struct.nodes_dict), embedding.computed - before
    print(
        f"{title:7} {len(documents)} documents, {passages} passages: {computed} embedded now, "
        f"{passages - computed} vectors from the cache; {seconds:.1f} s",
        flush=True,
    )
    return index


def ask(number: int, question: Question, index: VectorStoreIndex) -> None:
    """Ask a query engine, and print a line about the answer."""
    engine = index.as_query_engine(similarity_top_k=2, streaming=question.streamed)
    started = time.perf_counter()
    response = engine.query(question.text)
    answer = "".join(response.response_gen) if isinstance(response, StreamingResponse) else str(response)
    milliseconds = (time.perf_counter() - started) * 1e3
    marks = (response.metadata or {}).get("aicache")
    text = question.text + (" (s)" if question.streamed else "")
    print(f"{number:2} {text:46} {describe(marks):13} {milliseconds:6.1f}  {shorten(answer, 38)}", flush=True)


def describe(marks: list[dict[str, object]] | None) -> str:
    """How the answer was found in the cache; `-` if the model was asked."""
    if not marks:
        return "-"
    mark = marks[0]
    return f"meaning {mark['score']:.3f}" if mark["match"] == "semantic" else str(mark["match"])


def shorten(text: str, width: int) -> str:
    """The first words."""
    return text if len(text) <= width else text[: width - 3] + "..."


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "--store", default=f"sqlite:///{DEFAULT_FILE}", help='"memory://" or "sqlite:///path.db" (default: %(default)s)'
    )
    add("--fresh", action="store_true", help="empty the cache first")
    add("--delay", type=float, default=0.3, help="seconds the stand-in model takes (default: %(default)s)")
    add("--stand-in", action="store_true", help="use the stand-in model even if a provider's key is set")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main(_options())
    except AICacheError as problem:
        sys.exit(f"llamaindex_rag: {problem}")
    except KeyboardInterrupt:
        sys.exit("\nstopped; what was answered so far is kept")

"""What comes back from each of the caches of `redis_peers.py`: yes or no, found by trying."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from redis_contenders import DIMENSION, Contender, Recorded, answer, contenders, model, prompt
from redis_servers import Node

__all__ = ["compare_answers"]

CALL = {"name": "look_up", "args": {"city": "Paris"}, "id": "call-1", "type": "tool_call"}
OTHER = model("gpt-4o")


def learn(recorded: Recorded, seed: int, *texts: str) -> list[str]:
    """Prompts of which the first two have a cosine of about 0.97, and each further one is as near to the second."""
    random = np.random.default_rng(seed)
    vector = random.standard_normal(DIMENSION)
    vector /= np.linalg.norm(vector)
    for text in texts:
        recorded.learn(text, vector)
        vector = vector + random.standard_normal(DIMENSION) * 0.004
        vector /= np.linalg.norm(vector)
    return [prompt(text) for text in texts]


def tool_calls(cache: Any, recorded: Recorded, server: Node) -> bool:  # noqa: ARG001
    (asked,) = learn(recorded, 1, "Is it raining in Paris?")
    cache.update(asked, model(), answer("", tool_calls=[CALL]))
    found = cache.lookup(asked, model())
    return bool(found) and found[0].message.tool_calls == [CALL]


def usage(cache: Any, recorded: Recorded, server: Node) -> bool:  # noqa: ARG001
    (asked,) = learn(recorded, 2, "Who pays for the parcel?")
    cache.update(asked, model(), answer("You do."))
    found = cache.lookup(asked, model())
    return bool(found) and found[0].message.usage_metadata == answer("You do.")[0].message.usage_metadata


def two_models(cache: Any, recorded: Recorded, server: Node) -> bool:  # noqa: ARG001
    (asked,) = learn(recorded, 3, "How do I close my account?")
    cache.update(asked, model(), answer("small"))
    cache.update(asked, OTHER, answer("large"))
    found = [cache.lookup(asked, one) for one in (model(), OTHER)]
    return [one and one[0].text[:5] for one in found] == ["small", "large"]


def past_neighbour(cache: Any, recorded: Recorded, server: Node) -> bool:  # noqa: ARG001
    ours, asked, theirs = learn(
        recorded, 4, "How can I open a door?", "How can I open a door please?", "How might I open a door please?"
    )
    recorded.known[theirs] = recorded.known["How might I open a door please?"] = recorded.known[asked]
    cache.update(ours, model(), answer("ours"))
    cache.update(theirs, OTHER, answer("theirs"))
    found = cache.lookup(asked, model())
    return bool(found) and found[0].text[:4] == "ours"


def other_number(cache: Any, recorded: Recorded, server: Node) -> bool:  # noqa: ARG001
    known, asked = learn(recorded, 5, "What is the fee for 100 euros?", "What is the fee for 900 euros?")
    cache.update(known, model(), answer("One euro."))
    return cache.lookup(asked, model()) is None


def life_ends(cache: Any, recorded: Recorded, server: Node) -> bool:
    (asked,) = learn(recorded, 6, "When does the shop open?")
    before = set(server.command("KEYS", "*"))
    cache.update(asked, model(), answer("At nine."))
    mine = [key for key in set(server.command("KEYS", "*")) - before if server.command("PTTL", key) > 0]
    for key in mine:
        server.command("PEXPIRE", key, 50_000)
    found = cache.lookup(asked, model())
    return found is not None and bool(mine) and all(server.command("PTTL", key) <= 50_000 for key in mine)


QUESTIONS: tuple[tuple[str, bool, Callable[[Any, Recorded, Node], bool]], ...] = (
    ("tool calls come back", False, tool_calls),
    ("token usage comes back", False, usage),
    ("two models, each its own answer", False, two_models),
    ("a hit does not lengthen the TTL", False, life_ends),
    ("found past another model's entry", True, past_neighbour),
    ("another number is no hit", True, other_number),
)
"""What is asked, and whether it makes sense only for caches that match by meaning."""


def compare_answers(server: Node, recorded: Recorded) -> None:
    """Print what each cache does, on an empty server."""
    server.flush()
    entrants: Sequence[Contender] = [
        one for one in contenders(server.url, recorded, 3600) if one.name not in ("AICache, exact only", "AICache, L1")
    ]
    print("\nfidelity" + " " * 28 + "".join(f"{one.name:>22}" for one in entrants))
    for title, by_meaning, question in QUESTIONS:
        told = ["-" if by_meaning and not one.semantic else _tell(question, one, recorded, server) for one in entrants]
        print(f"{title:36}" + "".join(f"{value:>22}" for value in told))


def _tell(question: Callable[[Any, Recorded, Node], bool], one: Contender, recorded: Recorded, server: Node) -> str:
    try:
        return "yes" if question(one.cache, recorded, server) else "no"
    except Exception as error:  # noqa: BLE001 - a peer that raises is a result
        return type(error).__name__

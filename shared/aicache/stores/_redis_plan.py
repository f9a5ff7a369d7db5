"""Operations of the Redis store as generators that yield commands and receive replies.

Each operation is written once; `_redis_run` carries it out, blocking or awaiting. So the commands and the reading of
replies cannot differ between the two halves of the store.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from aicache._errors import StoreError
from aicache.stores._redis_scripts import Script

__all__ = [
    "Command",
    "Missed",
    "Operation",
    "Refusal",
    "Spread",
    "Unreached",
    "Word",
    "ask",
    "ask_apart",
    "ask_groups",
    "call",
    "complaint",
    "integer",
    "list_of",
    "refusal",
]

R = TypeVar("R")

Word: TypeAlias = str | bytes | int | float


class Command(NamedTuple):
    """One command of Redis. A tuple, for every call makes some."""

    words: tuple[Word, ...]
    key: str
    """Decides the node of a cluster that gets it."""
    script: Script | None = None
    """The script that `words` call by its name."""

    def in_full(self) -> Command:
        """The same with the script's source, for a server that does not know it (yet, or after a restart)."""
        assert self.script is not None
        return Command(("EVAL", self.script.source, *self.words[2:]), self.key)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error reply of the server: it understood the command and did not carry it out."""

    code: str
    """Its first word: `OOM`, `WRONGTYPE`, `NOPERM`, ... The rest may quote the command, and with it a question."""
    unknown_command: bool = False
    unknown_index: bool = False


class Spread(tuple[Command, ...]):
    """Commands to several nodes of a cluster of which some may be out of reach: the others get theirs all the same."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Unreached:
    """In place of the reply to one of them: its node could not be reached."""

    node: str
    why: str


@dataclass(slots=True)
class Missed:
    """The nodes of a cluster that an operation did without."""

    nodes: set[str] = field(default_factory=set)
    why: str = ""

    def note(self, replies: Sequence[Any]) -> None:
        """Remember those that did not come."""
        for reply in replies:
            if isinstance(reply, Unreached):
                self.nodes.add(reply.node)
                self.why = reply.why

    def complain(self) -> None:
        """Say it, if there are any.

        Raises:
            StoreError: there are.
        """
        if self.nodes:
            raise StoreError(
                f"{len(self.nodes)} of the cluster's nodes could not be reached, and what they hold is as it was; say "
                f"it again later. ({self.why})"
            )


Operation: TypeAlias = Generator[tuple[Command, ...], Sequence[Any], R]
"""Yields commands sent together, in one round trip for each node; receives a reply or `Refusal` for each."""

_CODE: Final = re.compile(r"[A-Z]{2,20}")
_SENTENCES: Final = {
    "OOM": "Redis has no memory left (maxmemory): give it more, or a maxmemory-policy that evicts.",
    "NOPERM": "The Redis user lacks a permission the store needs: docs/redis.md lists them.",
    "NOAUTH": "Redis wants a password: give it in the URL.",
    "WRONGPASS": "Redis refused the user name or the password in the URL.",
    "READONLY": "This Redis is a replica: point the store at the primary, or use redis+sentinel://.",
    "LOADING": "Redis is still loading its file: wait.",
    "BUSY": "Redis is busy with a script of another client.",
    "MASTERDOWN": "This replica has lost its primary.",
    "CLUSTERDOWN": "The cluster does not serve this slot at the moment.",
    "MISCONF": "Redis cannot save to its disk and refuses writes.",
    "NOREPLICAS": "Redis has too few replicas and refuses writes.",
    "WRONGTYPE": "A key under the store's prefix holds something else: give the store a prefix of its own.",
    "CROSSSLOT": "This is a Redis Cluster: use redis+cluster://.",
    "MOVED": "This is a Redis Cluster: use redis+cluster://.",
}


def refusal(text: str) -> Refusal:
    """What the server's error text says, without what it may quote."""
    code = text.partition(" ")[0]
    lowered = text.lower()
    if lowered.startswith(("err ", "")) and "unknown command" in lowered:
        return Refusal("ERR", unknown_command=True)
    # RediSearch says "No such index", "Unknown index name" or "Index with name ... not found", by its version.
    if "such index" in lowered or "unknown index" in lowered or ("index" in lowered and "not found" in lowered):
        return Refusal("ERR", unknown_index=True)
    for known in _SENTENCES:
        # A script repeats the error of a command it called, behind some words of its own.
        if code == known or f" {known} " in text[:60]:
            return Refusal(known)
    return Refusal(code if _CODE.fullmatch(code) else "ERR")


def complaint(reply: Refusal) -> StoreError:
    """The refusal as an error with one safe sentence."""
    if reply.unknown_command:
        return StoreError("Redis does not know a command the store needs: docs/redis.md lists them.")
    return StoreError(_SENTENCES.get(reply.code, f"Redis refused a command of the store ({reply.code})."))


def call(script: Script, keys: Sequence[str], *arguments: Word) -> Command:
    """The command that calls the script; the first key decides the node."""
    return Command(("EVALSHA", script.sha, len(keys), *keys, *arguments), keys[0], script)


def ask(*commands: Command, tolerate: bool = False) -> Operation[list[Any]]:
    """Send the commands together, scripts the server does not know once more in full.

    Raises:
        StoreError: the server refused one of them; with `tolerate`, the `Refusal` stands in its place.
    """
    replies = yield from _ask(commands)
    if not tolerate:
        for reply in replies:
            if isinstance(reply, Refusal):
                raise complaint(reply)
    return replies


def ask_apart(missed: Missed, *commands: Command) -> Operation[list[Any]]:
    """As `ask`, but of nodes of a cluster that cannot be reached the reply is `Unreached`, and the others are asked.

    Raises:
        StoreError: a node refused one of the commands.
    """
    replies = yield from _ask(Spread(commands))
    missed.note(replies)
    for reply in replies:
        if isinstance(reply, Refusal):
            raise complaint(reply)
    return replies


def _ask(commands: tuple[Command, ...]) -> Operation[list[Any]]:
    replies = list((yield commands))
    unknown = [
        place
        for place, reply in enumerate(replies)
        if isinstance(reply, Refusal) and reply.code == "NOSCRIPT" and commands[place].script is not None
    ]
    if unknown:
        again = yield type(commands)(_taught([commands[place] for place in unknown]))
        for place, reply in zip(unknown, again, strict=True):
            replies[place] = reply
    return replies


def _taught(commands: Sequence[Command]) -> tuple[Command, ...]:
    """The commands, each script in full the first time that a node may hear of it: by then it knows it."""
    heard: set[tuple[Script | None, str]] = set()
    told: list[Command] = []
    for command in commands:
        # What has the same hash tag is on the same node.
        place = (command.script, command.key.partition("{")[2].partition("}")[0])
        told.append(command if place in heard else command.in_full())
        heard.add(place)
    return tuple(told)


def ask_groups(
    groups: Sequence[tuple[Command, ...]], at_once: int, *, tolerate: bool = False
) -> Operation[list[list[Any]]]:
    """The replies to each of several groups of commands; so many groups are sent together.

    Raises:
        StoreError: as `ask`.
    """
    answers: list[list[Any]] = []
    for start in range(0, len(groups), at_once):
        some = groups[start : start + at_once]
        replies = iter((yield from ask(*(command for group in some for command in group), tolerate=tolerate)))
        answers += [[next(replies) for _ in group] for group in some]
    return answers


def integer(reply: object) -> int:
    """A reply that is a number.

    Raises:
        StoreError: it is not.
    """
    if isinstance(reply, bytes) and reply.isdigit() and len(reply) < 20:
        return int(reply)
    if not isinstance(reply, int):
        raise StoreError("Redis gave a reply that makes no sense.")
    return int(reply)


def list_of(reply: object, length: int | None = None) -> list[Any]:
    """A reply that is a list, of this length if one is given.

    Raises:
        StoreError: it is not.
    """
    if not isinstance(reply, list) or (length is not None and len(reply) != length):
        raise StoreError("Redis gave a reply that makes no sense.")
    return reply

"""What the operations of the Redis store stand on: the names of its keys, what is known of the server, the epoch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aicache._codec import Codec
from aicache._model import CacheKey, Entry
from aicache.stores._redis_dialect import Dialect, Value
from aicache.stores._redis_known import Known
from aicache.stores._redis_layout import BUCKETS, Keys, unpack
from aicache.stores._redis_plan import Command, Missed, Operation, Refusal, ask, ask_apart, call, complaint, integer
from aicache.stores._redis_scripts import AS_STRINGS, Script
from aicache.stores._redis_search import choose

__all__ = ["Session", "accepted"]

_log = logging.getLogger("aicache")


@dataclass(frozen=True, slots=True)
class Session:
    """What does not differ from one operation of a store to the next."""

    keys: Keys
    codec: Codec
    known: Known
    wanted: str | None
    """The dialect the store was told to speak."""
    grace: int
    """Milliseconds an entry stays on the server after it has expired."""
    cluster: bool

    @property
    def shift(self) -> float:
        """Seconds to add to a time of this host to have the server's."""
        return self.known.clock.shift

    def in_server_time(self, moment: float | None) -> float | None:
        """A time of this host as the server would say it."""
        return None if moment is None else float(moment) + self.shift

    def dialect(self) -> Operation[Dialect]:
        """What the server speaks; the first operation asks, and says it in the log."""
        known = self.known
        if known.dialect is None or known.author_changed():
            epochs = self.keys.epochs(known.author())
            together = () if self.cluster else epochs
            dialect, reason = yield from choose(self.keys, together, self.wanted, cluster=self.cluster)
            # From now on FLUSHALL is a change that others notice. A user who may only read need not begin it.
            yield from self.ask_with_time(call(AS_STRINGS.begin, epochs[:1]))
            said = known.dialect is not None
            known.dialect, known.reason = dialect, reason
            if not said:
                without = "" if reason is None else f"; nothing is matched by meaning, because {reason}"
                _log.info("Redis store: dialect %s%s.", dialect.name, without)
        assert known.dialect is not None
        return known.dialect

    def ask_with_time(self, command: Command) -> Operation[Any]:
        """The reply to the command, a `Refusal` included; the server's clock is read along with it.

        A cluster's nodes are taken to agree: it is the clock of the node that holds the epoch.
        """
        clock = self.known.clock
        asked = clock.wall()
        anchor = self.keys.epochs("")[0]
        reply, told = yield from ask(command, Command(("TIME",), anchor), tolerate=True)
        clock.note(told, asked)
        return reply

    def until(self, expires: float | None) -> str:
        """When an entry expires by the server's clock, as Redis reads a number."""
        moment = self.in_server_time(expires)
        return "inf" if moment is None else repr(moment)

    def reaping(self, dialect: Dialect, bucket: str, members: Sequence[str]) -> list[Command]:
        """The command that drops these members of the bucket if their entries are gone; none if there are none."""
        return [call(dialect.scripts.reap, (self.keys.index(bucket),), *members)] if members else []

    def announcement(self, dialect: Dialect) -> Command:
        """Lets other programs know that entries were removed or replaced."""
        return call(dialect.scripts.announce, self.keys.epochs(self.known.author()))

    def note_epoch(self, numbers: Sequence[object]) -> int | None:
        """The changes by others, out of all and one's own: both are read at once, so that they fit each other."""
        if numbers:
            everybody, own = (0 if number is None else integer(number) for number in numbers)
            self.known.epoch = everybody - own
        return self.known.epoch

    def over_buckets(
        self, script: Script, *arguments: str | float, missed: Missed | None = None
    ) -> Operation[list[Any]]:
        """The script's reply for all buckets; in a cluster one for each, since they are on different nodes.

        `Unreached` of nodes that cannot be reached, if the caller notes what it missed.
        """
        indexes = [self.keys.index(bucket) for bucket in BUCKETS]
        apart = [(index,) for index in indexes] if self.cluster else [tuple(indexes)]
        commands = [call(script, names, *arguments) for names in apart]
        return (yield from (ask(*commands) if missed is None else ask_apart(missed, *commands)))

    def entry(self, key: CacheKey, value: Value) -> Entry | None:
        """The entry in what was read, if it is one that counts.

        Raises:
            UnreadableEntryError: it is damaged, or of another format or key.
        """
        return None if value.raw is None else unpack(key, value.raw, value.generation, self.codec, self.shift)


def accepted(reply: Any) -> Any:
    """The reply, if it is no refusal.

    Raises:
        StoreError: it is one.
    """
    if isinstance(reply, Refusal):
        raise complaint(reply)
    return reply

"""The operations of the Redis store on logs of lessons.

A log is a stream whose ids are the positions: one key, so that lessons and positions can only be lost together. It has
no time to live. The keys of a log have a hash tag of their own, and are in no index: what removes or counts entries
does not see them.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Final

from aicache._errors import StoreError
from aicache.stores._redis_layout import Keys
from aicache.stores._redis_plan import Command, Operation, ask, call, integer, list_of
from aicache.stores._redis_scripts import script
from aicache.stores.base import LESSONS_KEPT, Lessons

__all__ = ["Logs"]

_READ_AT_ONCE: Final = 1_000
"""Lessons in one reply."""
_DIGITS: Final = 20
"""No position has as many."""
_REMEMBERED: Final = 60
"""Seconds for which a call that was sent twice is known by its token; the second time comes at once."""

_END: Final = """
local function end_of(log)
  local newest = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
  return newest and tonumber(newest[1]:match('^%d+')) or 0
end
"""

# KEYS: the log, what this call appended. ARGV: lessons. `~`: whole blocks are cut off, of 100 lessons at most.
_APPEND: Final = script(f"""{_END}
local last = redis.call('GET', KEYS[2])
if last then return tonumber(last) end
last = end_of(KEYS[1])
for _, lesson in ipairs(ARGV) do
  last = last + 1
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', {LESSONS_KEPT}, string.format('%.0f-0', last), 'l', lesson)
end
if #ARGV > 0 then redis.call('SET', KEYS[2], string.format('%.0f', last), 'EX', {_REMEMBERED}) end
return last
""")

# KEYS: the log. ARGV: a position, and how many lessons behind it at most. The position of the first one, and they.
_LESSONS: Final = script("""
local found = redis.call('XRANGE', KEYS[1], ARGV[1] .. '-1', '+', 'COUNT', ARGV[2])
local lessons = {}
for i, one in ipairs(found) do lessons[i] = one[2][2] end
return {found[1] and tonumber(found[1][1]:match('^%d+')) or 0, lessons}
""")

# KEYS: the summary, the log. ARGV: the position, the summary. One beyond the end of the log is of a log that was lost.
_KEEP: Final = script(f"""{_END}
local held = tonumber(redis.call('GETRANGE', KEYS[1], 0, 19):match('^(%d+):') or '0')
if held > tonumber(ARGV[1]) and held <= end_of(KEYS[2]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. ARGV[2])
return 1
""")


class Logs:
    """What `RedisStore` does with logs."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def append(self, log: bytes, lessons: Sequence[bytes]) -> Operation[int]:
        """Append the lessons; how many there ever were. A token tells the server of a call that comes twice."""
        keys = (self._keys.log(log), self._keys.appended(log, uuid.uuid4().hex))
        (reply,) = yield from ask(call(_APPEND, keys, *lessons))
        return integer(reply)

    def lessons(self, log: bytes, after: int) -> Operation[Lessons]:
        """The lessons behind the position, some at a time."""
        first, items = after + 1, list[bytes]()
        while True:
            behind = first + len(items) - 1
            (reply,) = yield from ask(call(_LESSONS, (self._keys.log(log),), behind, _READ_AT_ONCE))
            place, found = list_of(reply, 2)
            some = [_bytes(one) for one in list_of(found)]
            if some and integer(place) != behind + 1:
                # What is between has been cut off, now or before.
                first, items = integer(place), []
            items += some
            if len(some) < _READ_AT_ONCE:
                return Lessons(first, tuple(items))

    def keep_summary(self, log: bytes, position: int, summary: bytes) -> Operation[None]:
        """Keep the summary, unless there is one of a higher position that the log has reached."""
        yield from ask(call(_KEEP, (self._keys.summary(log), self._keys.log(log)), position, summary))

    def summary(self, log: bytes) -> Operation[tuple[int, bytes] | None]:
        """The position and the summary kept last; None too where the position is damaged, as `_KEEP` sees it."""
        name = self._keys.summary(log)
        (reply,) = yield from ask(Command(("GET", name), name))
        if reply is None:
            return None
        position, colon, summary = _bytes(reply).partition(b":")
        return (int(position), summary) if colon and position.isdigit() and len(position) < _DIGITS else None

    def forget(self, log: bytes) -> Operation[None]:
        """Remove the log and its summary."""
        names = self._keys.log(log), self._keys.summary(log)
        yield from ask(Command(("DEL", *names), names[0]))


def _bytes(reply: object) -> bytes:
    if isinstance(reply, bytes):
        return reply
    raise StoreError("Redis gave a reply that makes no sense.")

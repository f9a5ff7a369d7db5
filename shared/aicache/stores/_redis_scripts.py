"""The Lua scripts of the Redis store: what must happen at once, on the server.

Each takes the index of one bucket and makes the names of the other keys from it; all have the bucket's hash tag. What
they have in common is in the prelude.

Time is the server's: the lives of entries, and generations.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from string import Template
from typing import Final

from aicache.stores._redis_layout import NO_SHELF, OFFSETS
from aicache.stores._redis_prelude import (
    COMMON,
    COUNTING,
    HASHES,
    HEADS,
    READING,
    SELECTS,
    STRINGS,
    WITH_SETS,
    WITHOUT_SETS,
)
from aicache.stores._redis_walks import AUDIT, CLEAR, DUE, LIST, LOOKS, SIMILAR, SIZE, SWEEP

__all__ = ["AS_HASHES", "AS_STRINGS", "AS_STRINGS_WITH_SETS", "EFFORT", "EPOCH_DAYS", "Script", "Scripts", "script"]

EPOCH_DAYS: Final = 7
"""How long a program's own count of changes is kept; when it goes, that program forgets its L1 once for nothing."""

EFFORT: Final = 64
"""Nodes of the graph that VADD and VSIM keep in view (`EF`).

With 25,000 vectors of real questions (384 numbers): VADD 1.6 ms where the server's default takes 4.1, VSIM for 26 a
quarter to a half less; the nearest one is found as surely (300 of 300), of the ten nearest 99.2 % for 99.8.
"""

_COMPARED: Final = 300
"""Up to so many vectors of a shelf are all compared: it takes no longer than the graph, and finds all."""

# KEYS: index, entry, [the two epoch keys]. ARGV: name, shelf, expires, the value's parts... , grace.
_WRITE: Final = """
local index, key, base = KEYS[1], KEYS[2], base_of(KEYS[1])
begin_taking(key)
local time = redis.call('TIME')
local g = generation(index) or begin_generation(index, time)
local old, replaced = head(key), 0
if old then
  if shelf_of(old) ~= ARGV[2] then
    drop_vector(base, shelf_of(old), ARGV[1])
    redis.call('ZREM', index, ARGV[1] .. shelf_of(old))
  end
  -- Nobody serves an expired entry, so nobody needs to hear that it is replaced.
  if is_alive(old, g) and struct.unpack('<d', old:sub($EXPIRES)) > time[1] + time[2] / 1000000 then replaced = 1 end
  leave(base, old, ARGV[1])
end
put(key)
set_generation(key, g)
limit_life(key, ARGV[3], tonumber(ARGV[#ARGV]))
redis.call('ZADD', index, ARGV[3], ARGV[1] .. ARGV[2])
if ARGV[4]:byte(1) == $CLUSTERED then enter(base, key, ARGV[1]) end
if replaced == 1 then announce(KEYS[3], KEYS[4]) end
return replaced
"""

# KEYS: index. ARGV: members whose entry may be gone, or be another by now.
_REAP: Final = """
local index, base = KEYS[1], base_of(KEYS[1])
local g, dropped = generation(index), 0
for _, member in ipairs(ARGV) do
  local h = head(base .. 'e:' .. name_in(member))
  if not is_alive(h, g) or shelf_of(h) ~= shelf_in(member) then
    drop(index, member, g)
    dropped = dropped + 1
  end
end
if dropped > 0 then tidy(index) end
return dropped
"""

# KEYS: index, vectors, [epoch keys]. ARGV: vector, k, the asker's name or '', the floor as a score of the server's.
# Returns k entries or more: those whose rounded score is so near to that of the k-th that their true score may be
# higher (0.001 is 0.002 of a cosine, four sigmas of Q8), up to 16. Fewer where the rest is below the floor and cannot
# be the nearest.
#
# A vector whose entry is gone, or is never to be near for the asker, does not take the place of another: as long as
# there are too few of the others, the search is repeated for more.
_NEAREST: Final = """
local base, want, floor = base_of(KEYS[1]), tonumber(ARGV[2]), tonumber(ARGV[4])
local g = redis.call('GET', base .. 'g')
local found, dead, seen, alive, bar, count, done = {}, {}, {}, 0, 0, want + 16, false
if ARGV[3] ~= '' then
  for _, name in ipairs(redis.call('SMEMBERS', base .. 'x:' .. ARGV[3])) do
    seen[name] = true
    count = count + 1
  end
end
local shelf = KEYS[2]:sub(#base + 3)
local all = redis.call('VCARD', KEYS[2]) <= $COMPARED
while true do
  local names
  if all then
    names = redis.call('VSIM', KEYS[2], 'FP32', ARGV[1], 'WITHSCORES', 'COUNT', count, 'TRUTH')
  else
    names = redis.call('VSIM', KEYS[2], 'FP32', ARGV[1], 'WITHSCORES', 'COUNT', count, 'EF', math.max($EFFORT, count))
  end
  for i = 1, #names, 2 do
    local name, score = names[i], tonumber(names[i + 1])
    if alive >= want + 16 or score < bar then
      done = true
      break
    end
    if not seen[name] then
      seen[name] = true
      local value = redis.pcall('GET', base .. 'e:' .. name)
      if type(value) == 'string' and is_alive(value, g) and shelf_of(value) == shelf then
        alive = alive + 1
        found[2 * alive - 1] = name
        found[2 * alive] = value
        if alive == 1 then bar = math.min(floor, score - 0.001) end
        if alive == want then bar = math.max(bar, score - 0.001) end
      else
        dead[#dead + 1] = name
      end
    end
  end
  if done or alive >= want or #names < 2 * count or count >= 32 * want + 512 then break end
  count = count * 2
end
local values = {}
for i = 2, 2 * alive, 2 do values[i / 2] = found[i] end
-- `false`, for a nil would end the list.
local epoch, own = KEYS[3] and redis.call('GET', KEYS[3]) or false, KEYS[4] and redis.call('GET', KEYS[4]) or false
return {g, epoch, own, found, dead, cluster_sizes(base, values)}
"""

# KEYS: generation, [epoch keys], [the blocked entries of the asker]. ARGV: how many epoch keys, the words of FT.SEARCH.
# What it finds, generation and epoch, who is blocked, and the sizes of the clusters.
_SEARCHED: Final = """
local found = redis.pcall('FT.SEARCH', unpack(ARGV, 2))
if found.err then return found end
local numbers, blocked, heads = {}, {}, {}
for i = 1, 1 + ARGV[1] do numbers[i] = redis.call('GET', KEYS[i]) end
if KEYS[2 + ARGV[1]] then blocked = redis.call('SMEMBERS', KEYS[2 + ARGV[1]]) end
for i = 3, #found, 2 do
  local h = ''
  for j = 1, found[i] and #found[i] or 0, 2 do
    if found[i][j] == 'h' then h = found[i][j + 1] end
  end
  heads[#heads + 1] = h
end
return {found, numbers, blocked, cluster_sizes(KEYS[1]:sub(1, -2), heads)}
"""

# KEYS: generation. ARGV: names. The sizes of the clusters of these entries.
_COUNTS: Final = """
local base, heads = KEYS[1]:sub(1, -2), {}
for i, name in ipairs(ARGV) do heads[i] = head(base .. 'e:' .. name) or '' end
return cluster_sizes(base, heads)
"""

# KEYS: index, entry. ARGV: name, the field, expires, grace.
_TOUCH: Final = """
local h = head(KEYS[2])
if not is_alive(h, generation(KEYS[1])) then return 0 end
set_expiry(KEYS[2], ARGV[2])
limit_life(KEYS[2], ARGV[3], tonumber(ARGV[4]))
redis.call('ZADD', KEYS[1], 'XX', ARGV[3], ARGV[1] .. shelf_of(h))
enter(base_of(KEYS[1]), KEYS[2], ARGV[1])
return 1
"""

# KEYS: index, entry. ARGV: name, the field of the cluster.
_JOIN: Final = """
local base, h = base_of(KEYS[1]), head(KEYS[2])
if not is_alive(h, generation(KEYS[1])) then return 0 end
leave(base, h, ARGV[1])
set_cluster(KEYS[2], h, ARGV[2])
enter(base, KEYS[2], ARGV[1])
return 1
"""

# KEYS: index, [epoch keys]. ARGV: 1 to only count, names. An entry that cannot be read was one all the same. Announced
# whatever is found: what the server has evicted may be in another program's L1 still.
_REMOVE: Final = """
local index, base, dry = KEYS[1], base_of(KEYS[1]), ARGV[1] == '1'
local g, removed
if dry then g = generation_in(index) else g = generation(index) end
removed = 0
for i = 2, #ARGV do
  local name = ARGV[i]
  local key = base .. 'e:' .. name
  local h = head(key)
  if dry then
    if h and is_alive(h, g) or not h and redis.call('EXISTS', key) == 1 then removed = removed + 1 end
  elseif h then
    if drop(index, name .. shelf_of(h), g) then removed = removed + 1 end
  else
    removed = removed + redis.call('UNLINK', key)
  end
end
if not dry then
  tidy(index)
  announce(KEYS[2], KEYS[3])
end
return removed
"""

# KEYS: the epoch keys.
_ANNOUNCE: Final = "announce(KEYS[1], KEYS[2])"

# KEYS: the blocked entries of an asker. ARGV: an entry's name.
_BLOCK: Final = """
begin_freeing(KEYS[1])
return redis.call('SADD', KEYS[1], ARGV[1])
"""

# KEYS: the epoch key of all. From then on FLUSHALL changes the epoch too.
_BEGIN: Final = "begin_count(KEYS[1])"


@dataclass(frozen=True, slots=True)
class Script:
    """A script, and the name a server that has seen it knows it by."""

    source: str
    sha: str


@dataclass(frozen=True, slots=True)
class Scripts:
    """All scripts in the form for one way of holding entries."""

    write: Script
    reap: Script
    nearest: Script
    searched: Script
    counts: Script
    touch: Script
    join: Script
    remove: Script
    due: Script
    sweep: Script
    audit: Script
    clear: Script
    similar: Script
    list: Script
    size: Script
    block: Script
    announce: Script
    begin: Script


def script(source: str) -> Script:
    """The script with this source."""
    return Script(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


def _scripts(prelude: str) -> Scripts:
    def make(body: str, before: str = HEADS + prelude + READING + COUNTING + COMMON) -> Script:
        numbers = {
            "EPOCH_SECONDS": EPOCH_DAYS * 86_400,
            "EFFORT": EFFORT,
            "COMPARED": _COMPARED,
            "LOOKS": LOOKS,
        }
        fields = OFFSETS | {"NO_SHELF": NO_SHELF} | {name: str(number) for name, number in numbers.items()}
        return script(Template(before + body).substitute(fields))

    return Scripts(
        write=make(_WRITE),
        reap=make(_REAP),
        # Each function of the prelude is made anew at every call: 10 us for all, of the 190 of a search.
        nearest=make(_NEAREST, READING + COUNTING),
        searched=make(_SEARCHED, COUNTING),
        counts=make(_COUNTS, HEADS + prelude + COUNTING),
        touch=make(_TOUCH),
        join=make(_JOIN),
        remove=make(_REMOVE),
        due=make(DUE),
        sweep=make(SWEEP),
        audit=make(AUDIT),
        clear=make(SELECTS + CLEAR),
        similar=make(SELECTS + SIMILAR),
        list=make(SELECTS + LIST),
        size=make(SIZE),
        block=make(_BLOCK),
        announce=make(_ANNOUNCE),
        begin=make(_BEGIN),
    )


AS_STRINGS: Final = _scripts(STRINGS + WITHOUT_SETS)
"""Entries in strings, vectors nowhere but in them."""
AS_STRINGS_WITH_SETS: Final = _scripts(STRINGS + WITH_SETS)
"""Entries in strings, vectors in vector sets as well."""
AS_HASHES: Final = _scripts(HASHES + WITHOUT_SETS)
"""Entries in hashes, which RediSearch indexes."""

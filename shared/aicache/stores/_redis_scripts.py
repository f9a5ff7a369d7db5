"""The Lua scripts of the Redis store: what must happen at once, on the server.

Each takes the index of one bucket and makes the names of the other keys from it; all have the bucket's hash tag. What
differs between the dialects is in the prelude: how an entry's bytes are held, and how a vector is dropped.

Time is the server's: the lives of entries, and generations.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from string import Template
from typing import Final

from aicache.stores._redis_layout import NO_SHELF, OFFSETS

__all__ = ["AS_HASHES", "AS_STRINGS", "AS_STRINGS_WITH_SETS", "EPOCH_DAYS", "Script", "Scripts"]

EPOCH_DAYS: Final = 7
"""How long a program's own count of changes is kept; when it goes, that program forgets its L1 once for nothing."""

_STRINGS: Final = """
local function head(key)
  local h = redis.pcall('GETRANGE', key, 0, $HEAD - 1)
  if type(h) == 'string' and #h == $HEAD and h:byte(1) == $FORMAT then return h end
end
local function tags_of(key, h)
  return redis.call('GETRANGE', key, $HEAD, $HEAD + 8 * struct.unpack('<H', h:sub($TAGS)) - 1)
end
local function put(key)
  redis.call('SET', key, ARGV[4])
end
local function set_generation(key, g)
  redis.call('SETRANGE', key, $GENERATION_AT, g)
end
local function set_expiry(key, field)
  redis.call('SETRANGE', key, $EXPIRES_AT, field)
end
local function bytes_of(key)
  local n = redis.pcall('STRLEN', key)
  return type(n) == 'number' and n or 0
end
"""

_HASHES: Final = """
local function whole_head(key)
  local h = redis.pcall('HGET', key, 'h')
  if type(h) == 'string' and #h >= $HEAD and h:byte(1) == $FORMAT then return h end
end
local function head(key)
  local h = whole_head(key)
  return h and h:sub(1, $HEAD)
end
local function tags_of(key, h)
  return whole_head(key):sub($HEAD + 1)
end
local function put(key)
  redis.call('DEL', key)
  redis.call('HSET', key, 'h', ARGV[4], 'b', ARGV[5])
  if ARGV[6] ~= '' then
    redis.call('HSET', key, 's', ARGV[2], ARGV[6], ARGV[7])
  end
end
local function set_generation(key, g)
  local h = whole_head(key)
  redis.call('HSET', key, 'h', h:sub(1, $GENERATION_AT) .. g .. h:sub($GENERATION_AT + 9))
end
local function set_expiry(key, field)
  local h = whole_head(key)
  redis.call('HSET', key, 'h', h:sub(1, $EXPIRES_AT) .. field .. h:sub($AFTER_EXPIRY))
end
local function bytes_of(key)
  local n = 0
  for _, part in ipairs(redis.pcall('HVALS', key)) do n = n + #part end
  return n
end
"""

_WITHOUT_SETS: Final = """
local function drop_vector(base, shelf, name) end
local function drop_shelf(base, shelf) end
"""

# `pcall`: a key of another type under that name must not keep an entry from being removed.
_WITH_SETS: Final = """
local function drop_vector(base, shelf, name)
  if shelf ~= '$NO_SHELF' then redis.pcall('VREM', base .. 'v:' .. shelf, name) end
end
local function drop_shelf(base, shelf)
  if shelf ~= '$NO_SHELF' then redis.call('UNLINK', base .. 'v:' .. shelf) end
end
"""

_COMMON: Final = """
local function base_of(index) return index:sub(1, -2) end
local function shelf_of(h) return h:sub($SHELF) end
local function name_in(member) return member:sub(1, 64) end
local function shelf_in(member) return member:sub(65) end

-- The generation of a bucket, or nil: it is in the index, and repeated in a key of its own.
local function generation(index)
  local score = redis.call('ZSCORE', index, 'g')
  local copy = base_of(index) .. 'g'
  if not score then
    -- There is no index, or it was evicted: what is left of its entries is not to be served.
    redis.call('DEL', copy)
    return nil
  end
  local g = struct.pack('<d', tonumber(score))
  if redis.call('GET', copy) ~= g then redis.call('SET', copy, g) end
  return g
end
local function begin_generation(index, time)
  redis.call('ZADD', index, string.format('%.0f', time[1] * 1000000 + time[2]), 'g')
  return generation(index)
end
local function is_alive(h, g) return h and g and h:sub($GENERATION) == g end

-- Redis drops an entry by itself some time after it expired; the limit is a hundred years.
local function limit_life(key, expires, grace)
  if expires == 'inf' then
    redis.call('PERSIST', key)
  else
    local time = redis.call('TIME')
    local left = tonumber(expires) * 1000 - (time[1] * 1000 + time[2] / 1000)
    redis.call('PEXPIRE', key, string.format('%.0f', math.min(math.max(left, 0) + grace, 3.1536e12)))
  end
end

-- The count of changes starts at the time and not at 0: if it is lost, no number comes twice.
local function begin_count(all)
  if redis.call('EXISTS', all) == 0 then
    local time = redis.call('TIME')
    redis.call('SET', all, string.format('%.0f', time[1] * 1000000 + time[2]))
  end
end
local function announce(all, own)
  if all then
    begin_count(all)
    redis.call('INCR', all)
    redis.call('INCR', own)
    redis.call('EXPIRE', own, $EPOCH_SECONDS)
  end
end

local function tidy(index)
  if redis.call('ZCARD', index) <= 1 then redis.call('DEL', index, base_of(index) .. 'g') end
end

-- Whether the member stood for an entry that is to be served. Drops the member, its vector and, if it is the member's
-- own, the entry.
local function drop(index, member, g)
  local base, name, shelf = base_of(index), name_in(member), shelf_in(member)
  local key = base .. 'e:' .. name
  local h = head(key)
  local served = false
  if not h or shelf_of(h) == shelf then
    served = redis.call('UNLINK', key) == 1 and is_alive(h, g)
  end
  drop_vector(base, shelf, name)
  redis.call('ZREM', index, member)
  return served
end
"""

# KEYS: index, entry, [the two epoch keys]. ARGV: name, shelf, expires, the value's parts... , grace.
_WRITE: Final = """
local index, key, base = KEYS[1], KEYS[2], base_of(KEYS[1])
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
end
put(key)
set_generation(key, g)
limit_life(key, ARGV[3], tonumber(ARGV[#ARGV]))
redis.call('ZADD', index, ARGV[3], ARGV[1] .. ARGV[2])
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

# KEYS: index, vectors, [epoch keys]. ARGV: vector, k. Returns k entries or more: those whose rounded score is so near
# to that of the k-th that their true score may be higher (0.001 is 0.002 of a cosine, four sigmas of Q8), up to 16.
#
# A vector whose entry is gone does not take the place of one that is there: as long as some are found dead, the search
# is repeated for more. Up to a thousand vectors are all compared: it takes no longer than the graph, and finds all.
_NEAREST: Final = """
local base, want = base_of(KEYS[1]), tonumber(ARGV[2])
local g = redis.call('GET', base .. 'g')
local found, dead, seen, alive, bar, count = {}, {}, {}, 0, 0, want + 16
local shelf = KEYS[2]:sub(#base + 3)
local exact = redis.call('VCARD', KEYS[2]) <= 1000
while true do
  local names
  if exact then
    names = redis.call('VSIM', KEYS[2], 'FP32', ARGV[1], 'WITHSCORES', 'COUNT', count, 'TRUTH')
  else
    names = redis.call('VSIM', KEYS[2], 'FP32', ARGV[1], 'WITHSCORES', 'COUNT', count)
  end
  for i = 1, #names, 2 do
    local name, score = names[i], tonumber(names[i + 1])
    if alive >= want + 16 or score < bar then break end
    if not seen[name] then
      seen[name] = true
      local value = redis.pcall('GET', base .. 'e:' .. name)
      if type(value) == 'string' and is_alive(value, g) and shelf_of(value) == shelf then
        alive = alive + 1
        found[2 * alive - 1] = name
        found[2 * alive] = value
        if alive == want then bar = score - 0.001 end
      else
        dead[#dead + 1] = name
      end
    end
  end
  if alive >= want or #names < 2 * count or count >= 32 * want + 512 then break end
  count = count * 2
end
-- `false`, for a nil would end the list.
local all, own = KEYS[3] and redis.call('GET', KEYS[3]) or false, KEYS[4] and redis.call('GET', KEYS[4]) or false
return {g, all, own, found, dead}
"""

# KEYS: index, entry. ARGV: name, the field, expires, grace.
_TOUCH: Final = """
local h = head(KEYS[2])
if not is_alive(h, generation(KEYS[1])) then return 0 end
set_expiry(KEYS[2], ARGV[2])
limit_life(KEYS[2], ARGV[3], tonumber(ARGV[4]))
redis.call('ZADD', KEYS[1], 'XX', ARGV[3], ARGV[1] .. shelf_of(h))
return 1
"""

# KEYS: index, [epoch keys]. ARGV: names. An entry that cannot be read was one all the same.
_REMOVE: Final = """
local index, base = KEYS[1], base_of(KEYS[1])
local g, removed = generation(index), 0
for _, name in ipairs(ARGV) do
  local key = base .. 'e:' .. name
  local h = head(key)
  if h then
    if drop(index, name .. shelf_of(h), g) then removed = removed + 1 end
  else
    removed = removed + redis.call('UNLINK', key)
  end
end
tidy(index)
if removed > 0 then announce(KEYS[2], KEYS[3]) end
return removed
"""

# KEYS: indexes. ARGV: now. How many of each have expired.
_DUE: Final = """
local due = {}
for i, index in ipairs(KEYS) do due[i] = redis.call('ZCOUNT', index, '-inf', ARGV[1]) end
return due
"""

# KEYS: index. ARGV: now, limit.
_SWEEP: Final = """
local index = KEYS[1]
local g, removed = generation(index), 0
for _, member in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])) do
  if member ~= 'g' and drop(index, member, g) then removed = removed + 1 end
end
tidy(index)
return removed
"""

# KEYS: index. ARGV: cursor, count. Drops what stands for entries that are gone: evicted, or dropped by their own TTL.
_AUDIT: Final = """
local index = KEYS[1]
local base, g = base_of(index), generation(index)
local reply, dropped = redis.call('ZSCAN', index, ARGV[1], 'COUNT', ARGV[2]), 0
for i = 1, #reply[2], 2 do
  local member = reply[2][i]
  if member ~= 'g' then
    local h = head(base .. 'e:' .. name_in(member))
    if not is_alive(h, g) or shelf_of(h) ~= shelf_in(member) then
      drop(index, member, g)
      dropped = dropped + 1
    end
  end
end
if dropped > 0 then tidy(index) end
return {dropped, tonumber(reply[1])}
"""

# KEYS: index. ARGV: cursor, count, namespace, tenant, model, tag; an empty one selects all. Without a tag a partition
# goes whole, and its vectors with one command: dropping them one by one takes 0.2 ms each.
_CLEAR: Final = """
local index = KEYS[1]
local base, g = base_of(index), generation(index)
local function selects(key, h)
  if ARGV[3] ~= '' and h:sub($NAMESPACE) ~= ARGV[3] then return false end
  if ARGV[4] ~= '' and h:sub($TENANT) ~= ARGV[4] then return false end
  if ARGV[5] ~= '' and h:sub($MODEL) ~= ARGV[5] then return false end
  if ARGV[6] == '' then return true end
  local tags = tags_of(key, h)
  for i = 1, #tags, 8 do
    if tags:sub(i, i + 7) == ARGV[6] then return true end
  end
  return false
end
local reply, removed = redis.call('ZSCAN', index, ARGV[1], 'COUNT', ARGV[2]), 0
for i = 1, #reply[2], 2 do
  local member = reply[2][i]
  if member ~= 'g' then
    local key = base .. 'e:' .. name_in(member)
    local h = head(key)
    if not is_alive(h, g) or shelf_of(h) ~= shelf_in(member) then
      drop(index, member, g)
    elseif selects(key, h) then
      if ARGV[6] == '' then drop_shelf(base, shelf_in(member)) end
      if drop(index, member, g) then removed = removed + 1 end
    end
  end
end
tidy(index)
return {removed, tonumber(reply[1])}
"""

# KEYS: indexes. ARGV: entries of each to weigh. Entries, and their bytes by the mean of those weighed.
_SIZE: Final = """
local entries, bytes = 0, 0
for _, index in ipairs(KEYS) do
  local held = math.max(redis.call('ZCARD', index) - 1, 0)
  if held > 0 then
    local weighed, weight = 0, 0
    for _, member in ipairs(redis.call('ZRANDMEMBER', index, ARGV[1])) do
      if member ~= 'g' then
        weighed = weighed + 1
        weight = weight + bytes_of(base_of(index) .. 'e:' .. name_in(member))
      end
    end
    entries = entries + held
    if weighed > 0 then bytes = bytes + weight * held / weighed end
  end
end
return {entries, math.floor(bytes)}
"""

# KEYS: the epoch keys.
_ANNOUNCE: Final = "announce(KEYS[1], KEYS[2])"

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
    touch: Script
    remove: Script
    due: Script
    sweep: Script
    audit: Script
    clear: Script
    size: Script
    announce: Script
    begin: Script


def _scripts(prelude: str) -> Scripts:
    def make(body: str) -> Script:
        fields = OFFSETS | {"NO_SHELF": NO_SHELF, "EPOCH_SECONDS": str(EPOCH_DAYS * 86_400)}
        source = Template(prelude + _COMMON + body).substitute(fields)
        return Script(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())

    return Scripts(
        write=make(_WRITE),
        reap=make(_REAP),
        nearest=make(_NEAREST),
        touch=make(_TOUCH),
        remove=make(_REMOVE),
        due=make(_DUE),
        sweep=make(_SWEEP),
        audit=make(_AUDIT),
        clear=make(_CLEAR),
        size=make(_SIZE),
        announce=make(_ANNOUNCE),
        begin=make(_BEGIN),
    )


AS_STRINGS: Final = _scripts(_STRINGS + _WITHOUT_SETS)
"""Entries in strings, vectors nowhere but in them."""
AS_STRINGS_WITH_SETS: Final = _scripts(_STRINGS + _WITH_SETS)
"""Entries in strings, vectors in vector sets as well."""
AS_HASHES: Final = _scripts(_HASHES + _WITHOUT_SETS)
"""Entries in hashes, which RediSearch indexes."""

"""What the Lua scripts of the Redis store have in common: functions on the keys of one bucket.

What differs between the dialects comes first: how an entry's bytes are held, and how a vector is dropped. `$NAME`
stands for a position in the head of a value (`_redis_layout.OFFSETS`).
"""

from __future__ import annotations

from typing import Final

__all__ = ["COMMON", "COUNTING", "HASHES", "HEADS", "READING", "SELECTS", "STRINGS", "WITHOUT_SETS", "WITH_SETS"]

HEADS: Final = """
local function head_bytes(h) return h:byte(1) == $CLUSTERED and $LONG_HEAD or $HEAD end
local function is_head(h)
  if type(h) ~= 'string' then return false end
  return h:byte(1) == $FORMAT and #h >= $HEAD or h:byte(1) == $CLUSTERED and #h >= $LONG_HEAD
end
local function with_cluster(h, field)
  return string.char($CLUSTERED) .. h:sub(2, $HEAD) .. field .. h:sub(head_bytes(h) + 1)
end
"""

STRINGS: Final = """
local function head(key)
  local h = redis.pcall('GETRANGE', key, 0, $LONG_HEAD - 1)
  if is_head(h) then return h end
end
local function tags_of(key, h)
  local from = head_bytes(h)
  return redis.call('GETRANGE', key, from, from + 8 * struct.unpack('<H', h:sub($TAGS)) - 1)
end
local function vector_of(key, h)
  local from = head_bytes(h) + 8 * struct.unpack('<H', h:sub($TAGS))
  return redis.call('GETRANGE', key, from, from + struct.unpack('<I4', h:sub($VECTOR)) - 1)
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
local function set_cluster(key, h, field)
  if h:byte(1) == $CLUSTERED then
    redis.call('SETRANGE', key, $HEAD, field)
  else
    redis.call('SET', key, with_cluster(redis.call('GET', key), field), 'KEEPTTL')
  end
end
local function bytes_of(key)
  local n = redis.pcall('STRLEN', key)
  return type(n) == 'number' and n or 0
end
"""

HASHES: Final = """
local function whole_head(key)
  local h = redis.pcall('HGET', key, 'h')
  if is_head(h) then return h end
end
local function head(key)
  local h = whole_head(key)
  return h and h:sub(1, head_bytes(h))
end
local function tags_of(key, h)
  return whole_head(key):sub(head_bytes(h) + 1)
end
local function vector_of(key, h)
  return redis.call('HGET', key, 'v' .. struct.unpack('<I4', h:sub($VECTOR)) / 4) or ''
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
local function set_cluster(key, h, field)
  redis.call('HSET', key, 'h', with_cluster(whole_head(key), field))
end
local function bytes_of(key)
  local n = 0
  for _, part in ipairs(redis.pcall('HVALS', key)) do n = n + #part end
  return n
end
"""

WITHOUT_SETS: Final = """
local function drop_vector(base, shelf, name) end
local function drop_shelf(base, shelf) end
local function drop_shelves(base) end
local function shelves_sample(base) return {} end
"""

# `pcall`: a key of another type under that name must not keep an entry from being removed.
WITH_SETS: Final = """
local function drop_vector(base, shelf, name)
  if shelf ~= '$NO_SHELF' then redis.pcall('VREM', base .. 'v:' .. shelf, name) end
end
local function drop_shelf(base, shelf)
  if shelf ~= '$NO_SHELF' then
    redis.call('UNLINK', base .. 'v:' .. shelf)
    redis.pcall('SREM', base .. 's', shelf)
  end
end
local function drop_shelves(base)
  for _, shelf in ipairs(redis.pcall('SMEMBERS', base .. 's')) do redis.call('UNLINK', base .. 'v:' .. shelf) end
  redis.call('UNLINK', base .. 's')
end
-- Some names of some shelves: a vector whose entry never came, or whose index was evicted, is in no index.
local function shelves_sample(base)
  local sample = {}
  for _, shelf in ipairs(redis.pcall('SRANDMEMBER', base .. 's', 8)) do
    local names = redis.pcall('VRANDMEMBER', base .. 'v:' .. shelf, 16)
    if type(names) ~= 'table' or (#names == 0 and not names.err) then redis.pcall('SREM', base .. 's', shelf)
    else sample[shelf] = names end
  end
  return sample
end
"""

READING: Final = """
local function base_of(index) return index:sub(1, -2) end
local function shelf_of(h) return h:sub($SHELF) end
local function is_alive(h, g) return h and g and h:sub($GENERATION) == g end
"""

COUNTING: Final = """
-- The name of an entry's cluster, or nil. With the generation, so that entries whose index was evicted do not count.
local function cluster_of(base, h)
  if h:byte(1) == $CLUSTERED then
    return base .. 'c:' .. redis.sha1hex(h:sub($GENERATION) .. h:sub($PARTITION) .. h:sub($CLUSTER))
  end
end
-- How many entries there are in the cluster of each of these, 1 where it has none; an empty list if none has one.
-- `pcall`: a key of another type under such a name must not cost an answer.
local function cluster_sizes(base, heads)
  local sizes, known, now = {}, {}, nil
  for i, h in ipairs(heads) do
    local cluster = cluster_of(base, h)
    if cluster and not known[cluster] then
      if not now then
        local time = redis.call('TIME')
        now = string.format('%.3f', time[1] + time[2] / 1000000)
      end
      local n = redis.pcall('ZCOUNT', cluster, now, '+inf')
      known[cluster] = type(n) == 'number' and n or 1
    end
    sizes[i] = cluster and known[cluster] or 1
  end
  return now and sizes or {}
end
"""

COMMON: Final = """
local function name_in(member) return member:sub(1, 64) end
local function shelf_in(member) return member:sub(65) end

-- The generation of a bucket, or false: it is in the index, and repeated in a key of its own.
local function generation_in(index)
  local score = redis.call('ZSCORE', index, 'g')
  return score and struct.pack('<d', tonumber(score))
end
local function generation(index)
  local g, copy = generation_in(index), base_of(index) .. 'g'
  if not g then
    -- There is no index, or it was evicted: what is left of its entries is not to be served.
    redis.call('DEL', copy)
  elseif redis.call('GET', copy) ~= g then
    redis.call('SET', copy, g)
  end
  return g
end
local function begin_generation(index, time)
  redis.call('ZADD', index, string.format('%.0f', time[1] * 1000000 + time[2]), 'g')
  return generation(index)
end

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

-- What an entry's cluster knows of it: that it is there, and until when. The cluster itself goes with the last one.
-- `pcall`, here and below: whatever is wrong with a count must not cost an answer.
local function enter(base, key, name)
  local cluster = cluster_of(base, head(key))
  if not cluster then return end
  local time, left, last = redis.call('TIME'), redis.call('PTTL', key), 'inf'
  local now = time[1] + time[2] / 1000000
  if left >= 0 then last = string.format('%.3f', now + left / 1000) end
  redis.pcall('ZREMRANGEBYSCORE', cluster, '-inf', string.format('(%.3f', now))
  redis.pcall('ZADD', cluster, last, name)
  last = redis.pcall('ZREVRANGE', cluster, 0, 0, 'WITHSCORES')[2]
  if last == 'inf' then
    redis.call('PERSIST', cluster)
  elseif last then
    redis.call('PEXPIREAT', cluster, string.format('%.0f', tonumber(last) * 1000 + 1))
  end
end
local function leave(base, h, name)
  local cluster = cluster_of(base, h)
  if cluster then redis.pcall('ZREM', cluster, name) end
end

-- The count of changes starts at the time and not at 0: if it is lost, no number comes twice.
local function begin_count(all)
  if redis.call('EXISTS', all) == 0 then
    local time = redis.call('TIME')
    redis.call('SET', all, string.format('%.0f', time[1] * 1000000 + time[2]))
  end
end
-- A server without memory (noeviction) refuses a script that begins by taking some, and allows it all once it has
-- freed some, if only in name: what it must not refuse is the news that entries are gone.
local function begin_freeing(key)
  redis.call('UNLINK', key .. ':nothing')
end
-- The other way round: a script that begins by freeing something would be refused nothing. This writes nothing.
local function begin_taking(key)
  redis.call('SETRANGE', key .. ':nothing', 0, '')
end
local function announce(all, own)
  if all then
    begin_freeing(all)
    begin_count(all)
    redis.call('INCR', all)
    redis.call('INCR', own)
    redis.call('EXPIRE', own, $EPOCH_SECONDS)
  end
end

local function tidy(index)
  if redis.call('ZCARD', index) <= 1 then
    redis.call('DEL', index, base_of(index) .. 'g')
    drop_shelves(base_of(index))
  end
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
    if h then leave(base, h, name) end
  end
  drop_vector(base, shelf, name)
  redis.call('ZREM', index, member)
  return served
end
"""

SELECTS: Final = """
-- Whether the entry agrees with ARGV 3 to 8: namespace, tenant, model, its name, the time it was written before, and
-- the tags it must carry, 8 bytes each. What is empty selects all.
local function selects(key, h)
  if ARGV[3] ~= '' and h:sub($NAMESPACE) ~= ARGV[3] then return false end
  if ARGV[4] ~= '' and h:sub($TENANT) ~= ARGV[4] then return false end
  if ARGV[5] ~= '' and h:sub($MODEL) ~= ARGV[5] then return false end
  if ARGV[6] ~= '' and h:sub($MODEL_NAME) ~= ARGV[6] then return false end
  if ARGV[7] ~= '' and not (struct.unpack('<d', h:sub($CREATED)) < struct.unpack('<d', ARGV[7])) then return false end
  if ARGV[8] == '' then return true end
  local carried, tags = {}, tags_of(key, h)
  for i = 1, #tags, 8 do carried[tags:sub(i, i + 7)] = true end
  for i = 1, #ARGV[8], 8 do
    if not carried[ARGV[8]:sub(i, i + 7)] then return false end
  end
  return true
end
"""

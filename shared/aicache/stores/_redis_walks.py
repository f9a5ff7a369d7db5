"""The Lua scripts of the Redis store that walk the index of a bucket: selections and upkeep."""

from __future__ import annotations

from typing import Final

__all__ = ["AUDIT", "CLEAR", "DUE", "LIST", "LOOKS", "SIMILAR", "SIZE", "SWEEP"]

LOOKS: Final = 1_000
"""Members of clusters that an audit looks at: 3 ms at most."""

# KEYS: indexes. ARGV: now. How many of each have expired.
DUE: Final = """
local due = {}
for i, index in ipairs(KEYS) do due[i] = redis.call('ZCOUNT', index, '-inf', ARGV[1]) end
return due
"""

# KEYS: index. ARGV: now, limit.
SWEEP: Final = """
local index = KEYS[1]
local g, removed = generation(index), 0
for _, member in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])) do
  if member ~= 'g' and drop(index, member, g) then removed = removed + 1 end
end
tidy(index)
return removed
"""

# KEYS: index. ARGV: cursor, count. Drops what stands for entries that are gone: evicted, or dropped by their own TTL.
# So that clusters count right again, who is missing enters, and evicted entries leave those of the others. Where these
# have too many members, some are looked at, each time others.
AUDIT: Final = """
local index = KEYS[1]
local base, g = base_of(index), generation(index)
local reply, dropped = redis.call('ZSCAN', index, ARGV[1], 'COUNT', ARGV[2]), 0
local clusters, looks = {}, $LOOKS
for i = 1, #reply[2], 2 do
  local member = reply[2][i]
  if member ~= 'g' then
    local h = head(base .. 'e:' .. name_in(member))
    if not is_alive(h, g) or shelf_of(h) ~= shelf_in(member) then
      drop(index, member, g)
      dropped = dropped + 1
    else
      local cluster = cluster_of(base, h)
      if cluster then
        if not redis.pcall('ZSCORE', cluster, name_in(member)) then
          enter(base, base .. 'e:' .. name_in(member), name_in(member))
        end
        if not clusters[cluster] then
          clusters[cluster] = true
          clusters[#clusters + 1] = cluster
        end
      end
    end
  end
end
local first = redis.call('TIME')[2]
for i = 1, #clusters do
  if looks <= 0 then break end
  local cluster = clusters[1 + (first + i) % #clusters]
  for _, name in ipairs(redis.pcall('ZRANDMEMBER', cluster, looks)) do
    local h = head(base .. 'e:' .. name)
    if not is_alive(h, g) or cluster_of(base, h) ~= cluster then redis.call('ZREM', cluster, name) end
    looks = looks - 1
  end
end
for shelf, names in pairs(shelves_sample(base)) do
  for _, name in ipairs(names) do
    local h = head(base .. 'e:' .. name)
    if not is_alive(h, g) or shelf_of(h) ~= shelf then
      drop_vector(base, shelf, name)
      dropped = dropped + 1
    end
  end
end
if dropped > 0 then tidy(index) end
return {dropped, tonumber(reply[1])}
"""

# KEYS: index. ARGV: cursor, count, the selection, 1 to only count. Where groups alone are selected, a partition goes
# whole, and its vectors with one command: dropping them one by one takes 0.2 ms each.
CLEAR: Final = """
local index, dry, whole = KEYS[1], ARGV[9] == '1', ARGV[7] == '' and ARGV[8] == ''
local base, g = base_of(index)
if dry then g = generation_in(index) else g = generation(index) end
local reply, removed = redis.call('ZSCAN', index, ARGV[1], 'COUNT', ARGV[2]), 0
for i = 1, #reply[2], 2 do
  local member = reply[2][i]
  if member ~= 'g' then
    local key = base .. 'e:' .. name_in(member)
    local h = head(key)
    if not is_alive(h, g) or shelf_of(h) ~= shelf_in(member) then
      if not dry then drop(index, member, g) end
    elseif selects(key, h) then
      if dry then
        removed = removed + 1
      else
        if whole then drop_shelf(base, shelf_in(member)) end
        if drop(index, member, g) then removed = removed + 1 end
      end
    end
  end
end
if not dry then tidy(index) end
return {removed, tonumber(reply[1])}
"""

# KEYS: index. ARGV: cursor, count, the selection, bytes of a vector. Names, heads and vectors of the selected entries
# with a vector of this length, and how long their values are.
SIMILAR: Final = """
local index = KEYS[1]
local base, g = base_of(index), generation_in(index)
local reply, found = redis.call('ZSCAN', index, ARGV[1], 'COUNT', ARGV[2]), {}
for i = 1, #reply[2], 2 do
  local member = reply[2][i]
  if member ~= 'g' and shelf_in(member) ~= '$NO_SHELF' then
    local key = base .. 'e:' .. name_in(member)
    local h = head(key)
    if is_alive(h, g) and struct.unpack('<I4', h:sub($VECTOR)) == tonumber(ARGV[9]) and selects(key, h) then
      found[#found + 1] = {name_in(member), h, vector_of(key, h), bytes_of(key)}
    end
  end
end
return {tonumber(reply[1]), found}
"""

# KEYS: index. ARGV: cursor, count, the selection. Names and heads of the selected entries, and their values' lengths.
LIST: Final = """
local index = KEYS[1]
local base, g = base_of(index), generation_in(index)
local reply, found = redis.call('ZSCAN', index, ARGV[1], 'COUNT', ARGV[2]), {}
for i = 1, #reply[2], 2 do
  local member = reply[2][i]
  if member ~= 'g' then
    local key = base .. 'e:' .. name_in(member)
    local h = head(key)
    if is_alive(h, g) and selects(key, h) then found[#found + 1] = {name_in(member), h, bytes_of(key)} end
  end
end
return {tonumber(reply[1]), found}
"""

# KEYS: indexes. ARGV: entries of each to weigh. Entries, and their bytes by the mean of those weighed.
SIZE: Final = """
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

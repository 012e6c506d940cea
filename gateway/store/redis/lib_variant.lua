-- The variants of a cache key are one value: each is a head of 28 bytes (the digest of what it varies
-- by: 16, fresh until: 8, length of the rest: 4) and the rest, newest first. The field '' of a group
-- counts the variants of all its keys.
local HEAD = 28

local function head(value, at)
  local vary, fresh_until, length = struct.unpack('>c16dI4', value, at)
  return vary, fresh_until, HEAD + length
end

local function count(value)
  local found, at = 0, 1
  while value and at <= #value do
    local _, _, length = head(value, at)
    found, at = found + 1, at + length
  end
  return found
end

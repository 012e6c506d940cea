-- Decides every quota of a request in one step; the arithmetic of core/window.py, number for number.
--
-- KEYS     a window each
-- ARGV     now (epoch microseconds; empty: the server's own clock), 1 to count or 0 to look only, and
--          five a window: limit, width of a bucket in microseconds, cost, 1 if it is a shadow, and
--          for how many milliseconds it is kept
-- returns  four a window: 1 if it admits, what remains, and in how many microseconds some quota comes
--          back and the request would be admitted
--
-- A window is a string: the latest and the oldest bucket (doubles: whole numbers up to 2^53), the
-- total, then 101 counts, all little-endian.
local BUCKETS, SLOTS, HEAD, CELL = 100, 101, '<ddI4', 4
local HEAD_SIZE = struct.size(HEAD)
local BLANK = string.rep('\0', CELL)
local EMPTY = string.rep(BLANK, SLOTS)

local function count_at(window, bucket)
    return (struct.unpack('<I4', window.ring, bucket % SLOTS * CELL + 1))
end

local function replace(window, slot, bytes)
    local from = slot * CELL
    window.ring = window.ring:sub(1, from) .. bytes .. window.ring:sub(from + #bytes + 1)
end

local function set(window, bucket, count)
    replace(window, bucket % SLOTS, struct.pack('<I4', count))
end

-- Zero `number` cells from a bucket on, around the end of the ring.
local function zero(window, bucket, number)
    local slot = bucket % SLOTS
    local first = math.min(number, SLOTS - slot)
    replace(window, slot, BLANK:rep(first))
    if number > first then
        replace(window, 0, BLANK:rep(number - first))
    end
end

local function load(key)
    local state = redis.call('GET', key)
    if not state then
        return {latest = 0, oldest = 0, total = 0, ring = EMPTY, is_new = true}
    end
    local latest, oldest, total = struct.unpack(HEAD, state)
    return {latest = latest, oldest = oldest, total = total, ring = state:sub(HEAD_SIZE + 1)}
end

-- The clock was set back: what was counted later counts as of now, and nothing is lost.
local function rewind(window, index)
    local carried = 0
    for later = math.max(index + 1, window.latest - BUCKETS), window.latest do
        carried = carried + count_at(window, later)
        set(window, later, 0)
    end
    set(window, index, count_at(window, index) + carried)
    window.oldest = math.min(window.oldest, index)
end

local function advance(window, index)
    local passed = index - window.latest
    if passed == 0 then
        return
    end
    if passed < 0 then
        rewind(window, index)
    elseif passed > BUCKETS or window.total == 0 then
        window.ring, window.total = EMPTY, 0
    else
        for bucket = window.latest + 1, index do
            window.total = window.total - count_at(window, bucket)
        end
        zero(window, window.latest + 1, passed)
    end
    window.latest, window.changed = index, true
end

local function add(window, cost)
    if window.total == 0 then
        window.oldest = window.latest
    end
    set(window, window.latest, count_at(window, window.latest) + cost)
    window.total, window.changed = window.total + cost, true
    window.is_new = false
end

local function frees_in(window, quota, now)
    if window.total == 0 then
        return 0
    end
    local last = math.max(window.oldest, window.latest - BUCKETS)
    while count_at(window, last) == 0 do
        last = last + 1
    end
    window.oldest = last
    local bucket, freed = last, count_at(window, last)
    while freed < quota and bucket < window.latest do
        bucket = bucket + 1
        local count = count_at(window, bucket)
        if count > 0 then
            last, freed = bucket, freed + count
        end
    end
    return math.max(0, (last + SLOTS) * window.width - now)
end

local now = tonumber(ARGV[1])
if not now then
    local time = redis.call('TIME')
    now = time[1] * 1000000 + time[2]
end
local counts = ARGV[2] == '1'

local windows, passes = {}, true
for i, key in ipairs(KEYS) do
    local window = load(key)
    local at = 5 * i - 2
    window.limit, window.width = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
    window.cost, window.shadow = tonumber(ARGV[at + 2]), ARGV[at + 3] == '1'
    -- Exact: the quotient of whole numbers below 2^52 is never rounded up to the next one.
    advance(window, math.floor(now / window.width))
    windows[i] = window
    if window.total + window.cost > window.limit and not window.shadow then
        passes = false
    end
end

local reply = {}
for i, window in ipairs(windows) do
    local excess = window.total + window.cost - window.limit
    local wait = 0
    if excess > 0 then
        wait = frees_in(window, excess, now)
    elseif counts and passes then
        add(window, window.cost)
    end
    reply[#reply + 1] = excess > 0 and 0 or 1
    reply[#reply + 1] = math.max(0, window.limit - window.total)
    reply[#reply + 1] = frees_in(window, 1, now)
    reply[#reply + 1] = wait
    if counts and window.changed and not window.is_new then
        local head = struct.pack(HEAD, window.latest, window.oldest, window.total)
        redis.call('SET', KEYS[i], head .. window.ring, 'PX', ARGV[5 * i + 2])
    end
end
return reply

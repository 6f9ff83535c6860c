-- One limit, in one key: GCRA (a leaky bucket kept as one time), reserving. All times in microseconds of Redis' clock,
-- because the clocks of the workers differ.
--
-- The key holds "tat silence last interval": the theoretical arrival time (when the bucket will be full again), the end
-- of a silence that the other side asked for, the time of the last grant, by which a reservation is recognised, and
-- the interval (in nanoseconds) that tat was counted with.
-- KEYS[1]; ARGV: command, then
--   acquire  interval burst tokens horizon -> {1, wait, grant} taken, wait that long; {0, wait, 0} nothing taken
--   give_back interval tokens grant        -> 1 given back, 0 somebody reserved after it
--   slow_down seconds*1e6                  -> 1
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local tat, silence, last, counted = 0, 0, 0, 0
local stored = redis.call('GET', KEYS[1])
if stored then
  local a, b, c, d = string.match(stored, '^(%d+) (%d+) (%d+) (%d+)$')
  tat, silence, last, counted = tonumber(a) or 0, tonumber(b) or 0, tonumber(c) or 0, tonumber(d) or 0
end

local function keep()
  local ends = math.max(tat, silence) - now
  -- A key that says nothing any more is no key: idle limits cost no memory. The minute covers a late give_back.
  redis.call('SET', KEYS[1], string.format('%.0f %.0f %.0f %.0f', tat, silence, last, counted),
    'PX', string.format('%.0f', math.max(0, ends) / 1000 + 60000))
end

local command = ARGV[1]
if command == 'acquire' then
  local interval, burst = tonumber(ARGV[2]), tonumber(ARGV[3])
  local tokens, horizon = tonumber(ARGV[4]), tonumber(ARGV[5])
  if interval == 0 then
    local wait = math.max(0, silence - now)
    return {wait <= horizon and 1 or 0, math.ceil(wait), 0}
  end
  if counted > 0 and tat > now then
    -- The rate was changed: what is owed stays the same number of tokens, paid at the new rate.
    tat = now + (tat - now) * (interval * 1000 / counted)
  end
  -- After a silence the bucket is empty: the first grant comes at its end, the next ones at the rate.
  local from = math.max(tat, now)
  if silence > 0 then
    from = math.max(from, silence + (burst - 1) * interval)
  end
  local taken = from + tokens * interval
  local grant = math.max(now, taken - burst * interval, silence)
  local wait = grant - now
  if wait > horizon then
    return {0, math.ceil(wait), 0}
  end
  tat, last, counted = math.ceil(taken), math.ceil(grant), math.max(1, math.floor(interval * 1000 + 0.5))
  if silence <= now then
    silence = 0
  end
  keep()
  return {1, math.ceil(wait), string.format('%.0f', last)}
end

if command == 'give_back' then
  -- Only the last reservation: behind an earlier one the others already stand, and a second grant at the time of the
  -- last would be one too many for a burst of 1.
  if not stored or last ~= tonumber(ARGV[4]) then
    return 0
  end
  tat, last = math.max(0, math.floor(tat - tonumber(ARGV[2]) * tonumber(ARGV[3]))), 0
  keep()
  return 1
end

if command == 'slow_down' then
  silence = math.max(silence, math.ceil(now + tonumber(ARGV[2])))
  keep()
  return 1
end

return redis.error_reply('unknown command ' .. tostring(command))

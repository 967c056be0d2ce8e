-- One budget in one window. window_state.py documents the rules; this only documents the Lua parts.
--
--   KEYS[1]  hash  the budget: limit, configured, alerts, id (of the ledger that created it),
--                  carries, and if that is 1 one field `b:START` per window with its balance
--   KEYS[2]  hash  the window: totals, and one field `l:LEASE` per lease; the key ends in the
--                  window's start
--   KEYS[3]  list  operators' changes, as JSON
--   ARGV[1]  the operation; the other arguments are its parameters
--
-- All three keys use the budget's name as their hash tag, so a cluster stores them together.
-- Amounts are decimal strings outside and doubles inside, kept below 2^53, where doubles are exact.
-- NaN compares false with everything, so each comparison that releases money is written such that
-- false means no.

local LEASE_S, SMALLEST_PART, KEEP_CLOSED_S, KEEP_ENDED_S, SHORT_S = 30, 200, 600, 3456000, 1
local SPENT_S = 60
local KEEP_BOOK_S = 3456000 -- a window expires after 40 days unused: longer than any month
local CARRY_WINDOWS = 60
local EXACT = 9007199254740991

local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000

local function amount(text)
  if not (text and string.match(text, '^%d+$') and #text <= 16 and tonumber(text) <= EXACT) then
    error('not an amount in nano-dollars')
  end
  return tonumber(text)
end

local function least(a, b) if a < b then return a end return b end
local function most(a, b) if a > b then return a end return b end
local function text(number)
  if number ~= number then error('not a number') end
  return string.format('%.0f', most(-EXACT, least(number, EXACT)))
end
local function whole(a, b) return (a - a % b) / b end

-- ---------------------------------------------------------------- reading and writing

local TOTALS = {'credit', 'spent', 'leased', 'open', 'unaccounted'}
local PARTS = {'seq', 'held', 'open', 'settled', 'charged', 'grant', 'overdrawn', 'stale'}

local meta, book, leases, dirty = {}, {}, {}, {}
local start = tonumber(string.match(KEYS[2], ':(-?%d+)$'))

local function pairs_of(key)
  local flat, found = redis.call('HGETALL', key), {}
  for at = 1, #flat, 2 do found[flat[at]] = flat[at + 1] end
  return found
end

local function unpack_lease(packed)
  local words = {}
  for word in string.gmatch(packed, '([^|]*)|') do words[#words + 1] = word end
  local lease = {state = words[1], expires = tonumber(words[2]), crossed = words[3]}
  for at, part in ipairs(PARTS) do lease[part] = tonumber(words[3 + at]) end
  return lease
end

local function pack_lease(lease)
  local words = {lease.state, string.format('%.6f', lease.expires), lease.crossed}
  for _, part in ipairs(PARTS) do words[#words + 1] = text(lease[part]) end
  return table.concat(words, '|') .. '|'
end

-- Unabsorbed overspending of earlier windows. Keeps only the last 2 * CARRY_WINDOWS balances.
local function carry()
  local starts, carried = {}, 0
  for field in pairs(meta) do
    local at = tonumber(string.match(field, '^b:(-?%d+)$'))
    if at and at < start then starts[#starts + 1] = at end
  end
  table.sort(starts)
  for at = 1, #starts - 2 * CARRY_WINDOWS do
    redis.call('HDEL', KEYS[1], 'b:' .. string.format('%.0f', starts[at]))
  end
  for at = most(1, #starts - CARRY_WINDOWS + 1), #starts do
    carried = most(0, carried + tonumber(meta['b:' .. string.format('%.0f', starts[at])]))
  end
  return carried
end

local function read()
  meta = pairs_of(KEYS[1])
  if not meta.limit then return false end
  local found = pairs_of(KEYS[2])
  for _, total in ipairs(TOTALS) do book[total] = tonumber(found[total] or '0') end
  book.raised, book.short_until = found.raised or '', tonumber(found.short_until or '0')
  for field, value in pairs(found) do
    if string.sub(field, 1, 2) == 'l:' then leases[string.sub(field, 3)] = unpack_lease(value) end
  end
  book.limit = least(tonumber(meta.limit) + book.credit, EXACT)
  book.carried = meta.carries == '1' and carry() or 0
  return true
end

local function write()
  local fields = {'raised', book.raised, 'short_until', string.format('%.6f', book.short_until)}
  for _, total in ipairs(TOTALS) do
    fields[#fields + 1] = total
    fields[#fields + 1] = text(book[total])
  end
  for name in pairs(dirty) do
    if leases[name] then
      fields[#fields + 1] = 'l:' .. name
      fields[#fields + 1] = pack_lease(leases[name])
    else
      redis.call('HDEL', KEYS[2], 'l:' .. name)
    end
  end
  redis.call('HSET', KEYS[2], unpack(fields))
  if start ~= 0 then redis.call('EXPIRE', KEYS[2], KEEP_BOOK_S) end
  if meta.carries == '1' then
    local balance = text(book.spent + book.leased - book.limit)
    redis.call('HSET', KEYS[1], 'b:' .. string.format('%.0f', start), balance)
  end
end

-- ---------------------------------------------------------------- the rules of window_state.py

local function balance() return book.carried + book.spent + book.leased - book.limit end
local function free() return most(0, -balance()) end

local function reopen(lease, open)
  book.open = book.open + open - lease.open
  lease.open = open
end

local function uncharge(lease, sum)
  lease.charged = lease.charged - sum
  book.unaccounted = book.unaccounted - sum
  book.spent = book.spent - sum
end

local function settle(lease, settled)
  local fresh = most(0, settled - lease.settled)
  lease.settled = lease.settled + fresh
  local covered = least(fresh, lease.held)
  lease.held = lease.held - covered
  book.leased = book.leased - covered
  local proven = least(fresh - covered, lease.charged)
  lease.charged = lease.charged - proven
  book.unaccounted = book.unaccounted - proven
  book.spent = book.spent + fresh - proven
end

local function take_back(lease, give)
  local back = least(give, lease.held)
  lease.held = lease.held - back
  book.leased = book.leased - back
  uncharge(lease, least(give - back, lease.charged))
end

local function finish(lease)
  book.leased = book.leased - lease.held
  book.spent = book.spent + lease.held
  book.unaccounted = book.unaccounted + lease.held
  lease.held, lease.charged, lease.state = 0, lease.held, 'ended'
  lease.expires = now + KEEP_ENDED_S
  reopen(lease, 0)
end

local function expire()
  for name, lease in pairs(leases) do
    if now >= lease.expires then
      if lease.state == 'live' then
        finish(lease)
        dirty[name] = true
      elseif lease.charged == 0 then
        leases[name] = nil
        dirty[name] = true
      end
    end
  end
end

local function relearn(lease, asked)
  book.spent = book.spent + most(0, asked.flushed - lease.settled)
  lease.settled = most(lease.settled, asked.flushed)
  book.leased = book.leased + asked.held - lease.held
  lease.held = asked.held
end

local function grant(name, lease, asked)
  if not (asked.starts <= now and (not asked.ends or now < asked.ends)) then
    lease.stale = 1
    return
  end
  if not (asked.due <= free()) then book.short_until = now + SHORT_S end
  if not (asked.need <= free()) then return end
  local others = 0
  for other, its in pairs(leases) do
    if other ~= name and its.held > 0 then others = others + 1 end
  end
  local share = most(whole(free(), others + 2), whole(book.limit, SMALLEST_PART))
  local ahead = least(asked.want, share)
  ahead = ahead - ahead % asked.need
  lease.grant = least(most(most(asked.due, ahead), asked.need), free())
  lease.held = lease.held + lease.grant
  book.leased = book.leased + lease.grant
end

local function cross()
  local crossed = {}
  for share in string.gmatch(meta.alerts or '', '[^,]+') do
    local raised = string.find(',' .. book.raised .. ',', ',' .. share .. ',', 1, true)
    if not raised and book.carried + book.spent >= tonumber(share) * book.limit then
      crossed[#crossed + 1] = share
      book.raised = (book.raised == '' and share) or (book.raised .. ',' .. share)
    end
  end
  return table.concat(crossed, ',')
end

local function apply(name, lease, asked)
  local before = most(0, balance())
  if asked.seq > lease.seq + 1 and lease.state == 'live' then relearn(lease, asked) end
  lease.seq = asked.seq
  lease.grant, lease.overdrawn, lease.stale, lease.crossed = 0, 0, 0, ''
  if lease.state == 'closed' then return end
  settle(lease, asked.settled)
  take_back(lease, asked.give)
  if lease.state == 'live' then
    reopen(lease, asked.open)
    lease.expires = now + LEASE_S
    if asked.need > 0 then grant(name, lease, asked) end
    if asked.close then
      take_back(lease, lease.held)
      reopen(lease, 0)
      lease.state = 'closed'
      lease.expires = now + KEEP_CLOSED_S
    end
  end
  lease.crossed = cross()
  lease.overdrawn = most(0, most(0, balance()) - before)
end

local function blank()
  return {state = 'live', expires = 0, crossed = '', seq = 0, held = 0, open = 0, settled = 0,
          charged = 0, grant = 0, overdrawn = 0, stale = 0}
end

-- ---------------------------------------------------------------- operations

local function position()
  local spenders, seen, since = 0, {}, now - SPENT_S + KEEP_CLOSED_S
  for name, lease in pairs(leases) do
    local holder = string.match(name, '^(.*)%.') or ''
    if not seen[holder] and (lease.state == 'live'
        or (lease.state == 'closed' and lease.expires > since)) then
      seen[holder], spenders = true, spenders + 1
    end
  end
  return {text(book.limit), text(book.credit), text(book.spent), text(book.leased),
          text(book.open), text(book.unaccounted), text(book.carried), text(spenders)}
end

local function answer(granted, ended, short, stale, crossed, overdrawn)
  return {string.format('%.6f', now), meta.id, text(granted), ended and 1 or 0, short and 1 or 0,
          text(stale), crossed, text(overdrawn), unpack(position())}
end

local function exchange()
  local names = {'seq', 'settled', 'held', 'flushed', 'open', 'give', 'need', 'due', 'want'}
  local name, asked = ARGV[2], {}
  for at, part in ipairs(names) do asked[part] = amount(ARGV[2 + at]) end
  asked.close, asked.starts, asked.ends = ARGV[12] == '1', tonumber(ARGV[13]), tonumber(ARGV[14])
  expire()
  local lease = leases[name]
  if not lease then
    if asked.close and asked.seq > 1 then write() return answer(0, true, false, 0, '', 0) end
    lease = blank()
    leases[name] = lease
  end
  if asked.seq > lease.seq then
    apply(name, lease, asked)
    dirty[name] = true
  elseif asked.seq < lease.seq then
    write()
    return answer(0, lease.state ~= 'live', false, 0, '', 0)
  end
  write()
  return answer(lease.grant, lease.state == 'ended', now < book.short_until, lease.stale,
                lease.crossed, lease.overdrawn)
end

local function reconcile()
  local name, before = ARGV[2], nil
  expire()
  local lease = leases[name]
  if not lease and ARGV[5] == '0' then
    lease = blank()
    leases[name] = lease
  end
  if not lease or lease.state == 'closed' then write() return '0' end
  before = free()
  if lease.state == 'live' then finish(lease) end
  settle(lease, amount(ARGV[3]))
  uncharge(lease, lease.charged - amount(ARGV[4]))
  lease.state = 'closed'
  dirty[name] = true
  write()
  return text(free() - before)
end

local function account()
  expire()
  write()
  local found = {position()}
  for name, lease in pairs(leases) do
    if lease.state ~= 'closed' or lease.charged > 0 then
      found[#found + 1] = {name, lease.state, text(lease.held), text(lease.open),
        text(lease.settled), text(lease.charged), string.format('%.6f', lease.expires)}
    end
  end
  return found
end

local function release(name, billed)
  local lease = leases[name]
  if not lease then return false end
  if lease.state == 'live' then finish(lease) end
  settle(lease, lease.settled + billed)
  uncharge(lease, lease.charged)
  dirty[name] = true
  return true
end

local function change()
  local kind, json = ARGV[2], ARGV[5]
  expire()
  if kind == 'limit' then
    redis.call('HSET', KEYS[1], 'limit', text(amount(ARGV[3])))
    book.limit = least(amount(ARGV[3]) + book.credit, EXACT)
  elseif kind == 'credit' then
    book.credit = book.credit + amount(ARGV[3])
    book.limit = least(tonumber(meta.limit) + book.credit, EXACT)
  elseif not release(ARGV[4], amount(ARGV[3])) then
    return redis.error_reply('NOLEASE there is no such lease')
  end
  write()
  redis.call('RPUSH', KEYS[3], json)
  return position()
end

local function register()
  local limit, alerts, carries, id, json = text(amount(ARGV[2])), ARGV[3], ARGV[4], ARGV[5], ARGV[6]
  if not meta.limit then
    redis.call('HSET', KEYS[1], 'limit', limit, 'configured', limit, 'id', id)
  elseif meta.configured ~= limit then
    redis.call('HSET', KEYS[1], 'limit', limit, 'configured', limit)
    redis.call('RPUSH', KEYS[3], json)
  end
  redis.call('HSET', KEYS[1], 'alerts', alerts, 'carries', carries)
  return string.format('%.6f', now)
end

if ARGV[1] == 'now' then return string.format('%.6f', now) end
local known = read()
if ARGV[1] == 'register' then return register() end
if not known and ARGV[1] == 'reconcile' then return '0' end
if not known then return redis.error_reply('NOBUDGET it is not registered here') end
if ARGV[1] == 'exchange' then return exchange() end
if ARGV[1] == 'reconcile' then return reconcile() end
if ARGV[1] == 'account' then return account() end
return change()

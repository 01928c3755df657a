-- Every response must be a 200 of the right size; the figures come out as one line of JSON.
local size = tonumber(os.getenv("BENCH_SIZE"))
local file = io.open(os.getenv("BENCH_REQUEST"), "rb")
local bytes = file:read("*a")
file:close()
local threads = {}
wrong = 0
seen = 0

function setup(thread)
  table.insert(threads, thread)
end

function request()
  return bytes
end

function response(status, headers, body)
  seen = seen + 1
  if status ~= 200 or #body ~= size then
    wrong = wrong + 1
  end
end

function done(summary, latency, requests)
  local bad, counted = 0, 0
  for _, thread in ipairs(threads) do
    bad = bad + thread:get("wrong")
    counted = counted + thread:get("seen")
  end
  local e = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %.6f, "wrong": %d, "seen": %d, "broken": %d, "p50_ms": %.3f, "p99_ms": %.3f}\n',
    summary.requests, summary.duration / 1e6, bad, counted, e.connect + e.read + e.write + e.timeout,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end

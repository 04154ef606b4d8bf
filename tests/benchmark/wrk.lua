-- What wrk sends and how it reports. The cookie comes by a file, since a command line can be read by everybody.
local threads = {}
local cookie = os.getenv("BENCH_COOKIE_FILE")

if cookie then
  wrk.headers["Cookie"] = io.open(cookie):read("*l")
end
if os.getenv("BENCH_PROTO") then
  wrk.headers["X-Forwarded-Proto"] = os.getenv("BENCH_PROTO")
end

not_ok = 0

-- wrk itself takes a redirection for a success. Asked for pages only: the call costs time that static files do not have.
if os.getenv("BENCH_ONLY_200") then
  function response(status)
    if status ~= 200 then
      not_ok = not_ok + 1
    end
  end
end

function setup(thread)
  table.insert(threads, thread)
end

function done(summary, latency)
  local others = 0
  for _, thread in ipairs(threads) do
    others = others + thread:get("not_ok")
  end
  local errors = summary.errors
  -- With our own count wrk's, of answers above 399, would be counted twice.
  local status = os.getenv("BENCH_ONLY_200") and others or errors.status
  io.write(string.format(
    'BENCH {"requests": %d, "microseconds": %d, "bytes": %d, "p50_us": %d, "p95_us": %d, "errors_connect": %d, "errors_read": %d, "errors_write": %d, "errors_timeout": %d, "errors_status": %d}\n',
    summary.requests, summary.duration, summary.bytes, latency:percentile(50), latency:percentile(95),
    errors.connect, errors.read, errors.write, errors.timeout, status))
end

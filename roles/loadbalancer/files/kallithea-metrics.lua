-- Requests since HAProxy's start, by what was decided and why.
local counts = {}

core.register_action("kallithea_count", { "http-req" }, function(txn)
  local labels = string.format(
    'who="%s",signal="%s",pool="%s"',
    txn:get_var("txn.who"),
    txn:get_var("txn.signal"),
    txn:get_var("txn.pool")
  )
  counts[labels] = (counts[labels] or 0) + 1
end, 0)

local function in_flight()
  local sums = {}
  for key, values in pairs(core.backends["st_in_flight"].stktable:dump()) do
    local who, pool = key:match("^(%a+)|(%a+)|")
    if who then
      local labels = string.format('who="%s",pool="%s"', who, pool)
      sums[labels] = (sums[labels] or 0) + (values["conn_cur"] or 0)
    end
  end
  return sums
end

local function add(lines, name, kind, help, values)
  lines[#lines + 1] = "# HELP " .. name .. " " .. help
  lines[#lines + 1] = "# TYPE " .. name .. " " .. kind
  local labels = {}
  for label in pairs(values) do
    labels[#labels + 1] = label
  end
  table.sort(labels)
  for _, label in ipairs(labels) do
    lines[#lines + 1] = string.format("%s{%s} %d", name, label, values[label])
  end
end

core.register_service("kallithea_metrics", "http", function(applet)
  local lines = {}
  add(lines, "kallithea_balancer_requests_total", "counter", "Requests by who asked, the signal that told, and pool.", counts)
  add(lines, "kallithea_balancer_requests_in_flight", "gauge", "Requests that wait or run, by who asked and pool.", in_flight())
  local text = table.concat(lines, "\n") .. "\n"
  applet:set_status(200)
  applet:add_header("Content-Type", "text/plain; version=0.0.4")
  applet:add_header("Content-Length", tostring(#text))
  applet:start_response()
  applet:send(text)
end)

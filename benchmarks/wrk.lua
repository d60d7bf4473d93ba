-- GETs of the paths in a file, by turns; where a second file is given, every tenth request is a POST
-- of one of its lines as an event. Where the environment has a WRK_KEY, it goes with each of them.
local paths, events, n = {}, {}, 0

local function lines(name)
  local found = {}
  for line in io.lines(name) do found[#found + 1] = line end
  return found
end

function init(args)
  local key = os.getenv("WRK_KEY")
  if key and key ~= "" then wrk.headers["Authorization"] = "Bearer " .. key end
  paths = lines(args[1])
  if args[2] then events = lines(args[2]) end
end

function request()
  n = n + 1
  if #events > 0 and n % 10 == 0 then
    local headers = {["Content-Type"] = "application/json"}
    for name, value in pairs(wrk.headers) do headers[name] = value end
    return wrk.format("POST", "/v1/events", headers, events[n % #events + 1])
  end
  return wrk.format("GET", paths[n % #paths + 1])
end

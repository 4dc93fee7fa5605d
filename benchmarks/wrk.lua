-- Posts the lines of the file BODIES one after the other, so that no two requests in a row ask for the same
-- block groups. All requests are built before the clock starts.
local requests = {}
local position = 0

function init(_)
   for body in io.lines(os.getenv("BODIES")) do
      requests[#requests + 1] = wrk.format("POST", nil, { ["Content-Type"] = "application/json" }, body)
   end
end

function request()
   position = position % #requests + 1
   return requests[position]
end

-- One line for the program that started wrk.
function done(summary, latency, _)
   local errors = summary.errors
   io.write(string.format(
      'RESULT {"requests": %d, "microseconds": %d, "connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d, "p99": %d}\n',
      summary.requests, summary.duration, errors.connect, errors.read, errors.write, errors.status, errors.timeout, latency:percentile(99)))
end

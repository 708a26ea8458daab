-- The programs in C: those of spec/c that use the core alone, that of threads around Lua states, the echo example.
-- SPDX-License-Identifier: MIT

local lfs = require "lfs"
local helper = require "spec.helper"

local DIRECTORY = helper.build .. "/c"

local function programs()
  local names = {}
  if lfs.attributes(DIRECTORY, "mode") == "directory" then
    for name in lfs.dir(DIRECTORY) do
      if name:find("^core_") or name:find("^io_") then names[#names + 1] = name end
    end
  end
  table.sort(names)
  return names
end

-- Every source has a program, or the build is stale.
it("every program of spec/c is built", function()
  local built = {}
  for _, name in ipairs(programs()) do built[name] = true end
  for name in lfs.dir("spec/c") do
    local program = name:match("^(.*)%.c$")
    if program and (program:find("^core_") or program:find("^io_")) then
      assert.is_true(built[program], program .. " is not built")
    end
  end
end)

local function passes(name)
  local result = helper.run_program({ DIRECTORY .. "/" .. name }, { merge = true, timeout = 300 })
  local text = ("%s\n%s"):format(result.stdout, result.signal and "signal " .. result.signal or "")
  assert.equal(0, result.code, text)
  assert.matches("ok %d+ tests", result.stdout)
end

-- core_threads has the races of call_soon_threadsafe with close: row: call_soon_threadsafe.close_race; bug: 27
for _, name in ipairs(programs()) do
  it("spec/c/" .. name .. " passes", function() passes(name) end)
end

-- row: get_running_loop.per_thread, abstract_loop.not_threadsafe, call_soon.not_threadsafe, debug.thread_check
-- row: add_signal_handler.main_thread
it("spec/c/embed_threads passes: what scripts see of other threads", function() passes "embed_threads" end)

describe("the echo server in C", function()
  it("echoes", function()
    local path = DIRECTORY .. "/echo_server"
    assert.is_not_nil(lfs.attributes(path), "no echo example is built")
    local server = helper.start_program { path }
    local port = tonumber((server:read_until(":(%d+)")))
    helper.with_loop(helper.new_loop, function(loop)
      local transport, protocol = loop:create_connection(function() return helper.Recorder(loop) end, "127.0.0.1", port)
      local data = ("0123456789"):rep(50000)
      transport:write(data)
      assert.is_true(protocol:wait_data(#data) == data)
      transport:close()
      protocol:wait_lost()
    end)
    server:kill("TERM")
    local result = server:wait()
    assert.is_true(result.signal == 15 or result.code == 0)
  end)
end)

-- 21: what is started and fails, is killed or forgotten left zombies, descriptors and orphans behind (gh-79902,
-- gh-114177, gh-76296). The worker processes of a pool leave none, whatever ends them.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

-- The children of this process, zombies among them.
local function count_children()
  local n = 0
  local file <close> = io.open("/proc/self/stat")
  local pipe <close> = io.popen("ps -o pid= --ppid " .. file:read("n"))
  for _ in pipe:lines() do n = n + 1 end
  return n - 1 -- that command is one, too
end

local function leaves_nothing(body)
  collectgarbage()
  local fds, children = helper.count_fds(), count_children()
  helper.as_task(body)
  assert.equal(fds, helper.count_fds())
  assert.equal(children, count_children())
end

it("21: workers that can't be started leave nothing", function()
  leaves_nothing(function()
    for _ = 1, 50 do
      local pool <close> = aloop.ProcessPoolExecutor { max_workers = 2, executable = "/no/such/program" }
      helper.raises(aloop.BrokenProcessPool, "No such file or directory", function() pool:submit(print):result() end)
    end
  end)
end)

it("21: workers that are lost leave nothing", function()
  leaves_nothing(function()
    for _ = 1, 5 do
      local pool <close> = aloop.ProcessPoolExecutor { max_workers = 2 }
      local futures = { pool:submit(function() os.exit(1) end), pool:submit(function() while true do end end) }
      for _, future in ipairs(futures) do
        assert.is_true(aloop.isinstance(future:exception(), aloop.BrokenProcessPool))
      end
    end
  end)
end)

it("21: pools of a process that ignores SIGCHLD", function()
  local program = [[
    local aloop = require "aloop"
    local pool = aloop.ProcessPoolExecutor { max_workers = 1 }
    print(pool:submit(function() return "works" end):result())
    print(aloop.isinstance(pool:submit(function() os.exit(1) end):exception(), aloop.BrokenProcessPool))
    pool:shutdown()
    print "ended"
  ]]
  local script = helper.write_file(program)
  local result = helper.run_program({
    "perl", "-e", "$SIG{CHLD} = 'IGNORE'; exec @ARGV", helper.aloop, script,
  }, { merge = true })
  os.remove(script)
  assert.equal("works\ntrue\nended\n", result.stdout)
end)

it("21: a pool that is forgotten with its jobs does them, and ends", function()
  helper.as_task(function()
    collectgarbage()
    local futures, fds = {}, helper.count_fds()
    local function submit() -- a function of its own: nothing of the pool is left on the stack
      local pool = aloop.ProcessPoolExecutor { max_workers = 2 }
      for i = 1, 20 do futures[i] = pool:submit(function() return i end) end
    end
    submit()
    collectgarbage()
    collectgarbage()
    for i, future in ipairs(futures) do assert.equal(i, future:result()) end
    local ended
    for _ = 1, 2000 do
      ended = helper.count_fds() == fds
      if ended then break end
      aloop.sleep(0.005)
    end
    assert.is_true(ended)
  end)
end)

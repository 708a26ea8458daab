-- 20: a signal for a child that had ended, and was reaped, went to the process that had its number by then (gh-127049,
-- gh-87744). The number is given away on purpose here, where that is allowed.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local subprocesses = require "spec.support.subprocesses"

-- Has the kernel give this number to the next process; false where we may not.
local function ask_for(pid)
  local file = io.open("/proc/sys/kernel/ns_last_pid", "w")
  if not file then return false end
  file:write(pid - 1)
  return file:close() == true
end

-- A child that has ended, and one that runs with its number; nil if somebody else has it.
local function reuse()
  local gone = aloop.create_subprocess_exec("true")
  gone:wait()
  if not ask_for(gone.pid) then return nil end
  local other = aloop.create_subprocess_exec("sleep", "30")
  if other.pid == gone.pid then return gone, other end
  other:kill()
  other:wait()
  return nil
end

helper.each_loop(function(_, new_loop)
  it("20: a signal for a child that is gone reaches nobody", function()
    helper.with_loop(new_loop, function()
      for _ = 1, 20 do
        local gone, other = reuse()
        if gone then
          for _, method in ipairs { "kill", "terminate" } do
            helper.raises(aloop.ProcessLookupError, "No such process", gone[method], gone)
          end
          helper.raises(aloop.ProcessLookupError, nil, gone.send_signal, gone, "SIGKILL")
          aloop.sleep(0.02)
          assert.is_true(subprocesses.runs(other.pid))
          assert.is_nil(other.returncode)
          other:kill()
          assert.equal(-9, other:wait())
          return
        end
      end
    end)
  end)

  -- Ended, but not yet known to be: it is a zombie, and takes a signal like a dog its bath.
  it("20: a signal for a child whose end is not yet known changes nothing", function()
    helper.with_loop(new_loop, function()
      for _ = 1, 5 do
        local path = os.tmpname() -- as long as it is there, the child stays
        local p = aloop.create_subprocess_shell("while [ -e " .. path .. " ]; do sleep 0.01; done; exit 3")
        os.remove(path)
        local tries = 0
        while subprocesses.runs(p.pid) and tries < 500 do -- the loop sees nothing meanwhile
          os.execute("sleep 0.01")
          tries = tries + 1
        end
        p:kill()
        assert.equal(3, p:wait())
      end
    end)
  end)
end)

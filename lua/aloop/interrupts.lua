-- interrupts.lua: KeyboardInterrupt and SystemExit, which pass by what looks after the errors of tasks. Runners, task
-- groups and the prompt use it.
-- SPDX-License-Identifier: MIT

local core = require "aloop.core"

local interrupts = {}

function interrupts.is_interrupt(err)
  return core.isinstance(err, core.KeyboardInterrupt) or core.isinstance(err, core.SystemExit)
end

-- What a task died of, when that was the cancellation which SIGINT had asked for.
function interrupts.of_cancelled(cancelled)
  local err = core.KeyboardInterrupt("interrupted!")
  err.traceback = cancelled.traceback
  return err
end

return interrupts

-- subprocess.lua: child processes with streams. Starting and waiting are in the bindings (lspawn.c, lprocess.c); what
-- is here is Process:communicate, and the constants.
-- SPDX-License-Identifier: MIT

local core = require "aloop.core"
local check = require "aloop.check"
local defer = require("aloop.helpers").defer

---@class aloop.Process
---@field stdin? aloop.StreamWriter
---@field stdout? aloop.StreamReader
---@field stderr? aloop.StreamReader
---@field pid integer
---@field returncode? integer negative: the signal that ended it; nil while it runs
---@field wait async fun(self: aloop.Process): integer
---@field send_signal fun(self: aloop.Process, signal: integer|string) ProcessLookupError once it has ended
---@field terminate fun(self: aloop.Process)
---@field kill fun(self: aloop.Process)
local Process = core.Process

local subprocess = {
  PIPE = -1,
  STDOUT = -2,
  DEVNULL = -3,
  INHERIT = false,
  Process = Process,
}

--- Starts a program with its arguments, or an array of both. The last argument may be options: stdin, stdout, stderr
--- (inherited unless said otherwise: PIPE, DEVNULL, STDOUT, a descriptor or file), cwd, env, executable, close_fds,
--- pass_fds, start_new_session, process_group, umask, user, group, extra_groups, restore_signals, limit.
---@type async fun(program: string|string[], ...: string|number|table): aloop.Process
subprocess.create_subprocess_exec = core.create_subprocess_exec

--- Runs a command of the shell. The options are those of create_subprocess_exec.
---@type async fun(cmd: string, options?: table): aloop.Process
subprocess.create_subprocess_shell = core.create_subprocess_shell

-- Lets stderr keep all that comes, however much it is, while stdout is read; until that ends, be it by a cancellation.
local function unbounded(process)
  core.reader_disconnect(process.stderr)
  return defer(function()
    local transport = process[1]:get_pipe_transport(2)
    if not transport:is_closing() then process.stderr:set_transport(transport) end
  end)
end

-- All that a reader gets from now on; nil where there is none.
local function read_all(reader)
  if not reader then return nil end
  return reader:read()
end

--- Writes input to the child's stdin and closes it, reads stdout and stderr to their ends, and waits for the exit. A
--- child that does not read all of its input is no error.
---@async
---@param input? string|aloop.buffer
---@return string? stdout "" if nothing came, nil if it is no pipe
---@return string? stderr
function Process:communicate(input)
  core.waiting_loop("communicate")
  if input ~= nil and type(input) ~= "string" and not core.isinstance(input, core.Buffer) then
    check.bad_argument(1, "communicate", "string or buffer", input)
  end
  local stdin, stdout, stderr = self.stdin, self.stdout, self.stderr
  if stdin then
    if input ~= nil then stdin:write(input) end
    stdin:close()
  end
  local _ <close> = stdout and stderr and unbounded(self) or nil
  local out = read_all(stdout)
  local err = read_all(stderr)
  self:wait()
  return out, err
end

return subprocess

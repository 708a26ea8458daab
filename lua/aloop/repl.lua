-- repl.lua: the prompt of the interpreter, as that of `lua`, on a loop that runs all the while: async functions may be
-- called, tasks and timers go on while a line is typed. main.c calls run() as part of the main chunk.
-- SPDX-License-Identifier: MIT
--
-- Each statement runs as a task, all of them in one context. Ctrl-C cancels that task, or interrupts it if it computes;
-- at the prompt it drops what was typed. Lines are edited by libedit where it is present (bindings/ledit.c):
--   ALOOP_EDIT      another library with libedit's functions; empty: no editing
--   ALOOP_HISTORY   the file of former lines (~/.aloop_history); empty: none

local core = require "aloop.core"
local completion = require "aloop.completion"
local interrupts = require "aloop.interrupts"

local repl = {}

local STDIN, STDOUT = 0, 1
local LIBRARIES = { "libedit.so.2", "libedit.so.0" }
local INTERRUPTED = {} -- what a read gives that Ctrl-C has ended

---@class aloop.Prompt
---@field loop aloop.EventLoop
---@field edits boolean lines are edited
---@field waits boolean the input is a terminal, for which the loop is run
---@field context aloop.Context of all statements
---@field reading? aloop.Future the line that is being typed
---@field running? aloop.Task the statement in progress
---@field main aloop.Task the prompt itself
---@field missed? boolean a Ctrl-C came while it did not wait
---@field turns? integer the loop's turn of the last Ctrl-C
local Prompt = {}
Prompt.__index = Prompt

-- ---- reading --------------------------------------------------------------------------------------------------------

local function prompt_text(name, default)
  local value = _G[name]
  return value == nil and default or tostring(value)
end

local function closing(f, ...)
  local args = table.pack(...)
  return setmetatable({}, { __close = function() f(table.unpack(args, 1, args.n)) end })
end

-- Waits until on_readable(), called when the terminal is readable, gives something else than nil, or for Ctrl-C.
function Prompt:wait_for(on_readable)
  local loop = self.loop
  local future = core.waiter(io.stdin)
  self.reading = future
  if self.missed then future:set_result(INTERRUPTED) end
  self.missed = false
  local _ <close> = closing(function()
    self.reading = nil
    loop:remove_reader(STDIN)
  end)
  loop:add_reader(STDIN, function()
    local result = on_readable()
    if result ~= nil and not future:done() then future:set_result(result) end
  end)
  return (future:await())
end

function Prompt:read_edited(text)
  core.edit_begin(text)
  local _ <close> = closing(core.edit_end)
  self.prompt = text
  local line = self:wait_for(core.edit_read)
  if line == INTERRUPTED then
    core.edit_end()
    io.stdout:write("^C\n")
  elseif line then
    if line:find("%S") and line ~= self.last then core.edit_remember(line) end
    self.last = line
    return line .. "\n"
  end
  return line or nil
end

-- Input that is no terminal is read right away, for it may be buffered.
function Prompt:read_plain(text)
  io.stdout:write(text)
  io.stdout:flush()
  if self.waits and self:wait_for(function() return true end) == INTERRUPTED then
    io.stdout:write("\n")
    return INTERRUPTED
  end
  return io.read("L")
end

-- A line with its newline, nil at the end of input, or INTERRUPTED.
function Prompt:read_line(name, default)
  local text = prompt_text(name, default)
  return self.edits and self:read_edited(text) or not self.edits and self:read_plain(text) or nil
end

local function is_incomplete(message)
  return message and message:sub(-5) == "<eof>"
end

-- The chunk, or nil and whether more lines may complete it and what is wrong with it.
local function compile(text)
  text = text:gsub("^=", "return ")
  local chunk, as_expression = load("return " .. text, "=stdin")
  if chunk then return chunk end
  local message
  chunk, message = load(text, "=stdin")
  if chunk then return chunk end
  return nil, is_incomplete(message) or is_incomplete(as_expression), message
end

-- Reads a statement, over several lines if need be: a chunk, the message of what is wrong
-- with it, nil at the end of input, or INTERRUPTED.
function Prompt:read_chunk()
  local text = self:read_line("_PROMPT", "> ")
  while text and text ~= INTERRUPTED do
    local chunk, incomplete, message = compile(text)
    if chunk then return chunk end
    if not incomplete then return message end
    local more = self:read_line("_PROMPT2", ">> ")
    if not more then return message end
    text = more == INTERRUPTED and INTERRUPTED or text .. more
  end
  return text
end

-- ---- running --------------------------------------------------------------------------------------------------------

-- Without the frames of this file, which end each traceback of a statement.
local function cut_traceback(text)
  local lines, skips = {}, false
  for line in text:gmatch("[^\n]+") do
    local indented = line:sub(1, 1) == "\t"
    if line:find("^\t%[C%]: in function 'xpcall'") then
      skips = true
      lines[#lines + 1] = "\t[C]: in ?"
    elseif not (skips and indented) and not line:find(" was created at .*aloop/repl%.lua:%d+$") then
      skips = false
      lines[#lines + 1] = line
    end
  end
  return table.concat(lines, "\n")
end

local function print_error(err)
  io.stdout:flush()
  io.stderr:write("aloop: ", cut_traceback(core.errortext(err)), "\n")
end

local function print_results(...)
  if select("#", ...) == 0 then return end
  local ok, message = pcall(print, ...)
  if not ok then io.stderr:write(("aloop: error calling 'print' (%s)\n"):format(message)) end
end

-- Runs a chunk as a task and prints what it gives.
function Prompt:run_chunk(chunk)
  local task = self.loop:create_task(function() return xpcall(chunk, core.add_traceback) end,
    { context = self.context, name = "prompt" })
  self.running, self.cancelled, self.missed, self.turns = task, false, false, nil
  local outcome = table.pack(pcall(task.await, task))
  self.running = nil
  local err = outcome[2]
  if outcome[1] then
    if outcome[2] then return print_results(table.unpack(outcome, 3, outcome.n)) end
    err = outcome[3]
  elseif not task:done() then
    error(err, 0) -- it is the prompt itself that was cancelled
  end
  if core.isinstance(err, core.SystemExit) then error(err, 0) end
  if self.cancelled and core.isinstance(err, core.CancelledError) then err = interrupts.of_cancelled(err) end
  print_error(err)
end

-- ---- Ctrl-C ---------------------------------------------------------------------------------------------------------

-- inside: called out of the Lua code that runs, not from the loop's turn. True: dealt with; else KeyboardInterrupt is
-- raised there.
function Prompt:interrupted(inside)
  local running = self.running
  if inside then
    local current = core.current_task()
    if current and current == running then return false end
    if current == self.main then
      -- Between two waits it is for the next one, and in wait_for for that one, unless it has one to deal with already.
      local reading = not self.missed and self.reading
      if reading and not reading:done() then reading:set_result(INTERRUPTED) else self.missed = true end
      return true
    end
    -- A callback or another task computes. It may be about to end; a second Ctrl-C in the same turn ends it.
    local turns = core.stats(self.loop).turns
    if self.turns == turns then error("interrupted!", 0) end
    self.turns = turns
  end
  if running then
    self.cancelled = true
    running:cancel()
  elseif self.reading and not self.reading:done() then
    self.reading:set_result(INTERRUPTED)
  end
  return true
end

-- ---- setting up -----------------------------------------------------------------------------------------------------

local function open_history()
  local path = os.getenv("ALOOP_HISTORY")
  local home = os.getenv("HOME")
  if not path and home then path = home .. "/.aloop_history" end
  if not path or path == "" then return end
  if not core.edit_history(path) then
    io.stderr:write("aloop: the history can't be read, and none is kept: ", path, "\n")
  end
end

-- Whether lines are edited from now on.
local function open_editor()
  if not core.isatty(STDIN) or not core.isatty(STDOUT) or os.getenv("TERM") == "dumb" then return false end
  local wanted = os.getenv("ALOOP_EDIT")
  if wanted == "" then return false end
  for _, name in ipairs(wanted and { wanted } or LIBRARIES) do
    local opened, reason = core.edit_open(name, completion.complete)
    if opened then
      open_history()
      return true
    end
    if wanted then io.stderr:write("aloop: lines can't be edited: ", reason, "\n") end
  end
  return false
end

-- The terminal has another size, or was another's while the process was stopped.
function Prompt:watch_terminal()
  local function watch(signal, f)
    pcall(self.loop.add_signal_handler, self.loop, signal, f)
  end
  watch("SIGWINCH", core.edit_resize)
  watch("SIGCONT", function()
    if self.reading then core.edit_begin(self.prompt) end
  end)
  return closing(function()
    if self.loop:is_closed() then return end
    self.loop:remove_signal_handler("SIGWINCH")
    self.loop:remove_signal_handler("SIGCONT")
  end)
end

--- Reads, runs and prints until the end of input.
function repl.run()
  local self = setmetatable({ loop = core.default_loop(), waits = core.isatty(STDIN) }, Prompt)
  self.main = core.current_task()
  self.context = core.copy_context()
  core.save_terminal()
  local _ <close> = closing(core.restore_terminal)
  self.edits = open_editor()
  local _ <close> = core.take_sigint(self.loop, function()
    return self:interrupted(debug.getinfo(1, "n").namewhat == "hook")
  end)
  local _ <close> = self.edits and self:watch_terminal() or nil
  while true do
    local chunk = self:read_chunk()
    if not chunk then break end
    if type(chunk) == "string" then
      io.stderr:write("aloop: ", chunk, "\n")
    elseif chunk ~= INTERRUPTED then
      self:run_chunk(chunk)
    end
  end
  io.stdout:write("\n")
end

return repl

-- repl.lua: the prompt of the interpreter, as that of `lua`, but in the main task: async functions may be called,
-- and the loop runs while a terminal is waited for. main.c calls run() as part of the main chunk.
-- SPDX-License-Identifier: MIT

local core = require "aloop.core"

local repl = {}

local STDIN = 0

-- Lets the loop run until the terminal has a line; other kinds of input are read right away, for they may be
-- buffered.
local function wait_for_terminal()
  local loop = core.running_loop_or_nil()
  if not loop or not core.isatty(STDIN) then return end
  local ready = loop:create_future()
  local _ <close> = setmetatable({}, { __close = function() loop:remove_reader(STDIN) end })
  loop:add_reader(STDIN, function()
    if not ready:done() then ready:set_result() end
  end)
  ready:await()
end

local function read_line(prompt)
  io.stdout:write(prompt)
  io.stdout:flush()
  wait_for_terminal()
  return io.read("L")
end

local function prompt(name, default)
  local value = _G[name]
  return value == nil and default or tostring(value)
end

local function is_incomplete(message)
  return message and message:sub(-5) == "<eof>"
end

-- Reads a statement, over several lines if need be; nil at the end of input.
local function read_chunk()
  local text = read_line(prompt("_PROMPT", "> "))
  if not text then return nil end
  text = text:gsub("^=", "return ")
  local chunk = load("return " .. text, "=stdin")
  if chunk then return chunk end
  while true do
    local whole, message = load(text, "=stdin")
    if whole or not is_incomplete(message) then return whole or function() error(message, 0) end end
    local more = read_line(prompt("_PROMPT2", ">> "))
    if not more then return function() error(message, 0) end end
    text = text .. more
  end
end

local function print_results(ok, ...)
  if not ok then
    io.stderr:write("aloop: ", core.errortext((...)), "\n")
  elseif select("#", ...) > 0 then
    print(...)
  end
end

--- Reads, runs and prints until the end of input.
function repl.run()
  while true do
    local chunk = read_chunk()
    if not chunk then break end
    local outcome = table.pack(xpcall(chunk, core.add_traceback))
    if core.isinstance(outcome[2], core.SystemExit) and not outcome[1] then error(outcome[2], 0) end
    print_results(table.unpack(outcome, 1, outcome.n))
  end
  io.stdout:write("\n")
end

return repl

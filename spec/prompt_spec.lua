-- The prompt on a terminal (a pseudo one, of util-linux's `script`): with lines edited by libedit, where it is
-- installed, and without. What completes names is tried on its own.
-- SPDX-License-Identifier: MIT

local lfs = require "lfs"
local completion = require "aloop.completion"
local helper = require "spec.helper"

local dir, remove_dir = helper.temporary_directory()

local CTRL_C, CTRL_D, TAB, UP, ENTER = "\3", "\4", "\t", "\27[A", "\r"

---@class Terminal
local Terminal = {}
Terminal.__index = Terminal

-- Starts the interpreter on a terminal. The shell around it tells the terminal's modes before and after.
local function open_terminal(env)
  local fifo = dir .. "/keys"
  os.remove(fifo)
  assert(os.execute("mkfifo " .. helper.quote(fifo)))
  local command = ("trap : INT; stty cols 80 rows 24; stty -g; %s; code=$?; stty -g; exit $code"):format(
    helper.quote(helper.aloop))
  env = setmetatable(env or {}, nil)
  env.TERM, env.SHELL = env.TERM or "xterm", "/bin/sh"
  env.ALOOP_HISTORY = env.ALOOP_HISTORY or ""
  local self = setmetatable({ text = "", from = 1 }, Terminal)
  self.child = helper.start_program({ "sh", "-c", 'exec script -qec "$1" /dev/null <"$2"', "sh", command, fifo },
    { env = env, merge = true, timeout = 20 })
  self.keys = assert(io.open(fifo, "w"))
  self.keys:setvbuf("no")
  return self
end

-- Reads until the plain text has come, behind all that was expected before; returns what came before it.
function Terminal:expect(text)
  while true do
    local from, to = self.text:find(text, self.from, true)
    if from then
      local before = self.text:sub(self.from, from - 1)
      self.from = to + 1
      return before
    end
    local more = self.child.out:read(1)
    if not more then error(("%q did not come; all that came:\n%s"):format(text, self.text), 2) end
    self.text = self.text .. more
  end
end

function Terminal:send(keys)
  self.keys:write(keys)
end

-- Sends a line at the prompt and waits for what is written for it.
function Terminal:enter(line, expected)
  self:expect("> ")
  self:send(line .. ENTER)
  if expected then return self:expect(expected) end
end

-- Waits for the end; the exit code, and whether the terminal is as it was.
function Terminal:finish()
  self.text = self.text .. self.child.out:read("a")
  self.keys:close()
  local result = self.child:wait()
  local modes = {}
  for line in self.text:gmatch("[^\r\n]+") do
    modes[#modes + 1] = line:match("%x+:%x+:%x+:%x+:[%x:]+")
  end
  return result.code, #modes == 2 and modes[1] == modes[2]
end

local has_libedit = helper.output_of(
  "print((require 'aloop.core'.edit_open('libedit.so.2', print)))"):find("true", 1, true)

for _, edits in ipairs { true, false } do
  describe(edits and "the prompt with libedit" or "the prompt without an editor", function()
    local it = edits and not has_libedit and function(name) pending(name .. ": libedit is not installed") end or it

    local function start(env)
      env = env or {}
      if not edits then env.ALOOP_EDIT = "" end
      return open_terminal(env)
    end

    local function finish(terminal, expected)
      local code, restored = terminal:finish()
      assert.equal(expected or 0, code, terminal.text)
      assert.is_true(restored, "the terminal's modes have changed:\n" .. terminal.text)
    end

    local function leave(terminal)
      terminal:expect("> ")
      terminal:send(CTRL_D)
      finish(terminal)
    end

    it("prints values of expressions and of async functions", function()
      local terminal = start()
      terminal:expect("aloop 0.")
      terminal:enter("6 * 7", "42")
      terminal:enter("=6 * 7 + 1", "43")
      terminal:enter("return 'a' .. 'b', nil", "ab\tnil")
      terminal:enter("x = 5")
      terminal:enter("aloop.sleep(0.01, x + 5)", "10")
      terminal:enter("local y = 1")
      terminal:enter("y", "nil")
      leave(terminal)
    end)

    it("goes on with a statement until it is complete", function()
      local terminal = start()
      terminal:enter("for i = 1, 2 do", ">> ")
      terminal:send("print('turn ' .. i)" .. ENTER)
      terminal:expect(">> ")
      terminal:send("end" .. ENTER)
      terminal:expect("turn 1\r\nturn 2")
      terminal:enter("_PROMPT, _PROMPT2 = 'one> ', 'more> '", "one> ")
      terminal:send("20 +" .. ENTER)
      terminal:expect("more> ")
      terminal:send("3" .. ENTER)
      terminal:expect("23")
      terminal:expect("one> ")
      terminal:send("syntax error" .. ENTER)
      assert.matches("aloop: stdin:1: syntax error near 'error'", terminal:expect("one> "))
      terminal:send("if" .. ENTER)
      terminal:expect("more> ")
      terminal:send(CTRL_D)
      terminal:expect("near <eof>")
      terminal:expect("one> ")
      terminal:send(CTRL_D)
      finish(terminal)
    end)

    it("runs tasks and timers while it waits for a line", function()
      local terminal = start()
      terminal:enter("n = 0 t = aloop.create_task(function() for i = 1, 3 do aloop.sleep(0.01) n = n + 1 end " ..
        "print('task', 'ends', n) end)", "> ")
      terminal:expect("task\tends\t3")
      terminal:send("t:done()" .. ENTER)
      terminal:expect("true")
      terminal:enter("print(aloop.get_running_loop():is_running(), #aloop.all_tasks())", "true\t2")
      leave(terminal)
    end)

    it("keeps context variables from one statement to the next", function()
      local terminal = start()
      terminal:enter("v = aloop.ContextVar('v') v:set('kept')")
      terminal:enter("v:get() .. '!'", "kept!")
      leave(terminal)
    end)

    it("tells errors with their traceback, and goes on", function()
      local terminal = start()
      terminal:enter("function f() error('oo' .. 'ps') end")
      terminal:enter("f()")
      local text = terminal:expect("in ?")
      assert.matches("aloop: stdin:1: oops\r\nstack traceback:.*stdin:1: in function 'f'", text)
      assert.is_nil(text:find("repl.lua", 1, true))
      terminal:enter("error(aloop.ValueError('wr' .. 'ong'))", "aloop: ValueError: wrong")
      terminal:enter("error({})", "aloop: ")
      terminal:enter("error(nil)", "aloop: ")
      terminal:enter("error(setmetatable({}, { __tostring = function() return 'an ' .. 'object' end }))", "an object")
      terminal:enter("setmetatable({}, { __tostring = function() error('no ' .. 'text') end })", "calling 'print'")
      terminal:enter("_ = aloop.get_running_loop():call_soon(error, 'in ' .. 'back')", "in back")
      terminal:enter("8 * 8", "64")
      leave(terminal)
    end)

    -- What computes calls os.time, for under the thread sanitizer handlers run only inside of calls that it knows.
    it("Ctrl-C cancels what waits and interrupts what computes", function()
      local terminal = start()
      terminal:enter("do local _ <close> = aloop.defer(print, 'clo' .. 'sed') " ..
        "print('beg' .. 'un') aloop.sleep(1000) end",
        "begun")
      terminal:send(CTRL_C)
      terminal:expect("closed")
      terminal:expect("aloop: KeyboardInterrupt: interrupted!")
      terminal:enter("print('beg' .. 'un') while true do os.time() end", "begun")
      terminal:send(CTRL_C)
      terminal:expect("aloop: KeyboardInterrupt: interrupted!")
      terminal:enter("print(pcall(function() print('beg' .. 'un') aloop.sleep(1000) end))", "begun")
      terminal:send(CTRL_C)
      terminal:expect("false\t")
      terminal:enter("8 * 8", "64")
      leave(terminal)
    end)

    it("Ctrl-C ends a callback that computes, the second time", function()
      local terminal = start()
      terminal:enter("_ = aloop.get_running_loop():call_soon(function() " ..
        "print('beg' .. 'un') while true do os.time() end end)", "begun")
      for _ = 1, 3 do -- one that comes at once behind another may be lost, and one too many does no harm
        terminal:send(CTRL_C)
        os.execute("sleep 0.05")
      end
      terminal:expect("interrupted!")
      terminal:send(ENTER) -- the last Ctrl-C makes the terminal drop what it had in hand, perhaps the prompt
      terminal:enter("8 * 8", "64")
      leave(terminal)
    end)

    it("Ctrl-C drops what was typed", function()
      local terminal = start()
      terminal:expect("> ")
      terminal:send("this is not Lua")
      terminal:expect("Lua")
      terminal:send(CTRL_C)
      terminal:expect("^C")
      terminal:enter("if true then", ">> ")
      terminal:send(CTRL_C)
      terminal:expect("^C")
      terminal:enter("8 * 8", "64")
      leave(terminal)
    end)

    it("Ctrl-C is heard that comes as the prompt begins to wait", function()
      local terminal = start()
      terminal:enter("do local loop = aloop.get_running_loop() local C = aloop.EventLoop:extend('C') " ..
        "function C:add_reader(...) debug.setmetatable(loop, aloop.EventLoop) " ..
        "io.popen('kill -s INT $PPID'):close() return loop:add_reader(...) end debug.setmetatable(loop, C) end")
      terminal:expect("> ") -- it is this one
      terminal:enter("8 * 8", "64")
      leave(terminal)
    end)

    it("ends with the code of os.exit and SystemExit, also while it waits for a line", function()
      for line, code in pairs {
        ["os.exit(7)"] = 7,
        ["error(aloop.SystemExit(6))"] = 6,
        ["aloop.get_running_loop():call_later(0.05, os.exit, 5)"] = 5,
      } do
        local terminal = start()
        terminal:enter(line)
        finish(terminal, code)
      end
    end)

    it("lets statements read from the terminal", function()
      local terminal = start()
      terminal:enter("print('gi' .. 've') print(io.read('l') .. '!')", "give")
      terminal:send("input\n")
      terminal:expect("input!")
      terminal:enter("8 * 8", "64")
      leave(terminal)
    end)

    it("cancels and awaits what is left when it ends", function()
      local terminal = start()
      terminal:enter("t = aloop.create_task(function() local _ <close> = aloop.defer(print, 'clo' .. 'sed') " ..
        "print('beg' .. 'un') aloop.sleep(1000) end)", "begun")
      terminal:expect("> ")
      terminal:send(CTRL_D)
      terminal:expect("closed")
      finish(terminal)
    end)

    if edits then
      it("keeps a history, which is the user's alone", function()
        local path = dir .. "/history"
        os.remove(path)
        local terminal = start { ALOOP_HISTORY = path }
        terminal:enter("11 * 11", "121")
        terminal:enter("8 * 8", "64")
        terminal:enter("8 * 8", "64")
        terminal:enter(UP .. UP, "121")
        leave(terminal)
        assert.equal("rw-------", lfs.attributes(path, "permissions"))
        terminal = start { ALOOP_HISTORY = path }
        terminal:enter(UP .. UP, "64")
        terminal:enter("os.exit(0)")
        finish(terminal)
        assert.matches("os.exit", helper.read_file(path))
        os.remove(path)
      end)

      it("leaves a history alone that it can't read", function()
        local path = dir .. "/history"
        local file = assert(io.open(path, "w"))
        file:write("something else\n")
        file:close()
        local terminal = start { ALOOP_HISTORY = path }
        terminal:expect("aloop: the history can't be read")
        terminal:enter("8 * 8", "64")
        leave(terminal)
        assert.equal("something else\n", helper.read_file(path))
        os.remove(path)
      end)

      it("completes names", function()
        local terminal = start()
        terminal:expect("> ")
        terminal:send("print(math.type(aloop.create_ta" .. TAB)
        terminal:send("))" .. ENTER)
        terminal:expect("nil")
        leave(terminal)
      end)

      it("edits characters of more than one byte", function()
        local terminal = start { LC_ALL = "C" }
        terminal:enter("#'äöü\127\127' + 40", "42")
        leave(terminal)
      end)

      it("stands signals of the terminal", function()
        local terminal = start()
        terminal:enter("for _, s in ipairs { 'WINCH', 'CONT' } do os.execute('kill -s ' .. s .. ' $PPID') end")
        terminal:enter("8 * 8", "64")
        terminal:enter("_ = aloop.get_running_loop():call_later(0.01, os.execute, 'kill -s CONT $PPID')", "> ")
        terminal:enter("9 * 9", "81")
        leave(terminal)
      end)
    end
  end)
end

describe("the prompt", function()
  it("tells why lines can't be edited, and does without", function()
    local terminal = open_terminal { ALOOP_EDIT = "/no/such/library.so" }
    terminal:expect("aloop: lines can't be edited: /no/such/library.so")
    terminal:enter("8 * 8", "64")
    terminal:expect("> ")
    terminal:send(CTRL_D)
    local code, restored = terminal:finish()
    assert.equal(0, code)
    assert.is_true(restored)
  end)

  it("doesn't edit on a terminal that can't move its cursor", function()
    local terminal = open_terminal { TERM = "dumb", ALOOP_EDIT = "/no/such/library.so" }
    assert.is_nil(terminal:expect("> "):find("can't be edited", 1, true))
    terminal:send(CTRL_D)
    assert.equal(0, (terminal:finish()))
  end)
end)

describe("completion", function()
  local complete = completion.complete

  it("finds globals and keywords", function()
    assert.same({ "coroutine" }, complete "corou")
    assert.same({ "repeat", "require", "return" }, { table.unpack((function()
      local words = {}
      for _, word in ipairs(complete "re") do
        if word ~= "record" then words[#words + 1] = word end
      end
      return words
    end)()) })
    assert.same({}, complete "")
    assert.same({}, complete "no_such_nam")
  end)

  it("finds fields and methods, of classes too", function()
    _G.prompt_spec_value = setmetatable({ alpha = 1, ["no name"] = 2 }, { __index = { beta = print } })
    assert.same({ "prompt_spec_value.alpha", "prompt_spec_value.beta" }, complete "prompt_spec_value.")
    assert.same({ "prompt_spec_value:beta" }, complete "prompt_spec_value:")
    assert.same({ "string.format" }, complete "string.form")
    assert.same({}, complete "prompt_spec_value.alpha.x.y")
    assert.same({}, complete "prompt_spec_value.none.x")
    _G.prompt_spec_value = nil
  end)

  it("stands objects that fail", function()
    _G.prompt_spec_value = setmetatable({}, { __index = function() error("no") end })
    assert.same({}, complete "prompt_spec_value.a.b")
    _G.prompt_spec_value = nil
  end)

  it("finds names that aloop loads late", function()
    _G.prompt_spec_aloop = require "aloop"
    assert.same({ "prompt_spec_aloop.partial" }, complete "prompt_spec_aloop.part")
    _G.prompt_spec_aloop = nil
  end)
end)

teardown(remove_dir)

-- partial, defer, try, shlex_quote, environ, the log handler, and what the module shows of itself.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local raises, type_error = helper.raises, helper.type_error

describe("partial", function()
  it("calls with its arguments before the caller's, nil included", function()
    local function collect(...) return table.pack(...) end
    assert.same({ 1, nil, 3, nil, n = 4 }, aloop.partial(collect, 1, nil)(3, nil))
    assert.same({ n = 0 }, aloop.partial(collect)())
    assert.same({ "a", n = 1 }, aloop.partial(collect)("a"))
    assert.same({ 1, 2, 3, n = 3 }, aloop.partial(aloop.partial(collect, 1), 2)(3))
  end)

  it("is a callback whose function and arguments debug output shows", function()
    helper.drive(helper.new_loop, function(loop)
      local got
      local partial = aloop.partial(function(...) got = table.pack(...) end, "a", 1)
      assert.matches('^partial%(function <spec/helpers_spec.lua:%d+>, "a", 1%)$', tostring(partial))
      local handle = loop:call_soon(partial, 2)
      assert.matches('partial%(function <spec/helpers_spec.lua:%d+>, "a", 1%)', tostring(handle))
      helper.turn(loop)
      assert.same({ "a", 1, 2, n = 3 }, got)
    end)
  end)

  it("may wait", function()
    helper.with_loop(helper.new_loop, function()
      assert.equal("slept", aloop.partial(aloop.sleep, 0)("slept"))
    end)
  end)

  it("wants a function", function()
    type_error("bad argument #1 to 'partial' (function expected, got nil)", aloop.partial)
  end)
end)

describe("defer", function()
  it("calls its function when the scope is left, however", function()
    local calls = {}
    local function note(...) calls[#calls + 1] = table.concat({ ... }, " ") end
    do
      local _ <close> = aloop.defer(note, "block", 1)
    end
    pcall(function()
      local _ <close> = aloop.defer(note, "error")
      error("x")
    end)
    for i = 1, 2 do
      local _ <close> = aloop.defer(note, "break")
      if i == 1 then break end
    end
    assert.same({ "block 1", "error", "break" }, calls)
  end)

  it("may wait, under a cancellation too", function() -- point: 11
    helper.with_loop(helper.new_loop, function(loop)
      local cleaned = false
      local task = loop:create_task(function()
        local _ <close> = aloop.defer(function()
          aloop.sleep(0.001)
          cleaned = true
        end)
        aloop.sleep(1000)
      end)
      aloop.sleep(0)
      task:cancel()
      raises(aloop.CancelledError, nil, task.await, task)
      assert.is_true(cleaned)
    end)
  end)
end)

describe("try", function()
  it("is pcall for results and for every Error and foreign value", function()
    assert.same({ true, 1, nil, 3, n = 4 }, table.pack(aloop.try(function(...) return ... end, 1, nil, 3)))
    local err = aloop.ValueError("x")
    assert.same({ false, err }, { aloop.try(error, err) })
    assert.same({ false, "text" }, { aloop.try(error, "text", 0) })
    assert.same({ false, nil, n = 2 }, table.pack(aloop.try(error, nil)))
  end)

  it("lets what is no Error through", function() -- point: 11
    for _, name in ipairs { "CancelledError", "KeyboardInterrupt", "SystemExit", "GeneratorExit" } do
      local err = aloop[name]()
      assert.equal(err, raises(aloop[name], nil, aloop.try, error, err))
    end
  end)

  it("may wait, and does not hold up a cancellation", function()
    helper.with_loop(helper.new_loop, function(loop)
      assert.same({ true, "x" }, { aloop.try(aloop.sleep, 0, "x") })
      local went_on = false
      local task = loop:create_task(function()
        aloop.try(aloop.sleep, 1000)
        went_on = true
      end)
      aloop.sleep(0)
      task:cancel()
      raises(aloop.CancelledError, nil, task.await, task)
      assert.is_false(went_on)
    end)
  end)
end)

describe("shlex_quote", function()
  it("gives one word of a shell", function()
    assert.equal("plain-word_1.5%+=:,/@", aloop.shlex_quote("plain-word_1.5%+=:,/@"))
    assert.equal("''", aloop.shlex_quote(""))
    assert.equal([['don'"'"'t']], aloop.shlex_quote("don't"))
    for _, word in ipairs { "a b", "$HOME", "`id`", "a\nb", "'", "\\", "*", "~", "#x", "!", "ä" } do
      local shell = io.popen("printf %s " .. aloop.shlex_quote(word))
      assert.equal(word, shell:read("a"))
      shell:close()
    end
    type_error("bad argument #1 to 'shlex_quote' (string expected, got nil)", aloop.shlex_quote)
  end)
end)

describe("environ", function()
  it("is a new table of the environment", function()
    local environ = aloop.environ()
    assert.equal(os.getenv("PATH"), environ.PATH)
    environ.PATH = nil
    assert.equal(os.getenv("PATH"), aloop.environ().PATH)
  end)
end)

describe("set_log_handler", function()
  it("gets what aloop warns of, and nil brings stderr back", function()
    local out, err = helper.output_of [[
      local aloop = require "aloop"
      aloop.set_log_handler(function(...) print(...) end)
      do local loop = aloop.new_event_loop() end
      collectgarbage() collectgarbage()
      aloop.set_log_handler(nil)
      do local loop = aloop.new_event_loop() end
      collectgarbage() collectgarbage()
    ]]
    assert.matches("^warning\tunclosed event loop <[^\n]*\tResourceWarning\n$", out)
    assert.matches("^aloop: warning: ResourceWarning: unclosed event loop <[^\n]*\n$", err)
  end)

  it("that fails itself doesn't lose the line, and not its own error", function()
    local _, err = helper.output_of [[
      local aloop = require "aloop"
      aloop.set_log_handler(function() error("the handler fails") end)
      aloop.sleep(0)
      aloop.get_running_loop():call_soon(error, "the callback fails")
      aloop.sleep(0)
    ]]
    assert.matches("aloop: error: .*the callback fails", err)
    assert.matches("aloop: error: Exception in the log handler: [^\n]*the handler fails\nstack traceback:", err)
  end)

  it("wants a function", function()
    type_error("bad argument #1 to 'set_log_handler' (function expected, got number)", aloop.set_log_handler, 1)
  end)
end)

describe("the module", function()
  it("shows all its names to pairs, though some are loaded late", function()
    local names = {}
    for name in pairs(aloop) do names[name] = true end
    for _, name in ipairs { "run", "Runner", "partial", "sleep", "Task", "ValueError", "EventLoop", "socket", "ssl" } do
      assert.is_true(names[name], name)
    end
    assert.is_nil(aloop.no_such_name)
  end)
end)

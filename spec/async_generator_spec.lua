-- Asynchronous generators: iteration, early ends, shutdown_asyncgens, and what becomes of forgotten ones.
-- SPDX-License-Identifier: MIT

-- luacheck: ignore 512 (loops that are left at once)
local aloop = require "aloop"
local helper = require "spec.helper"

local as_task, raises, type_error = helper.as_task, helper.raises, helper.type_error

-- A generator of 1..n that waits before each and, when it is closed, before it says so in `order`.
local function counter(order)
  return aloop.async_generator(function(n)
    local _ <close> = aloop.defer(function()
      aloop.sleep(0)
      order[#order + 1] = "closed"
    end)
    for i = 1, n do
      aloop.sleep(0)
      coroutine.yield(i, i * i)
    end
    return "dropped"
  end)
end

local function collect()
  collectgarbage()
  collectgarbage()
end

helper.each_loop(function(_, new_loop)
  describe("an async generator", function()
    it("hands out its items, all values of each, and may wait in between", function()
      helper.with_loop(new_loop, function()
        local order, got = {}, {}
        for i, square in counter(order)(3) do got[#got + 1] = { i, square } end
        assert.same({ { 1, 1 }, { 2, 4 }, { 3, 9 } }, got)
        assert.same({ "closed" }, order)
      end)
    end)

    it("is closed when its loop is left: by break, return, error and goto; its <close> variables may wait", function()
      helper.with_loop(new_loop, function()
        local order = {}
        local count = counter(order)
        for i in count(9) do
          if i == 2 then break end
        end
        assert.equal(1, #order)
        local function first()
          for i in count(9) do return i end
        end
        assert.equal(1, first())
        assert.equal(2, #order)
        local ok, e = pcall(function()
          for _ in count(9) do error("in the loop", 0) end
        end)
        assert.is_false(ok)
        assert.equal("in the loop", e)
        assert.equal(3, #order)
        for _ in count(9) do goto out end
        ::out::
        assert.equal(4, #order)
      end)
    end)

    it("is closed when the task that iterates is cancelled, in the loop's body or in the generator", function()
      helper.with_loop(new_loop, function(loop)
        local order = {}
        local stuck = aloop.async_generator(function()
          local _ <close> = aloop.defer(function()
            aloop.sleep(0)
            order[#order + 1] = "unwound"
          end)
          coroutine.yield(1)
          aloop.sleep(1000)
        end)
        for _, where in ipairs { "body", "generator" } do
          local task = loop:create_task(function()
            for _ in stuck() do
              if where == "body" then aloop.sleep(1000) end
            end
          end)
          for _ = 1, 3 do aloop.sleep(0) end
          task:cancel()
          raises(aloop.CancelledError, nil, task.await, task)
          assert.is_true(task:cancelled())
        end
        assert.same({ "unwound", "unwound" }, order)
      end)
    end)
  end)

  describe("shutdown_asyncgens", function()
    it("closes all that have begun and waits for it", function() -- row: shutdown_asyncgens
      helper.drive(new_loop, function(loop)
        local order = {}
        local count = counter(order)
        local keep = {}
        loop:run_until_complete(function()
          for i = 1, 3 do
            keep[i] = count(9)
            assert.equal(1, (keep[i]()))
          end
          keep[4] = count(9) -- not begun: nothing to close
        end)
        assert.equal(0, #order)
        loop:run_until_complete(function() loop:shutdown_asyncgens() end)
        assert.same({ "closed", "closed", "closed" }, order)
        loop:run_until_complete(function()
          for i = 1, 3 do assert.is_nil((keep[i]())) end
        end)
      end)
    end)

    it("reports errors with the generator, and closes the others all the same", function()
      -- row: shutdown_asyncgens.error, context.asyncgen
      helper.drive(new_loop, function(loop, trial)
        local order = {}
        local broken = aloop.async_generator(function(err)
          local _ <close> = aloop.defer(function() error(err) end)
          coroutine.yield(1)
        end)
        local mine = aloop.ValueError("mine")
        local first, second, third = broken(mine), broken("text"), counter(order)(2)
        loop:run_until_complete(function()
          first()
          second()
          third()
          loop:shutdown_asyncgens()
        end)
        assert.same({ "closed" }, order)
        local contexts = {}
        for _ = 1, 2 do
          local context = trial:take_error()
          contexts[context.asyncgen] = context
        end
        assert.equal(mine, contexts[first].exception)
        assert.matches("text", contexts[second].exception)
        assert.matches("async_generator_spec", contexts[second].traceback)
        local message = "an error occurred during closing of asynchronous generator " .. tostring(first)
        assert.equal(message, contexts[first].message)
      end)
    end)

    it("warns of one that begins afterwards, on that loop", function() -- row: shutdown_asyncgens.warn_after
      helper.drive(new_loop, function(loop, trial)
        local order = {}
        loop:run_until_complete(function()
          loop:shutdown_asyncgens()
          loop:shutdown_asyncgens()
          local late = counter(order)
          local gen = late(2)
          assert.equal(0, #trial.logs)
          for _ in gen do end
          local _, level, category = trial:take_log("asynchronous generator .* scheduled after loop:shutdown_asyncgens")
          assert.equal("warning", level)
          assert.equal("ResourceWarning", category)
        end)
        assert.same({ "closed" }, order)
        local other = new_loop()
        other:run_until_complete(function()
          for _ in counter(order)(1) do end
        end)
        other:close()
      end)
    end)

    it("waits in a task, or not at all", function()
      helper.drive(new_loop, function(loop, trial)
        loop:call_soon(loop.shutdown_asyncgens, loop)
        helper.turn(loop)
        assert.is_true(aloop.isinstance(trial:take_error().exception, aloop.RuntimeError))
        loop:run_until_complete(function()
          type_error("bad argument #1 to", loop.shutdown_asyncgens, 42)
        end)
      end)
    end)

    it("cancelled, it cancels the closing, waits for that and says so", function()
      helper.drive(new_loop, function(loop)
        local order = {}
        local slow = aloop.async_generator(function()
          local _ <close> = aloop.defer(function()
            local ok, e = pcall(aloop.sleep, 1000)
            order[#order + 1] = tostring(aloop.isinstance(e, aloop.CancelledError) and not ok)
            error(e, 0)
          end)
          coroutine.yield(1)
        end)
        loop:run_until_complete(function()
          local gen = slow()
          gen()
          local task = loop:create_task(function() loop:shutdown_asyncgens() end)
          for _ = 1, 3 do aloop.sleep(0) end
          task:cancel()
          raises(aloop.CancelledError, nil, task.await, task)
        end)
        assert.same({ "true" }, order)
      end)
    end)
  end)

  it("a forgotten generator is closed by a task of its loop", function() -- row: asyncgen.gc_finalize
    helper.drive(new_loop, function(loop)
      local order = {}
      loop:run_until_complete(function()
        local gen = counter(order)(9)
        gen()
        counter(order)(9) -- not begun
      end)
      collect()
      assert.equal(0, #order)
      loop:run_until_complete(function()
        for _ = 1, 4 do aloop.sleep(0) end
      end)
      assert.same({ "closed" }, order)
    end)
  end)
end)

describe("an async generator", function()
  it("raises its error in the one that asks for an item, once, and is over then", function()
    as_task(function()
      local raised = aloop.ValueError("in the generator")
      local gen = aloop.async_generator(function()
        coroutine.yield(1)
        error(raised)
      end)()
      assert.equal(1, (gen()))
      assert.equal(raised, raises(aloop.ValueError, nil, gen))
      assert.is_nil((gen()))
      assert.is_nil((gen()))
    end)
  end)

  it("has both stacks in the traceback of its error", function()
    helper.drive(helper.new_loop, function(loop, trial)
      local function innermost() error("deep down") end
      local gen = aloop.async_generator(function() innermost() end)
      local function consumer()
        for _ in gen() do end
        return true
      end
      local task = loop:create_task(consumer)
      helper.turn(loop, 3)
      assert.is_true(task:done())
      task = nil -- luacheck: ignore 311
      collect()
      local trace = trial:take_error().traceback
      assert.matches("in upvalue 'innermost'.*awaited in.*async_generator_spec", trace)
    end)
  end)

  it("that is over gives nil for ever; one that is closed before it began never begins", function()
    as_task(function()
      local ran = false
      local make = aloop.async_generator(function() ran = true end)
      local gen = make()
      gen:aclose()
      gen:aclose()
      assert.is_nil((gen()))
      assert.is_false(ran)
      gen = make()
      assert.is_nil((gen()))
      assert.is_true(ran)
      gen:aclose()
    end)
  end)

  it("that yields again when it is closed is a RuntimeError, and is ended without waiting", function()
    as_task(function()
      local ended = 0
      local stubborn = aloop.async_generator(function()
        local _ <close> = aloop.defer(function() ended = ended + 1 end)
        while true do pcall(coroutine.yield, 1) end
      end)
      raises(aloop.RuntimeError, "async generator ignored GeneratorExit", function()
        for _ in stubborn() do break end
      end)
      assert.equal(1, ended)
      local gen = stubborn()
      gen()
      raises(aloop.RuntimeError, "async generator ignored GeneratorExit", gen.aclose, gen)
      assert.is_nil((gen()))
    end)
  end)

  it("may catch GeneratorExit and return, or raise another error, which keeps what it came from", function()
    as_task(function()
      local seen
      local calm = aloop.async_generator(function()
        local _, e = pcall(coroutine.yield, 1)
        seen = e
      end)
      for _ in calm() do break end
      assert.is_true(aloop.isinstance(seen, aloop.GeneratorExit))
      local failing = aloop.async_generator(function()
        local _ <close> = aloop.defer(function() error(aloop.ValueError("in cleaning up")) end)
        coroutine.yield(1)
      end)
      local e = raises(aloop.ValueError, "in cleaning up", function()
        for _ in failing() do error("in the loop", 0) end
      end)
      assert.equal("in the loop", e.cause)
      e = raises(aloop.ValueError, "in cleaning up", function()
        for _ in failing() do break end
      end)
      assert.is_nil(e.cause)
    end)
  end)

  it("aloop.try in it lets GeneratorExit pass", function()
    as_task(function()
      local gen = aloop.async_generator(function()
        while true do aloop.try(coroutine.yield, 1) end
      end)
      for _ in gen() do break end
    end)
  end)

  it("refuses a second user while it runs, and itself", function()
    as_task(function(loop)
      local gen
      gen = aloop.async_generator(function()
        raises(aloop.RuntimeError, "anext(): asynchronous generator is already running", gen)
        raises(aloop.RuntimeError, "aclose(): asynchronous generator is already running", gen.aclose, gen)
        aloop.sleep(0)
        coroutine.yield("first")
        coroutine.yield("second")
      end)()
      local task = loop:create_task(function() return (gen()) end)
      aloop.sleep(0)
      raises(aloop.RuntimeError, "anext(): asynchronous generator is already running", gen)
      raises(aloop.RuntimeError, "aclose(): asynchronous generator is already running", gen.aclose, gen)
      assert.equal("first", task:await())
      assert.equal("second", (gen()))
      assert.is_nil((gen()))
    end)
  end)

  it("can't hand out nil: a `for` would end there", function()
    as_task(function()
      local gen = aloop.async_generator(function() coroutine.yield(nil) end)
      raises(aloop.ValueError, "can't yield nil", gen())
      gen = aloop.async_generator(function() coroutine.yield() end)
      raises(aloop.ValueError, "can't yield nil", gen())
      gen = aloop.async_generator(function() coroutine.yield(false) end)
      assert.is_false((gen()()))
    end)
  end)

  it("needs a task, also where nothing would wait", function()
    local gen = aloop.async_generator(function() coroutine.yield(1) end)
    helper.drive(helper.new_loop, function(loop, trial)
      loop:call_soon(gen())
      loop:call_soon(function() gen():aclose() end)
      helper.turn(loop)
      for _ = 1, 2 do
        local e = trial:take_error().exception
        assert.is_true(aloop.isinstance(e, aloop.RuntimeError))
        assert.matches("no task to suspend", e.message)
      end
    end)
  end)

  it("that is left where nothing can wait is closed all the same", function()
    as_task(function()
      local order = {}
      local count = counter(order)
      local quiet = aloop.async_generator(function()
        local _ <close> = aloop.defer(function() order[#order + 1] = "quietly" end)
        coroutine.yield(1)
      end)
      local co = coroutine.create(function()
        for _ in quiet() do coroutine.yield() end
      end)
      assert.is_true(coroutine.resume(co))
      assert.is_true(coroutine.close(co))
      assert.same({ "quietly" }, order)
      co = coroutine.create(function()
        for _ in count(9) do coroutine.yield() end
      end)
      assert.is_true(coroutine.resume(co))
      local ok, e = coroutine.close(co)
      assert.is_false(ok)
      assert.is_true(aloop.isinstance(e, aloop.RuntimeError))
      assert.matches("coroutine%.close", e.message)
    end)
  end)

  it("may be made of generators, and hold user coroutines", function()
    as_task(function()
      local order = {}
      local count = counter(order)
      local pairs_of = aloop.async_generator(function(n)
        for i in count(n) do
          local letters = coroutine.wrap(function()
            aloop.sleep(0)
            coroutine.yield("a")
            coroutine.yield("b")
          end)
          coroutine.yield(i .. letters())
          coroutine.yield(i .. letters())
        end
      end)
      local got = {}
      for item in pairs_of(9) do
        got[#got + 1] = item
        if #got == 3 then break end
      end
      assert.same({ "1a", "1b", "2a" }, got)
      assert.same({ "closed" }, order)
    end)
  end)

  it("runs in the context of the one that asks", function()
    as_task(function(loop)
      local var = aloop.ContextVar("v", { default = "none" })
      local gen = aloop.async_generator(function()
        while true do coroutine.yield(var:get()) end
      end)()
      var:set("mine")
      assert.equal("mine", (gen()))
      local other = loop:create_task(function()
        var:set("other's")
        return (gen())
      end)
      assert.equal("other's", other:await())
      gen:aclose()
    end)
  end)

  it("shows its function, and in debug mode where it was made", function()
    as_task(function(loop)
      local make = aloop.async_generator(function() end)
      assert.matches("^<async_generator function <.*async_generator_spec%.lua:%d+>>$", tostring(make()))
      loop:set_debug(true)
      local here = debug.getinfo(1, "l").currentline + 1
      assert.matches("created at .*async_generator_spec%.lua:" .. here .. ">$", tostring(make()))
      loop:set_debug(false)
    end)
  end)

  it("takes a function or what can be called", function()
    type_error("bad argument #1 to 'async_generator' (function expected, got nil)", aloop.async_generator)
    as_task(function()
      local got
      for item in aloop.async_generator(aloop.partial(coroutine.yield, "called"))() do got = item end
      assert.equal("called", got)
    end)
  end)

  it("forgotten with a closed loop is ended without waiting, and an error in that is reported", function()
    local loop = helper.new_loop()
    local contexts, ended = {}, false
    loop:set_exception_handler(function(_, context) contexts[#contexts + 1] = context end)
    local gens = {
      aloop.async_generator(function()
        local _ <close> = aloop.defer(function() ended = true end)
        coroutine.yield(1)
      end)(),
      aloop.async_generator(function()
        local _ <close> = aloop.defer(aloop.sleep, 0)
        coroutine.yield(1)
      end)(),
    }
    loop:run_until_complete(function()
      for _, gen in ipairs(gens) do gen() end
    end)
    loop:close()
    gens = nil -- luacheck: ignore 311
    collect()
    assert.is_true(ended)
    assert.equal(1, #contexts)
    assert.is_true(aloop.isinstance(contexts[1].exception, aloop.RuntimeError))
    assert.is_not_nil(contexts[1].asyncgen)
  end)
end)

describe("a run's end closes generators that are left", function() -- row: shutdown_asyncgens.run_auto
  local function script(run)
    return [[
      local aloop = require "aloop"
      local gen = aloop.async_generator(function()
        local _ <close> = aloop.defer(function()
          aloop.sleep(0.001)
          print("cleaned up")
        end)
        coroutine.yield("item")
      end)()
      local function main() print((gen())) end
    ]] .. run
  end

  for name, run in pairs {
    ["aloop.run"] = "aloop.run(main) print('end')",
    ["a Runner"] = "do local r <close> = aloop.Runner() r:run(main) end print('end')",
    ["a main chunk"] = "main()",
  } do
    it("of " .. name, function()
      local out = helper.output_of(script(run))
      assert.equal("item\ncleaned up\n", (out:gsub("end\n$", "")))
    end)
  end

  it("also those that are just being closed because they were forgotten", function()
    local out, err = helper.output_of(script [[
      main()
      gen = nil
      collectgarbage()
      collectgarbage()
    ]])
    assert.equal("item\ncleaned up\n", out)
    assert.equal("", err)
  end)

  it("reports what fails in that to the handler of that loop", function()
    local _, err = helper.output_of [[
      local aloop = require "aloop"
      local gen = aloop.async_generator(function()
        local _ <close> = aloop.defer(error, "cleaning up failed")
        coroutine.yield("item")
      end)()
      gen()
    ]]
    assert.matches("an error occurred during closing of asynchronous generator <async_generator function", err)
    assert.matches("cleaning up failed", err)
    assert.matches("asyncgen: <async_generator", err)
  end)
end)

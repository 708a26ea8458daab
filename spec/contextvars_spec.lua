-- Context variables, contexts and tokens.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local raises, type_error = helper.raises, helper.type_error

local function as_task(body) helper.with_loop(helper.new_loop, body) end

-- Runs the body in a context of its own, so that no variable leaks into the specs that follow.
local function fresh(body) aloop.copy_context():run(body) end

describe("ContextVar", function()
  it("get gives the value, else the argument, else the default, else raises LookupError", function() -- row: ContextVar
    fresh(function()
      local with = aloop.ContextVar("with", { default = "d" })
      local without = aloop.ContextVar("without")
      assert.equal("d", with:get())
      assert.equal("a", with:get("a"))
      assert.equal("a", without:get("a"))
      raises(aloop.LookupError, nil, without.get, without)
      with:set("s")
      without:set(nil)
      assert.equal("s", with:get("a"))
      assert.is_nil(without:get())
      with:set(false)
      assert.is_false(with:get())
    end)
  end)

  it("default may be false", function()
    assert.is_false(aloop.ContextVar("f", { default = false }):get())
  end)

  it("reset brings the former value back, once", function()
    fresh(function()
      local var = aloop.ContextVar("v")
      local first = var:set(1)
      local second = var:set(2)
      var:reset(second)
      assert.equal(1, var:get())
      raises(aloop.RuntimeError, nil, var.reset, var, second)
      var:reset(first)
      raises(aloop.LookupError, nil, var.get, var)
      local other = aloop.ContextVar("o")
      raises(aloop.ValueError, nil, var.reset, var, other:set(1))
    end)
  end)

  it("a token resets at the end of its block", function()
    fresh(function()
      local var = aloop.ContextVar("v", { default = 0 })
      do
        local _ <close> = var:set(1)
        assert.equal(1, var:get())
      end
      assert.equal(0, var:get())
    end)
  end)

  it("refuses a token of another context", function()
    local var = aloop.ContextVar("v", { default = 0 })
    local token
    aloop.copy_context():run(function() token = var:set(1) end)
    raises(aloop.ValueError, nil, aloop.copy_context().run, aloop.copy_context(), var.reset, var, token)
  end)

  it("refuses wrong arguments", function()
    type_error("bad argument #1 to", aloop.ContextVar)
    type_error("unknown option 'defalt' to 'ContextVar'", aloop.ContextVar, "v", { defalt = 1 })
    local var = aloop.ContextVar("v")
    type_error("bad argument #1 to 'reset'", var.reset, var, 42)
  end)

  it("shows its name", function()
    assert.matches("my_variable", tostring(aloop.ContextVar("my_variable")))
  end)
end)

describe("Context", function()
  it("run passes arguments and results, and keeps changes to itself", function()
    local var = aloop.ContextVar("v", { default = 0 })
    local ctx = aloop.copy_context()
    assert.same({ 1, nil, 3, n = 3 }, table.pack(ctx:run(function(...)
      var:set("inside")
      return ...
    end, 1, nil, 3)))
    assert.equal(0, var:get())
    assert.equal("inside", ctx:run(var.get, var))
  end)

  it("is left when its function fails", function()
    local var = aloop.ContextVar("v", { default = 0 })
    local ctx = aloop.copy_context()
    local ok, e = pcall(ctx.run, ctx, function()
      var:set(1)
      error("inside")
    end)
    assert.is_false(ok)
    assert.matches("inside", e)
    assert.equal(0, var:get())
    assert.equal(1, ctx:run(var.get, var))
  end)

  it("can't be entered twice", function()
    local ctx = aloop.copy_context()
    ctx:run(function() raises(aloop.RuntimeError, nil, ctx.run, ctx, print) end)
    ctx:run(function() end)
  end)

  it("a copy is independent", function()
    local var = aloop.ContextVar("v", { default = 0 })
    fresh(function()
      var:set(1)
      local copy = aloop.copy_context()
      var:set(2)
      assert.equal(1, copy:run(var.get, var))
    end)
  end)

  it("run may wait; the task is in the context until its function returns", function()
    as_task(function(loop)
      local var = aloop.ContextVar("v", { default = 0 })
      local ctx = aloop.copy_context()
      local seen = {}
      local other = loop:create_task(function()
        for i = 1, 3 do
          seen[i] = var:get()
          aloop.sleep(0)
        end
      end)
      ctx:run(function()
        var:set(1)
        for _ = 1, 3 do
          aloop.sleep(0)
          assert.equal(1, var:get())
          raises(aloop.RuntimeError, nil, ctx.run, ctx, print)
        end
      end)
      assert.equal(0, var:get())
      other:await()
      assert.same({ 0, 0, 0 }, seen)
      ctx:run(function() end)
    end)
  end)

  it("run that waits is left when the task is cancelled", function()
    as_task(function(loop)
      local ctx = aloop.copy_context()
      local task = loop:create_task(function() ctx:run(aloop.sleep, 1000) end)
      aloop.sleep(0)
      task:cancel()
      pcall(task.await, task)
      ctx:run(function() end)
    end)
  end)

  it("bind makes a function that runs in it", function()
    local var = aloop.ContextVar("v", { default = 0 })
    local ctx = aloop.copy_context()
    local bound = ctx:bind(function(x)
      var:set(x)
      return var:get(), nil
    end)
    assert.same({ 5, nil, n = 2 }, table.pack(bound(5)))
    assert.equal(0, var:get())
    assert.equal(5, ctx:run(var.get, var))
  end)

  it("tasks and callbacks keep their variables apart", function() -- row: ContextVar
    as_task(function(loop)
      local var = aloop.ContextVar("v", { default = "default" })
      local seen = {}
      local tasks = {}
      for i = 1, 3 do
        tasks[i] = loop:create_task(function()
          var:set(i)
          aloop.sleep(0)
          loop:call_soon(function()
            seen["callback" .. i] = var:get()
            var:set("lost")
          end)
          aloop.sleep(0)
          aloop.sleep(0)
          seen["task" .. i] = var:get()
        end)
      end
      for _, task in ipairs(tasks) do task:await() end
      assert.equal("default", var:get())
      assert.same({ task1 = 1, task2 = 2, task3 = 3, callback1 = 1, callback2 = 2, callback3 = 3 }, seen)
    end)
  end)
end)

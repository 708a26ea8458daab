-- The yieldable require: modules that wait at their top level, several tasks that ask for one module, and what happens
-- when that fails, is cancelled or goes round in a circle. Otherwise it is as in stock Lua.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

local as_task, raises, turns = helper.as_task, helper.raises, helper.turns

-- Modules of the specs, by name; gone when a spec ends.
local function preload(modules)
  for name, loader in pairs(modules) do package.preload[name] = loader end
end

describe("require", function()
  after_each(function()
    for _, list in ipairs { package.preload, package.loaded } do
      for name in pairs(list) do
        if name:find("^spec_module_") then list[name] = nil end
      end
    end
  end)

  it("may wait at a module's top level, and returns value and loader data as ever", function()
    as_task(function()
      preload { spec_module_a = function(name, data)
        aloop.sleep(0.001)
        return { name, data }
      end }
      local module, data = require "spec_module_a"
      assert.same({ "spec_module_a", ":preload:" }, module)
      assert.equal(":preload:", data)
      assert.same({ module, n = 1 }, table.pack(require "spec_module_a"))
    end)
  end)

  it("keeps true for a module that returns nothing, also after a wait, and what it has set itself", function()
    as_task(function()
      preload {
        spec_module_none = function() aloop.sleep(0) end,
        spec_module_self = function(name)
          package.loaded[name] = "its own"
          aloop.sleep(0)
        end,
      }
      assert.is_true((require "spec_module_none"))
      assert.equal("its own", (require "spec_module_self"))
    end)
  end)

  it("may wait in a searcher", function()
    as_task(function()
      local function searcher(name)
        aloop.sleep(0)
        if name == "spec_module_found" then return function() return "found" end, "by a searcher" end
        return "\n\tnothing here"
      end
      table.insert(package.searchers, 1, searcher)
      local ok, value, data = pcall(require, "spec_module_found")
      local missing, message = pcall(require, "spec_module_missing")
      table.remove(package.searchers, 1)
      assert.is_true(ok)
      assert.same({ "found", "by a searcher" }, { value, data })
      assert.is_false(missing)
      assert.matches("module 'spec_module_missing' not found:.*nothing here", message)
    end)
  end)

  it("of a file that waits, from a user coroutine, a metamethod and a nested require", function()
    local directory, remove = helper.temporary_directory {
      ["inner_module.lua"] = "require('aloop').sleep(0) return 'inner'",
      ["outer_module.lua"] = "require('aloop').sleep(0) return 'outer ' .. require('inner_module')",
    }
    local out = helper.output_of([[
      local co = coroutine.wrap(function()
        coroutine.yield(require("outer_module"))
      end)
      print((co()))
      package.loaded.outer_module = nil
      local lazy = setmetatable({}, { __index = function(_, name) return (require(name)) end })
      print(lazy.outer_module)
    ]], { dir = directory })
    remove()
    assert.equal("outer inner\nouter inner\n", out)
  end)

  it("by several tasks at once loads once; all get the same", function()
    as_task(function(loop)
      local loads = 0
      preload { spec_module_a = function()
        loads = loads + 1
        turns(3)
        return {}
      end }
      local tasks = {}
      for i = 1, 5 do
        tasks[i] = loop:create_task(function() return (require "spec_module_a") end)
      end
      local module = tasks[1]:await()
      for i = 2, 5 do assert.equal(module, tasks[i]:await()) end
      assert.equal(1, loads)
    end)
  end)

  for _, how in ipairs { "fails", "is cancelled", "fails in a user coroutine" } do
    it("that " .. how .. " lets the next task that waits for it load", function()
      as_task(function(loop)
        local loads = 0
        preload { spec_module_a = function()
          loads = loads + 1
          turns(3)
          if loads == 1 and how ~= "is cancelled" then error("first time", 0) end
          return loads
        end }
        local function load() return (require "spec_module_a") end
        local first = loop:create_task(function()
          if how ~= "fails in a user coroutine" then return load() end
          local co = coroutine.create(load) -- dies of it, and is never closed
          local ok, e = coroutine.resume(co)
          assert.is_false(ok)
          error(e, 0)
        end)
        local others = { loop:create_task(load), loop:create_task(load) }
        turns(2)
        if how == "is cancelled" then first:cancel() end
        local ok, e = pcall(first.await, first)
        assert.is_false(ok)
        if how == "is cancelled" then
          assert.is_true(aloop.isinstance(e, aloop.CancelledError))
        else
          assert.equal("first time", e)
        end
        assert.equal(2, others[1]:await())
        assert.equal(2, others[2]:await())
        assert.equal(2, loads)
      end)
    end)
  end

  it("a task that waits for another's load may be cancelled; the load goes on", function()
    as_task(function(loop)
      preload { spec_module_a = function()
        turns(4)
        return "loaded"
      end }
      local first = loop:create_task(function() return (require "spec_module_a") end)
      local second = loop:create_task(function() return (require "spec_module_a") end)
      turns(2)
      second:cancel()
      raises(aloop.CancelledError, nil, second.await, second)
      assert.equal("loaded", first:await())
    end)
  end)

  it("an error in a module after a wait has its traceback", function()
    local directory, remove = helper.temporary_directory {
      ["broken_module.lua"] = "require('aloop').sleep(0)\nerror('broken at the top')",
    }
    local result = helper.run("require 'broken_module'", { dir = directory })
    remove()
    assert.equal(1, result.code)
    assert.matches("broken_module%.lua:2: broken at the top", result.stderr)
    assert.matches("broken_module%.lua:2: in main chunk", result.stderr)
  end)

  it("in a circle is an error: within a task, and between two that would wait for each other", function()
    as_task(function(loop)
      preload {
        spec_module_a = function()
          turns(1)
          return require "spec_module_b"
        end,
        spec_module_b = function()
          turns(1)
          return require "spec_module_a"
        end,
      }
      local ok, e = pcall(require, "spec_module_a")
      assert.is_false(ok)
      assert.matches("module 'spec_module_a' requires itself: a circular require", e)
      local one = loop:create_task(function() return pcall(require, "spec_module_a") end)
      local two = loop:create_task(function() return pcall(require, "spec_module_b") end)
      local results = { { one:await() }, { two:await() } }
      assert.is_false(results[1][1])
      assert.is_false(results[2][1])
      local text = tostring(results[1][2]) .. tostring(results[2][2])
      assert.matches("is being loaded by a task that waits for this one: a circular require", text)
    end)
  end)

  it("in a circle of three tasks is one, too; those in no circle get their module", function()
    as_task(function(loop)
      local function module(next_one)
        return function()
          turns(1)
          local ok, e = pcall(require, next_one)
          return { ok, e }
        end
      end
      preload {
        spec_module_a = module "spec_module_b",
        spec_module_b = module "spec_module_c",
        spec_module_c = module "spec_module_a",
      }
      local tasks = {}
      for i, name in ipairs { "a", "b", "c", "a" } do
        tasks[i] = loop:create_task(function() return (require("spec_module_" .. name)) end)
      end
      local failed = 0
      for i = 1, 4 do
        local result = tasks[i]:await()
        if not result[1] then
          failed = failed + 1
          assert.matches("a circular require", result[2])
        end
      end
      assert.equal(1, failed)
      assert.equal(tasks[1]:result(), tasks[4]:result())
    end)
  end)

  it("a loader may ask for its own module once more, having changed what loads it", function()
    as_task(function()
      preload { spec_module_a = function(name)
        package.preload[name] = function() return { "the real one" } end
        aloop.sleep(0)
        local module = require(name)
        module[2] = "changed"
        return module
      end }
      assert.same({ "the real one", "changed" }, (require "spec_module_a"))
    end)
  end)

  it("where nothing can wait names what is in the way", function()
    as_task(function(loop)
      preload {
        spec_module_a = function() turns(2) end,
        spec_module_b = function() turns(1) end,
      }
      local ok, e = pcall(string.gsub, "x", "x", function() require "spec_module_b" end)
      assert.is_false(ok)
      assert.matches("string%.gsub", e.message)
      local task = loop:create_task(function() return (require "spec_module_a") end)
      turns(1)
      raises(aloop.RuntimeError, "string.gsub", string.gsub, "x", "x", function() require "spec_module_a" end)
      local callback_ok, callback_error
      loop:call_soon(function() callback_ok, callback_error = pcall(require, "spec_module_a") end)
      turns(1)
      assert.is_false(callback_ok)
      assert.matches("is being loaded by a task that waits", callback_error.message)
      task:await()
    end)
  end)

  it("a load that was given up is begun anew", function()
    helper.drive(helper.new_loop, function(loop)
      local loads = 0
      preload { spec_module_a = function()
        loads = loads + 1
        if loads == 1 then aloop.sleep(1000) end
        return loads
      end }
      local lost = helper.new_loop()
      lost:set_exception_handler(function() end)
      lost:create_task(function() require "spec_module_a" end)
      helper.turn(lost, 2)
      lost:close()
      assert.equal(2, (loop:run_until_complete(function() return (require "spec_module_a") end)))
      package.loaded.spec_module_a = nil
      loads = 1
      preload { spec_module_a = function()
        loads = loads + 1
        if loads == 2 then coroutine.yield("in the middle") end
        return loads
      end }
      local co = coroutine.wrap(function() return require "spec_module_a" end)
      assert.equal("in the middle", co())
      assert.equal(3, (require "spec_module_a"))
    end)
  end)

  it("checks its arguments and package.searchers as in stock Lua", function()
    local ok, e = pcall(require)
    assert.is_false(ok)
    assert.matches("bad argument #1 to '[%w?]+' %(string expected, got no value%)", e)
    local searchers = package.searchers
    package.searchers = nil
    ok, e = pcall(require, "spec_module_x")
    package.searchers = searchers
    assert.is_false(ok)
    assert.matches("'package.searchers' must be a table", e)
  end)
end)

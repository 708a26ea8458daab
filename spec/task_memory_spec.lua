-- How much of Lua's heap a pending task takes. What stands outside of it is counted by spec/c/embed_bytes.c.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

local N = 200

-- Of the 1536 bytes that a task which waits for a socket may take in all, 120 are the records of this wait, in C.
local MOST = 1536 - 120

local function heap()
  collectgarbage()
  collectgarbage()
  return collectgarbage("count") * 1024
end

local function end_all(tasks)
  for _, task in ipairs(tasks) do task:cancel() end
  aloop.wait(tasks)
end

-- As many tasks that wait, whose coroutines no later task is made from, for a script has got them. They also take what
-- others have left.
local function use_up_coroutines(loop)
  local tasks, never = {}, loop:create_future()
  for i = 1, N do
    tasks[i] = loop:create_task(function()
      coroutine.running()
      never:await()
    end)
  end
  helper.turns(1)
  end_all(tasks)
end

-- Bytes a task: of those that run the functions, and wait.
local function bytes_of_tasks(loop, bodies)
  local tasks = table.move(bodies, 1, N, 1, {})
  use_up_coroutines(loop)
  local before = heap()
  for i = 1, N do tasks[i] = loop:create_task(bodies[i]) end
  helper.turns(1)
  local bytes = (heap() - before) / N
  end_all(tasks)
  return bytes
end

local function assert_small(bytes)
  assert.is_true(bytes > 1000 and bytes <= MOST, ("%.1f bytes a task"):format(bytes))
end

helper.each_loop(function(_, new_loop)
  it("a task that waits for a socket is small", function()
    helper.with_loop(new_loop, function(loop)
      local sockets, bodies = {}, {}
      for i = 1, N do
        local socket <const> = aloop.socket.socket(aloop.socket.AF_INET, aloop.socket.SOCK_DGRAM)
        socket:setblocking(false)
        sockets[i], bodies[i] = socket, function() loop:sock_recv(socket, 100) end
      end
      local bytes = bytes_of_tasks(loop, bodies)
      for i = 1, N do sockets[i]:close() end
      assert_small(bytes)
    end)
  end)
end)

describe("a task is small", function()
  -- make(loop): the function of one task
  local function with(make)
    helper.as_task(function(loop)
      local bodies = {}
      for i = 1, N do bodies[i] = make(loop) end
      assert_small(bytes_of_tasks(loop, bodies))
    end)
  end

  it("that waits for a future", function()
    with(function(loop)
      local future = loop:create_future()
      return function() future:await() end
    end)
  end)

  it("that sleeps", function()
    with(function() return function() aloop.sleep(1000) end end)
  end)
end)

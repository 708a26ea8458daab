-- taskgroups.lua: TaskGroup, a scope that waits for the tasks made in it: the first that fails cancels the others and
-- the block itself. What it must not lose is a cancellation that comes from outside meanwhile.
-- SPDX-License-Identifier: MIT

local core = require "aloop.core"
local check = require "aloop.check"
local interrupts = require "aloop.interrupts"
local tasks = require "aloop.tasks"

local is_interrupt = interrupts.is_interrupt

local taskgroups = {}

--- `do local group <close> = aloop.TaskGroup() … end` waits for its tasks at the end of the block. Errors of tasks and
--- of the block are raised there together, as an ExceptionGroup.
---@class aloop.TaskGroup
---@field private parent aloop.Task
---@field private children table<aloop.Task, integer> which of them it is
local TaskGroup = core.Object:extend("TaskGroup")
taskgroups.TaskGroup = TaskGroup

function TaskGroup:init()
  self.children, self.n_children, self.n_made, self.errors = {}, 0, 0, {}
  self.on_done = function(task) self:task_done(task) end
  -- With room for what is to come, it is closed even without memory.
  self.exiting, self.aborting, self.abandoned, self.cancelled_parent = false, false, false, false
  self.completed, self.interrupt = false, false
  self.scope, self.parent, self.loop = false, false, false
  self.scope, self.parent = core.scope("TaskGroup")
  self.loop = self.parent:get_loop()
end

function TaskGroup:__tostring()
  local parts = { "<TaskGroup" }
  if self.n_children > 0 then parts[#parts + 1] = ("tasks=%d"):format(self.n_children) end
  if #self.errors > 0 then parts[#parts + 1] = ("errors=%d"):format(#self.errors) end
  local finished = self.exiting and self.n_children == 0
  parts[#parts + 1] = self.aborting and "cancelling" or finished and "finished" or "entered"
  return table.concat(parts, " ") .. ">"
end

--- Makes a task that belongs to the group.
---@param coro function|thread
---@param options? {name: string?, context: aloop.Context?, eager_start: boolean?}
---@return aloop.Task
function TaskGroup:create_task(coro, options)
  check.coroutine(1, "create_task", coro)
  if self.exiting and self.n_children == 0 then error(core.RuntimeError(tostring(self) .. " is finished")) end
  if self.aborting then error(core.RuntimeError(tostring(self) .. " is shutting down")) end
  local task = self.loop:create_task(coro, options)
  self.n_made = self.n_made + 1
  self.children[task] = self.n_made
  task:add_done_callback(self.on_done)
  self.n_children = self.n_children + 1 -- last: one that doesn't report its end is not waited for
  return task
end

-- Cancels its tasks, in the order in which they were made: what follows takes the same course each time.
---@private
function TaskGroup:abort()
  self.aborting = true
  local pending, children = {}, self.children
  for task in pairs(children) do pending[#pending + 1] = task end
  table.sort(pending, function(a, b) return children[a] < children[b] end)
  for _, task in ipairs(pending) do task:cancel() end
end

---@private
function TaskGroup:add_error(err, traceback)
  self.errors[#self.errors + 1] = tasks.as_error(err, traceback)
end

---@private
function TaskGroup:task_done(task)
  self.children[task] = nil
  self.n_children = self.n_children - 1
  if self.completed and self.n_children == 0 and not self.completed:done() then self.completed:set_result() end
  if self.abandoned or core.outcome(task) ~= "failed" then return end
  local err, traceback = core.take_error(task)
  self:add_error(err, traceback)
  if is_interrupt(err) then self.interrupt = self.interrupt or err end
  if self.parent:done() then
    self.loop:call_exception_handler {
      message = ("%s has errored out but its parent %s is already completed"):format(task, self.parent),
      exception = err,
      task = task,
    }
  elseif not self.aborting and not self.cancelled_parent then
    self:abort()
    self.cancelled_parent = true
    self.parent:cancel()
  end
end

-- Waits until no task is left; a cancellation from outside is passed on to them, and returned.
---@private
function TaskGroup:wait_for_tasks()
  local cancelled
  while self.n_children > 0 do
    self.completed = core.waiter(self)
    local ok, err = pcall(self.completed.await, self.completed)
    if not ok then
      if not core.isinstance(err, core.CancelledError) then error(err, 0) end
      core.keep_cancellation()
      if not self.aborting then
        cancelled = err
        self:abort()
      end
    end
    self.completed = false
  end
  return cancelled
end

-- Closed where nothing can wait: the tasks are cancelled, and an error that one ends with is reported, as of any other.
---@private
function TaskGroup:abandon()
  self.abandoned = true
  if not self.aborting then self:abort() end
end

-- What the block ends with: nothing is raised where its own error is to go on.
---@private
function TaskGroup:conclude(failed, err, cancelled)
  if self.interrupt then error(self.interrupt, 0) end
  if self.cancelled_parent and self.parent:uncancel() == 0 then cancelled = nil end
  if #self.errors == 0 and cancelled then error(cancelled, 0) end
  if failed and not core.isinstance(err, core.CancelledError) then self:add_error(err, core.traceback_of(err)) end
  if #self.errors == 0 then return end
  if self.parent:cancelling() > 0 then -- told again where it waits next, and counted as before
    self.parent:uncancel()
    self.parent:cancel()
  end
  local errors = self.errors
  self.errors = {}
  error(core.ExceptionGroup("unhandled errors in a TaskGroup", errors), 0)
end

function TaskGroup:__close(err)
  if self.exiting then return end
  local failed = err ~= nil or core.unwinding()
  self.exiting = true
  core.scope_leave(self.scope)
  if failed and is_interrupt(err) then self.interrupt = self.interrupt or err end
  if failed and not self.aborting then self:abort() end
  local cancelled
  if core.may_wait() then cancelled = self:wait_for_tasks() else self:abandon() end
  self:conclude(failed, err, cancelled)
end

return taskgroups

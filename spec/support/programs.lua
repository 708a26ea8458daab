-- programs.lua - the programs of spec/c, as the specs that run them need them.
-- SPDX-License-Identifier: MIT

local assert = require "luassert"
local busted = require "busted"
local lfs = require "lfs"
local helper = require "spec.helper"

local programs = {}

-- The path of a program that the build has made of spec/c or of the examples.
function programs.path(name)
  local path = helper.build .. "/c/" .. name
  assert.is_not_nil(lfs.attributes(path), path .. " is not built")
  return path
end

-- The names in spec/c that match one of these patterns, in order; not those that match options.except.
function programs.named(patterns, options)
  local names = {}
  for file in lfs.dir("spec/c") do
    local name = file:match("^(.*)%.c$")
    local wanted = false
    for _, pattern in ipairs(patterns) do wanted = wanted or name and name:find(pattern) end
    if wanted and not (options and name:find(options.except)) then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

-- A spec for each of these programs: that all its tests pass.
function programs.specs(names)
  for _, name in ipairs(names) do
    busted.it("spec/c/" .. name .. " passes", function()
      local result = helper.run_program({ programs.path(name) }, { merge = true, timeout = 300 })
      local text = ("%s\n%s"):format(result.stdout, result.signal and "signal " .. result.signal or "")
      assert.equal(0, result.code, text)
      assert.matches("ok %d+ tests", result.stdout)
    end)
  end
end

-- The module of spec/c/module/NAME.c, compiled for the interpreter under test.
function programs.module(name)
  local module
  helper.in_directory(function(directory)
    local path = directory .. "/" .. name .. ".so"
    local command = "${CC:-cc} -std=gnu11 -O1 -fPIC -shared -o %s -I%s $(pkg-config --cflags lua5.4) %s 2>&1"
    local source = ("%s/spec/c/module/%s.c"):format(helper.root, name)
    command = command:format(helper.quote(path), helper.quote(helper.root .. "/core"), helper.quote(source))
    local pipe = io.popen(command)
    local output = pipe:read("a")
    assert(pipe:close(), output)
    module = assert(package.loadlib(path, "luaopen_" .. name))()
  end)
  return module
end

return programs

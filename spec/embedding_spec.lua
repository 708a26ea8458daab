-- aloop in a program of one's own: aloop_lua.h, by C programs that use it (spec/c/embed_*.c), and the example.
-- SPDX-License-Identifier: MIT

local lfs = require "lfs"
local helper = require "spec.helper"

local DIRECTORY = helper.build .. "/c"

local function run(name, argv)
  local path = DIRECTORY .. "/" .. name
  assert.is_not_nil(lfs.attributes(path), path .. " is not built")
  return helper.run_program({ path, table.unpack(argv or {}) }, { timeout = 120 })
end

describe("embedding", function()
  for name in lfs.dir("spec/c") do
    local program = name:match("^(embed_.*)%.c$")
    if program then
      it("spec/c/" .. program .. " passes", function()
        local result = run(program)
        local how = result.signal and "signal " .. result.signal or ""
        local text = ("%s%s\n%s"):format(result.stdout, result.stderr, how)
        assert.equal(0, result.code, text)
        assert.matches("ok %d+ tests", result.stdout)
      end)
    end
  end
end)

describe("the example of embedding", function()
  it("runs a script of its own, that calls into the program and waits for a connection", function()
    local result = run("embed")
    assert.equal("result 1: HELLO, WORLD OF C\nresult 2: 17\n", result.stdout, result.stderr)
    assert.equal(0, result.code)
  end)

  it("runs a file", function()
    local path = helper.write_file("return app.greet(...), (require 'aloop'.sleep(0.001, 'slept'))")
    local result = run("embed", { path })
    os.remove(path)
    assert.equal("result 1: world of C\nresult 2: slept\n", result.stdout, result.stderr)
  end)

  it("shows an error with its traceback", function()
    local path = helper.write_file("local function f() require 'aloop'.sleep(0) error('oh') end\nf()")
    local result = run("embed", { path })
    os.remove(path)
    assert.equal(1, result.code)
    assert.matches("^embed: %S+:1: oh\nstack traceback:\n", result.stderr)
  end)

  it("fits on a page", function()
    local lines = 0
    for _ in io.lines("scripts/examples/embed.c") do lines = lines + 1 end
    assert.is_true(lines < 80)
  end)
end)

-- aloop in a program of one's own: aloop_lua.h, by C programs that use it (spec/c/embed_*.c), and the example.
-- SPDX-License-Identifier: MIT

local helper = require "spec.helper"
local programs = require "spec.support.programs"

local function run(name, argv)
  return helper.run_program({ programs.path(name), table.unpack(argv or {}) }, { timeout = 120 })
end

-- embed_threads shows what scripts see of other threads:
-- row: get_running_loop.per_thread, abstract_loop.not_threadsafe, call_soon.not_threadsafe, debug.thread_check
-- row: add_signal_handler.main_thread
describe("embedding", function()
  programs.specs(programs.named { "^embed_" })
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

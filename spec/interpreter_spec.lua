-- The interpreter's command line. What it has in common with `lua` is compared with a stock lua5.4 doing the same; the
-- main chunk as a task is in main_chunk_spec.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local quote = helper.quote

local LUA = os.getenv("ALOOP_LUA") or "lua5.4"

local FILES = {
  ["script.lua"] = [[
print("script", ...)
local first = 0
while arg[first - 1] do first = first - 1 end
for i = first + 1, #arg do print(i, arg[i]) end
print(arg[0], select("#", ...))]],
  ["syntax.lua"] = "x = (",
  ["shebang.lua"] = "#!/usr/bin/env lua\nprint('shebang')",
  ["fails.lua"] = "local function f() error('in the script') end\nf()",
  ["mod.lua"] = "return { name = ..., file = select(2, ...) }",
  ["badmod.lua"] = "error('in the module')",
  ["nothing.lua"] = "",
  ["init.lua"] = "print('init file')",
  ["closes.lua"] = "local c <close> = setmetatable({}, {__close = function() print('closed') end})\nerror('x')",
  ["exits.lua"] = [[
    local function closing(name, fails)
      return setmetatable({}, { __close = function(_, e)
        print(name, e)
        if fails then error(name .. " fails") end
      end })
    end
    local _ <close> = closing "one"
    local _ <close> = closing("two", true)
    pcall(function()
      local _ <close> = closing "three"
      coroutine.wrap(function()
        local _ <close> = closing "of a coroutine"
        os.exit(7, arg[1] == "close")
      end)()
    end)
  ]],
}

-- Both interpreters run the same shell line, with $I in place of the interpreter's name; stdin is empty.
local dir, remove_dir

local function run_shell(interpreter, line)
  return helper.run_program({ "sh", "-c", "I=" .. quote(interpreter) .. "; " .. line }, { dir = dir })
end

-- Messages begin with the interpreter's name; tracebacks end with the C functions below the main chunk.
local function normalize(text, interpreter)
  text = ("\n" .. text):gsub("\nlua5%.4: ", "\nINTERPRETER: "):gsub("\naloop: ", "\nINTERPRETER: ")
  return text:gsub("\n\t%[C%]: in %?", ""):gsub(interpreter:gsub("%W", "%%%0"), "INTERPRETER")
end

local function assert_same_as_lua(line)
  local expected, got = run_shell(LUA, line), run_shell(helper.aloop, line)
  for _, key in ipairs { "stdout", "stderr" } do
    assert.equal(normalize(expected[key], LUA), normalize(got[key], helper.aloop), line .. ": " .. key)
  end
  assert.equal(expected.code, got.code, line)
end

setup(function()
  dir, remove_dir = helper.temporary_directory()
  for name, text in pairs(FILES) do helper.write_file(text .. "\n", dir .. "/" .. name) end
end)

teardown(function() remove_dir() end)

describe("as lua:", function()
  local CASES = {
    ["runs a script with its arguments"] = {
      "$I script.lua a b", "$I -- script.lua x", "$I -e 'x = 1' script.lua a", "$I -W -E script.lua -e 'no option'",
      "$I shebang.lua", "$I - a b <script.lua", "$I <shebang.lua", "$I nothing.lua",
    },
    ["runs code of -e, in order"] = {
      "$I -e 'print(1)' -e 'print(2)'", "$I -e'print(1)'", "$I -e 'print(arg[1], arg[2])'", "$I -e 'return 5'",
      "$I -e 'print(1)' script.lua", "$I -e 'print(#arg, arg[0] ~= nil)' nothing.lua",
    },
    ["requires libraries of -l"] = {
      "$I -l mod -e 'print(mod.name, mod.file)'", "$I -lmod -e 'print(mod.name)'",
      "$I -l m=mod -e 'print(m.name, mod)'", "$I -l nothing -e 'print(nothing)'", "$I -l badmod", "$I -l nosuchmodule",
    },
    ["runs LUA_INIT first"] = {
      "LUA_INIT='print(7)' $I -e 'print(8)'", "LUA_INIT_5_4='print(9)' LUA_INIT='print(7)' $I -e 'print(8)'",
      "LUA_INIT=@init.lua $I nothing.lua", "LUA_INIT=@nofile $I nothing.lua", "LUA_INIT='x = (' $I nothing.lua",
      "LUA_INIT='error(\"in init\")' $I -e 'print(8)'", "LUA_INIT='print(7)' $I -E -e 'print(8)'",
      "LUA_PATH=/nowhere $I -E -e 'print(package.path:find(\"nowhere\"))'",
    },
    ["tells errors, and exits with 1"] = {
      "$I fails.lua", "$I syntax.lua", "$I nofile.lua", "$I closes.lua", "$I -e 'x = ('", "$I -e 'error(\"m\", 0)'",
      "$I -e 'error()'", "$I -e 'error(nil)'", "$I -e 'error({})'", "$I -e 'error(42)'", "$I -e 'error(true)'",
      "$I -e 'local t; t.x = 1'", "$I -e 'string.rep()'", "$I -e 'local c <close> = 5'", "$I - <syntax.lua",
      "$I -e 'error(1)' -e 'print(2)'",
    },
    ["turns warnings on with -W"] = {
      "$I -W -e 'warn(\"w\")'", "$I -e 'warn(\"w\")'", "$I -e 'warn(\"@on\") warn(\"w\")'", "$I -e 'warn(\"w\")' -W",
    },
    ["exits with os.exit's status"] = {
      "$I -e 'os.exit(3)'", "$I -e 'os.exit(true)'", "$I -e 'os.exit(false)'", "$I -e 'os.exit(4, true)'",
      "$I -e 'setmetatable({}, {__gc = function() print(1) end})'",
      "$I -e 'setmetatable({}, {__gc = function() print(1) end}) os.exit(0, true)'",
      "$I -e 'os.exit(4)' -e 'print(1)'", "$I exits.lua", "$I exits.lua close",
    },
    ["shows what scripts see of it"] = {
      "$I -e 'print(select(\"#\", ...))'", "$I -e 'print(collectgarbage(\"incremental\"))'",
      "$I -e 'print(select(2, coroutine.running()))' | tail -c 0",
      "$I -e 'for k in pairs(_G) do io.write(k, \"\\n\") end' | sort",
      "$I -e 'for k in pairs(coroutine) do io.write(k, \"\\n\") end' | sort",
    },
  }
  for name, lines in pairs(CASES) do
    it(name, function()
      for _, line in ipairs(lines) do assert_same_as_lua(line) end
    end)
  end

  it("refuses wrong options in lua's words, with its own usage", function()
    for _, options in ipairs { "-e", "-l", "-e -v", "-x", "--foo", "-vv", "-Ex", "-ix" } do
      local expected, got = run_shell(LUA, "$I " .. options), run_shell(helper.aloop, "$I " .. options)
      assert.equal(1, got.code)
      assert.equal("", got.stdout)
      local expected_line = normalize(expected.stderr, LUA):match("^\n[^\n]*")
      assert.equal(expected_line, normalize(got.stderr, helper.aloop):match("^\n[^\n]*"))
      assert.matches("\nusage: aloop %[options%] %[script %[args%]%]\n", got.stderr)
    end
  end)

  it("-i reads and runs lines after the script", function()
    local result = helper.run_program({ helper.aloop, "-i", "-e", "x = 20" },
      { stdin = "x + 1\n= x + 2\nfor i = 1, 2 do\nprint(i) end\nerror('oops')\nreturn nil, 3\n", dir = dir })
    assert.equal(0, result.code)
    for _, text in ipairs { "^aloop %S+, Lua 5%.4", "21\n", "22\n", "1\n2\n", "nil\t3\n" } do
      assert.matches(text, result.stdout)
    end
    assert.matches("aloop: stdin:1: oops\nstack traceback:", result.stderr)
  end)
end)

describe("the interpreter", function()
  local function output(argv, options)
    options = options or {}
    options.dir = dir
    local result = helper.run_program({ helper.aloop, table.unpack(argv) }, options)
    assert.equal(0, result.code, result.stderr)
    return result.stdout, result.stderr
  end

  it("tells its version", function()
    for _, option in ipairs { "-v", "--version" } do
      local text = output { option }
      assert.matches("^aloop " .. aloop._VERSION:gsub("%.", "%%.") .. ", Lua 5%.4[^\n]*\n$", text)
    end
  end)

  it("--version runs nothing, whatever stands beside it", function()
    local version = output { "--version" }
    for _, rest in ipairs { "-e", "-l", "nosuch.lua" } do assert.equal(version, output { "--version", rest }) end
    assert.equal(version, output { "-e", "print(1)", "--version" })
  end)

  it("--help shows every option and environment variable", function()
    local text = output { "--help" }
    for _, option in ipairs { "-e", "-l", "-i", "-v", "-E", "-W", "-X debug", "-X selector=", "-X proactor", "--" } do
      assert.truthy(text:find(option, 1, true), option)
    end
    local names = "LUA_INIT LUA_PATH LUA_CPATH ALOOPDEBUG ALOOP_LUADIR SSLKEYLOGFILE ALOOP_HISTORY ALOOP_EDIT " ..
      "ALOOP_PS_TIMEOUT"
    for name in names:gmatch "%S+" do assert.truthy(text:find("  .*" .. name), name) end
  end)

  it("-X debug and ALOOPDEBUG put loops into debug mode", function() -- row: get_debug
    local code = "print(require 'aloop'.get_event_loop():get_debug())"
    assert.equal("false\n", output({ "-e", code }, { env = { ALOOPDEBUG = false } }))
    assert.equal("true\n", output { "-X", "debug", "-e", code })
    assert.equal("true\n", output { "-Xdev", "-e", code })
    assert.equal("true\n", output({ "-e", code }, { env = { ALOOPDEBUG = "1" } }))
    assert.equal("false\n", output({ "-E", "-e", code }, { env = { ALOOPDEBUG = "1" } }))
    assert.equal("nil\n", output { "-X", "debug", "-e", "print(require 'aloop'.environ().ALOOPDEBUG)" })
  end)

  it("-X selector chooses how loops wait", function()
    local code = "local aloop, core = require 'aloop', require 'aloop.core' aloop.sleep(0) " ..
        "print(core.machine(aloop.get_running_loop()))"
    for _, name in ipairs { "epoll", "poll", "select" } do
      assert.equal(name .. "\n", output { "-X", "selector=" .. name, "-e", code })
    end
    local result = helper.run_program { helper.aloop, "-X", "selector=kqueue", "-e", "" }
    assert.equal(1, result.code)
    assert.matches("unknown selector 'kqueue'", result.stderr)
  end)

  it("-X proactor uses the ring, or tells why there is none", function()
    local result = helper.run_program { helper.aloop, "-X", "proactor", "-e",
      "local aloop = require 'aloop' aloop.sleep(0) print(aloop.get_running_loop())" }
    if select(2, helper.loop_maker("ring")) then
      assert.equal(1, result.code)
      assert.matches("NotImplementedError: ", result.stderr)
    else
      assert.matches("^<ProactorEventLoop", result.stdout)
    end
  end)

  it("loads C modules", function()
    for name, code in pairs {
      lfs = "print(require 'lfs'.attributes('script.lua', 'mode'))",
      cjson = "print(require 'cjson'.encode({1, 2}))",
      lpeg = "print(require 'lpeg'.match(require 'lpeg'.P('a') ^ 1, 'aab'))",
    } do
      local expected = { lfs = "file\n", cjson = "[1,2]\n", lpeg = "3\n" }
      assert.equal(expected[name], output { "-e", code })
    end
  end)

  it("waits in every chunk that it runs", function()
    local sleep = "require 'aloop'.sleep(0.001) "
    local env = { LUA_INIT = sleep .. "print('init')" }
    assert.equal("init\n-e\nstdin\n", output({ "-e", sleep .. "print('-e')", "-" },
      { env = env, stdin = sleep .. "print('stdin')" }))
  end)

  it("exits with the code of SystemExit", function()
    for code, expected in pairs {
      ["3"] = { 3, "" }, ["4.0"] = { 4, "" }, ["true"] = { 0, "" }, ["false"] = { 1, "" }, ["nil"] = { 0, "" },
      ["'a message'"] = { 1, "a message\n" }, ["2.5"] = { 1, "2.5\n" },
    } do
      local result = helper.run_program { helper.aloop, "-e", ("error(require 'aloop'.SystemExit(%s))"):format(code) }
      assert.same(expected, { result.code, result.stderr })
    end
  end)

  it("tells an error that has causes whole", function()
    local result = helper.run_program { helper.aloop, "-e", [[
      local aloop = require "aloop"
      local ok, cause = pcall(function() error(aloop.OSError(2, nil, "/x")) end)
      error(aloop.ExceptionGroup("all failed", { aloop.ValueError("one", { cause = cause }), "two" }))
    ]] }
    assert.equal(1, result.code)
    assert.matches("^aloop: ExceptionGroup: all failed\nstack traceback:\n.*\n  %[1%] ValueError: one\n" ..
      "  caused by: FileNotFoundError: No such file or directory: '/x'.*\n  %[2%] two\n$", result.stderr)
  end)

  it("ignores SIGPIPE, but not in its children", function()
    assert.equal("alive\tEPIPE\nyes\n", (output({ "-e", [[
      local aloop = require "aloop"
      local a, b = aloop.pipe()
      a:close()
      local ok, e = pcall(b.write, b, "x")
      print("alive", e.code)
      b:close()
      -- a child that writes into a closed pipe dies of it, as ever
      local child = io.popen("sh -c 'kill -s PIPE $$; echo survived' || echo yes")
      io.write(child:read("a"))
    ]] })))
  end)

  it("runs files of ALOOP_LUADIR instead of its own, and new ones", function()
    local lua_dir, remove_lua_dir = helper.temporary_directory()
    require("lfs").mkdir(lua_dir .. "/aloop")
    helper.write_file("return { partial = 'from ALOOP_LUADIR' }", lua_dir .. "/aloop/helpers.lua")
    helper.write_file("return 'new'", lua_dir .. "/aloop/brandnew.lua")
    local code = "print(require 'aloop'.partial, (require 'aloop.brandnew'))"
    assert.equal("from ALOOP_LUADIR\tnew\n", (output({ "-e", code }, { env = { ALOOP_LUADIR = lua_dir } })))
    remove_lua_dir()
  end)

  it("shows functions of aloop in tracebacks by their names", function()
    local result = helper.run_program { helper.aloop, "-e", "local s = require 'aloop'.sleep s('x')" }
    assert.matches("bad argument #1 to 's'", result.stderr)
    result = helper.run_program { helper.aloop, "-e", "table.pack(pcall(require 'aloop'.sleep)) " ..
      "xpcall(require 'aloop'.sleep, function(e) print(debug.traceback(e)) end)" }
    assert.matches("function 'aloop%.sleep'", result.stdout)
    assert.not_matches("aloop%.core", result.stdout)
  end)
end)

describe("require", function()
  local function run(files, script)
    local module_dir, remove = helper.temporary_directory()
    for name, text in pairs(files) do helper.write_file(text, module_dir .. "/" .. name .. ".lua") end
    local result = helper.run("package.path = '" .. module_dir .. "/?.lua'\n" .. script)
    remove()
    return result
  end

  it("lets a module wait at its top level", function()
    local result = run({
      outer = "local inner = require 'inner' require 'aloop'.sleep(0.001) return { inner = inner, args = { ... } }",
      inner = "require 'aloop'.sleep(0.001) return 'inner value'",
    }, [[
      local outer, file = require "outer"
      print(outer.inner, outer.args[1], outer.args[2] == file, package.loaded.outer == outer)
      print(require "outer" == outer, select("#", require "outer"))
    ]])
    assert.equal("inner value\touter\ttrue\ttrue\ntrue\t1\n", result.stdout, result.stderr)
  end)

  it("lets a second task wait for the module that a first one loads", function()
    local result = run({ slow = "count = (count or 0) + 1 require 'aloop'.sleep(0.01) return { count }" }, [[
      local aloop = require "aloop"
      local tasks = {}
      for i = 1, 3 do tasks[i] = aloop.create_task(function() return require "slow" end) end
      local impatient = aloop.create_task(function() return require "slow" end)
      aloop.sleep(0)
      impatient:cancel()
      local first = tasks[1]:await()
      print(first[1], tasks[2]:await() == first, tasks[3]:await() == first, impatient:cancelled())
    ]])
    assert.equal("1\ttrue\ttrue\ttrue\n", result.stdout, result.stderr)
  end)

  it("lets a second task try again when the first one's load fails", function()
    local result = run({ flaky = [[
      count = (count or 0) + 1
      require "aloop".sleep(0.001)
      if count == 1 then error("the first time") end
      return count
    ]] }, [[
      local aloop = require "aloop"
      local a = aloop.create_task(function() return require "flaky" end)
      local b = aloop.create_task(function() return require "flaky" end)
      print(select(2, pcall(a.await, a)))
      print((b:await()))
    ]])
    assert.matches("flaky.lua:3: the first time\n2\n", result.stdout, result.stderr)
  end)

  it("outside of a task tells who is loading", function()
    local result = run({ slow = "require 'aloop'.sleep(0.01) return 1" }, [[
      local aloop = require "aloop"
      local task = aloop.create_task(function() return require "slow" end)
      aloop.sleep(0)
      aloop.get_running_loop():call_soon(function() print(select(2, pcall(require, "slow"))) end)
      task:await()
    ]])
    assert.matches("^RuntimeError: module 'slow' is being loaded by a task", result.stdout)
  end)

  it("is as lua's in all else", function()
    local script = [[
      print(pcall(require, "no.such"))
      print(pcall(require))
      package.preload.pre = function(...) return table.concat({ ... }, ",") end
      print(require "pre")
      package.preload.sets = function() package.loaded.sets = "set" end
      print(require "sets")
      package.preload.none = function() end
      print(require "none", package.loaded.none)
      package.preload.false_ = function() return false end
      print(require "false_", package.loaded.false_, require "false_")
      table.insert(package.searchers, 1, function(name) return name == "own" and error or nil, "data" end)
      print(pcall(require, "own"))
      package.searchers[1] = function() return "\n\tmy own message" end
      package.searchers[3], package.searchers[4], package.searchers[5] = nil
      print(pcall(require, "other"))
      package.searchers = nil
      print(pcall(require, "other"))
      package.loaded.here = "here"
      print(require "here")
    ]]
    local path = helper.write_file(script)
    local expected = helper.run_program({ LUA, path })
    local got = helper.run_program({ helper.aloop, path })
    os.remove(path)
    assert.equal(expected.stdout, got.stdout)
    assert.equal(expected.stderr, got.stderr)
  end)
end)

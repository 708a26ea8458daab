-- What the README shows is run as it stands there, but for the port and the place of the build.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

local BUILD = os.getenv "ALOOP_BUILD" or "build"

local function read(path)
  local file <close> = assert(io.open(path))
  return file:read "a"
end

local readme = read "README.md"

-- The n-th example.
local function example(n)
  local found = {}
  for text in readme:gmatch "```lua\n(.-)```" do found[#found + 1] = text end
  return assert(found[n])
end

local function free_port()
  local sock <close> = aloop.socket.socket()
  sock:bind { "127.0.0.1", 0 }
  return sock:getsockname()[2]
end

-- Asks until the server is up; the answer's text.
local function ask(port)
  local url = ("http://127.0.0.1:%d/"):format(port)
  local options = "-sS --noproxy '*' --max-time 20 --retry 20 --retry-delay 1 --retry-connrefused "
  local pipe = io.popen("curl " .. options .. url .. " 2>/dev/null") -- it tells of each retry
  local text = pipe:read "a"
  pipe:close()
  return text
end

describe("README", function()
  it("the server answers a request", function()
    local text = example(1)
    assert.matches("8080", text)
    local port = free_port()
    local server = helper.start((text:gsub("8080", tostring(port))))
    local answer = ask(port)
    server:kill "INT"
    server:wait()
    assert.equal("hello\n", answer)
  end)

  it("the tasks and streams talk to each other", function()
    local program = helper.start(example(2))
    local lines = { program:read_line(), program:read_line() }
    table.sort(lines)
    assert.same({ "hello Ada", "hello Grace" }, lines)
    assert.equal(0, program:wait().code)
  end)

  it("the child, the thread and the processes count and sort", function()
    local program = helper.start(example(3))
    local lines = {}
    for line in program.read_line, program do lines[#lines + 1] = line end
    assert.same({ "apple", "pear", "6", "2", "3" }, lines)
    assert.equal(0, program:wait().code)
  end)

  it("its links lead to files and headings that are there", function()
    local headings = {}
    for heading in readme:gmatch "\n#+ ([^\n]+)" do
      headings[heading:lower():gsub("[^%w%- ]", ""):gsub(" ", "-")] = true
    end
    for link in readme:gmatch "%]%(([^)]+)%)" do
      if link:sub(1, 1) == "#" then
        assert.is_true(headings[link:sub(2)], link)
      elseif not link:find "^https://" then
        assert(io.open(link)):close()
      end
    end
  end)

  it("the server of twenty lines has about twenty", function()
    local _, lines = example(1):gsub("\n", "")
    assert.is_true(lines <= 24, lines .. " lines")
  end)

  it("a stock Lua loads aloop by the command shown", function()
    local command = assert(readme:match "(LUA_CPATH=[^\n]+)"):gsub("build/", BUILD .. "/")
    local preload = os.getenv "ALOOP_PRELOAD" or ""
    if preload ~= "" then command = "LD_PRELOAD='" .. preload .. "' ASAN_OPTIONS=detect_leaks=0 " .. command end
    local pipe = io.popen(command .. " 2>&1")
    local text = pipe:read "a"
    assert.is_true(pipe:close(), text)
    assert.equal("", text)
  end)

  it("every file and directory that it links to is there", function()
    local n = 0
    for path in readme:gmatch "%]%(([%w_./-]+)%)" do
      n = n + 1
      assert.is_true(os.rename(path, path), path)
    end
    assert.is_true(n > 5)
  end)
end)

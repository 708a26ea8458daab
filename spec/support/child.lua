-- child.lua - programs as child processes of a spec: their output, exit code, signals. Part of spec/helper.lua.
-- Knows nothing of loops: reading a line blocks until it is there, and an alarm ends a child that hangs.
-- SPDX-License-Identifier: MIT

local lfs = require "lfs"

local child = {}

local ALARM_S = 60

local function absolute(path)
  if path:sub(1, 1) == "/" or not path:find("/", 1, true) then return path end
  return lfs.currentdir() .. "/" .. path
end

local function this_interpreter()
  local link = io.popen("readlink /proc/$PPID/exe")
  local path = link:read("l")
  link:close()
  return path
end

-- The interpreter under test, and the directory of what was built with it.
child.aloop = absolute(os.getenv("ALOOP") or this_interpreter())
child.build = absolute((os.getenv("ALOOP_BUILD") or child.aloop:match("^(.*)/[^/]*$")) .. "/."):sub(1, -3)
child.root = lfs.currentdir()

function child.quote(s)
  return "'" .. s:gsub("'", "'\\''") .. "'"
end
local quote = child.quote

local function read_file(path)
  local file = io.open(path, "rb")
  if not file then return "" end
  local text = file:read("a")
  file:close()
  return text
end
child.read_file = read_file

-- A file with this text in it, of a fresh name if it has no path; the caller removes it. Returns its path.
function child.write_file(text, path)
  path = path or os.tmpname()
  local file <close> = assert(io.open(path, "wb"))
  file:write(text)
  return path
end

-- A fresh directory, with these files in it (name → text), and a function that removes it with all that is in it.
function child.temporary_directory(files)
  local path = os.tmpname()
  os.remove(path)
  assert(lfs.mkdir(path))
  for name, text in pairs(files or {}) do child.write_file(text, path .. "/" .. name) end
  return path, function() os.execute("rm -rf " .. quote(path)) end
end

-- Runs body(directory, ...) with a fresh directory, which is gone afterwards.
function child.in_directory(body, ...)
  local path, remove = child.temporary_directory()
  local ok, e = pcall(body, path, ...)
  remove()
  if not ok then error(e, 0) end
end

---@class Child
---@field pid integer
local Child = {}
Child.__index = Child

-- The shell's lines before the program takes the shell's place (and with it the pid).
local function prelude(options)
  local lines = {}
  for name, value in pairs(options.env or {}) do
    lines[#lines + 1] = value and ("export %s=%s"):format(name, quote(value)) or "unset " .. name
  end
  if options.before then lines[#lines + 1] = options.before end
  if options.dir then lines[#lines + 1] = "cd " .. quote(options.dir) end
  lines[#lines + 1] = "echo $$"
  return table.concat(lines, "\n") .. "\n"
end

-- Starts a program. argv: array of strings. options: env (name → value, false: unset), before (shell lines), dir, stdin
-- (its text), merge (stderr goes to stdout), timeout (seconds).
function child.start_program(argv, options)
  options = options or {}
  local words = {}
  for i, word in ipairs(argv) do words[i] = quote(word) end
  local self = setmetatable({ stderr_path = os.tmpname(), temporary = {} }, Child)
  local stdin = "/dev/null"
  if options.stdin then
    stdin = child.write_file(options.stdin)
    self.temporary[1] = stdin
  end
  local redirect = ("<%s 2>%s"):format(quote(stdin), options.merge and "&1" or quote(self.stderr_path))
  local command = ("%sexec perl -e 'alarm shift; exec {$ARGV[0]} @ARGV or die $!' %d %s %s"):format(prelude(options),
    options.timeout or ALARM_S, table.concat(words, " "), redirect)
  self.out = assert(io.popen(command, "r"))
  self.pid = assert(self.out:read("n"), "the program did not start")
  self.out:read("l")
  return self
end

-- Starts the interpreter with a script: the text of a program, or (options.file) the path of one. options also: flags
-- (interpreter options), args.
function child.start(script, options)
  options = options or {}
  local argv = { child.aloop, table.unpack(options.flags or {}) }
  local path = options.file and absolute(script) or child.write_file(script)
  argv[#argv + 1] = path
  for _, arg in ipairs(options.args or {}) do argv[#argv + 1] = arg end
  local self = child.start_program(argv, options)
  if not options.file then self.temporary[#self.temporary + 1] = path end
  return self
end

-- The next line of its output, nil at the end.
function Child:read_line()
  return self.out:read("l")
end

-- Reads lines up to one that matches; returns its captures. Fails at the end of the output.
function Child:read_until(pattern)
  local seen = {}
  for line in self.out:lines() do
    if line:find(pattern) then return line:match(pattern) end
    seen[#seen + 1] = line
  end
  local result = self:wait()
  error(("the program ended without a line like %q; output:\n%s\nerrors:\n%s"):format(pattern,
    table.concat(seen, "\n"), result.stderr), 2)
end

-- Sends a signal, by its name without SIG.
function Child:kill(name)
  os.execute(("kill -s %s %d"):format(name, self.pid))
end

-- Reads the rest and waits for its end. Returns {stdout, stderr, code | signal}.
function Child:wait()
  local stdout = self.out:read("a")
  local _, how, number = self.out:close()
  local result = { stdout = stdout, stderr = read_file(self.stderr_path) }
  if how == "signal" then result.signal = number else result.code = number end
  os.remove(self.stderr_path)
  for _, path in ipairs(self.temporary) do os.remove(path) end
  return result
end

-- Runs the interpreter with a script to its end; arguments as child.start.
function child.run(script, options)
  return child.start(script, options):wait()
end

function child.run_program(argv, options)
  return child.start_program(argv, options):wait()
end

-- Asserts that a script ends well and returns what it wrote.
function child.output_of(script, options)
  local result = child.run(script, options)
  if result.code ~= 0 then
    local how = result.code and "code " .. result.code or "signal " .. result.signal
    error(("the script ended with %s\n%s%s"):format(how, result.stdout, result.stderr), 2)
  end
  return result.stdout, result.stderr
end

-- To be put in front of a script: hoard() takes all descriptors that are free, and returns what holds them.
child.HOARD = [[
  local function hoard()
    local files = {}
    for file in function() return (io.open("/dev/null")) end do files[#files + 1] = file end
    return files
  end
]]

return child

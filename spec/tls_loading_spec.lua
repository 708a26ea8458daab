-- OpenSSL is loaded when TLS is first used, so that programs without TLS start as fast as a plain Lua; and what happens
-- where it isn't there.
-- SPDX-License-Identifier: MIT

local lfs = require "lfs"
local aloop = require "aloop"
local helper = require "spec.helper"

local LIBRARY = "libssl.so." .. aloop.ssl.OPENSSL_VERSION_INFO[1]

-- Prints whether the process has OpenSSL.
local LOADED = [[
  local function loaded()
    local maps <close> = assert(io.open "/proc/self/maps")
    return maps:read("a"):find("libssl", 1, true) ~= nil or nil
  end
]]

-- Runs a script where the library is what `fill` puts there.
local function run_with(fill, script)
  local result
  helper.in_directory(function(directory)
    fill(directory .. "/" .. LIBRARY)
    result = helper.run(script, { env = { LD_LIBRARY_PATH = directory } })
  end)
  return result
end

local function no_library(path)
  local file = assert(io.open(path, "w"))
  file:write("no library")
  file:close()
end

-- A library, but not OpenSSL.
local function another_library(path) assert(lfs.link(helper.build .. "/aloop.so", path, true)) end

describe("OpenSSL", function()
  it("is not loaded by a script that talks TCP without TLS", function()
    assert.equal("nil\n", helper.output_of(LOADED .. [[
      local aloop = require "aloop"
      local server = aloop.start_server(function(reader, writer)
        writer:write(reader:readline())
        writer:drain()
        writer:close()
      end, "127.0.0.1", 0)
      local reader, writer = aloop.open_connection("127.0.0.1", server.sockets[1]:getsockname().port)
      writer:write "hello\n"
      assert(reader:readline() == "hello\n")
      writer:close()
      server:close()
      print(loaded())
    ]]))
  end)

  it("comes with the first context, or with aloop.ssl", function()
    assert.equal("nil\ttrue\n", helper.output_of(LOADED .. [[
      local aloop = require "aloop"
      local before = loaded()
      aloop.SSLContext()
      print(before, loaded())
    ]]))
    assert.equal("true\n", helper.output_of(LOADED .. [[local _ = require("aloop").ssl; print(loaded())]]))
  end)

  it("is an SSLError that says why if it can't be loaded, each time", function()
    local script = [[
      local aloop = require "aloop"
      local loop = aloop.get_event_loop()
      for _, f in ipairs {
        aloop.SSLContext,
        function() return aloop.ssl end,
        function() loop:create_connection(aloop.Protocol, "127.0.0.1", 1, { ssl = true }) end,
      } do
        local ok, e = pcall(f)
        print(ok, aloop.isinstance(e, aloop.SSLError), e.message)
      end
    ]]
    for _, fill in ipairs { no_library, another_library } do
      local result = run_with(fill, script)
      assert.equal(0, result.code, result.stderr)
      local n = 0
      for line in result.stdout:gmatch "[^\n]+" do
        n = n + 1
        assert.matches("^false\ttrue\tOpenSSL can't be loaded: .*" .. LIBRARY:gsub("%.", "%%.") .. ": ", line)
      end
      assert.equal(3, n)
    end
  end)

  it("is not missed by a script that doesn't need it", function()
    local result = run_with(no_library, [[
      local aloop = require "aloop"
      aloop.sleep(0)
      print(aloop.isinstance(aloop.ValueError "x", aloop.SSLError))
      local names = {}
      for name in pairs(aloop) do names[name] = true end
      print(names.run, names.subprocess, names.SSLContext, names.ssl, pcall(function() return aloop.ssl end))
    ]])
    assert.matches("^false\ntrue\ttrue\ttrue\tnil\tfalse\tSSLError: OpenSSL can't be loaded", result.stdout)
  end)
end)

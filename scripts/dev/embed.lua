-- embed.lua OUT FILE...: writes the table of Lua files that goes into the interpreter and the module (bindings/embed.h
-- declares it). The Makefile runs it with a plain Lua 5.4, so it may use nothing of aloop.
-- Module names follow the path below lua/: lua/aloop/init.lua is "aloop", lua/aloop/class.lua "aloop.class".
-- SPDX-License-Identifier: MIT

local BYTES_A_LINE = 100

local function module_name(path)
  local name = assert(path:match("^lua/(.+)%.lua$"), path .. " does not lie below lua/")
  return (name:gsub("/init$", ""):gsub("/", "."))
end

-- Octal escapes have at most three digits, so unlike \x they can't swallow the character behind them; ? would make
-- trigraphs.
local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["?"] = "\\?" }

local function literal(bytes)
  return '"' .. bytes:gsub('[%c"\\?\128-\255]', function(c)
    return ESCAPES[c] or ("\\%03o"):format(c:byte())
  end) .. '"'
end

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = assert(file:read("a"))
  file:close()
  return text
end

local function main(out_path, ...)
  local files = { ... }
  table.sort(files)
  local out = { "/* Made by scripts/dev/embed.lua from lua/. */", '#include "embed.h"', "" }
  local rows = {}
  for i, path in ipairs(files) do
    local text = read(path)
    out[#out + 1] = ("static const unsigned char text_%d[] ="):format(i)
    for from = 1, math.max(#text, 1), BYTES_A_LINE do
      out[#out + 1] = "  " .. literal(text:sub(from, from + BYTES_A_LINE - 1))
    end
    out[#out] = out[#out] .. ";"
    rows[#rows + 1] = ('  {"%s", "%s", text_%d, %d},'):format(module_name(path), path:gsub("^lua/", ""), i, #text)
  end
  out[#out + 1] = "const al_embedded al_embedded_files[] = {"
  table.move(rows, 1, #rows, #out + 1, out)
  out[#out + 1] = "  {NULL, NULL, NULL, 0},"
  out[#out + 1] = "};\n"
  local file = assert(io.open(out_path, "wb"))
  assert(file:write(table.concat(out, "\n")))
  assert(file:close())
end

main(...)

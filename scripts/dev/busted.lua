-- busted.lua [options] [files]: busted's command line for whatever interpreter runs this file. /usr/bin/busted picks
-- one by its first line, and hands over to the one that is meant (--lua) through a shell; here there is no detour,
-- unless the environment has something that the user has set for scripts of his own: then it begins anew without.
-- SPDX-License-Identifier: MIT
local NOT_FOR_SPECS = { "ALOOPDEBUG", "ALOOP_EDIT", "ALOOP_HISTORY", "ALOOP_PS_TIMEOUT", "LUA_INIT", "LUA_INIT_5_4",
  "SSLKEYLOGFILE" }

local words = { "exec env" }
for _, name in ipairs(NOT_FOR_SPECS) do
  if os.getenv(name) then words[#words + 1] = "-u " .. name end
end
if #words > 1 then
  local first = 0
  while arg[first - 1] do first = first - 1 end
  for i = first, #arg do words[#words + 1] = "'" .. arg[i]:gsub("'", "'\\''") .. "'" end
  local _, how, code = os.execute(table.concat(words, " "))
  os.exit(how == "exit" and code or 1)
end

require "busted.runner"({ standalone = false })

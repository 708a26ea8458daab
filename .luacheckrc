-- luacheck's rules for lua/, spec/ and scripts/; `make lint` runs it.
std = "lua54"
max_line_length = 120
codes = true
-- Methods keep their self, and callbacks the arguments of their protocol, whether or not they use them.
self = false
unused_args = false

files["spec"] = { std = "lua54+busted" }
files["scripts/examples/*_spec.lua"] = { std = "lua54+busted" }

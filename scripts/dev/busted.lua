-- busted.lua [options] [files]: busted's command line for whatever interpreter runs this file. /usr/bin/busted picks
-- one by its first line, and hands over to the one that is meant (--lua) through a shell; here there is no detour.
-- SPDX-License-Identifier: MIT
require "busted.runner"({ standalone = false })

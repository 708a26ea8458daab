-- socket.lua: aloop.socket: sockets, and the constants of Python's module socket. It is a module of its own so that its
-- 400 constants are made when they are first asked for. What it does is in the bindings (lsocket.c, lconstants.c).
-- SPDX-License-Identifier: MIT

return require("aloop.core").socket_module()

/* laddr.c - socket addresses as Lua values and back. Used by all bindings that name an endpoint. Knows no sockets.
 *
 * SPDX-License-Identifier: MIT */
#include "laddr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

/* ---- to Lua ------------------------------------------------------------------------------------------------------ */

static const char metatable_key; /* its address is the key in the registry */

static void push_table(lua_State *L, int family, const void *host, uint16_t port, int size) {
  char text[INET6_ADDRSTRLEN];
  lua_createtable(L, size, 0);
  lua_pushstring(L, inet_ntop(family, host, text, sizeof text));
  lua_rawseti(L, -2, 1);
  lua_pushinteger(L, ntohs(port));
  lua_rawseti(L, -2, 2);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &metatable_key);
  lua_setmetatable(L, -2);
}

static void push_ip6(lua_State *L, const struct sockaddr_in6 *sin6) {
  push_table(L, AF_INET6, &sin6->sin6_addr, sin6->sin6_port, 4);
  lua_pushinteger(L, ntohl(sin6->sin6_flowinfo));
  lua_rawseti(L, -2, 3);
  lua_pushinteger(L, sin6->sin6_scope_id);
  lua_rawseti(L, -2, 4);
}

/* A path ends at its NUL, an abstract name where the address does. */
static void push_unix(lua_State *L, const struct sockaddr_un *sun, socklen_t len) {
  size_t n = len > offsetof(struct sockaddr_un, sun_path) ? len - offsetof(struct sockaddr_un, sun_path) : 0;
  lua_pushlstring(L, sun->sun_path, n > 0 && sun->sun_path[0] ? strnlen(sun->sun_path, n) : n);
}

void al_pushaddr(lua_State *L, const al_addr *addr) {
  switch (addr->len ? addr->ss.ss_family : AF_UNSPEC) {
  case AF_INET: {
    const struct sockaddr_in *sin = (const struct sockaddr_in *)&addr->ss;
    push_table(L, AF_INET, &sin->sin_addr, sin->sin_port, 2);
    break;
  }
  case AF_INET6: push_ip6(L, (const struct sockaddr_in6 *)&addr->ss); break;
  case AF_UNIX: push_unix(L, (const struct sockaddr_un *)&addr->ss, addr->len); break;
  default: /* of a family that Lua has no form for: its bytes */ lua_pushlstring(L, (const char *)&addr->ss, addr->len);
  }
}

bool al_is_addr(lua_State *L, int idx) {
  if (!lua_getmetatable(L, idx)) return false;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &metatable_key);
  bool is = lua_rawequal(L, -1, -2);
  lua_pop(L, 2);
  return is;
}

void al_addr_adopt(lua_State *L) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &metatable_key);
  lua_setmetatable(L, -2);
}

static int addr_index(lua_State *L) {
  static const char *const names[] = {"host", "port", "flowinfo", "scope_id"};
  if (!lua_istable(L, 1)) al_typeerror(L, 1, "table");
  if (lua_type(L, 2) != LUA_TSTRING) return 0;
  for (int i = 0; i < 4; i++) {
    if (strcmp(lua_tostring(L, 2), names[i]) != 0) continue;
    lua_rawgeti(L, 1, i + 1);
    return 1;
  }
  return 0;
}

static int addr_tostring(lua_State *L) {
  if (!lua_istable(L, 1)) al_typeerror(L, 1, "table");
  lua_rawgeti(L, 1, 1);
  lua_rawgeti(L, 1, 2);
  const char *host = luaL_tolstring(L, 2, NULL), *port = luaL_tolstring(L, 3, NULL);
  lua_pushfstring(L, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
  return 1;
}

/* ---- from Lua ---------------------------------------------------------------------------------------------------- */

void al_check_unix_path(lua_State *L, al_ctx *ctx, int idx, al_addr *addr) {
  size_t len;
  const char *path = lua_tolstring(L, idx, &len);
  int err = al_addr_unix(addr, path, len);
  if (err == -ENAMETOOLONG) al_raise_os(L, ctx, err, "AF_UNIX path too long", path);
  if (err)
    al_raise(L, ctx, AL_C_ValueError,
             len ? "the path of a Unix socket has a NUL in it" : "the path of a Unix socket is empty");
}

static uint16_t check_port(lua_State *L, al_ctx *ctx, lua_Integer port) {
  if (port < 0 || port > 65535) al_raise(L, ctx, AL_C_ValueError, "port must be 0-65535, not %I", port);
  return (uint16_t)port;
}

/* An integer of the address at arg; 0 if it is left out and may be. */
static lua_Integer field(lua_State *L, int arg, int i, bool optional) {
  int isint;
  lua_geti(L, arg, i);
  if (optional && lua_isnil(L, -1)) {
    lua_pop(L, 1);
    return 0;
  }
  lua_Integer n = lua_tointegerx(L, -1, &isint);
  if (!isint) al_typeerror(L, arg, "address {host, port}");
  lua_pop(L, 1);
  return n;
}

static const char *any_host(int family) { return family == AF_INET6 ? "::" : "0.0.0.0"; }

const char *al_check_host(lua_State *L, al_ctx *ctx, int idx) {
  const char *host = lua_tostring(L, idx);
  if (host && strlen(host) != lua_rawlen(L, idx)) al_raise(L, ctx, AL_C_ValueError, "a host has a NUL in it");
  return host;
}

static int look_up(const char *host, uint16_t port, int family, int flags, al_addr *addr) {
  struct addrinfo hints = {.ai_family = family, .ai_socktype = SOCK_DGRAM, .ai_flags = flags}, *found;
  int code = getaddrinfo(host, NULL, &hints, &found);
  if (code) return code == EAI_SYSTEM ? -errno : AL_EAI(code);
  addr->len = found->ai_addrlen;
  memcpy(&addr->ss, found->ai_addr, found->ai_addrlen);
  freeaddrinfo(found);
  if (addr->ss.ss_family == AF_INET6)
    ((struct sockaddr_in6 *)&addr->ss)->sin6_port = htons(port);
  else
    ((struct sockaddr_in *)&addr->ss)->sin_port = htons(port);
  return 0;
}

/* 0, or the error of looking up the host. */
static int find_ip(lua_State *L, al_ctx *ctx, int arg, int family, int flags, al_addr *addr) {
  if (!lua_istable(L, arg)) al_typeerror(L, arg, "address {host, port}");
  lua_geti(L, arg, 1);
  if (lua_type(L, -1) != LUA_TSTRING) al_typeerror(L, arg, "address {host, port}");
  const char *host = al_check_host(L, ctx, -1);
  uint16_t port = check_port(L, ctx, field(L, arg, 2, false));
  uint32_t flowinfo = (uint32_t)field(L, arg, 3, true), scope_id = (uint32_t)field(L, arg, 4, true);
  if (!*host) host = any_host(family);
  bool numeric = al_addr_ip(addr, host, port, flowinfo, scope_id) == 0;
  bool found = numeric && (family == AF_UNSPEC || addr->ss.ss_family == family);
  int err = found ? 0 : look_up(host, port, family, flags, addr);
  lua_pop(L, 1);
  return err;
}

static void check_found(lua_State *L, al_ctx *ctx, int arg, int err) {
  if (!err) return;
  lua_geti(L, arg, 1);
  al_raise_os(L, ctx, err, NULL, lua_tostring(L, -1));
}

void al_check_numeric_addr(lua_State *L, al_ctx *ctx, int arg, al_addr *addr) {
  check_found(L, ctx, arg, find_ip(L, ctx, arg, AF_UNSPEC, AI_NUMERICHOST, addr));
}

int al_find_addr(lua_State *L, al_ctx *ctx, int arg, int family, al_addr *addr) {
  bool path = family == AF_UNIX || (family == AF_UNSPEC && lua_type(L, arg) == LUA_TSTRING);
  if (!path) return find_ip(L, ctx, arg, family, 0, addr);
  if (lua_type(L, arg) != LUA_TSTRING) al_typeerror(L, arg, "path");
  al_check_unix_path(L, ctx, arg, addr);
  return 0;
}

void al_check_addr(lua_State *L, al_ctx *ctx, int arg, int family, al_addr *addr) {
  check_found(L, ctx, arg, al_find_addr(L, ctx, arg, family, addr));
}

/* A port written as a string: too large a one the system would cut off, as it would what stands behind a NUL. */
static const char *check_written(lua_State *L, al_ctx *ctx, int idx) {
  const char *service = lua_tostring(L, idx);
  if (strlen(service) != lua_rawlen(L, idx)) al_raise(L, ctx, AL_C_ValueError, "a service has a NUL in it");
  if (!service[strspn(service, "0123456789")]) check_port(L, ctx, strtol(service, NULL, 10));
  return service;
}

bool al_is_service(lua_State *L, int idx) {
  int isint = 1;
  if (lua_type(L, idx) == LUA_TNUMBER) lua_tointegerx(L, idx, &isint);
  return isint && (lua_isnoneornil(L, idx) || lua_isstring(L, idx));
}

const char *al_check_service(lua_State *L, al_ctx *ctx, int arg) {
  if (!al_is_service(L, arg)) al_typeerror(L, arg, "integer or string");
  switch (lua_type(L, arg)) {
  case LUA_TNUMBER:
    lua_pushfstring(L, "%d", (int)check_port(L, ctx, lua_tointeger(L, arg)));
    return lua_tostring(L, -1);
  case LUA_TSTRING: lua_pushvalue(L, arg); return lua_rawlen(L, arg) ? check_written(L, ctx, arg) : NULL;
  default: lua_pushnil(L); return NULL;
  }
}

static const luaL_Reg metamethods[] = {{"__index", addr_index}, {"__tostring", addr_tostring}, {NULL, NULL}};

void al_addr_openlib(lua_State *L, al_ctx *ctx) {
  lua_newtable(L);
  al_ctx_setfuncs(L, ctx, metamethods);
  lua_pushliteral(L, "address");
  lua_setfield(L, -2, "__name");
  lua_rawsetp(L, LUA_REGISTRYINDEX, &metatable_key);
}

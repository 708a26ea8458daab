/* c_protocol.c - a Lua module with a protocol in C, for spec/c_protocol_spec.lua: it echoes, and counts what it is
 * told. Uses aloop.h and Lua, nothing of the bindings but the metafield __al_protocol.
 *
 * SPDX-License-Identifier: MIT */
#include "aloop.h"

#include <lauxlib.h>
#include <lua.h>

typedef struct echo {
  al_protocol protocol;
  al_transport *transport;
  char buffer[16]; /* of the buffered kind: small, so that a piece comes in many calls */
  lua_Integer made, bytes, eof, pauses, resumes, lost;
  int error;
} echo;

int luaopen_c_protocol(lua_State *L);

static void on_made(al_protocol *protocol, al_transport *transport) {
  echo *e = (echo *)(void *)protocol;
  e->made++;
  e->transport = transport;
}

static void on_data(al_protocol *protocol, const char *data, size_t len) {
  echo *e = (echo *)(void *)protocol;
  e->bytes += (lua_Integer)len;
  if (e->transport) al_transport_write(e->transport, data, len, NULL, NULL); /* set_protocol makes no connection */
}

static int on_get_buffer(al_protocol *protocol, ssize_t hint, char **base, size_t *len) {
  echo *e = (echo *)(void *)protocol;
  (void)hint;
  *base = e->buffer;
  *len = sizeof(e->buffer);
  return 0;
}

static void on_buffer_updated(al_protocol *protocol, size_t n) {
  on_data(protocol, ((echo *)(void *)protocol)->buffer, n);
}

static bool on_eof(al_protocol *protocol) {
  ((echo *)(void *)protocol)->eof++;
  return false;
}

static void on_pause(al_protocol *protocol) { ((echo *)(void *)protocol)->pauses++; }
static void on_resume(al_protocol *protocol) { ((echo *)(void *)protocol)->resumes++; }

static void on_lost(al_protocol *protocol, int error) {
  echo *e = (echo *)(void *)protocol;
  e->lost++;
  e->error = error;
}

static const al_protocol_ops stream_ops = {.connection_made = on_made,
                                           .data_received = on_data,
                                           .eof_received = on_eof,
                                           .pause_writing = on_pause,
                                           .resume_writing = on_resume,
                                           .connection_lost = on_lost};
static const al_protocol_ops buffered_ops = {.connection_made = on_made,
                                             .get_buffer = on_get_buffer,
                                             .buffer_updated = on_buffer_updated,
                                             .eof_received = on_eof,
                                             .connection_lost = on_lost};

/* __al_protocol */
static int echo_protocol(lua_State *L) {
  lua_pushlightuserdata(L, &((echo *)luaL_checkudata(L, 1, "c_protocol.Echo"))->protocol);
  return 1;
}

static int no_protocol(lua_State *L) {
  (void)L;
  return 0;
}

/* echo:counts() → table */
static int echo_counts(lua_State *L) {
  const echo *e = luaL_checkudata(L, 1, "c_protocol.Echo");
  const struct {
    const char *name;
    lua_Integer value;
  } fields[] = {{"made", e->made},       {"bytes", e->bytes}, {"eof", e->eof},    {"pauses", e->pauses},
                {"resumes", e->resumes}, {"lost", e->lost},   {"error", e->error}};
  lua_newtable(L);
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
    lua_pushinteger(L, fields[i].value);
    lua_setfield(L, -2, fields[i].name);
  }
  return 1;
}

static int new_echo(lua_State *L, const al_protocol_ops *ops) {
  echo *e = lua_newuserdatauv(L, sizeof *e, 0);
  *e = (echo){.protocol.ops = ops};
  luaL_setmetatable(L, "c_protocol.Echo");
  return 1;
}

static int new_stream(lua_State *L) { return new_echo(L, &stream_ops); }
static int new_buffered(lua_State *L) { return new_echo(L, &buffered_ops); }

/* A value whose __al_protocol gives none. */
static int new_broken(lua_State *L) {
  lua_newuserdatauv(L, 0, 0);
  lua_newtable(L);
  lua_pushcfunction(L, no_protocol);
  lua_setfield(L, -2, "__al_protocol");
  lua_setmetatable(L, -2);
  return 1;
}

int luaopen_c_protocol(lua_State *L);
int luaopen_c_protocol(lua_State *L) {
  static const luaL_Reg methods[] = {{"counts", echo_counts}, {NULL, NULL}};
  static const luaL_Reg functions[] = {
      {"stream", new_stream}, {"buffered", new_buffered}, {"broken", new_broken}, {NULL, NULL}};
  luaL_newmetatable(L, "c_protocol.Echo");
  lua_pushcfunction(L, echo_protocol);
  lua_setfield(L, -2, "__al_protocol");
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  luaL_newlib(L, functions);
  return 1;
}

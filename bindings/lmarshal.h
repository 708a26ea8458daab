/* lmarshal.h - values on their way from one Lua state to another, by value: how jobs and their results reach the
 * workers of the pools. What travels, and how, is told in lwire.h.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LMARSHAL_H
#define AL_LMARSHAL_H

#include "ctx.h"

typedef struct al_parcel al_parcel; /* belongs to whoever holds it; knows no Lua state */

enum {
  AL_MARSHAL_LOCAL = 1,   /* to another state of this process, where loops travel as remotes; 0: bytes for a socket */
  AL_MARSHAL_CALL = 2,    /* messages: the first value is a function, the others its arguments */
  AL_MARSHAL_RESULTS = 4, /* messages: the values are results */
  AL_MARSHAL_CONTEXT = 8  /* a ContextVar takes along the value that it has now; see al_unmarshal */
};

/* The values at first .. first + n - 1 of the stack, which stays as it is. Raises ValueError that names the path to
 * what can't travel. No metamethod is called, nothing of a script's runs. */
al_parcel *al_marshal(lua_State *L, al_ctx *ctx, int first, int n, unsigned flags);

/* The error at idx, with its traceback, in a parcel for al_unmarshal_error; flags as above. If it can't travel, a
 * RuntimeError with its text does in its place. Raises nothing but what memory makes it. */
al_parcel *al_marshal_error(lua_State *L, al_ctx *ctx, int idx, unsigned flags);

/* Pushes the values and returns how many they are. May run scripts' code: modules that the values name are required;
 * and raises what that raises, or RuntimeError for bytes that are no parcel. The values that AL_MARSHAL_CONTEXT took
 * along are set in the current context; who wants one for each job swaps it in before (lcontext.h). */
int al_unmarshal(lua_State *L, al_ctx *ctx, const al_parcel *parcel);

/* The same for an al_marshal_error's: pushes the error, whose traceback is known to al_pushtraceback. where (NULL: not
 * told) names the worker in it: "in worker process 123". */
void al_unmarshal_error(lua_State *L, al_ctx *ctx, const al_parcel *parcel, const char *where);

/* The same as al_marshal_error for an error of this class with this message, made without a Lua state. NULL: no
 * memory. */
al_parcel *al_parcel_error(al_class class, const char *message);

void al_parcel_free(al_parcel *parcel); /* any thread; NULL: nothing */
/* It may as well be kept until its thread frees it: a few bytes, and nothing that they hold. */
bool al_parcel_is_small(const al_parcel *parcel);

/* The bytes of one made without AL_MARSHAL_LOCAL, and one made of such bytes: a copy of data, or (data NULL) room for
 * len bytes, to be filled through al_parcel_room. NULL: no memory. */
const char *al_parcel_bytes(const al_parcel *parcel, size_t *len);
al_parcel *al_parcel_from_bytes(const char *data, size_t len);
char *al_parcel_room(al_parcel *parcel);

/* How a Loop travels. take: the remote of the Loop or remote object at idx, held for the parcel, or NULL if it is
 * neither; may raise. push: an object for it, which holds it on its own. drop: what the parcel held; any thread. */
typedef struct al_marshal_remotes {
  void *(*take)(lua_State *L, al_ctx *ctx, int idx);
  void (*push)(lua_State *L, al_ctx *ctx, void *remote);
  void (*drop)(void *remote);
} al_marshal_remotes;

/* Set once, before any marshalling (an openlib may set it each time to the same). */
void al_marshal_set_remotes(const al_marshal_remotes *remotes);

void al_marshal_openlib(lua_State *L, al_ctx *ctx);

#endif

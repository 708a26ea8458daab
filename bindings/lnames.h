/* lnames.h - how two Lua states call the same thing by one name: what stands in a loaded module by its path, and what a
 * script has made, and can't be copied without being another one (classes, context variables), by an id.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LNAMES_H
#define AL_LNAMES_H

#include "ctx.h"

/* How sure a question is to be: of what was known before; of the modules that are loaded now; of all that is in them
 * now. */
typedef enum al_name_care { AL_NAME_KNOWN, AL_NAME_LOADED, AL_NAME_AGAIN } al_name_care;

/* Pushes the path of the value at idx: the name of a module, and at most two keys, with NULs in between; or pushes
 * nothing and returns false. Known are: each table that is a loaded module; C functions and classes in modules;
 * tables and functions in aloop's own. */
bool al_name_push(lua_State *L, int idx, al_name_care care);

/* Pushes what has the path here, requires the module if it isn't loaded; raises RuntimeError if there is no such
 * thing. */
void al_name_resolve(lua_State *L, al_ctx *ctx, const char *path, size_t len);

enum { AL_ID_SIZE = 16 };

/* Pushes the id of the object at idx, as a string of AL_ID_SIZE; one that has none gets one that no other object has,
 * in no process. */
void al_id_push(lua_State *L, al_ctx *ctx, int idx);
bool al_id_resolve(lua_State *L, const char *id); /* pushes the object that has it here, or nothing: false */
void al_id_set(lua_State *L, const char *id);     /* the object on top (kept) has it from now on */
bool al_id_has(lua_State *L, int idx);

/* Is the value at idx a class, made by C or by a script? */
bool al_is_class(lua_State *L, int idx);

#endif

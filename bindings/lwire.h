/* lwire.h - what lmarshal.c writes and lunmarshal.c reads: the bytes of a parcel.
 *
 *   parcel  = version number-of-values value... contents... END
 *   value   = a tag of AL_W_* and what stands behind it
 *   content = FILL index-of-object what-it-contains
 *
 * A value that is an object (table, function, long string...) is written where it is met first, as an empty one, and
 * gets the next index; REF names it from then on. What it contains follows later, in the order of the indices. So
 * circles and depth cost nothing: neither side recurses, but for the bases of a class.
 *
 * Numbers are written 7 bits a byte, the lowest first; a byte above 127 has one behind it. It is one machine's
 * format: bytes of floats and hashes stand as in memory.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LWIRE_H
#define AL_LWIRE_H

#include "lmarshal.h"

enum { AL_WIRE_VERSION = 1 };

enum {
  AL_W_END,
  AL_W_NIL,
  AL_W_FALSE,
  AL_W_TRUE,
  AL_W_INTEGER, /* number: the integer with its sign in the lowest bit */
  AL_W_FLOAT,   /* 8 bytes */
  AL_W_NULL,    /* the light userdata NULL, as which some modules have a null of their own */
  AL_W_STRING,  /* length, bytes: a short one, no object */
  AL_W_GLOBALS, /* the table of globals; what an upvalue _ENV has */
  AL_W_REF,     /* index of an object */

  /* objects without contents */
  AL_W_LONG_STRING, /* length, bytes */
  AL_W_NAMED,       /* length, path: what both sides have in a module (lnames.h) */
  AL_W_CLASS,       /* number: a class that C knows */
  AL_W_BUFFER,      /* length, bytes */
  AL_W_REMOTE,      /* number: which one of the parcel */
  AL_W_PURE,        /* hash (8 bytes), length (8 bytes), dump: a function without upvalues but _ENV */

  /* objects with contents */
  AL_W_TABLE,    /* items of its array, as a hint. Contents: value... END {key value}... END */
  AL_W_INSTANCE, /* a table with a class. Contents: class {key value}... END */
  AL_W_ADDRESS,  /* a socket address. Contents: {key value}... END */
  AL_W_FUNCTION, /* as AL_W_PURE. Contents: for each upvalue a value, or a JOIN; END */
  AL_W_SUBCLASS, /* id (16 bytes), length, name, value: base. Contents: {key value}... END */
  AL_W_VAR, /* a ContextVar: id (16 bytes), length, name. Contents: default value or END, value in the context or END */

  AL_W_JOIN, /* index of a function, number: the upvalue of it that this one is, too */
  AL_W_FILL
};

enum {
  AL_W_SHORT = 255,    /* the longest string that is no object */
  AL_W_MAX_BASES = 100 /* of a class */
};

struct al_parcel {
  size_t len, capacity;
  size_t n_remotes;
  void **remotes;
  char bytes[];
};

#endif

/* lparcel.h - how a parcel is built (lmarshal.c) and what it holds.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LPARCEL_H
#define AL_LPARCEL_H

#include "lwire.h"

al_parcel *al_parcel_new(size_t capacity); /* an empty one; NULL: no memory */
/* Makes room for n more bytes, and may move the parcel for that; false: no memory, and nothing has changed. */
bool al_parcel_reserve(al_parcel **parcel, size_t n);
/* Gives the parcel a remote to hold; false: no memory, and it is the caller's still. */
bool al_parcel_add_remote(al_parcel *parcel, void *remote);
/* How loops travel, or NULL: not at all. */
const al_marshal_remotes *al_parcel_remotes(void);

#endif

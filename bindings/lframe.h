/* lframe.h - what a pool and its worker process say to each other over their socket: frames, each a head and a
 * parcel. The pool's side is lprocpool.c, the worker's lprocworker.c; both wait for the other in a thread of their own.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LFRAME_H
#define AL_LFRAME_H

#include "lmarshal.h"

#include <stdio.h>

/* The pool says SETUP, perhaps INITIALIZE, then CALL as often as it has a job; the worker answers all but SETUP, with
 * DONE or FAILED. */
typedef enum al_frame_kind {
  AL_FRAME_SETUP = 1,
  AL_FRAME_INITIALIZE,
  AL_FRAME_CALL,
  AL_FRAME_DONE,
  AL_FRAME_FAILED
} al_frame_kind;

enum { AL_FRAME_FD = 3 /* the worker's end of the socket */ };

/* How SETUP begins: only the same aloop with the same classes knows what parcels say. */
static inline int al_frame_banner(char *text, size_t size) {
  return snprintf(text, size, "aloop %s/%d", AL_VERSION, (int)AL_C_COUNT);
}

/* Sends a frame; parcel may be NULL: an empty one. 0, or -errno: -EPIPE if the other one is gone. */
int al_frame_send(int fd, al_frame_kind kind, const al_parcel *parcel);

/* Waits for a frame. 0, *parcel is the caller's; -EPIPE: the other one is gone, or talks nonsense; -ENOMEM: a frame was
 * skipped, for there is no memory for it. */
int al_frame_receive(int fd, al_frame_kind *kind, al_parcel **parcel);

#endif

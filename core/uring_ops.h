/* uring_ops.h - the ring machine from inside: its state, the tickets by which the kernel knows ops, and the states that
 * an op goes through. Used by io_uring.c (its life and its turn), uring_arm.c (from us to the kernel) and
 * uring_complete.c (from the kernel to us); nothing else may see it.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_URING_OPS_H
#define AL_URING_OPS_H

#include "machine.h"
#include "uring.h"

#include <pthread.h>

/* op->state. QUEUED: to be armed. The kernel has it: ARMED; SWITCHING: to be stopped and armed otherwise; ENDING:
 * cancelled. RETRYING: see al__retries. FINISHED: op->tag is its result. */
enum {
  AL_URING_QUEUED = AL_OP_IDLE + 1,
  AL_URING_ARMED,
  AL_URING_SWITCHING,
  AL_URING_ENDING,
  AL_URING_RETRYING,
  AL_URING_FINISHED
};

/* op->flags, besides AL_OP_NOT_SOCKET */
#define AL_URING_LISTED 2u  /* on the list todo */
#define AL_URING_BY_POLL 4u /* RECV: of bulk data. CONNECT: begun already (Unix ones are done at once or not at all) */
#define AL_URING_POLLING 8u /* armed as a poll */

typedef struct al__uring_ticket {
  al_op *op; /* NULL: free */
  uint32_t generation;
  uint32_t next_free; /* its index + 1, 0: none */
} al__uring_ticket;

typedef struct al__uring {
  struct io_uring ring;
  bool enabled, closing;
  pthread_t thread; /* that enabled the ring: no other may use it */
  bool receives;    /* the buffers are registered */
  bool starved;     /* a receive found no buffer */

  al__uring_ticket *tickets;
  size_t n_tickets;
  uint32_t free_ticket; /* index + 1 */

  al__ops todo;     /* QUEUED: to be armed; SWITCHING, ENDING: to be cancelled */
  al__ops finished; /* have their result; wait moves them to ending */
  al__ops ending;   /* to be dispatched */
  al__retries retries;
  unsigned collected; /* completions to be dispatched */
  unsigned in_kernel; /* ops that are ARMED, SWITCHING or ENDING */
  al__shared shared;  /* see al__op_read */
  al__datagrams *datagrams;
  al_addr peer; /* lent to done of ACCEPT */
  al__bufs bufs;
  struct msghdr msgs[AL_URING_SQ]; /* one for each submission, which needs it until it is submitted */
} al__uring;

/* ---- tickets: uring_ops.c ---------------------------------------------------------------------------------------- */

int al__uring_take_ticket(al__uring *self, al_op *op); /* op->tag is its index. 0, -ENOMEM */

static inline uint64_t al__uring_ticket_of(const al__uring *self, const al_op *op) {
  return (uint64_t)self->tickets[op->tag].generation << 32 | op->tag;
}

/* The op that has this ticket, or NULL: it has ended. */
static inline al_op *al__uring_op_of(const al__uring *self, uint64_t ticket) {
  uint32_t index = (uint32_t)ticket;
  if (index >= self->n_tickets || self->tickets[index].generation != (uint32_t)(ticket >> 32)) return NULL;
  return self->tickets[index].op;
}

/* ---- the states of an op: uring_ops.c ---------------------------------------------------------------------------- */

static inline void al__uring_list(al__uring *self, al_op *op) {
  op->flags |= AL_URING_LISTED;
  al__ops_append(&self->todo, op);
}

/* Takes the op off the list that it is on, if it is on one. */
static inline void al__uring_unlist(al__uring *self, al_op *op) {
  if (op->flags & AL_URING_LISTED) al__ops_remove(&self->todo, op);
  if (op->state == AL_URING_RETRYING) al__ops_remove(&self->retries.ops, op);
  op->flags &= (uint8_t)~AL_URING_LISTED;
}

static inline void al__uring_queue(al__uring *self, al_op *op) {
  op->state = AL_URING_QUEUED;
  al__uring_list(self, op);
}

/* Gives the op, which the kernel has not, its result; it comes with the next dispatch. */
void al__uring_finish(al__uring *self, al_op *op, int result);
/* The same from inside dispatch, at once. */
void al__uring_end(al_loop *loop, al_op *op, int result);
/* The kernel has ended what it did for the op, which isn't at its end: it is armed anew, unless it was cancelled. */
void al__uring_again(al__uring *self, al_op *op);

/* Datagrams are polled for, and then received many at a time. */
static inline bool al__uring_is_datagram(const al_op *op) {
  return op->kind == AL_OP_RECVFROM || op->kind == AL_OP_SENDTO;
}

/* ---- uring_arm.c ------------------------------------------------------------------------------------------------- */

/* Prepares submissions for all that is listed, as far as the kernel takes them; they go with the next enter. */
void al__uring_arm(al__uring *self);

/* ---- uring_complete.c -------------------------------------------------------------------------------------------- */

void al__uring_dispatch(al_loop *loop); /* what al_io_ops.dispatch does */
/* Throws away what has come in, of what nobody will hear any more. */
void al__uring_discard(al__uring *self);

#endif

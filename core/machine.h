/* machine.h - what the two machines behind io.h have in common: lists of ops, the end of an op, and ops performed by
 * plain system calls. Used by io_ready.c, which performs all ops so, and by the ring for what that can't do.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_MACHINE_H
#define AL_MACHINE_H

#include "base.h"
#include "debug.h"
#include "io.h"
#include "loop.h"
#include "mem.h"

#include <errno.h>

/* ---- lists, through the ops' own next and prev. All zero: empty -------------------------------------------------- */

typedef struct al__ops {
  al_op *first, *last;
} al__ops;

static inline bool al__ops_is_empty(const al__ops *list) { return !list->first; }

static inline void al__ops_append(al__ops *list, al_op *op) {
  op->next = NULL;
  op->prev = list->last;
  *(list->last ? &list->last->next : &list->first) = op;
  list->last = op;
}

static inline void al__ops_remove(al__ops *list, al_op *op) {
  *(op->prev ? &op->prev->next : &list->first) = op->next;
  *(op->next ? &op->next->prev : &list->last) = op->prev;
}

static inline al_op *al__ops_take(al__ops *list) { /* the first, or NULL */
  al_op *op = list->first;
  if (op) al__ops_remove(list, op);
  return op;
}

/* Moves all of from to the end of to. */
void al__ops_move(al__ops *to, al__ops *from);

/* ---- completions ------------------------------------------------------------------------------------------------- */

/* Each may change all: after it nothing of before holds, save that the machine exists, and op if it is still
 * submitted. */
static inline void al__op_call(al_loop *loop, al_op *op, int result, unsigned flags) {
  int64_t began = al__slow_begin(loop);
  op->done(loop, op, result, flags);
  al__slow_end(loop, NULL, began);
}

/* The final completion: the op is its owner's again. */
static inline void al__op_end(al_loop *loop, al_op *op, int result) {
  op->state = AL_OP_IDLE;
  loop->stats.ops--;
  al__op_call(loop, op, result, 0);
}

/* ---- retries ----------------------------------------------------------------------------------------------------- */

/* Connects to Unix listeners with a full backlog, and some datagrams: there is nothing to wait for, so they are tried
 * again and again. */

typedef struct al__retries {
  al__ops ops;
  int64_t at_ns;
} al__retries;

static inline bool al__is_unix(const al_addr *addr) { return addr && addr->len && addr->ss.ss_family == AF_UNIX; }

/* A socket that isn't connected is writable whatever the state of the one that it sends to; nor does it tell when the
 * network's queues (ENOBUFS) have room again. */
static inline bool al__must_retry(const al_op *op, int result) {
  if (op->kind == AL_OP_CONNECT) return result == -EAGAIN && al__is_unix(op->u.connect.addr);
  if (op->kind == AL_OP_SENDTO) return result == -ENOBUFS || (result == -EAGAIN && al__is_unix(op->u.sendto.to));
  return false;
}
al__ops al__retries_take(al__retries *retries); /* all, if it is time; else none */
/* The timeout of a wait, with regard to them. */
int64_t al__retries_limit(const al__retries *retries, int64_t timeout_ns);

/* ---- ops by system calls ----------------------------------------------------------------------------------------- */

#define AL_OP_NOT_SOCKET 1u /* op->flags: recv and sendmsg don't work on this descriptor, read and write do */

/* What flags an op has when it is submitted. */
static inline uint8_t al__op_first_flags(const al_op *op) { return op->events & AL_OP_PLAIN ? AL_OP_NOT_SOCKET : 0; }

/* The machine's buffer of AL_READ_SIZE for all RECVs without lend, made at first use. All zero: not yet. */
typedef struct al__shared {
  char *base; /* al_place in it */
  void *block;
} al__shared;

static inline void al__shared_free(al__shared *shared) { al__free(shared->block); }

/* Reads a piece for a RECV or RECV_INTO. n > 0, 0 at the end of data, -EAGAIN: not now, or an error. Calls lend,
 * which may do what it likes: if it cancelled the op, nothing is read and -EAGAIN returned. */
ssize_t al__op_read(al_op *op, al__shared *shared);
ssize_t al__op_write(al_op *op); /* SEND: n > 0, SENDTO: 0; -EAGAIN: not now, or an error */

/* ---- datagrams: received several at a time into memory of the machine, delivered one by one ---------------------- */

typedef struct al__datagrams al__datagrams;

/* RECVFROM: receives what has come (the memory is made at first use) and calls done for each. False: *end is the op's
 * final result. */
bool al__datagrams_receive(al_loop *loop, al__datagrams **datagrams, al_op *op, int *end);
/* Calls done for those left when the loop was broken. */
void al__datagrams_go_on(al_loop *loop, al__datagrams *datagrams);
bool al__datagrams_are_left(const al__datagrams *datagrams);
void al__datagrams_forget(al__datagrams *datagrams, const al_op *op); /* the op is cancelled */
void al__datagrams_free(al__datagrams *datagrams);

/* ACCEPT: the error is of one connection, which is gone, not of the listener (see accept(2)): the next may wait
 * behind it. */
bool al__accept_can_go_on(int err);

/* The descriptors for which POLL gives -EPERM: files are always ready, and epoll, which refuses them, sets the rule. */
int al__op_check_poll(const al_op *op); /* 0, -EPERM, -EBADF */

#endif

/* io_ready.c - the machine that makes completions from readiness, over a selector (selector.h): epoll, poll or
 * select. Behind io.h; used by loop.c through al__io_epoll, al__io_poll and al__io_select.
 *
 * An op is parked in the slot of its descriptor until the selector says that it can go on; then it is tried once, by
 * a plain system call, and stays parked if there was nothing after all. What the selector watches is brought up to
 * date just before the wait, for the slots on the list of dirty ones: what was submitted and cancelled within a turn
 * costs nothing. (POLL is told at once, for its submit must say whether the descriptor can be watched.) The
 * selector's events carry the generation of the slot, so that what was for a closed descriptor doesn't reach the
 * next one of that number, and ops carry the number of the wait that they have seen, so that an event from before
 * doesn't reach them.
 *
 * SPDX-License-Identifier: MIT */
#include "machine.h"
#include "mem.h"
#include "selector.h"
#include "sock.h"

enum { OP_PARKED = AL_OP_IDLE + 1, OP_RETRYING, OP_FINISHED }; /* op->state */

enum { READS, WRITES }; /* the sides of a descriptor */
static const unsigned side_mask[] = {AL_POLL_IN, AL_POLL_OUT};

#define NOT_DIRTY (-2)
#define LAST_DIRTY (-1)

typedef struct slot {
  al_op *op[2]; /* parked, by side */
  uint32_t generation;
  int next_dirty;     /* descriptor of the next dirty slot, LAST_DIRTY, or NOT_DIRTY */
  uint8_t registered; /* what the selector watches, as far as we know */
  bool unsure;        /* we may not know: a POLL ended, so its user may have closed the descriptor */
} slot;

typedef struct ready {
  const al__selector *selector;
  void *watched; /* the selector's state */
  slot *slots;   /* by descriptor */
  int n_slots;
  int dirty;        /* the first dirty slot */
  al__ops finished; /* have their result (op->tag); wait moves them to ending */
  al__ops ending;   /* to be dispatched */
  al__retries retries;
  uint32_t turn; /* counts the waits */
  int n_events, next_event;
  bool closing;
  al__shared shared; /* see al__op_read */
  al__datagrams *datagrams;
  al_addr peer; /* lent to done of ACCEPT */
  al__event events[AL_EVENTS_PER_WAIT];
} ready;

/* ---- slots ------------------------------------------------------------------------------------------------------- */

static int side_of(const al_op *op) {
  switch (op->kind) {
  case AL_OP_SEND:
  case AL_OP_SENDTO:
  case AL_OP_CONNECT: return WRITES;
  case AL_OP_POLL: return op->events & AL_POLL_OUT ? WRITES : READS;
  default: return READS;
  }
}

static uint64_t key_of(int fd, const slot *at) { return (uint64_t)at->generation << 32 | (uint32_t)fd; }
static int key_fd(uint64_t key) { return (int)(uint32_t)key; }
static uint32_t key_generation(uint64_t key) { return (uint32_t)(key >> 32); }

static bool polls_once(const al_op *op) { return !op || (op->kind == AL_OP_POLL && op->events & AL_POLL_ONCE); }

/* A wait for once leaves the descriptor known to the selector, so that the next one has to tell it once, not twice. */
static unsigned wanted(const ready *self, const slot *at) {
  unsigned mask = (at->op[READS] ? AL_POLL_IN : 0u) | (at->op[WRITES] ? AL_POLL_OUT : 0u);
  if (!mask) return at->registered & AL_SEL_KNOWN;
  bool once = self->selector->once && polls_once(at->op[READS]) && polls_once(at->op[WRITES]);
  return mask | (once ? AL_SEL_ONCE : 0u);
}

/* Sees to it that the descriptor has a slot. */
static int reserve_slot(ready *self, int fd) {
  if (fd < 0) return -EBADF;
  if (fd < self->n_slots) return 0;
  if (fd > self->selector->max_fd) return AL_EFDRANGE;
  if (!al__fd_is_open(fd)) return -EBADF; /* before a wild number sizes the table */
  size_t capacity = (size_t)self->n_slots;
  void *slots = self->slots;
  int err = al__array_grow(&slots, &capacity, sizeof(slot), (size_t)fd + 1);
  if (err) return err;
  self->slots = slots;
  while ((size_t)self->n_slots < capacity) self->slots[self->n_slots++] = (slot){.next_dirty = NOT_DIRTY};
  return 0;
}

static void mark_dirty(ready *self, int fd) {
  slot *at = &self->slots[fd];
  if (at->next_dirty != NOT_DIRTY) return;
  at->next_dirty = self->dirty;
  self->dirty = fd;
}

static void park(ready *self, al_op *op) {
  self->slots[op->fd].op[side_of(op)] = op;
  op->state = OP_PARKED;
  op->tag = self->turn;
  mark_dirty(self, op->fd);
}

static void unpark(ready *self, al_op *op) {
  slot *at = &self->slots[op->fd];
  at->op[side_of(op)] = NULL;
  if (op->kind == AL_OP_POLL) at->unsure = true;
  mark_dirty(self, op->fd);
}

/* Gives the op its result; it comes with the next dispatch. */
static void finish(ready *self, al_op *op, int result) {
  op->state = OP_FINISHED;
  op->tag = (uint32_t)result;
  al__ops_append(&self->finished, op);
}

/* Tells the selector what is wanted of a descriptor. */
static int update(ready *self, int fd) {
  slot *at = &self->slots[fd];
  unsigned now = wanted(self, at);
  if (now == at->registered && !(at->unsure && now & ~AL_SEL_KNOWN)) return 0;
  if (at->unsure || !at->registered) at->generation++;
  int err = self->selector->set(self->watched, fd, key_of(fd, at), at->registered, now);
  at->registered = (uint8_t)(err ? 0 : now);
  at->unsure = false;
  return err;
}

static void sweep(ready *self) {
  while (self->dirty != LAST_DIRTY) {
    int fd = self->dirty;
    slot *at = &self->slots[fd];
    self->dirty = at->next_dirty;
    at->next_dirty = NOT_DIRTY;
    int err = update(self, fd);
    for (int side = READS; err && side <= WRITES; side++) {
      if (at->op[side]) finish(self, at->op[side], err);
      at->op[side] = NULL;
    }
  }
}

/* ---- submit and cancel ------------------------------------------------------------------------------------------- */

static void retry_later(ready *self, al_op *op) {
  op->state = OP_RETRYING;
  al__ops_append(&self->retries.ops, op);
}

/* Begins to connect; also a second time. */
static void connect_op(ready *self, al_op *op) {
  int err = al__sock_connect(op->fd, op->u.connect.addr);
  if (err == -EINPROGRESS) {
    park(self, op);
  } else if (al__must_retry(op, err)) {
    retry_later(self, op);
  } else {
    finish(self, op, err);
  }
}

/* A POLL is registered on the spot. The other side of the slot, if that fails for it too, hears of it in the sweep. */
static int poll_op(ready *self, al_op *op) {
  slot *at = &self->slots[op->fd];
  park(self, op);
  at->unsure = true;
  int err = update(self, op->fd);
  if (!err) return 0;
  at->op[side_of(op)] = NULL;
  op->state = AL_OP_IDLE;
  return err;
}

static int start(ready *self, al_op *op) {
  if (op->kind == AL_OP_POLL) return poll_op(self, op);
  if (op->kind == AL_OP_CONNECT)
    connect_op(self, op);
  else
    park(self, op);
  return 0;
}

static void ready_cancel(al_loop *loop, al_op *op) {
  ready *self = loop->machine;
  al_assert(op->state != AL_OP_IDLE);
  if (op->state == OP_FINISHED) return;
  al__datagrams_forget(self->datagrams, op);
  if (op->state == OP_RETRYING)
    al__ops_remove(&self->retries.ops, op);
  else
    unpark(self, op);
  finish(self, op, -ECANCELED);
  al__loop_io_changed(loop);
}

static int ready_submit(al_loop *loop, al_op *op) {
  ready *self = loop->machine;
  al_assert(op->state == AL_OP_IDLE && op->done);
  if (self->closing) return AL_ECLOSED;
  int err = reserve_slot(self, op->fd);
  if (err) return err;
  al_op *other = self->slots[op->fd].op[side_of(op)];
  if (other && other->kind != AL_OP_POLL) return -EBUSY;
  if (other) ready_cancel(loop, other);
  op->flags = al__op_first_flags(op);
  err = start(self, op);
  if (!err) loop->stats.ops++;
  al__loop_io_changed(loop);
  return err;
}

/* It is of somebody who watches the descriptor besides its owner. */
static void end_poll(al_loop *loop, al_op *op) {
  if (!op) return;
  al_assert(op->kind == AL_OP_POLL);
  ready_cancel(loop, op);
}

static void ready_close_fd(al_loop *loop, int fd) {
  ready *self = loop->machine;
  if (fd >= 0 && fd < self->n_slots) {
    slot *at = &self->slots[fd];
    end_poll(loop, at->op[READS]);
    end_poll(loop, at->op[WRITES]);
    /* Told, for the kernel remembers the file as long as a duplicate or a forked child has it. */
    if (at->registered) self->selector->set(self->watched, fd, key_of(fd, at), at->registered, 0);
    at->registered = 0;
    at->generation++;
  }
  al__fd_close(fd);
}

/* ---- trying what is ready ---------------------------------------------------------------------------------------- */

static void end(al_loop *loop, al_op *op, int result) {
  unpark(loop->machine, op);
  al__op_end(loop, op, result);
}

static void on_readable(al_loop *loop, al_op *op) {
  ready *self = loop->machine;
  ssize_t n = al__op_read(op, &self->shared);
  if (n == -EAGAIN) return;
  if (n > 0 && op->kind == AL_OP_RECV)
    al__op_call(loop, op, (int)n, AL_OP_MORE);
  else
    end(loop, op, (int)n);
}

static void on_datagrams(al_loop *loop, al_op *op) {
  ready *self = loop->machine;
  int result;
  if (!al__datagrams_receive(loop, &self->datagrams, op, &result)) end(loop, op, result);
}

static void on_writable(al_loop *loop, al_op *op) {
  ssize_t n = al__op_write(op);
  if (al__must_retry(op, (int)n)) {
    unpark(loop->machine, op);
    retry_later(loop->machine, op);
  } else if (n != -EAGAIN) {
    end(loop, op, (int)n);
  }
}

static void on_acceptable(al_loop *loop, al_op *op) {
  ready *self = loop->machine;
  for (int left = AL_MAX(op->u.accept.limit, 1); left > 0; left--) {
    int fd = al__sock_accept(op->fd, &self->peer);
    if (fd == -EAGAIN) return;
    if (al__accept_can_go_on(fd)) continue;
    if (fd < 0) {
      end(loop, op, fd);
      return;
    }
    op->u.accept.peer = &self->peer;
    al__op_call(loop, op, fd, AL_OP_MORE);
    if (op->state != OP_PARKED || al__loop_broken(loop)) return;
  }
}

static void on_polled(al_loop *loop, al_op *op, unsigned events) {
  if (events & AL_SEL_BAD)
    end(loop, op, -EBADF);
  else if (polls_once(op))
    end(loop, op, op->events & ~AL_POLL_ONCE);
  else
    al__op_call(loop, op, op->events, AL_OP_MORE);
}

static void go_on(al_loop *loop, al_op *op, unsigned events) {
  switch ((al_op_kind)op->kind) {
  case AL_OP_RECV:
  case AL_OP_RECV_INTO: on_readable(loop, op); break;
  case AL_OP_RECVFROM: on_datagrams(loop, op); break;
  case AL_OP_SEND:
  case AL_OP_SENDTO: on_writable(loop, op); break;
  case AL_OP_ACCEPT: on_acceptable(loop, op); break;
  case AL_OP_CONNECT: end(loop, op, al__sock_error(op->fd)); break;
  case AL_OP_POLL: on_polled(loop, op, events); break;
  }
}

/* ---- the turn ---------------------------------------------------------------------------------------------------- */

/* Is there something to dispatch from before? */
static bool has_leftovers(const ready *self) {
  return self->next_event < self->n_events || !al__ops_is_empty(&self->ending) ||
         al__datagrams_are_left(self->datagrams);
}

static bool ready_flush(al_loop *loop) {
  ready *self = loop->machine;
  al__ops again = al__retries_take(&self->retries);
  for (al_op *op; (op = al__ops_take(&again));) {
    if (op->kind == AL_OP_CONNECT)
      connect_op(self, op);
    else
      park(self, op);
  }
  sweep(self);
  return has_leftovers(self) || !al__ops_is_empty(&self->finished) || !al__ops_is_empty(&self->retries.ops);
}

static int ready_wait(al_loop *loop, int64_t timeout_ns) {
  ready *self = loop->machine;
  if (has_leftovers(self)) return 1;
  ready_flush(loop);
  timeout_ns = al__ops_is_empty(&self->finished) ? al__retries_limit(&self->retries, timeout_ns) : 0;
  int n = self->selector->wait(self->watched, self->events, AL_EVENTS_PER_WAIT, timeout_ns);
  if (n < 0) return n;
  self->turn++;
  self->next_event = 0;
  self->n_events = n;
  al__ops_move(&self->ending, &self->finished);
  return n > 0 || !al__ops_is_empty(&self->ending);
}

/* The op that an event is for: not if its descriptor was closed since, nor if the op came after the event. */
static al_op *op_of(const ready *self, const al__event *event, int side) {
  const slot *at = &self->slots[key_fd(event->key)];
  if (at->generation != key_generation(event->key)) return NULL;
  al_op *op = at->op[side];
  return op && op->tag != self->turn ? op : NULL;
}

static void dispatch_side(al_loop *loop, al__event *event, int side) {
  if (!(event->events & side_mask[side])) return;
  event->events &= ~side_mask[side]; /* done, also when broken between the two sides */
  al_op *op = op_of(loop->machine, event, side);
  if (op) go_on(loop, op, event->events);
}

/* The event was the only one that its descriptor was watched for. */
static void note_once(ready *self, const al__event *event) {
  slot *at = &self->slots[key_fd(event->key)];
  if (!(at->registered & AL_SEL_ONCE) || at->generation != key_generation(event->key)) return;
  at->registered = AL_SEL_KNOWN;
  mark_dirty(self, key_fd(event->key));
}

static void ready_dispatch(al_loop *loop) {
  ready *self = loop->machine;
  al_op *op;
  al__datagrams_go_on(loop, self->datagrams);
  while (!al__loop_broken(loop) && (op = al__ops_take(&self->ending))) al__op_end(loop, op, (int)op->tag);
  while (!al__loop_broken(loop) && self->next_event < self->n_events) {
    al__event *event = &self->events[self->next_event];
    note_once(self, event);
    dispatch_side(loop, event, READS);
    if (al__loop_broken(loop)) return;
    self->next_event++;
    dispatch_side(loop, event, WRITES);
  }
}

/* ---- birth and death --------------------------------------------------------------------------------------------- */

static int ready_open(al_loop *loop, const al__selector *selector) {
  ready *self = al__calloc(1, sizeof(*self));
  if (!self) return -ENOMEM;
  int err = selector->open(&self->watched);
  if (err) {
    al__free(self);
    return err;
  }
  self->selector = selector;
  self->dirty = LAST_DIRTY;
  loop->machine = self;
  return 0;
}

static al_op *any_op(ready *self, int *fd) {
  for (; *fd < self->n_slots; ++*fd) {
    for (int side = READS; side <= WRITES; side++) {
      al_op *op = self->slots[*fd].op[side];
      if (!op) continue;
      unpark(self, op);
      return op;
    }
  }
  al_op *op = al__ops_take(&self->ending);
  if (!op) op = al__ops_take(&self->finished);
  if (!op) op = al__ops_take(&self->retries.ops);
  return op;
}

static void ready_close(al_loop *loop) {
  ready *self = loop->machine;
  al_op *op;
  int fd = 0;
  self->closing = true; /* so that slots get no op any more, and the walk over them ends */
  while ((op = any_op(self, &fd))) al__op_end(loop, op, -ECANCELED);
  self->selector->close(self->watched);
  al__free(self->slots);
  al__shared_free(&self->shared);
  al__datagrams_free(self->datagrams);
  al__free(self);
  loop->machine = NULL;
}

static int ready_poll_fd(al_loop *loop) {
  ready *self = loop->machine;
  return self->selector->poll_fd(self->watched);
}

static int open_epoll(al_loop *loop, const char **reason) {
  (void)reason;
  return ready_open(loop, &al__sel_epoll);
}

static int open_poll(al_loop *loop, const char **reason) {
  (void)reason;
  return ready_open(loop, &al__sel_poll);
}

static int open_select(al_loop *loop, const char **reason) {
  (void)reason;
  return ready_open(loop, &al__sel_select);
}

/* One machine under three names. */
#define READY_OPS(NAME)                                                                                       \
  {                                                                                                           \
    .name = #NAME, .open = open_##NAME, .close = ready_close, .submit = ready_submit, .cancel = ready_cancel, \
    .close_fd = ready_close_fd, .flush = ready_flush, .wait = ready_wait, .dispatch = ready_dispatch,         \
    .poll_fd = ready_poll_fd                                                                                  \
  }

const al_io_ops al__io_epoll = READY_OPS(epoll);
const al_io_ops al__io_poll = READY_OPS(poll);
const al_io_ops al__io_select = READY_OPS(select);

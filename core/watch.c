/* watch.c - add_reader and add_writer: the user's callbacks on the readiness of a descriptor that is not ours; and
 * waiting for it once, for who then does the system call himself. Built on POLL ops. Knows no machine, and of
 * transports only whether one owns a descriptor.
 *
 * A descriptor has at most one watch for each direction. One that is removed or replaced cancels its op and stays with
 * the machine until that has ended, while the next one is submitted at once: whatever file the number stands for by
 * then. Watches that have ended are kept for the next ones, so that waiting takes no memory.
 *
 * SPDX-License-Identifier: MIT */
#include "debug.h"
#include "loop.h"
#include "mem.h"
#include "sock.h"

#include <errno.h>

typedef union watch watch;

union watch { /* no more than its op, for there may be one for each of many descriptors */
  al_op op;   /* whose handle is NULL when nobody watches, and it is ending */
  watch *next_spare;
};

typedef struct watch_room {
  watch *(*by_fd)[2]; /* by direction */
  size_t capacity;
  watch *spare;
} watch_room;

static void watch_room_close(al_loop *loop, void *state);
static void watch_room_dump(const al_loop *loop, void *state, int fd);

static watch_room *room_of(const al_loop *loop) { return loop->rooms[AL_ROOM_WATCH].state; }

static int open_room(al_loop *loop, watch_room **room) {
  *room = room_of(loop);
  if (*room) return 0;
  *room = al__calloc(1, sizeof(**room));
  if (!*room) return -ENOMEM;
  loop->rooms[AL_ROOM_WATCH] = (al__room){*room, watch_room_close, watch_room_dump};
  return 0;
}

/* Sees to it that the descriptor has a place. */
static int grow_room(watch_room *room, int fd) {
  if (fd < 0) return -EBADF;
  if ((size_t)fd < room->capacity) return 0;
  if (!al__fd_is_open(fd)) return -EBADF; /* before its number sizes the table */
  void *array = room->by_fd;
  size_t old = room->capacity;
  int err = al__array_grow(&array, &room->capacity, sizeof(*room->by_fd), (size_t)fd + 1);
  room->by_fd = array;
  for (size_t i = old; i < room->capacity; i++) room->by_fd[i][0] = room->by_fd[i][1] = NULL;
  return err;
}

/* Where the watch of a descriptor for these events stands. */
static watch **place_of(watch_room *room, int fd, uint8_t events) {
  return &room->by_fd[fd][events & AL_POLL_OUT ? 1 : 0];
}

static watch *take_spare(watch_room *room) {
  watch *w = room->spare;
  if (!w) return al__malloc(sizeof(*w));
  room->spare = w->next_spare;
  return w;
}

/* Its op is idle, and nobody watches. */
static void give_back(al_loop *loop, watch *w) {
  watch_room *room = room_of(loop);
  if (!room) { /* the loop is closing */
    al__free(w);
    return;
  }
  w->next_spare = room->spare;
  room->spare = w;
}

/* ---- completions ------------------------------------------------------------------------------------------------- */

/* A wait for once is over. If it failed, who waits hears of it by the system call that he tries next. */
static void run_once(al_loop *loop, watch *w, al_handle *handle) {
  *place_of(room_of(loop), w->op.fd, w->op.events) = NULL;
  loop->stats.watchers--;
  give_back(loop, w);
  handle->run(loop, handle);
}

static void watch_on_poll(al_loop *loop, al_op *op, int result, unsigned flags) {
  watch *w = AL_CONTAINER(op, watch, op);
  al_handle *handle = op->u.poll.handle;
  if (flags & AL_OP_MORE) {
    if (handle) handle->run(loop, handle);
  } else if (!handle) {
    give_back(loop, w);
  } else if (op->events & AL_POLL_ONCE) {
    run_once(loop, w, handle);
  } else {
    /* The descriptor was closed without a remove, and its number may be in use by others: the watch stays,
     * without effect, until it is removed. */
    al_log(AL_LOG_WARNING, NULL, "descriptor %d can't be watched any more: %s", op->fd, al_strerror(result));
  }
}

/* ---- add and remove ---------------------------------------------------------------------------------------------- */

/* It stands nowhere any more. */
static al_handle *let_go(al_loop *loop, watch *w) {
  al_handle *handle = w->op.u.poll.handle;
  w->op.u.poll.handle = NULL;
  if (al_op_is_idle(&w->op))
    give_back(loop, w);
  else
    loop->io->cancel(loop, &w->op);
  return handle;
}

static int start(al_loop *loop, int fd, uint8_t events, al_handle *handle, watch **started) {
  watch *w = take_spare(room_of(loop));
  if (!w) return -ENOMEM;
  w->op = (al_op){.kind = AL_OP_POLL, .events = events, .fd = fd, .done = watch_on_poll, .u.poll.handle = handle};
  int err = loop->io->submit(loop, &w->op);
  if (err)
    give_back(loop, w);
  else
    *started = w;
  return err;
}

static int add(al_loop *loop, int fd, uint8_t events, al_handle *handle, al_handle **old) {
  watch_room *room;
  watch *w;
  if (loop->closed) return AL_ECLOSED;
  int err = open_room(loop, &room);
  if (!err) err = grow_room(room, fd);
  if (!err) err = start(loop, fd, events, handle, &w);
  if (err) return err;
  watch **place = place_of(room, fd, events), *former = *place;
  *place = w;
  if (!former) loop->stats.watchers++;
  al_handle *replaced = former ? let_go(loop, former) : NULL;
  if (old) *old = replaced;
  return 0;
}

static al_handle *remove_at(al_loop *loop, watch **place) {
  watch *w = *place;
  if (!w) return NULL;
  *place = NULL;
  loop->stats.watchers--;
  return let_go(loop, w);
}

static al_handle *remove_watch(al_loop *loop, int fd, uint8_t events) {
  watch_room *room = room_of(loop);
  if (!room || fd < 0 || (size_t)fd >= room->capacity) return NULL;
  return remove_at(loop, place_of(room, fd, events));
}

int al_add_reader(al_loop *loop, int fd, al_handle *handle, al_handle **old) {
  return add(loop, fd, AL_POLL_IN, handle, old);
}

int al_add_writer(al_loop *loop, int fd, al_handle *handle, al_handle **old) {
  return add(loop, fd, AL_POLL_OUT, handle, old);
}

int al_wait_readable(al_loop *loop, int fd, al_handle *handle, al_handle **old) {
  return add(loop, fd, AL_POLL_IN | AL_POLL_ONCE, handle, old);
}

int al_wait_writable(al_loop *loop, int fd, al_handle *handle, al_handle **old) {
  return add(loop, fd, AL_POLL_OUT | AL_POLL_ONCE, handle, old);
}

al_handle *al_remove_reader(al_loop *loop, int fd) { return remove_watch(loop, fd, AL_POLL_IN); }
al_handle *al_remove_writer(al_loop *loop, int fd) { return remove_watch(loop, fd, AL_POLL_OUT); }

/* ---- the room ---------------------------------------------------------------------------------------------------- */

static void watch_room_close(al_loop *loop, void *state) {
  watch_room *room = state;
  for (size_t fd = 0; fd < room->capacity; fd++) {
    for (int side = 0; side < 2; side++) {
      al_handle *handle =
          remove_at(loop, &room->by_fd[fd][side]); /* first: what discard calls finds nothing to remove */
      if (handle) al__loop_discard(loop, handle);
    }
  }
  loop->rooms[AL_ROOM_WATCH].state = NULL; /* ops that end later find no room to go back to */
  for (watch *w = room->spare, *next; w; w = next) {
    next = w->next_spare;
    al__free(w);
  }
  al__free(room->by_fd);
  al__free(room);
}

static void watch_room_dump(const al_loop *loop, void *state, int fd) {
  const watch_room *room = state;
  (void)loop;
  for (size_t i = 0; i < room->capacity; i++) {
    if (room->by_fd[i][0]) al__dump_line(fd, "reader of descriptor %zu\n", i);
    if (room->by_fd[i][1]) al__dump_line(fd, "writer of descriptor %zu\n", i);
  }
}

/* watch.c - add_reader and add_writer: the user's callbacks on the readiness of a descriptor that is not ours. Built on POLL ops.
 *
 * A descriptor has one record with an op for each direction. Removing a watch cancels its op but leaves the record to the machine
 * until the op has ended; a watch that is added meanwhile waits for that end and is then submitted. By then
 * the number may stand for another file, which is no matter: the new op asks for the number as it is.
 *
 * SPDX-License-Identifier: MIT */
#include "debug.h"
#include "loop.h"
#include "mem.h"
#include "sock.h"

#include <errno.h>

typedef struct watch watch;

typedef struct watch_side {
  al_op op;
  al_handle *handle; /* NULL: nobody watches; the op may still be ending */
  bool ending;       /* the op was cancelled by us */
  watch *watch;
} watch_side;

struct watch {
  int fd;
  bool orphan; /* the room is closed; the record goes with its last op */
  watch_side in, out;
};

typedef struct watch_room {
  watch **by_fd;
  size_t capacity;
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

static int grow_room(watch_room *room, int fd) {
  void *array = room->by_fd;
  size_t old = room->capacity;
  int err = al__array_grow(&array, &room->capacity, sizeof(watch *), (size_t)fd + 1);
  room->by_fd = array;
  for (size_t i = old; i < room->capacity; i++) room->by_fd[i] = NULL;
  return err;
}

static watch *find(const al_loop *loop, int fd) {
  const watch_room *room = room_of(loop);
  return room && fd >= 0 && (size_t)fd < room->capacity ? room->by_fd[fd] : NULL;
}

/* ---- records ------------------------------------------------------------------------------------------------------------ */

static void watch_on_poll(al_loop *loop, al_op *op, int result, unsigned flags);

static void init_side(watch *record, watch_side *side, uint8_t events) {
  side->watch = record;
  side->op = (al_op){.kind = AL_OP_POLL, .events = events, .fd = record->fd, .done = watch_on_poll};
}

static int find_or_make(al_loop *loop, int fd, watch **found) {
  watch_room *room;
  *found = find(loop, fd);
  if (*found) return 0;
  if (!al__fd_is_open(fd)) return -EBADF; /* before its number sizes the table */
  int err = open_room(loop, &room);
  if (!err) err = grow_room(room, fd);
  if (err) return err;
  watch *record = al__calloc(1, sizeof(*record));
  if (!record) return -ENOMEM;
  record->fd = fd;
  init_side(record, &record->in, AL_POLL_IN);
  init_side(record, &record->out, AL_POLL_OUT);
  *found = room->by_fd[fd] = record;
  return 0;
}

static bool side_is_unused(const watch_side *side) { return !side->handle && al_op_is_idle(&side->op); }

static void free_if_unused(al_loop *loop, watch *record) {
  if (!side_is_unused(&record->in) || !side_is_unused(&record->out)) return;
  if (!record->orphan) room_of(loop)->by_fd[record->fd] = NULL;
  al__free(record);
}

static watch_side *side_of(watch *record, uint8_t events) { return events == AL_POLL_IN ? &record->in : &record->out; }

/* ---- completions ---------------------------------------------------------------------------------------------------------- */

/* The op has ended though somebody watches. If that was a remove before an add, it starts again; else the descriptor was
 * closed without a remove, and its number may be in use by others: the watch stays, without effect, until it is removed. */
static void rearm(al_loop *loop, watch_side *side, int result) {
  int err = side->ending ? loop->io->submit(loop, &side->op) : result;
  side->ending = false;
  if (err) al_log(AL_LOG_WARNING, NULL, "descriptor %d can't be watched any more: %s", side->op.fd, al_strerror(err));
}

static void watch_on_poll(al_loop *loop, al_op *op, int result, unsigned flags) {
  watch_side *side = AL_CONTAINER(op, watch_side, op);
  if (flags & AL_OP_MORE) {
    if (side->handle && !side->ending) side->handle->run(loop, side->handle);
    return;
  }
  if (side->handle)
    rearm(loop, side, result);
  else
    side->ending = false;
  free_if_unused(loop, side->watch);
}

/* ---- add and remove --------------------------------------------------------------------------------------------------------- */

/* Has the op armed, now or when it has ended. */
static int start(al_loop *loop, watch_side *side) {
  if (al_op_is_idle(&side->op)) return loop->io->submit(loop, &side->op);
  return !side->ending || al__fd_is_open(side->op.fd) ? 0 : -EBADF;
}

static int add(al_loop *loop, int fd, uint8_t events, al_handle *handle, al_handle **old) {
  watch *record;
  if (loop->closed) return AL_ECLOSED;
  int err = find_or_make(loop, fd, &record);
  if (err) return err;
  watch_side *side = side_of(record, events);
  err = start(loop, side);
  if (err) {
    free_if_unused(loop, record);
    return err;
  }
  if (!side->handle) loop->stats.watchers++;
  if (old) *old = side->handle;
  side->handle = handle;
  return 0;
}

static al_handle *unwatch(al_loop *loop, watch_side *side) {
  al_handle *handle = side->handle;
  if (!handle) return NULL;
  side->handle = NULL;
  loop->stats.watchers--;
  if (!al_op_is_idle(&side->op) && !side->ending) {
    side->ending = true;
    loop->io->cancel(loop, &side->op);
  }
  return handle;
}

static al_handle *remove_side(al_loop *loop, int fd, uint8_t events) {
  watch *record = find(loop, fd);
  if (!record) return NULL;
  al_handle *handle = unwatch(loop, side_of(record, events));
  free_if_unused(loop, record);
  return handle;
}

int al_add_reader(al_loop *loop, int fd, al_handle *handle, al_handle **old) {
  return add(loop, fd, AL_POLL_IN, handle, old);
}

int al_add_writer(al_loop *loop, int fd, al_handle *handle, al_handle **old) {
  return add(loop, fd, AL_POLL_OUT, handle, old);
}

al_handle *al_remove_reader(al_loop *loop, int fd) { return remove_side(loop, fd, AL_POLL_IN); }
al_handle *al_remove_writer(al_loop *loop, int fd) { return remove_side(loop, fd, AL_POLL_OUT); }

/* ---- the room --------------------------------------------------------------------------------------------------------------- */

static void discard_side(al_loop *loop, watch_side *side) {
  al_handle *handle = unwatch(loop, side);
  if (handle) al__loop_discard(loop, handle);
}

static void watch_room_close(al_loop *loop, void *state) {
  watch_room *room = state;
  for (size_t fd = 0; fd < room->capacity; fd++) {
    watch *record = room->by_fd[fd];
    if (!record) continue;
    record->orphan = true;
    room->by_fd[fd] = NULL; /* what discard calls finds nothing to remove */
    discard_side(loop, &record->in);
    discard_side(loop, &record->out);
    free_if_unused(loop, record);
  }
  al__free(room->by_fd);
  al__free(room);
}

static void watch_room_dump(const al_loop *loop, void *state, int fd) {
  const watch_room *room = state;
  (void)loop;
  for (size_t i = 0; i < room->capacity; i++) {
    const watch *record = room->by_fd[i];
    if (record && record->in.handle) al__dump_line(fd, "reader of descriptor %d\n", record->fd);
    if (record && record->out.handle) al__dump_line(fd, "writer of descriptor %d\n", record->fd);
  }
}

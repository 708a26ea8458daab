/* process.c - child processes of a loop: their end becomes a callback, and no zombie is left behind. A child's pidfd is
 * polled like any descriptor; where the kernel has none, SIGCHLD tells when to look (sigchld.c). spawn.c makes
 * children, child.c reaps them. Knows no machine.
 *
 * SPDX-License-Identifier: MIT */
#include "child.h"
#include "debug.h"
#include "handle.h"
#include "loop.h"
#include "mem.h"
#include "sigchld.h"
#include "sock.h"

#include <errno.h>
#include <signal.h>

#define LOST_RETURNCODE 255 /* asyncio's, for a child whose status somebody else has taken */

struct al_process {
  al_loop *loop; /* NULL: closed */
  al_link in_room;
  al_op op; /* POLL of the pidfd */
  al__child child;
  const al_process_owner *owner; /* NULL: released */
  void *data;
  bool ended;
  bool killed; /* by us: its end is near */
};

typedef struct process_room {
  al_link all;
  al__sigchld *sigchld; /* while there are children without a pidfd */
  size_t unseen;        /* how many */
} process_room;

/* ---- the room ---------------------------------------------------------------------------------------------------- */

static void room_close(al_loop *loop, void *state);
static void look_after_unseen(al_loop *loop);

static void room_dump(const al_loop *loop, void *state, int fd) {
  const process_room *room = state;
  (void)loop;
  for (const al_link *link = room->all.next; link != &room->all; link = link->next) {
    const al_process *process = AL_CONTAINER(link, al_process, in_room);
    al__dump_line(fd, "child %d%s%s\n", (int)process->child.pid, process->ended ? " ended" : "",
                  process->owner ? "" : " released");
  }
}

static process_room *room_of(al_loop *loop) {
  al__room *slot = &loop->rooms[AL_ROOM_PROCESS];
  if (slot->state) return slot->state;
  process_room *room = al__calloc(1, sizeof(*room));
  if (!room) return NULL;
  al__link_init(&room->all);
  *slot = (al__room){.state = room, .close = room_close, .dump = room_dump};
  return room;
}

/* ---- the end of a child ------------------------------------------------------------------------------------------ */

/* Frees what nobody needs any more. */
static void settle(al_process *process) {
  if (process->owner || (!process->ended && process->loop) || !al_op_is_idle(&process->op)) return;
  if (process->in_room.next) al__link_remove(&process->in_room);
  al__free(process);
}

static void close_pidfd(al_process *process) {
  if (process->child.pidfd < 0) return;
  process->loop->io->close_fd(process->loop, process->child.pidfd);
  process->child.pidfd = -1;
}

static int known_returncode(const al_process *process, int returncode) {
  if (returncode != AL_LOST_CHILD) return returncode;
  al_log(AL_LOG_WARNING, NULL, "child process pid %d exit status already read: will report returncode %d",
         (int)process->child.pid, LOST_RETURNCODE);
  return LOST_RETURNCODE;
}

static void process_ended(al_process *process, int returncode) {
  const al_process_owner *owner = process->owner;
  process->ended = true;
  close_pidfd(process);
  returncode = known_returncode(process, returncode);
  if (!owner)
    settle(process);
  else if (owner->exited)
    owner->exited(process, process->data, returncode); /* may release it */
}

/* A child that has no pidfd: its end is looked for. It may have come already. */
static int watch_unseen(al_loop *loop) {
  process_room *room = loop->rooms[AL_ROOM_PROCESS].state;
  int err = room->sigchld ? 0 : al__sigchld_open(loop, look_after_unseen, &room->sigchld);
  if (err) return err;
  al__sigchld_kick(room->sigchld);
  room->unseen++;
  return 0;
}

static void unwatch_unseen(process_room *room) {
  if (--room->unseen > 0) return;
  al__sigchld_close(room->sigchld);
  room->sigchld = NULL;
}

static int watch(al_process *process) {
  al_loop *loop = process->loop;
  return process->child.pidfd < 0 ? watch_unseen(loop) : loop->io->submit(loop, &process->op);
}

static al_process *find_ended(process_room *room, int *returncode) {
  for (al_link *link = room->all.next; link != &room->all; link = link->next) {
    al_process *process = AL_CONTAINER(link, al_process, in_room);
    bool unseen = process->child.pidfd < 0 && !process->ended;
    if (unseen && al__child_reap(&process->child, returncode)) return process;
  }
  return NULL;
}

/* From the beginning each time, for who is told may do anything. */
static void look_after_unseen(al_loop *loop) {
  process_room *room = loop->rooms[AL_ROOM_PROCESS].state;
  al_process *process;
  int returncode;
  while (room->unseen > 0 && (process = find_ended(room, &returncode)) != NULL) {
    unwatch_unseen(room);
    process_ended(process, returncode);
  }
}

static void process_on_poll(al_loop *loop, al_op *op, int result, unsigned flags) {
  al_process *process = AL_CONTAINER(op, al_process, op);
  int returncode;
  (void)loop, (void)flags;
  if (!process->loop) { /* closed */
    al__child_close(&process->child);
    settle(process);
    return;
  }
  if (al__child_reap(&process->child, &returncode)) {
    process_ended(process, returncode);
    return;
  }
  int err = result < 0 ? result : watch(process); /* readable for another reason: a tracer's */
  if (err)
    al_log(AL_LOG_ERROR, NULL, "child process pid %d can't be watched any more: %s", (int)process->child.pid,
           al_strerror(err));
}

/* ---- for the owner ----------------------------------------------------------------------------------------------- */

static void log_start(const al_process *process, const al_spawn_options *options) {
  if (process->loop->debug)
    al_log(AL_LOG_DEBUG, NULL, "process '%s' created: pid %d", options->argv[0], (int)process->child.pid);
}

static al_process *process_new(al_loop *loop, const al_process_owner *owner, void *data) {
  static const al_process_owner nobody = {NULL, NULL};
  al_process *process = al__calloc(1, sizeof(*process));
  if (!process) return NULL;
  process->loop = loop;
  process->owner = owner ? owner : &nobody;
  process->data = data;
  return process;
}

static int start(al_process *process, const al_spawn_options *options, al_spawn_failure *failure) {
  int err = al__spawn(options, &process->child, failure);
  if (err) return err;
  process->op = (al_op){
      .kind = AL_OP_POLL, .events = AL_POLL_IN | AL_POLL_ONCE, .fd = process->child.pidfd, .done = process_on_poll};
  err = watch(process);
  if (!err) return 0;
  for (int i = 0; i < 3; i++) al__fd_close(process->child.pipes[i]);
  al__child_kill(&process->child, SIGKILL);
  al__child_bury(&process->child);
  al__child_close(&process->child);
  return err;
}

int al_process_spawn(al_loop *loop, const al_spawn_options *options, const al_process_owner *owner, void *data,
                     al_process **process, int pipes[3], al_spawn_failure *failure) {
  al_spawn_failure unused;
  if (!failure) failure = &unused;
  *failure = (al_spawn_failure){AL_SPAWN_FORK, -1};
  if (loop->closed) return AL_ECLOSED;
  al__child_reap_left();
  process_room *room = room_of(loop);
  al_process *made = room ? process_new(loop, owner, data) : NULL;
  if (!made) return -ENOMEM;
  int err = start(made, options, failure);
  if (err) {
    al__free(made);
    return err;
  }
  al__link_append(&room->all, &made->in_room);
  for (int i = 0; i < 3; i++) pipes[i] = made->child.pipes[i];
  log_start(made, options);
  *process = made;
  return 0;
}

pid_t al_process_pid(const al_process *process) { return process->child.pid; }

int al_process_kill(al_process *process, int signum) {
  if (process->ended || !process->loop) return -ESRCH;
  int err = al__child_kill(&process->child, signum);
  if (!err && signum == SIGKILL) process->killed = true;
  return err;
}

void al_process_release(al_process *process) {
  al_assert(process->owner);
  process->owner = NULL;
  settle(process);
}

/* ---- the end of the loop ----------------------------------------------------------------------------------------- */

static void end_or_leave(al_process *process) {
  if (process->owner) process->killed = al__child_kill(&process->child, SIGKILL) == 0;
  if (process->killed)
    al__child_bury(&process->child);
  else
    al__child_leave(&process->child);
}

/* Its op, if it is still in flight, ends with the machine. */
static void process_die(al_process *process) {
  const al_process_owner *owner = process->owner;
  bool running = !process->ended;
  al__link_remove(&process->in_room);
  process->loop = NULL;
  if (running) end_or_leave(process);
  if (owner && owner->closed)
    owner->closed(process, process->data, running);
  else
    settle(process);
}

static void room_close(al_loop *loop, void *state) {
  process_room *room = state;
  (void)loop;
  if (room->sigchld) al__sigchld_close(room->sigchld);
  while (!al__link_is_empty(&room->all)) process_die(AL_CONTAINER(room->all.next, al_process, in_room));
  al__free(room);
}

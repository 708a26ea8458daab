/* lprocess.h - child processes as scripts see them: SubprocessTransport and Process. lspawn.c starts them.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LPROCESS_H
#define AL_LPROCESS_H

#include "lloop.h"
#include "lresolve.h"
#include "ltask.h"

/* What a SubprocessProtocol's methods are called for, in the order of the user values that hold them. */
#define AL_PROCESS_METHODS(X) \
  X(connection_made)          \
  X(pipe_data_received)       \
  X(pipe_connection_lost)     \
  X(process_exited)           \
  X(connection_lost)          \
  X(pause_writing)            \
  X(resume_writing)

typedef enum al_process_method {
#define X(name) AL_PM_##name,
  AL_PROCESS_METHODS(X)
#undef X
      AL_PM_COUNT
} al_process_method;

/* User values of a SubprocessTransport. */
enum {
  AL_PROCESS_UV_PROTOCOL = 1, /* the SubprocessProtocol; or the Process, whose pipes are streams */
  AL_PROCESS_UV_CONTEXT,      /* lcontext.h, of context_kind */
  AL_PROCESS_UV_INFO,         /* get_extra_info("subprocess"), once somebody asked */
  AL_PROCESS_UV_PIPES,        /* the transports of the child's 0, 1, 2; nil where there is no pipe */
  AL_PROCESS_UV_METHODS = AL_PROCESS_UV_PIPES + 3, /* AL_PM_COUNT of them */
  AL_PROCESS_UV_COUNT = AL_PROCESS_UV_METHODS + AL_PM_COUNT - 1
};

/* A SubprocessTransport. It is anchored until connection_lost: while the child runs or a pipe of its is open. */
typedef struct l_process {
  const void *self; /* its own address: see test_self (lprocess.c) */
  al_ctx *ctx;
  l_loop *loop;           /* NULL: not begun, or over */
  al_process *process;    /* NULL: the same */
  al_transport *pipes[3]; /* one reference each, or NULL */
  al_handle begin;        /* connection_made */
  al_handle lost;         /* connection_lost */
  l_wait starting;        /* of the task that waits for connection_made */
  al_list waiting;        /* l_pause of the tasks that wait for the exit */
  pid_t pid;
  int returncode, slot, n_open; /* n_open: pipes that are not lost yet */
  uint8_t context_kind;
  bool streams; /* of a Process: the protocol is in C */
  bool exited, closing, ending;
} l_process;

/* Pushes a SubprocessTransport for the protocol at idx (0: that of a Process, which is made with it), without a
 * child. */
l_process *al_process_new(lua_State *L, al_ctx *ctx, l_loop *loop, int protocol);

/* Its child runs: makes transports over these ends of pipes (-1: none), which it takes over one by one, and has
 * connection_made called in the next turn. box: where it stands. For a Process limit is that of its readers. Raises. */
void al_process_begin(lua_State *L, l_process *p, int box, int pipes[3], size_t limit);

/* Nobody is told of anything any more, and the child is killed: something failed on the way to connection_made. */
void al_process_give_up(l_process *p);

/* Something happened that the protocol is to hear of. */
typedef struct l_event {
  l_process *process;
  al_process_method method;
  int fd;           /* pipe_data_received, pipe_connection_lost */
  int error;        /* of the core: pipe_connection_lost; 0: none */
  const char *data; /* pipe_data_received */
  size_t len;
} l_event;
void al_process_call(const l_event *event); /* nothing, if the protocol is in C */
void al_process_pipe_lost(l_process *p, int fd, int error);

/* lchildpipe.c. Pushes a transport over our end *fd of the child's pipe number i, and takes the end over. For a Process
 * it puts the StreamReader or StreamWriter at index stream. */
al_transport *al_childpipe_open(lua_State *L, l_process *p, int box, int i, int *fd, int stream, size_t limit);

/* Waits for connection_made; the box must stand on top. Results: transport and protocol, or the Process. */
int al_process_wait_begun(lua_State *L, l_process *p);

extern const al_process_owner al_process_callbacks; /* whose data is the l_process */

void al_process_openlib(lua_State *L, al_ctx *ctx);
void al_childpipe_openlib(lua_State *L, al_ctx *ctx);
void al_spawn_openlib(lua_State *L, al_ctx *ctx);

#endif

/* lprocworker.c - a worker process of a ProcessPoolExecutor: one Lua state (lworker.c), served over the socket that
 * it got as its descriptor AL_FRAME_FD. Nothing else of this process has a loop, tasks, or handlers of signals, but
 * what jobs make.
 *
 * It ends when the pool closes its end, and is killed when the pool's process ends in whatever way.
 *
 * SPDX-License-Identifier: MIT */
#include "lframe.h"
#include "lpool.h"
#include "lprocpool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

bool al_procworker_is_command(int argc, char **argv) { return argc == 2 && strcmp(argv[1], "--worker") == 0; }

/* ---- the process ------------------------------------------------------------------------------------------------- */

static void ignore(int signum) { (void)signum; }

/* SIGINT of a terminal is the pool's process's to answer: it ends the workers, if it does. A handler, unlike SIG_IGN,
 * is not handed down to what a job starts. */
static void set_signals(void) {
  struct sigaction action = {.sa_handler = ignore, .sa_flags = SA_RESTART};
  sigset_t none;
  al_ignore_sigpipe();
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, NULL);
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
}

static bool is_socket(int fd) {
  int type;
  return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &(socklen_t){sizeof type}) == 0;
}

/* To be killed with the pool; false: that is gone already, perhaps with a call on the way. */
static bool tie_to_pool(void) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  struct pollfd end = {.fd = AL_FRAME_FD, .events = POLLRDHUP};
  return poll(&end, 1, 0) == 0;
}

/* What the pool's process had open without close-on-exec is none of ours. */
static void close_others(void) {
#ifdef SYS_close_range
  if (syscall(SYS_close_range, AL_FRAME_FD + 1, ~0U, 0) == 0) return;
#endif
  DIR *dir = opendir("/proc/self/fd");
  if (!dir) return;
  for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
    int fd = atoi(entry->d_name);
    if (fd > AL_FRAME_FD && fd != dirfd(dir)) close(fd);
  }
  closedir(dir);
}

/* ---- what it is told --------------------------------------------------------------------------------------------- */

/* The next of the strings of lprocpool.c's pack, or NULL. */
static char *take_text(const char **from, const char *end) {
  if (*from == end || !*(*from)++) return NULL;
  size_t len = strnlen(*from, (size_t)(end - *from));
  char *text = strndup(*from, len);
  *from += len < (size_t)(end - *from) ? len + 1 : len;
  return text;
}

/* Is it the same aloop as the pool's? */
static bool is_of_our_kind(const char **from, const char *end) {
  char ours[64], *theirs = take_text(from, end);
  al_frame_banner(ours, sizeof ours);
  bool same = theirs && strcmp(theirs, ours) == 0;
  if (!same) fprintf(stderr, "aloop: this worker is %s, its pool %s\n", ours, theirs ? theirs : "something else");
  free(theirs);
  return same;
}

/* NULL: it is none for us, which is told, or there is no memory. */
static al_worker_setup *unpack(const al_parcel *parcel) {
  size_t len;
  const char *from = al_parcel_bytes(parcel, &len), *end = from + len;
  if (!is_of_our_kind(&from, end) || end - from < 2) return NULL;
  al_worker_setup *setup = calloc(1, sizeof *setup);
  if (!setup) return NULL;
  setup->no_environment = *from++;
  setup->debug = *from++;
  setup->path = take_text(&from, end);
  setup->cpath = take_text(&from, end);
  setup->machine = take_text(&from, end);
  return setup;
}

/* ---- serving ----------------------------------------------------------------------------------------------------- */

static int answer(al_worker *worker, al_frame_kind kind, const al_parcel *parcel) {
  if (kind == AL_FRAME_INITIALIZE) {
    bool ok = al_worker_initialize(worker, parcel);
    return al_frame_send(AL_FRAME_FD, ok ? AL_FRAME_DONE : AL_FRAME_FAILED, NULL);
  }
  bool failed;
  al_parcel *outcome = al_worker_call(worker, parcel, 0, &failed);
  fflush(stdout);
  int err = al_frame_send(AL_FRAME_FD, failed ? AL_FRAME_FAILED : AL_FRAME_DONE, outcome);
  al_parcel_free(outcome);
  return err;
}

static void serve(al_worker *worker) {
  int err;
  do {
    al_frame_kind kind;
    al_parcel *parcel;
    err = al_frame_receive(AL_FRAME_FD, &kind, &parcel);
    if (err == -ENOMEM) {
      err = al_frame_send(AL_FRAME_FD, AL_FRAME_FAILED, NULL);
    } else if (!err) {
      err = answer(worker, kind, parcel);
      al_parcel_free(parcel);
    }
  } while (!err);
}

int al_procworker_run(void) {
  set_signals();
  close_others();
  fcntl(AL_FRAME_FD, F_SETFD, FD_CLOEXEC);
  al_frame_kind kind;
  al_parcel *parcel;
  if (!is_socket(AL_FRAME_FD)) {
    fputs("aloop: --worker is for the worker processes of a ProcessPoolExecutor\n", stderr);
    return EXIT_FAILURE;
  }
  if (!tie_to_pool() || al_frame_receive(AL_FRAME_FD, &kind, &parcel) != 0) return EXIT_FAILURE;
  al_worker_setup *setup = kind == AL_FRAME_SETUP ? unpack(parcel) : NULL;
  al_parcel_free(parcel);
  al_worker *worker = setup ? al_worker_open(setup) : NULL;
  if (!worker) return EXIT_FAILURE;
  serve(worker);
  al_worker_close(worker);
  return EXIT_SUCCESS;
}

int luaopen_aloop_worker(lua_State *L) {
  (void)L;
  exit(al_procworker_run());
}

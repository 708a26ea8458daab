/* core_process.c - tests of child processes: their end and their pipes, signals, what is wrong with what is to be
 * started, with and without pidfds and memory, in several threads, through the end of the loop.
 *
 * SPDX-License-Identifier: MIT */
#include "child.h"
#include "stream_peers.h"

#include <signal.h>
#include <sys/wait.h>

typedef struct kid {
  al_process *process;
  int pipes[3], exits, closes, returncode;
  bool was_running, release_in_exit;
} kid;

static void on_exited(al_process *process, void *data, int returncode) {
  kid *k = data;
  CHECK(process == k->process);
  k->exits++;
  k->returncode = returncode;
  if (k->release_in_exit) al_process_release(process);
}

static void on_closed(al_process *process, void *data, bool running) {
  kid *k = data;
  CHECK(process == k->process);
  k->closes++;
  k->was_running = running;
}

static const al_process_owner owner = {on_exited, on_closed};

static int spawn(al_loop *loop, kid *k, const al_spawn_options *options, al_spawn_failure *failure) {
  *k = (kid){.pipes = {-1, -1, -1}};
  return al_process_spawn(loop, options, &owner, k, &k->process, k->pipes, failure);
}

static al_spawn_options shell(const char **argv, const char *script) {
  al_spawn_options o = AL_SPAWN_DEFAULTS;
  argv[0] = "/bin/sh";
  argv[1] = "-c";
  argv[2] = script;
  argv[3] = NULL;
  o.argv = argv;
  return o;
}

static void spawn_shell(al_loop *loop, kid *k, const char *script) {
  const char *argv[4];
  al_spawn_options o = shell(argv, script);
  CHECK_EQ(spawn(loop, k, &o, NULL), 0);
}

static void until_exit(al_loop *loop, kid *k) { UNTIL(loop, k->exits > 0); }

static void check_no_children(void) {
  CHECK_EQ(waitpid(-1, NULL, WNOHANG), -1);
  CHECK_EQ(errno, ECHILD);
}

static void quiet(void *ud, al_log_level level, const char *message, const char *category) {
  (void)level, (void)message, (void)category;
  ++*(int *)ud;
}

/* ---- children ---------------------------------------------------------------------------------------------------- */

static void test_exit(void) {
  al_loop *loop = new_loop();
  kid k;
  int fds = open_descriptors();
  spawn_shell(loop, &k, "exit 7");
  CHECK(al_process_pid(k.process) > 0);
  CHECK_EQ(k.pipes[0], -1);
  until_exit(loop, &k);
  CHECK_EQ(k.returncode, 7);
  CHECK_EQ(al_process_kill(k.process, SIGTERM), -ESRCH);
  al_process_release(k.process);
  spawn_shell(loop, &k, "kill -TERM $$");
  until_exit(loop, &k);
  CHECK_EQ(k.returncode, -SIGTERM);
  al_process_release(k.process);
  turns(loop, 2); /* what looks for SIGCHLD ends */
  CHECK_EQ(open_descriptors(), fds);
  end_loop(loop);
  check_no_children();
}

static void test_signals(void) {
  al_loop *loop = new_loop();
  kid k;
  spawn_shell(loop, &k, "exec sleep 30");
  CHECK_EQ(al_process_kill(k.process, 12345), -EINVAL);
  CHECK_EQ(al_process_kill(k.process, 0), 0);
  CHECK_EQ(al_process_kill(k.process, SIGKILL), 0);
  until_exit(loop, &k);
  CHECK_EQ(k.returncode, -SIGKILL);
  al_process_release(k.process);
  end_loop(loop);
}

/* Whoever reads the pipe to its end has waited for the child to end, too; yet the end is told by a turn only. */
static void read_all(int fd, char *text, size_t size) {
  size_t n = 0;
  ssize_t got;
  while ((got = read(fd, text + n, size - 1 - n)) > 0) n += (size_t)got;
  text[n] = 0;
  close(fd);
}

static void test_pipes(void) {
  al_loop *loop = new_loop();
  const char *argv[4];
  char text[64];
  kid k;
  al_spawn_options o = shell(argv, "read x; echo out $x; echo err >&2");
  for (int i = 0; i < 3; i++) o.stdio[i] = AL_STDIO_PIPE;
  CHECK_EQ(spawn(loop, &k, &o, NULL), 0);
  CHECK(fcntl(k.pipes[0], F_GETFD) & FD_CLOEXEC && !(fcntl(k.pipes[0], F_GETFL) & O_NONBLOCK));
  CHECK_EQ(write(k.pipes[0], "in\n", 3), 3);
  close(k.pipes[0]);
  read_all(k.pipes[1], text, sizeof(text));
  CHECK(!strcmp(text, "out in\n"));
  read_all(k.pipes[2], text, sizeof(text));
  CHECK(!strcmp(text, "err\n"));
  until_exit(loop, &k);
  al_process_release(k.process);
  o = shell(argv, "echo one; echo two >&2; read x || echo end");
  o.stdio[0] = AL_STDIO_NULL;
  o.stdio[1] = AL_STDIO_PIPE;
  o.stdio[2] = AL_STDIO_OUTPUT;
  CHECK_EQ(spawn(loop, &k, &o, NULL), 0);
  CHECK_EQ(k.pipes[2], -1);
  read_all(k.pipes[1], text, sizeof(text));
  CHECK(!strcmp(text, "one\ntwo\nend\n"));
  until_exit(loop, &k);
  al_process_release(k.process);
  end_loop(loop);
}

/* The child's descriptors are where they belong, wherever ours come from: all orders of three, and none. */
static void test_clashes(void) {
  static const int orders[][3] = {{0, 1, 2}, {1, 0, 2}, {2, 1, 0}, {1, 2, 0}, {2, 0, 1}, {0, 2, 1}};
  int saved[3];
  for (int i = 0; i < 3; i++) saved[i] = fcntl(i, F_DUPFD_CLOEXEC, 10);
  for (size_t n = 0; n < sizeof(orders) / sizeof(*orders); n++) {
    al_loop *loop = new_loop();
    int in[2], out[2], err[2];
    char text[16] = "";
    const char *argv[4];
    kid k;
    CHECK_EQ(pipe2(in, O_CLOEXEC) | pipe2(out, O_CLOEXEC) | pipe2(err, O_CLOEXEC), 0);
    dup2(in[0], orders[n][0]);
    dup2(out[1], orders[n][1]);
    dup2(err[1], orders[n][2]);
    al_spawn_options o = shell(argv, "read x; echo $x; echo e >&2");
    memcpy(o.stdio, orders[n], sizeof(o.stdio));
    CHECK_EQ(spawn(loop, &k, &o, NULL), 0);
    for (int i = 0; i < 3; i++) dup2(saved[i], i);
    CHECK_EQ(write(in[1], "o\n", 2), 2);
    until_exit(loop, &k);
    CHECK_EQ(read(out[0], text, 2), 2);
    CHECK(!strcmp(text, "o\n"));
    CHECK_EQ(read(err[0], text, 2), 2);
    CHECK(!strcmp(text, "e\n"));
    for (int i = 0; i < 2; i++) close(in[i]), close(out[i]), close(err[i]);
    al_process_release(k.process);
    end_loop(loop);
  }
  for (int i = 0; i < 3; i++) close(saved[i]);
}

/* Ours are closed: pipes keep off their numbers, and a child inherits nothing in their place. */
static void test_closed_stdio(void) {
  al_loop *loop = new_loop();
  char text[64];
  const char *argv[4];
  kid k;
  int saved[3];
  for (int i = 0; i < 3; i++) saved[i] = fcntl(i, F_DUPFD_CLOEXEC, 10);
  al_spawn_options o = shell(argv, "ls -1 /proc/self/fd | head -3 | tr '\\n' ' '");
  o.stdio[1] = AL_STDIO_PIPE;
  for (int i = 0; i < 3; i++) close(i);
  int err = spawn(loop, &k, &o, NULL);
  bool above = k.pipes[1] > 2;
  for (int i = 0; i < 3; i++) dup2(saved[i], i);
  for (int i = 0; i < 3; i++) close(saved[i]);
  CHECK_EQ(err, 0);
  CHECK(above);
  read_all(k.pipes[1], text, sizeof(text));
  CHECK(text[0] != 0);
  until_exit(loop, &k);
  al_process_release(k.process);
  end_loop(loop);
}

static int fails(al_loop *loop, al_spawn_options *o, al_spawn_step at) {
  al_spawn_failure failure;
  kid k;
  int fds = open_descriptors();
  int err = spawn(loop, &k, o, &failure);
  CHECK(err < 0);
  CHECK_EQ(failure.step, at);
  CHECK_EQ(open_descriptors(), fds);
  check_no_children();
  return err;
}

static void test_failures(void) {
  al_loop *loop = new_loop();
  const char *argv[4], *nosuch[] = {"aloop-no-such-program", NULL}, *directory[] = {"/tmp", NULL};
  const char *path[] = {"PATH=/nosuch:/tmp:/etc/passwd", NULL};
  al_spawn_options o = AL_SPAWN_DEFAULTS, plain = shell(argv, "exit 0");
  o.argv = nosuch;
  for (int i = 0; i < 3; i++) o.stdio[i] = AL_STDIO_PIPE;
  CHECK_EQ(fails(loop, &o, AL_SPAWN_EXEC), -ENOENT);
  o.env = path;
  CHECK_EQ(fails(loop, &o, AL_SPAWN_EXEC), -ENOTDIR);
  o.argv = directory;
  CHECK_EQ(fails(loop, &o, AL_SPAWN_EXEC), -EACCES);
  o = plain;
  o.cwd = "/nosuch";
  CHECK_EQ(fails(loop, &o, AL_SPAWN_CWD), -ENOENT);
  o = plain;
  o.stdio[1] = 999;
  CHECK_EQ(fails(loop, &o, AL_SPAWN_STDIO), -EBADF);
  o = plain;
  const int bad_fd[] = {999};
  o.pass_fds = bad_fd;
  o.n_pass_fds = 1;
  CHECK_EQ(fails(loop, &o, AL_SPAWN_PASS_FDS), -EBADF);
  o = plain;
  o.set_pgid = true;
  o.pgid = 999999;
  CHECK(fails(loop, &o, AL_SPAWN_PGID) < 0);
  o = plain;
  o.new_session = o.set_pgid = true; /* a leader can't change its group */
  CHECK_EQ(fails(loop, &o, AL_SPAWN_PGID), -EPERM);
  CHECK_EQ(al_loop_close(loop), 0);
  CHECK_EQ(al_process_spawn(loop, &plain, NULL, NULL, NULL, NULL, NULL), AL_ECLOSED);
  al_loop_release(loop);
}

/* What is to be done to the child's user fails with its step, from a copy of our memory. */
static void test_user(void) {
  al_loop *loop = new_loop();
  const char *argv[4];
  kid k;
  al_spawn_options o = shell(argv, "exit $(id -u)");
  o.set_uid = true;
  o.uid = geteuid() ? geteuid() : 65;
  CHECK_EQ(spawn(loop, &k, &o, NULL), 0);
  until_exit(loop, &k);
  CHECK_EQ(k.returncode, o.uid % 256);
  al_process_release(k.process);
  o.argv = (const char *[]){"/nosuch", NULL};
  CHECK_EQ(fails(loop, &o, AL_SPAWN_EXEC), -ENOENT);
  end_loop(loop);
}

/* Ignored SIGCHLD, or somebody else who reaps. */
static void test_lost_status(void) {
  al_loop *loop = new_loop();
  kid k;
  int lines = 0;
  al_set_log(quiet, &lines);
  signal(SIGCHLD, SIG_IGN);
  spawn_shell(loop, &k, "exit 7");
  until_exit(loop, &k);
  /* Without a pidfd a handler of ours may have come in time, to which the status is known. */
  CHECK(k.returncode == 255 || (al__child_no_pidfd && k.returncode == 7));
  CHECK_EQ(lines, k.returncode == 255);
  lines = 0;
  al_process_release(k.process);
  signal(SIGCHLD, SIG_DFL);
  spawn_shell(loop, &k, "exit 7");
  CHECK_EQ(waitpid(al_process_pid(k.process), NULL, 0), al_process_pid(k.process));
  CHECK(al_process_kill(k.process, SIGKILL) == -ESRCH);
  until_exit(loop, &k);
  CHECK_EQ(k.returncode, 255);
  CHECK_EQ(lines, 1);
  al_process_release(k.process);
  al_set_log(NULL, NULL);
  end_loop(loop);
}

/* One that nobody wants is reaped all the same; one may be released in its own callback. */
static void test_release(void) {
  al_loop *loop = new_loop();
  kid k, other;
  spawn_shell(loop, &k, "exit 1");
  al_process_release(k.process);
  spawn_shell(loop, &other, "sleep 0.05");
  other.release_in_exit = true;
  until_exit(loop, &other);
  for (int i = 0; i < 1000 && waitpid(-1, NULL, WNOHANG | WNOWAIT) == 0; i++) al_loop_run_once(loop, 1000000);
  check_no_children();
  CHECK_EQ(k.exits, 0);
  end_loop(loop);
}

/* The loop closes: what has an owner is killed, what was released goes on, and is reaped
 * later, unless it was killed. */
static void test_close(void) {
  al_loop *loop = new_loop();
  kid running, ended, released, killed;
  spawn_shell(loop, &ended, "exit 3");
  until_exit(loop, &ended);
  spawn_shell(loop, &running, "exec sleep 30");
  spawn_shell(loop, &released, "sleep 0.02");
  pid_t pid = al_process_pid(running.process), left = al_process_pid(released.process);
  al_process_release(released.process);
  spawn_shell(loop, &killed, "exec sleep 30");
  pid_t dead = al_process_pid(killed.process);
  CHECK_EQ(al_process_kill(killed.process, SIGKILL), 0);
  al_process_release(killed.process);
  CHECK_EQ(al_loop_close(loop), 0);
  CHECK_EQ(kill(dead, 0), -1);
  CHECK_EQ(running.closes, 1);
  CHECK(running.was_running && !ended.was_running);
  CHECK_EQ(ended.closes, 1);
  CHECK_EQ(released.closes, 0);
  CHECK_EQ(kill(pid, 0), -1);
  CHECK_EQ(al_process_kill(running.process, SIGKILL), -ESRCH);
  al_process_release(running.process);
  al_process_release(ended.process);
  al_loop_release(loop);
  for (int i = 0; i < 5000 && kill(left, 0) == 0; i++) {
    usleep(1000);
    al__child_reap_left();
  }
  check_no_children();
}

static void test_no_memory(void) {
  bool succeeded = false;
  for (int n = 0; n < 40 && !succeeded; n++) {
    al_loop *loop = new_loop();
    const char *argv[4];
    kid k;
    int fds = open_descriptors();
    al_spawn_options o = shell(argv, "exit 0");
    for (int i = 0; i < 3; i++) o.stdio[i] = AL_STDIO_PIPE;
    al_mem_fail_after(n);
    int err = spawn(loop, &k, &o, NULL);
    al_mem_fail_after(-1);
    if (err) {
      CHECK_EQ(err, -ENOMEM);
      CHECK_EQ(open_descriptors(), fds);
      check_no_children();
    } else {
      succeeded = true;
      for (int i = 0; i < 3; i++) close(k.pipes[i]);
      until_exit(loop, &k);
      al_process_release(k.process);
    }
    end_loop(loop);
  }
  CHECK(succeeded);
}

/* Threads with a loop each, whose children do not meet. */
static void *run_thread(void *arg) {
  al_loop *loop = new_loop();
  (void)arg;
  for (int i = 0; i < 20; i++) {
    char script[32];
    kid k;
    snprintf(script, sizeof(script), "exit %d", i);
    spawn_shell(loop, &k, script);
    until_exit(loop, &k);
    CHECK_EQ(k.returncode, i);
    al_process_release(k.process);
  }
  end_loop(loop);
  return NULL;
}

static void test_threads(void) {
  pthread_t threads[3];
  for (int i = 0; i < 3; i++) CHECK_EQ(pthread_create(&threads[i], NULL, run_thread, NULL), 0);
  for (int i = 0; i < 3; i++) CHECK_EQ(pthread_join(threads[i], NULL), 0);
  check_no_children();
}

/* ---- on an old kernel: SIGCHLD ----------------------------------------------------------------------------------- */

static int user_signals;
static void on_user_sigchld(int signum) { user_signals += signum == SIGCHLD; }

static void test_sigchld_handler(void) {
  al_loop *loop = new_loop();
  kid k;
  struct sigaction now;
  signal(SIGCHLD, on_user_sigchld);
  spawn_shell(loop, &k, "exit 4");
  until_exit(loop, &k);
  CHECK_EQ(k.returncode, 4);
  al_process_release(k.process);
  turns(loop, 2);
  CHECK(user_signals >= 1); /* ours has called it */
  CHECK_EQ(sigaction(SIGCHLD, NULL, &now), 0);
  CHECK(now.sa_handler == on_user_sigchld);
  spawn_shell(loop, &k, "sleep 0.05; exit 5");
  signal(SIGCHLD, SIG_DFL); /* takes ours away */
  until_exit(loop, &k);
  CHECK_EQ(k.returncode, 5);
  al_process_release(k.process);
  end_loop(loop);
}

static void run_tests(void) {
  RUN_CLEAN(test_user);
  RUN_CLEAN(test_closed_stdio);
  for (int old = 0; old <= 1; old++) {
    al__child_no_pidfd = old;
    RUN_CLEAN(test_exit);
    RUN_CLEAN(test_signals);
    RUN_CLEAN(test_pipes);
    RUN_CLEAN(test_clashes);
    RUN_CLEAN(test_failures);
    RUN_CLEAN(test_lost_status);
    RUN_CLEAN(test_release);
    RUN_CLEAN(test_close);
    RUN_CLEAN(test_no_memory);
    RUN_CLEAN(test_threads);
  }
  RUN_CLEAN(test_sigchld_handler);
  al__child_no_pidfd = false;
}

int main(int argc, char **argv) { return run_on_machines(argc, argv, run_tests); }

/* bench.c - see bench.h.
 *
 * SPDX-License-Identifier: MIT */
#include "bench.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

void bench_die(const char *what) {
  fprintf(stderr, "%s: %s\n", what, strerror(errno));
  exit(1);
}

void *bench_alloc(size_t size) {
  void *ptr = malloc(size);
  if (!ptr) bench_die("malloc");
  return ptr;
}

static int64_t clock_ns(clockid_t clock) {
  struct timespec ts;
  clock_gettime(clock, &ts);
  return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int64_t bench_now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

int64_t bench_self_cpu_ns(void) { return clock_ns(CLOCK_PROCESS_CPUTIME_ID); }

socklen_t bench_parse_addr(const char *text, struct sockaddr_storage *ss) {
  memset(ss, 0, sizeof *ss);
  if (strncmp(text, "unix:", 5) == 0) {
    struct sockaddr_un *un = (struct sockaddr_un *)ss;
    un->sun_family = AF_UNIX;
    if (strlen(text + 5) >= sizeof un->sun_path) {
      errno = ENAMETOOLONG;
      bench_die(text);
    }
    strcpy(un->sun_path, text + 5);
    return sizeof *un;
  }
  struct sockaddr_in *in = (struct sockaddr_in *)ss;
  const char *colon = strrchr(text, ':');
  char host[64];
  size_t len = colon ? (size_t)(colon - text) : sizeof host;
  if (len >= sizeof host) {
    errno = EINVAL;
    bench_die(text);
  }
  memcpy(host, text, len);
  host[len] = '\0';
  in->sin_family = AF_INET;
  in->sin_port = htons((uint16_t)atoi(colon + 1));
  if (inet_pton(AF_INET, host, &in->sin_addr) != 1) {
    errno = EINVAL;
    bench_die(text);
  }
  return sizeof *in;
}

int bench_listen(const char *where) {
  struct sockaddr_storage ss;
  socklen_t len = bench_parse_addr(strcmp(where, "tcp") == 0 ? "127.0.0.1:0" : where, &ss);
  int fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) bench_die("socket");
  if (bind(fd, (struct sockaddr *)&ss, len) < 0) bench_die("bind");
  if (listen(fd, 1024) < 0) bench_die("listen");
  if (ss.ss_family == AF_INET) {
    len = sizeof ss;
    if (getsockname(fd, (struct sockaddr *)&ss, &len) < 0) bench_die("getsockname");
    printf("127.0.0.1:%u\n", ntohs(((struct sockaddr_in *)&ss)->sin_port));
  } else {
    printf("%s\n", where);
  }
  fflush(stdout);
  return fd;
}

uint16_t bench_hold_port(void) {
  struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof in;
  int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
  if (fd < 0) bench_die("socket");
  if (setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) < 0) bench_die("setsockopt");
  if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0) bench_die("setsockopt");
  if (bind(fd, (struct sockaddr *)&in, sizeof in) < 0) bench_die("bind");
  if (getsockname(fd, (struct sockaddr *)&in, &len) < 0) bench_die("getsockname");
  return ntohs(in.sin_port);
}

static bool is_listening(const struct sockaddr_storage *ss, socklen_t len) {
  int fd = socket(ss->ss_family, SOCK_STREAM, 0);
  bool listening = fd >= 0 && connect(fd, (const struct sockaddr *)ss, len) == 0;
  if (fd >= 0) close(fd);
  return listening;
}

void bench_announce(uint16_t port) {
  char address[32];
  struct sockaddr_storage ss;
  pid_t pid = fork();
  if (pid < 0) bench_die("fork");
  if (pid > 0) return;
  snprintf(address, sizeof address, "127.0.0.1:%u", port);
  socklen_t len = bench_parse_addr(address, &ss);
  for (int i = 0; i < 1000; i++) {
    if (is_listening(&ss, len)) {
      printf("%s\n", address);
      exit(0);
    }
    usleep(5000);
  }
  exit(1);
}

void bench_no_delay(int fd) {
  int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

/* The first number of a small file under /proc, skipping some before it; -1 if there is none. */
static int64_t first_number(const char *path, int skip) {
  FILE *file = fopen(path, "r");
  if (!file) return -1;
  long long n = -1;
  for (int i = 0; i <= skip; i++)
    if (fscanf(file, "%lld", &n) != 1) n = -1;
  fclose(file);
  return n;
}

int64_t bench_cpu_ns(pid_t pid) {
  char path[sizeof "/proc//task//schedstat" + 300];
  snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
  DIR *dir = opendir(path);
  if (!dir) return -1;
  int64_t sum = 0;
  for (struct dirent *entry; (entry = readdir(dir));) {
    if (entry->d_name[0] == '.') continue;
    snprintf(path, sizeof path, "/proc/%d/task/%s/schedstat", (int)pid, entry->d_name);
    int64_t ns = first_number(path, 0);
    if (ns > 0) sum += ns; /* a thread that ended meanwhile is no longer counted */
  }
  closedir(dir);
  return sum;
}

int64_t bench_rss(pid_t pid) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
  int64_t pages = first_number(path, 1);
  return pages < 0 ? -1 : pages * sysconf(_SC_PAGESIZE);
}

/* http_nginx.c - starts nginx with one process, one route and no log, as a peer of the HTTP benchmark. nginx can't take
 * a port of the kernel's choice, so a socket that never listens holds one for it, and a child waits until nginx listens
 * there.
 *
 *   http_nginx PATH       makes the directory PATH for nginx's files; prints the address
 *
 * SPDX-License-Identifier: MIT */
#include "bench.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const char config[] =
    "daemon off; master_process off; pid %s/pid; error_log stderr crit;\n"
    "events { worker_connections 2048; }\n"
    "http {\n"
    "  access_log off; keepalive_requests 1000000000; default_type text/plain;\n"
    "  client_body_temp_path %s/b; proxy_temp_path %s/p; fastcgi_temp_path %s/f;\n"
    "  uwsgi_temp_path %s/u; scgi_temp_path %s/s;\n"
    "  server { listen 127.0.0.1:%u reuseport; location = / { return 200 \"Hello, World!\\n\"; } }\n"
    "}\n";

/* A socket that keeps a port for nginx as long as the process lives. */
static uint16_t hold_port(void) {
  struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof in;
  int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
  if (fd < 0) bench_die("socket");
  if (setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) < 0) bench_die("setsockopt");
  if (bind(fd, (struct sockaddr *)&in, sizeof in) < 0) bench_die("bind");
  if (getsockname(fd, (struct sockaddr *)&in, &len) < 0) bench_die("getsockname");
  return ntohs(in.sin_port);
}

static void write_config(const char *file, const char *dir, uint16_t port) {
  FILE *conf = fopen(file, "w");
  if (!conf) bench_die(file);
  fprintf(conf, config, dir, dir, dir, dir, dir, dir, port);
  if (fclose(conf) != 0) bench_die(file);
}

/* In a child: says the address once somebody listens there. */
static void announce(uint16_t port) {
  char address[32];
  struct sockaddr_storage ss;
  snprintf(address, sizeof address, "127.0.0.1:%u", port);
  socklen_t len = bench_parse_addr(address, &ss);
  for (int i = 0; i < 1000; i++) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    bool listening = fd >= 0 && connect(fd, (struct sockaddr *)&ss, len) == 0;
    close(fd);
    if (listening) {
      printf("%s\n", address);
      return;
    }
    usleep(5000);
  }
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: http_nginx PATH\n");
    return 2;
  }
  const char *dir = argv[1];
  char file[4096];
  uint16_t port = hold_port();
  if (mkdir(dir, 0700) < 0) bench_die(dir);
  snprintf(file, sizeof file, "%s/conf", dir);
  write_config(file, dir, port);
  pid_t pid = fork();
  if (pid < 0) bench_die("fork");
  if (pid == 0) {
    announce(port);
    return 0;
  }
  execlp("nginx", "nginx", "-p", dir, "-c", file, (char *)NULL);
  bench_die("nginx");
}

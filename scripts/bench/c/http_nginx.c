/* http_nginx.c - starts nginx with one process, one route and no log, as a peer of the HTTP benchmark. nginx can't take
 * a port of the kernel's choice, so one is held for it (bench_hold_port).
 *
 *   http_nginx PATH       makes the directory PATH for nginx's files; prints the address
 *
 * SPDX-License-Identifier: MIT */
#include "bench.h"

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

static void write_config(const char *file, const char *dir, uint16_t port) {
  FILE *conf = fopen(file, "w");
  if (!conf) bench_die(file);
  fprintf(conf, config, dir, dir, dir, dir, dir, dir, port);
  if (fclose(conf) != 0) bench_die(file);
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: http_nginx PATH\n");
    return 2;
  }
  const char *dir = argv[1];
  char file[4096];
  uint16_t port = bench_hold_port();
  if (mkdir(dir, 0700) < 0) bench_die(dir);
  snprintf(file, sizeof file, "%s/conf", dir);
  write_config(file, dir, port);
  bench_announce(port);
  execlp("nginx", "nginx", "-p", dir, "-c", file, (char *)NULL);
  bench_die("nginx");
}

/* bench.h - what the C programs of the benchmarks share: addresses, clocks, and what the kernel knows of a process.
 * Used by the servers and load generators here alone; knows nothing of aloop.
 *
 * SPDX-License-Identifier: MIT */
#ifndef BENCH_H
#define BENCH_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

/* Says what failed with the text of errno and ends the program. */
void bench_die(const char *what) __attribute__((noreturn));

/* malloc that ends the program instead of failing. */
void *bench_alloc(size_t size);

int64_t bench_now_ns(void);      /* CLOCK_MONOTONIC */
int64_t bench_self_cpu_ns(void); /* CPU of this process so far */

/* Listens where the argument says: "tcp" (127.0.0.1, a port of the kernel's choice) or "unix:PATH"; prints the address
 * as the first line of stdout, "127.0.0.1:PORT" or "unix:PATH". Returns a non-blocking descriptor. */
int bench_listen(const char *where);

/* Reads what bench_listen printed; ends the program if it is no address. */
socklen_t bench_parse_addr(const char *text, struct sockaddr_storage *ss);

/* For servers that can't take a port of the kernel's choice: a port that is kept for one as long as this process lives,
 * by a socket that never listens; the server has to set SO_REUSEADDR or SO_REUSEPORT. bench_announce starts a child
 * that prints the address once somebody listens there. */
uint16_t bench_hold_port(void);
void bench_announce(uint16_t port);

void bench_no_delay(int fd); /* TCP_NODELAY; a Unix socket is left as it is */

/* CPU of all threads of a process so far, in ns; resident bytes of a process. -1 if it is gone. */
int64_t bench_cpu_ns(pid_t pid);
int64_t bench_rss(pid_t pid);

#endif

/* load.h - the engine of the load generators that speak over connections: a closed loop of one thread over epoll, and
 * the count of what idle connections cost. loadgen.c is made of it for plain sockets, loadtls.c for TLS: what lies
 * between the engine and the socket is a wire. Knows nothing of the server.
 *
 * SPDX-License-Identifier: MIT */
#ifndef LOAD_H
#define LOAD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct load_conn {
  int fd;
  bool blocked;             /* waits to be writable */
  bool ending;              /* said goodbye, waits for the server's end */
  uint64_t sent, want, got; /* bytes sent, bytes that may be sent, bytes that came back */
  uint64_t answered;        /* messages that came back whole */
  void *wire;               /* the wire's own */
};

/* send and recv are as send(2) and recv(2); EAGAIN of send leaves it to the wire whether conn->blocked is to be set, by
 * load_block. The others may be NULL. */
struct load_wire {
  void (*open)(struct load_conn *conn); /* the socket is connected, or connecting if it is non-blocking */
  ssize_t (*send)(struct load_conn *conn, const void *data, size_t len);
  ssize_t (*recv)(struct load_conn *conn, void *data, size_t len);
  bool (*goodbye)(struct load_conn *conn); /* a short connection has its answer; true: wait for the server's end */
  void (*close)(struct load_conn *conn);   /* the socket is about to be closed */
};

struct load_options {
  const char *name, *mode; /* the program: echo, connect, idle, or a mode that opens connections as connect does */
  int connections, depth;
  size_t size;
  bool lines;
  double warmup, seconds;
  uint64_t requests;
  pid_t pid;
};

extern struct load_options load_options;
extern uint64_t load_errors;
extern const struct load_wire *load_wire;

#define LOAD_LETTERS "lm:c:s:p:w:t:n:P:" /* of the options that load_option knows */

/* Takes an option of getopt; false if it is none of the engine's. */
bool load_option(int opt, const char *value);

/* Checks the options, takes the address and makes ready. Returns room for the connections and one more, none of them
 * open; NULL if the command line is wrong. */
struct load_conn *load_begin(const char *address);

/* The modes echo and connect (until the time is up, or requests are done) and idle; each prints its line but for the
 * end of it. `requests` of load_run: so many instead of what the options say, without a warm-up and without a line. */
void load_measure(struct load_conn *conns);
void load_idle(struct load_conn *conns);
void load_run(struct load_conn *conns, uint64_t requests);

/* For wires: the connection waits to be writable, or no longer; a socket to the server. */
void load_block(struct load_conn *conn, bool blocked);
int load_socket(bool nonblocking);

#endif

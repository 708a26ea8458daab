/* loadtls.c - the load of servers that speak TLS (tls.h): as loadgen.c, over OpenSSL. The server's certificate is
 * checked.
 *
 *   loadtls -x CERTIFICATE [-m echo|connect|cycles|idle] [-R] [-c connections] [-s size] [-p in flight on each]
 *           [-w seconds of warm-up] [-t seconds | -n requests] [-P pid of the server] ADDRESS
 *
 *   echo, idle  as in loadgen.c
 *   connect     a request is: connect, handshake, one echo, close_notify, and the server's end
 *   cycles      so many requests (-n) as in connect, and beside each a connection that is given up before the handshake
 *               has ended: with nothing said, with half a ClientHello, with a whole one, with the server's answer; half
 *               of them reset; before that as many that aren't counted; needs -P and -n
 *
 * -R: connections resume the sessions of earlier ones; that some don't is an error.
 *
 * Prints what loadgen.c does, and full= and resumed=, the handshakes so far of each kind. cycles: requests errors full
 * resumed, and the server's resident bytes and descriptors before and behind: rss_before
 * rss_after fds_before fds_after.
 *
 * SPDX-License-Identifier: MIT */
#include "bench.h"
#include "load.h"
#include "tls.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <openssl/err.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SESSIONS 512 /* that wait to be resumed; more are forgotten */
#define GIVEN_UP 16  /* connections that live on for a while, so that the server gets to answer them */

static SSL_CTX *ctx;
static bool resume, cycles, idle;
static SSL_SESSION *sessions[SESSIONS];
static int session_count;
static uint64_t full, resumed;

/* ---- sessions ---------------------------------------------------------------------------------------------------- */

/* In TLS 1.3 they come after the handshake, and each is used once. Where a server gives none to connections that resume
 * (Node), the last one has to serve them all. */

static int on_session(SSL *ssl, SSL_SESSION *session) {
  (void)ssl;
  if (session_count == SESSIONS) return 0;
  sessions[session_count++] = session;
  return 1; /* kept */
}

static void session_use(SSL *ssl) {
  if (session_count == 0) return;
  SSL_SESSION *last = sessions[session_count - 1];
  SSL_SESSION *session = session_count == 1 ? SSL_SESSION_dup(last) : last;
  if (!session || SSL_set_session(ssl, session) != 1) tls_die("SSL_set_session");
  SSL_SESSION_free(session);
  if (session == last) session_count--;
}

/* ---- connections that are given up ------------------------------------------------------------------------------- */

static char hello[4096];
static size_t hello_len;

/* A ClientHello as this program sends it. */
static void hello_make(void) {
  SSL *ssl = SSL_new(ctx);
  BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
  if (!ssl || !in || !out) tls_die("SSL_new");
  SSL_set_bio(ssl, in, out);
  SSL_connect(ssl);
  int n = BIO_read(out, hello, sizeof hello);
  if (n <= 0) tls_die("ClientHello");
  hello_len = (size_t)n;
  SSL_free(ssl);
}

static int waiting[GIVEN_UP];

static void give_up(int fd, bool reset) {
  struct linger now = {.l_onoff = 1};
  if (reset) setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  close(fd);
}

/* Says nothing, half a ClientHello, or a whole one; the latter may live on until others have come. */
static void open_and_give_up(void) {
  static unsigned number;
  unsigned phase = number % 4, place = number / 4 % GIVEN_UP;
  size_t len = phase == 0 ? 0 : phase == 1 ? hello_len / 2 : hello_len;
  bool reset = number++ / 4 % 2 == 1;
  int fd = load_socket(false);
  if (len && send(fd, hello, len, MSG_NOSIGNAL) < 0) bench_die("send");
  if (phase == 3) {
    int other = waiting[place];
    waiting[place] = fd;
    fd = other;
  }
  if (fd) give_up(fd, reset);
}

static void give_up_all(void) {
  for (int i = 0; i < GIVEN_UP; i++) {
    if (waiting[i]) give_up(waiting[i], i % 2 == 1);
    waiting[i] = 0;
  }
}

/* ---- the wire ---------------------------------------------------------------------------------------------------- */

/* What a call of OpenSSL gave, in the words of send and recv. */
static ssize_t tls_result(struct load_conn *conn, int n) {
  if (n > 0) return n;
  int system = errno, error = SSL_get_error(conn->wire, n);
  if (error == SSL_ERROR_WANT_WRITE) load_block(conn, true);
  if (error == SSL_ERROR_ZERO_RETURN) return 0;
  if (error == SSL_ERROR_SSL) {
    unsigned long code = ERR_peek_error();
    if (!conn->ending) fprintf(stderr, "loadtls: %s\n", ERR_reason_error_string(code));
    ERR_clear_error();
  }
  bool again = error == SSL_ERROR_WANT_WRITE || error == SSL_ERROR_WANT_READ;
  errno = again ? EAGAIN : error == SSL_ERROR_SSL ? EPROTO : system;
  return error == SSL_ERROR_SYSCALL && system == 0 ? 0 : -1;
}

/* Goes on with the handshake; 1 if it has ended, else as send and recv. */
static ssize_t tls_handshake(struct load_conn *conn) {
  if (SSL_is_init_finished(conn->wire)) return 1;
  errno = 0;
  int n = SSL_do_handshake(conn->wire);
  if (n != 1) return tls_result(conn, n);
  if (SSL_session_reused(conn->wire))
    resumed++;
  else
    full++;
  return 1;
}

static void tls_open(struct load_conn *conn) {
  SSL *ssl = SSL_new(ctx);
  if (!ssl || SSL_set_fd(ssl, conn->fd) != 1 || SSL_set1_host(ssl, "localhost") != 1) tls_die("SSL_new");
  SSL_set_connect_state(ssl);
  if (resume) session_use(ssl);
  conn->wire = ssl;
  if (idle && tls_handshake(conn) != 1) tls_die("handshake");
  if (cycles) open_and_give_up();
}

static ssize_t tls_send(struct load_conn *conn, const void *data, size_t len) {
  ssize_t n = tls_handshake(conn);
  if (n != 1) return n;
  errno = 0;
  return tls_result(conn, SSL_write(conn->wire, data, (int)len));
}

/* All that is there, up to len. */
static ssize_t tls_recv(struct load_conn *conn, void *data, size_t len) {
  size_t got = 0;
  ssize_t ready = tls_handshake(conn);
  if (ready != 1) return ready;
  errno = 0;
  while (got < len) {
    int n = SSL_read(conn->wire, (char *)data + got, (int)(len - got));
    if (n <= 0) return got ? (ssize_t)got : tls_result(conn, n);
    got += (size_t)n;
  }
  return (ssize_t)got;
}

static bool tls_goodbye(struct load_conn *conn) {
  SSL_shutdown(conn->wire);
  return true;
}

static void tls_close(struct load_conn *conn) {
  SSL_free(conn->wire);
  ERR_clear_error();
}

static const struct load_wire wire = {
    .open = tls_open, .send = tls_send, .recv = tls_recv, .goodbye = tls_goodbye, .close = tls_close};
const struct load_wire *load_wire = &wire;

/* ---- memory over many connections -------------------------------------------------------------------------------- */

static int count_fds(void) {
  char path[64];
  int n = 0;
  snprintf(path, sizeof path, "/proc/%d/fd", (int)load_options.pid);
  DIR *dir = opendir(path);
  if (!dir) bench_die(path);
  while (readdir(dir)) n++;
  closedir(dir);
  return n - 2;
}

/* Waits until the server has no more descriptors than that, but not for ever. */
static int settle(int fds) {
  for (int i = 0; i < 60 && count_fds() > fds; i++) usleep(50000);
  return count_fds();
}

static void run_cycles(struct load_conn *conns) {
  int fds = count_fds();
  load_run(conns, load_options.requests); /* a heap takes a while to find its size */
  give_up_all();
  fds = settle(fds);
  int64_t rss = bench_rss(load_options.pid);
  load_run(conns, load_options.requests);
  give_up_all();
  int fds_after = settle(fds);
  printf("requests=%" PRIu64 " errors=%" PRIu64 " rss_before=%" PRId64 " rss_after=%" PRId64
         " fds_before=%d fds_after=%d",
         load_options.requests, load_errors, rss, bench_rss(load_options.pid), fds, fds_after);
}

static void usage(void) {
  fprintf(stderr, "usage: loadtls -x CERTIFICATE [-m echo|connect|cycles|idle] [-R] [-c n] [-s size] [-p depth] [-w s] "
                  "[-t s | -n n] [-P pid] ADDRESS\n");
  exit(2);
}

static void make_context(const char *certificate) {
  ctx = tls_context(TLS_client_method());
  SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
  if (SSL_CTX_load_verify_locations(ctx, certificate, NULL) != 1) tls_die(certificate);
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
  if (resume) SSL_CTX_sess_set_new_cb(ctx, on_session);
}

int main(int argc, char **argv) {
  const char *certificate = NULL;
  load_options.name = "loadtls";
  for (int opt; (opt = getopt(argc, argv, LOAD_LETTERS "x:R")) != -1;) {
    if (opt == 'x')
      certificate = optarg;
    else if (opt == 'R')
      resume = true;
    else if (!load_option(opt, optarg))
      usage();
  }
  idle = strcmp(load_options.mode, "idle") == 0;
  cycles = strcmp(load_options.mode, "cycles") == 0;
  struct load_conn *conns = load_begin(argv[optind]);
  if (!conns || !certificate || (cycles && (!load_options.pid || !load_options.requests))) usage();
  signal(SIGPIPE, SIG_IGN); /* OpenSSL writes as to a file */
  make_context(certificate);
  hello_make();
  if (idle)
    load_idle(conns);
  else if (cycles)
    run_cycles(conns);
  else
    load_measure(conns);
  printf(" full=%" PRIu64 " resumed=%" PRIu64 "\n", full, resumed);
  if (resume && full > (uint64_t)load_options.connections) {
    fprintf(stderr, "loadtls: %" PRIu64 " handshakes were full ones\n", full);
    load_errors++;
  }
  free(conns);
  return load_errors != 0;
}

/* tls.h - what the files of the TLS engine share. tls.c has its life: birth, handshake, shutdown, end; tls_io.c the
 * ways of the bytes between OpenSSL and the transport below.
 *
 * The states
 *   NEW: bytes that come are kept; the handshake begins in the next turn
 *   HANDSHAKE: writes are kept in backlog
 *   OPEN: connection_made has been called
 *   FLUSHING: closing; the backlog is still to be encrypted
 *   SHUTDOWN: closing; our close_notify is sent, the other end's is awaited, what else comes is thrown away
 *   OVER: the one below is closing; OpenSSL is asked no more
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_TLS_H
#define AL_TLS_H

#include "buf.h"
#include "tls_ctx.h"
#include "transport.h"

typedef enum al__tls_state {
  AL_TLS_NEW,
  AL_TLS_HANDSHAKE,
  AL_TLS_OPEN,
  AL_TLS_FLUSHING,
  AL_TLS_SHUTDOWN,
  AL_TLS_OVER
} al__tls_state;

typedef struct al_tls {
  al_transport base;
  al_protocol lower; /* as what the one below knows us */
  SSL *ssl;          /* NULL once closed */
  al_timer timer;    /* the handshake's, then the shutdown's */
  int64_t handshake_ns, shutdown_ns;
  void *data;
  al_tls_done_fn *done;  /* NULL: told, or nobody is interested */
  al_tls_error *failure; /* or NULL */
  const char *in;        /* encrypted bytes that the one below lends, while it calls */
  size_t in_len;
  al_buf kept;      /* encrypted bytes that came when they could not be taken; they come before `in` */
  al_buf backlog;   /* plain bytes that are to be encrypted */
  uint64_t sent;    /* how many plain bytes were encrypted */
  uint64_t thrown;  /* how many were thrown away since the end */
  int end;          /* why no more can be read: AL_ETLSZERO or an error; 0: it can */
  uint8_t state;    /* al__tls_state */
  uint8_t level;    /* how many TLS transports there are below */
  bool eof : 1;     /* the one below has come to its end */
  bool full : 1;    /* the one below wants no more, for now */
  bool reading : 1; /* OpenSSL is reading: if it has to write in between, that may have to wait */
  bool blocked : 1; /* and it does; nothing is read before the one below wants more */
  bool corked : 1;  /* what is encrypted is sent later in this call from below */
  bool said : 1;    /* our close_notify was all that was left to send */
  bool pending : 1; /* the last read may have left something in OpenSSL */
} al_tls;

static inline al_tls *al__tls_of(al_transport *transport) { return AL_CONTAINER(transport, al_tls, base); }

/* OpenSSL's queue of errors must be empty before it is called, or its answers are of yesterday. */
void al__tls_clear_errors(void);
/* Takes the failure of the last call from OpenSSL, keeps it, and returns its code. */
int al__tls_take_failure(al_tls *tls);
/* Ends the connection because of an error. What OpenSSL has to say to the other end (an alert) is sent. */
void al__tls_fail(al_tls *tls, int error, const char *message);

/* ---- tls_io.c ---------------------------------------------------------------------------------------------------- */

/* Makes what the SSL reads and writes through, and the loop's memory for it. The SSL owns the BIO. 0 or -ENOMEM. */
int al__tls_io_open(al_tls *tls, al_loop *loop);
void al__tls_io_close(al_tls *tls); /* forgets all that is in hand; the SSL may live on elsewhere */

int al__tls_keep(al_tls *tls, const char *data, size_t len); /* appends to kept */
static inline bool al__tls_has_input(const al_tls *tls) {
  return !tls->end && !tls->blocked && (tls->in_len || tls->kept.size || tls->pending);
}
bool al__tls_is_readable(const al_tls *tls); /* there is something, or an end, that the protocol may be given now */
void al__tls_deliver(al_tls *tls);           /* gives the protocol all that is there, also the end */
void al__tls_throw_away(al_tls *tls);        /* reads all that is there */

bool al__tls_is_all_sent(const al_tls *tls); /* the kernel has all that was written */
/* Hands to the one below what is encrypted. */
void al__tls_flush(al_tls *tls);
/* Encrypts what waits, as far as the one below takes it. May call resume_writing. */
void al__tls_write_backlog(al_tls *tls);
int al__tls_write(al_transport *transport, const char *data, size_t len, const al_keeper *keeper, void *ud);

#endif

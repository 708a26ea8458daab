/* tls.c - TLS over any two-way transport: a protocol for the one below, a transport (kind "tls") for the protocol
 * above. Here stands its life: how it is made, the handshake, the shutdown, its ends; the bytes' ways are tls_io.c's.
 * Made by bindings; knows no machine and no descriptors, and of contexts only their SSL_CTX.
 *
 * Each connection ends by the end of the one below, whatever began it: close, when OpenSSL has said its last; fail and
 * abort, at once. Its connection_lost is told from within that of the one below, and it is finished with it.
 *
 * SPDX-License-Identifier: MIT */
#include "tls.h"

#include "loop.h"
#include "mem.h"

#include <errno.h>

#define HANDSHAKE_NS (60 * AL_NS_PER_SEC) /* asyncio's, as all numbers here */
#define SHUTDOWN_NS (30 * AL_NS_PER_SEC)
#define HIGH_WATER (512 * 1024)

/* How much that was on its way is taken in after our close_notify, so that closing with unread bytes doesn't reset the
 * connection and destroy what the other end has yet to read. One that answers with as much as it was sent may do so;
 * one that never ends is cut off here. */
#define THROWN_MAX(tls) ((tls)->sent + 256 * 1024)

static al_tls *of_lower(al_protocol *lower) { return AL_CONTAINER(lower, al_tls, lower); }

/* ---- failures ---------------------------------------------------------------------------------------------------- */

void al__tls_clear_errors(void) {
  if (ERR_peek_error()) ERR_clear_error();
}

/* Without memory for it the code alone must do. */
static al_tls_error *need_failure(al_tls *tls) {
  if (!tls->failure) tls->failure = al__calloc(1, sizeof(*tls->failure));
  return tls->failure;
}

int al__tls_take_failure(al_tls *tls) { return al__tls_take_error(need_failure(tls), tls->ssl); }

static void log_failure(const al_tls *tls, int error, const char *message) {
  const al_tls_error *failure = tls->failure;
  if (!tls->base.loop->debug || error == AL_EPROTOCOL) return;
  al_log(AL_LOG_DEBUG, NULL, "tls fd=%d: %s: %s", al_transport_fd(&tls->base), message,
         failure && failure->error == error ? failure->message : al_strerror(error));
}

void al__tls_fail(al_tls *tls, int error, const char *message) {
  log_failure(tls, error, message);
  if (!tls->base.error) tls->base.error = error; /* whatever comes of sending the alert */
  if (!tls->eof) al__tls_flush(tls);
  al_transport_fail(&tls->base, error);
}

/* ---- handshake --------------------------------------------------------------------------------------------------- */

static void tell_done(al_tls *tls, int error) {
  al_tls_done_fn *done = tls->done;
  tls->done = NULL;
  if (done) done(&tls->base, tls->data, error);
}

static void handshake_failed(al_tls *tls, int error) {
  al__tls_fail(tls, error, "SSL handshake failed");
  tell_done(tls, error);
}

static void log_handshake(const al_tls *tls) {
  int64_t began_ns = tls->timer.when_ns - tls->handshake_ns;
  double took_ms = (double)(al_loop_time_ns(tls->base.loop) - began_ns) / 1e6;
  al_log(AL_LOG_DEBUG, NULL, "tls fd=%d: SSL handshake took %.1f ms", al_transport_fd(&tls->base), took_ms);
}

static void handshake_succeeded(al_tls *tls) {
  al_transport *t = &tls->base;
  al_protocol *protocol = t->protocol;
  tls->state = AL_TLS_OPEN;
  if (t->loop->debug) log_handshake(tls);
  al_timer_cancel(&tls->timer);
  if (t->paused) al_transport_pause_reading(t->below);
  if (!t->made) {
    t->made = true;
    if (protocol->ops->connection_made) protocol->ops->connection_made(protocol, t);
  }
  if (!t->error) tell_done(tls, 0); /* else later, with the end of the connection */
}

static void go_on_with_handshake(al_tls *tls) {
  al__tls_clear_errors();
  int result = SSL_do_handshake(tls->ssl);
  if (tls->state != AL_TLS_HANDSHAKE) return; /* closed by a callback of OpenSSL's */
  if (result == 1) {
    handshake_succeeded(tls);
    return;
  }
  if (SSL_get_error(tls->ssl, result) != SSL_ERROR_WANT_READ)
    handshake_failed(tls, al__tls_take_failure(tls));
  else if (tls->eof)
    handshake_failed(tls, -ECONNRESET);
}

static void start_timer(al_tls *tls, int64_t after_ns) {
  al_loop *loop = tls->base.loop;
  int err = al_timer_set(loop, &tls->timer, al_loop_time_ns(loop) + after_ns);
  if (err) al__transport_fatal(&tls->base, err, "Fatal error on SSL protocol");
}

static void begin_handshake(al_tls *tls) {
  tls->state = AL_TLS_HANDSHAKE;
  start_timer(tls, tls->handshake_ns);
  al_transport_resume_reading(tls->base.below);
}

/* ---- shutdown ---------------------------------------------------------------------------------------------------- */

/* All is said and done: what the one below has still to send is its own matter, until the timer goes off. */
static void shutdown_complete(al_tls *tls) {
  al__tls_flush(tls);
  if (tls->end && tls->end != AL_ETLSZERO) {
    al__tls_fail(tls, tls->end, "SSL shutdown failed");
    return;
  }
  tls->state = AL_TLS_OVER;
  al_transport_close(tls->base.below);
}

static void send_close(al_tls *tls) {
  tls->state = AL_TLS_SHUTDOWN;
  tls->said = al__tls_is_all_sent(tls);
  tls->thrown = 0;
  al__tls_clear_errors();
  SSL_shutdown(tls->ssl); /* whatever it returns: it has said what it could */
  if (!tls->corked) al__tls_flush(tls);
}

static void go_on_with_shutdown(al_tls *tls) {
  if (tls->state == AL_TLS_FLUSHING) al__tls_write_backlog(tls);
  if (tls->state == AL_TLS_FLUSHING && !tls->backlog.size) send_close(tls);
  if (tls->state == AL_TLS_OVER) return;
  al__tls_throw_away(tls);
  if (tls->state == AL_TLS_SHUTDOWN && (tls->end || tls->eof || tls->thrown > THROWN_MAX(tls))) shutdown_complete(tls);
}

/* close() was called. */
static void tls_close(al_transport *transport) {
  al_tls *tls = al__tls_of(transport);
  if (tls->state < AL_TLS_OPEN) {
    al_transport_fail(transport, 0);
    return;
  }
  if (tls->state != AL_TLS_OPEN) return;
  tls->state = AL_TLS_FLUSHING;
  start_timer(tls, tls->shutdown_ns);
  if (!tls->blocked) al_transport_resume_reading(transport->below);
  go_on_with_shutdown(tls);
}

/* ---- the timer --------------------------------------------------------------------------------------------------- */

static void note_slow(al_tls *tls) {
  al_tls_error *failure = need_failure(tls);
  if (!failure) return;
  failure->error = AL_ETLSSLOW;
  snprintf(failure->message, sizeof(failure->message),
           "SSL handshake is taking longer than %.10g seconds: aborting the connection",
           (double)tls->handshake_ns / (double)AL_NS_PER_SEC);
}

static void on_timer(al_loop *loop, al_handle *handle) {
  al_tls *tls = AL_CONTAINER(handle, al_tls, timer.handle);
  (void)loop;
  if (tls->state < AL_TLS_OPEN) {
    note_slow(tls);
    handshake_failed(tls, AL_ETLSSLOW);
  } else {
    al__tls_fail(tls, AL_ETLSSTUCK, "SSL shutdown timed out");
  }
  al__transport_settle(&tls->base);
}

/* ---- what the one below tells ------------------------------------------------------------------------------------ */

/* Goes on with what is in hand. Within, what is to be sent is gathered. */
static void advance(al_tls *tls) {
  tls->corked = true;
  if (tls->state == AL_TLS_HANDSHAKE) go_on_with_handshake(tls);
  if (tls->state == AL_TLS_OPEN) al__tls_write_backlog(tls);
  if (tls->state == AL_TLS_OPEN) al__tls_deliver(tls);
  if (tls->state == AL_TLS_FLUSHING || tls->state == AL_TLS_SHUTDOWN) go_on_with_shutdown(tls);
  tls->corked = false;
  al__tls_flush(tls);
  if (tls->blocked && tls->state != AL_TLS_OVER) al_transport_pause_reading(tls->base.below);
}

/* Keeps what is left of the bytes lent. */
static void keep_rest(al_tls *tls) {
  size_t len = tls->in_len;
  tls->in_len = 0;
  if (!len || tls->end || tls->state == AL_TLS_OVER) return;
  if (al__tls_keep(tls, tls->in, len)) al__transport_fatal(&tls->base, -ENOMEM, "Fatal read error on TLS transport");
}

static void lower_data_received(al_protocol *lower, const char *data, size_t len) {
  al_tls *tls = of_lower(lower);
  if (tls->state == AL_TLS_OVER) return;
  tls->in = data;
  tls->in_len = len;
  advance(tls);
  keep_rest(tls);
}

static bool lower_eof_received(al_protocol *lower) {
  al_tls *tls = of_lower(lower);
  tls->eof = true;
  advance(tls);
  return true; /* the one below is closed in due course */
}

static void lower_pause_writing(al_protocol *lower) { of_lower(lower)->full = true; }

static void lower_resume_writing(al_protocol *lower) {
  al_tls *tls = of_lower(lower);
  al_transport *t = &tls->base;
  tls->full = false;
  if (tls->blocked && !al_handle_is_queued(&t->turn)) al_call_soon(t->loop, &t->turn);
  tls->blocked = false;
  if (tls->state == AL_TLS_OPEN) al__tls_write_backlog(tls);
  if (tls->state <= AL_TLS_OPEN) al__transport_shrunk(t);
  if (tls->state == AL_TLS_FLUSHING) go_on_with_shutdown(tls);
}

static void drop(al_transport *transport) {
  al_tls *tls = al__tls_of(transport);
  tls->state = AL_TLS_OVER;
  al_timer_cancel(&tls->timer);
  al__tls_io_close(tls);
}

/* The other end was gone before it had heard our close_notify. All else was sent, and more than that a close doesn't
 * promise. */
static bool is_harmless(const al_tls *tls, int error) { return tls->said && (error == -EPIPE || error == -ECONNRESET); }

static void lower_connection_lost(al_protocol *lower, int error) {
  al_tls *tls = of_lower(lower);
  if (is_harmless(tls, error)) error = 0;
  drop(&tls->base);
  tell_done(tls, error ? error : -ECONNABORTED);
  al__transport_end(&tls->base, tls->base.error ? tls->base.error : error);
}

static const al_protocol_ops lower_ops = {
    .data_received = lower_data_received,
    .eof_received = lower_eof_received,
    .pause_writing = lower_pause_writing,
    .resume_writing = lower_resume_writing,
    .connection_lost = lower_connection_lost,
};

/* ---- what the transport's base asks ------------------------------------------------------------------------------ */

static void turn(al_transport *transport) {
  al_tls *tls = al__tls_of(transport);
  if (tls->state == AL_TLS_OVER) return;
  if (tls->state == AL_TLS_NEW) begin_handshake(tls);
  advance(tls);
  bool wanted = al__transport_is_open_for_reading(transport) || transport->closing;
  if (wanted && !tls->blocked) al_transport_resume_reading(transport->below);
}

static void stop_reading(al_transport *transport) { (void)transport; } /* OpenSSL reads on, for the close_notify */

/* The handshake needs to be read, whatever its protocol wants. */
static int pause_reading(al_transport *transport) {
  return al__tls_of(transport)->state == AL_TLS_OPEN ? al_transport_pause_reading(transport->below) : 0;
}

static int resume_reading(al_transport *transport) {
  al_tls *tls = al__tls_of(transport);
  if (tls->state != AL_TLS_OPEN || tls->blocked) return 0;
  if (!al__tls_is_readable(tls)) return al_transport_resume_reading(transport->below);
  if (!al_handle_is_queued(&transport->turn)) al_call_soon(transport->loop, &transport->turn);
  return 0;
}

static size_t buffered(const al_transport *transport) {
  return AL_CONTAINER(transport, const al_tls, base)->backlog.size;
}

static bool is_idle(const al_transport *transport) {
  return !al_timer_is_set(&AL_CONTAINER(transport, const al_tls, base)->timer);
}

static void close_ssl(al_tls *tls) {
  if (!tls->ssl) return;
  BIO *bio = SSL_get_rbio(tls->ssl);
  if (bio) BIO_set_data(bio, NULL);
  SSL_set_app_data(tls->ssl, NULL);
  SSL_free(tls->ssl);
  tls->ssl = NULL;
}

static void finished(al_transport *transport) {
  al_tls *tls = al__tls_of(transport);
  al_timer_cancel(&tls->timer);
  al__tls_io_close(tls);
  close_ssl(tls);
}

static void free_rest(al_transport *transport) { al__free(al__tls_of(transport)->failure); }

static const al__transport_ops tls_ops = {
    .name = "tls",
    .is_two_way = true,
    .pauses_at_high = true,
    .high_water = HIGH_WATER,
    .drops = "SSL connection is closed",
    .turn = turn,
    .stop_reading = stop_reading,
    .pause_reading = pause_reading,
    .resume_reading = resume_reading,
    .write = al__tls_write,
    .buffered = buffered,
    .drop = drop,
    .is_idle = is_idle,
    .close = tls_close,
    .finished = finished,
    .free = free_rest,
};

/* ---- birth ------------------------------------------------------------------------------------------------------- */

/* A connection gives its buffers back whenever they are empty; writes may be tried again from other memory. */
static int set_up(SSL *ssl, const al_tls_options *options) {
  SSL_set_mode(ssl, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  if (options->server_side) {
    SSL_set_accept_state(ssl);
    return 0;
  }
  SSL_set_connect_state(ssl);
  int err = al__tls_set_host(ssl, options->ctx, options->host);
  if (!err && options->session && SSL_set_session(ssl, options->session) != 1) err = al__tls_take_error(NULL, ssl);
  return err;
}

static void destroy(al_tls *tls) {
  close_ssl(tls);
  al__free(tls);
}

/* Makes all of it but the transport. */
static int make(al_loop *loop, unsigned level, const al_tls_options *options, al_tls **made) {
  al_tls *tls = al__calloc(1, sizeof(*tls));
  if (!tls) return -ENOMEM;
  tls->level = (uint8_t)level;
  tls->lower.ops = &lower_ops;
  tls->handshake_ns = options->handshake_timeout_ns ? options->handshake_timeout_ns : HANDSHAKE_NS;
  tls->shutdown_ns = options->shutdown_timeout_ns ? options->shutdown_timeout_ns : SHUTDOWN_NS;
  tls->done = options->done;
  tls->data = options->data;
  tls->base.made = options->upgrade;
  al_timer_init(&tls->timer, on_timer);
  al__tls_clear_errors();
  tls->ssl = SSL_new(al_tls_ctx_native(options->ctx));
  int err = tls->ssl ? set_up(tls->ssl, options) : al__tls_take_error(NULL, NULL);
  if (!err) err = al__tls_io_open(tls, loop);
  if (err) {
    destroy(tls);
    return err;
  }
  *made = tls;
  return 0;
}

/* Takes over a reference to the one below, whose protocol it is already. */
static al_transport *attach(al_tls *tls, al_transport *below, al_protocol *protocol) {
  SSL_set_app_data(tls->ssl, &tls->base);
  al__transport_init_over(&tls->base, &tls_ops, below, protocol);
  return &tls->base;
}

int al_tls_new(al_loop *loop, int fd, const al_addr *peer, const al_tls_options *options, al_protocol *protocol,
               al_transport **transport) {
  al_tls *tls;
  al_transport *below;
  if (loop->closed) return AL_ECLOSED;
  int err = make(loop, 0, options, &tls);
  if (err) return err;
  err = al_stream_new(loop, fd, peer, &tls->lower, NULL, &below);
  if (err) {
    destroy(tls);
    return err;
  }
  *transport = attach(tls, below, protocol);
  return 0;
}

static int check_below(const al_transport *below) {
  if (!below->loop || below->closing) return -ESHUTDOWN;
  if (!below->ops->is_two_way) return -ENOTSUP;
  if (below->above) return -EALREADY; /* which would never be told of its end */
  return below->feeder ? -EBUSY : 0;
}

int al_tls_start(al_transport *below, const al_tls_options *options, al_protocol *protocol, al_transport **transport) {
  int err = check_below(below);
  al_tls *tls;
  if (err) return err;
  unsigned level = al_transport_is_tls(below) ? al__tls_of(below)->level + 1u : 0;
  if (level > UINT8_MAX) return -ENOTSUP;
  err = make(below->loop, level, options, &tls);
  if (err) return err;
  tls->full = below->writing_paused;
  tls->base.writing_paused = tls->full && options->upgrade; /* its protocol was told, and is told when it is over */
  al_transport_hold(below);
  al_transport_set_protocol(below, &tls->lower);
  *transport = attach(tls, below, protocol);
  return 0;
}

int al_tls_feed(al_transport *transport, const char *data, size_t len) {
  al_assert(al_transport_is_tls(transport));
  return al__tls_keep(al__tls_of(transport), data, len);
}

void al_tls_forget(al_transport *transport) {
  al_assert(al_transport_is_tls(transport));
  al__tls_of(transport)->done = NULL;
}

/* ---- what it is -------------------------------------------------------------------------------------------------- */

bool al_transport_is_tls(const al_transport *transport) { return transport->ops == &tls_ops; }
SSL *al_tls_native(const al_transport *transport) {
  al_assert(al_transport_is_tls(transport));
  return AL_CONTAINER(transport, const al_tls, base)->ssl;
}
const al_tls_error *al_tls_failure(const al_transport *transport) {
  al_assert(al_transport_is_tls(transport));
  return AL_CONTAINER(transport, const al_tls, base)->failure;
}

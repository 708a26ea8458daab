/* tls_io.c - the ways of the bytes through the TLS engine (tls.h). OpenSSL reads and writes through a BIO of our own.
 *
 * In: the BIO takes its bytes from where the transport below lends them. Plain text goes to one buffer of the loop, as
 * many records as there are, and is lent to the protocol in one call; a buffered protocol's own memory takes its place.
 * Only what the protocol doesn't want yet is copied, still encrypted. OpenSSL isn't asked once more just to say that
 * there is nothing: with no byte in hand that is known.
 *
 * Out: the BIO gathers records in another buffer of the loop, which goes to the transport below in one piece: at the
 * end of a write, or, within a call from below, at the end of that. So what is written in several steps while data is
 * received, and what OpenSSL adds, costs one system call. The buffer belongs to one connection at a time.
 *
 * Both buffers exist once per level of TLS in TLS, for those of a level are in use while the next one works.
 *
 * SPDX-License-Identifier: MIT */
#include "tls.h"

#include "loop.h"
#include "mem.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <string.h>

#define RECORD_SIZE SSL3_RT_MAX_PLAIN_LENGTH /* of plain text */
#define RECORD_EXTRA 512                     /* what a record of it may take besides: head, IV, padding, tag */
#define PLAIN_SIZE (8 * RECORD_SIZE)
#define OUT_SIZE (4 * (RECORD_SIZE + RECORD_EXTRA) + 4096) /* 64 KiB of plain text, and an alert or a ticket */
#define KEEP_SIZE (8 * 1024) /* the rest of a write is kept rather than copied from here on, see stream.c */

typedef struct scratch { /* of one level */
  al_tls *owner;         /* whose bytes are in out; NULL: there are none */
  size_t out_len;
  char out[OUT_SIZE];
  char plain[PLAIN_SIZE];
} scratch;

typedef struct tls_room { /* of a loop */
  scratch **levels;
  size_t size;
} tls_room;

/* ---- the loop's buffers ------------------------------------------------------------------------------------------ */

static void room_close(al_loop *loop, void *state) {
  tls_room *room = state;
  (void)loop;
  for (size_t i = 0; i < room->size; i++) al__free(room->levels[i]);
  al__free(room->levels);
  al__free(room);
}

static tls_room *room_of(al_loop *loop) {
  al__room *slot = &loop->rooms[AL_ROOM_TLS];
  if (!slot->state) {
    tls_room *room = al__calloc(1, sizeof(*room));
    if (!room) return NULL;
    *slot = (al__room){.state = room, .close = room_close};
  }
  return slot->state;
}

static int need_scratch(al_loop *loop, size_t level) {
  tls_room *room = room_of(loop);
  if (!room) return -ENOMEM;
  size_t old = room->size;
  int err = al__array_grow((void **)&room->levels, &room->size, sizeof(*room->levels), level + 1);
  if (err) return err;
  if (room->size > old) memset(room->levels + old, 0, (room->size - old) * sizeof(*room->levels));
  if (room->levels[level]) return 0;
  scratch *made = al__malloc(sizeof(*made)); /* most of it is never touched */
  if (!made) return -ENOMEM;
  made->owner = NULL;
  made->out_len = 0;
  room->levels[level] = made;
  return 0;
}

/* NULL once the loop closes. */
static scratch *scratch_of(const al_tls *tls) {
  const tls_room *room = tls->base.loop->rooms[AL_ROOM_TLS].state;
  return room ? room->levels[tls->level] : NULL;
}

/* ---- the BIO ----------------------------------------------------------------------------------------------------- */

/* The next bytes in hand: what was kept, then what is lent. */
static size_t take_input(al_tls *tls, char *to, size_t len) {
  struct iovec kept = {0};
  if (al__buf_iov(&tls->kept, &kept, 1, len)) {
    memcpy(to, kept.iov_base, kept.iov_len);
    al__buf_consume(&tls->kept, kept.iov_len);
    return kept.iov_len;
  }
  size_t n = AL_MIN(len, tls->in_len);
  memcpy(to, tls->in, n);
  tls->in += n;
  tls->in_len -= n;
  return n;
}

/* In the handshake an end isn't OpenSSL's business: it would be a failure of TLS. */
static bool is_at_end(const al_tls *tls) { return tls->eof && tls->state >= AL_TLS_OPEN; }

static int bio_read(BIO *bio, char *to, int len) {
  al_tls *tls = BIO_get_data(bio);
  BIO_clear_retry_flags(bio);
  if (!tls || len <= 0) return -1;
  if (tls->kept.size || tls->in_len) return (int)take_input(tls, to, (size_t)len);
  if (is_at_end(tls)) return 0;
  BIO_set_retry_read(bio);
  return -1;
}

/* Takes all, for what the protocol writes comes only when the one below wants more. The answers to what is read
 * (requests for new keys) would have no bound if the other end asked on and on and never read them: they must wait. */
static int bio_write(BIO *bio, const char *data, int len) {
  al_tls *tls = BIO_get_data(bio);
  BIO_clear_retry_flags(bio);
  scratch *s = tls ? scratch_of(tls) : NULL;
  if (!s || len <= 0) return -1;
  if (tls->reading && tls->full) {
    BIO_set_retry_write(bio);
    return -1;
  }
  for (size_t left = (size_t)len; left > 0;) {
    if (s->owner && (s->owner != tls || s->out_len == OUT_SIZE)) al__tls_flush(s->owner);
    size_t n = AL_MIN(left, OUT_SIZE - s->out_len);
    memcpy(s->out + s->out_len, data, n);
    s->owner = tls;
    s->out_len += n;
    data += n;
    left -= n;
  }
  return len;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer) {
  const al_tls *tls = BIO_get_data(bio);
  (void)number, (void)pointer;
  if (command == BIO_CTRL_FLUSH) return 1;
  if (command == BIO_CTRL_EOF) return !tls || is_at_end(tls);
  return 0;
}

static int bio_create(BIO *bio) {
  BIO_set_init(bio, 1);
  return 1;
}

static BIO_METHOD *method; /* of the process, for ever */

static void make_method(void) {
  BIO_METHOD *made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "aloop transport");
  if (made && BIO_meth_set_read(made, bio_read) && BIO_meth_set_write(made, bio_write) &&
      BIO_meth_set_ctrl(made, bio_ctrl) && BIO_meth_set_create(made, bio_create))
    method = made;
  else
    BIO_meth_free(made);
}

int al__tls_io_open(al_tls *tls, al_loop *loop) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, make_method);
  int err = need_scratch(loop, tls->level);
  if (err) return err;
  BIO *bio = method ? BIO_new(method) : NULL;
  if (!bio) return -ENOMEM;
  BIO_set_data(bio, tls);
  SSL_set_bio(tls->ssl, bio, bio);
  return 0;
}

/* ---- out --------------------------------------------------------------------------------------------------------- */

void al__tls_flush(al_tls *tls) {
  scratch *s = scratch_of(tls);
  if (!s || s->owner != tls) return;
  size_t len = s->out_len;
  s->owner = NULL;
  s->out_len = 0;
  if (al_transport_is_closing(tls->base.below)) return;
  int err = al__transport_write(tls->base.below, s->out, len, NULL, NULL);
  if (err) al__transport_fatal(&tls->base, err, "Fatal write error on TLS transport");
}

bool al__tls_is_all_sent(const al_tls *tls) {
  const scratch *s = scratch_of(tls);
  const al_transport *below = tls->base.below;
  if (tls->backlog.size || s->owner == tls) return false;
  return al_transport_is_tls(below) ? al__tls_is_all_sent(AL_CONTAINER(below, const al_tls, base))
                                    : al_transport_write_buffer_size(below) == 0;
}

static bool can_write(const al_tls *tls) {
  return (tls->state == AL_TLS_OPEN || tls->state == AL_TLS_FLUSHING) && !tls->full;
}

/* One record at most. Returns how much of data is in it; 0: not now, or it has failed. */
static size_t encrypt_record(al_tls *tls, const char *data, size_t len) {
  al__tls_clear_errors();
  int n = SSL_write(tls->ssl, data, (int)AL_MIN(len, (size_t)RECORD_SIZE));
  if (n > 0) {
    tls->sent += (uint64_t)n;
    return (size_t)n;
  }
  int why = SSL_get_error(tls->ssl, n);
  if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE)
    al__tls_fail(tls, al__tls_take_failure(tls), "Fatal write error on TLS transport");
  return 0;
}

/* Encrypts as much as the one below takes. */
static size_t encrypt(al_tls *tls, const char *data, size_t len) {
  const scratch *s = scratch_of(tls);
  size_t done = 0;
  while (done < len && can_write(tls)) {
    size_t n = encrypt_record(tls, data + done, len - done);
    if (!n) break;
    done += n;
    if (s->out_len > OUT_SIZE - RECORD_SIZE - RECORD_EXTRA) al__tls_flush(tls);
  }
  if (!tls->corked) al__tls_flush(tls);
  return done;
}

void al__tls_write_backlog(al_tls *tls) {
  struct iovec piece;
  al_transport *t = &tls->base;
  if (!tls->backlog.size) return;
  while (can_write(tls) && al__buf_iov(&tls->backlog, &piece, 1, SIZE_MAX)) {
    size_t n = encrypt(tls, piece.iov_base, piece.iov_len);
    if (!n) break;
    if (tls->state != AL_TLS_OVER) al__buf_consume(&tls->backlog, n);
  }
  if (tls->state != AL_TLS_OPEN) return; /* nobody is told of writing once it is closing */
  al__transport_shrunk(t);
  if (!tls->backlog.size && tls->state == AL_TLS_OPEN && t->feeder) t->feeder->flushed(t->feeder);
}

static int lend_backlog(al_tls *tls, const char *data, size_t len, const al_keeper *keeper, void *token) {
  int err = al__buf_lend(&tls->backlog, data, len, keeper->unhold, token);
  if (err) keeper->unhold(token);
  return err;
}

static int keep_backlog(al_tls *tls, const char *data, size_t len, size_t n, const al_keeper *keeper, void *ud) {
  void *token = keeper && len - n >= KEEP_SIZE ? keeper->hold(ud, data, len) : NULL;
  if (token) return lend_backlog(tls, data + n, len - n, keeper, token);
  return al__buf_append(&tls->backlog, data + n, len - n);
}

int al__tls_write(al_transport *transport, const char *data, size_t len, const al_keeper *keeper, void *ud) {
  al_tls *tls = al__tls_of(transport);
  size_t n = tls->backlog.size ? 0 : encrypt(tls, data, len);
  if (tls->state == AL_TLS_OVER) return 0;
  if (n == len) return 0;
  if (keep_backlog(tls, data, len, n, keeper, ud)) {
    al__transport_fatal(transport, -ENOMEM, "Fatal write error on TLS transport");
    return -ENOMEM;
  }
  al__transport_grown(transport);
  return 0;
}

/* ---- in ---------------------------------------------------------------------------------------------------------- */

int al__tls_keep(al_tls *tls, const char *data, size_t len) { return al__buf_append(&tls->kept, data, len); }

/* Decrypts into base. 0: nothing more for now, or tls->end is set. */
static size_t decrypt_some(al_tls *tls, char *base, size_t len) {
  int most = (int)AL_MIN(len, (size_t)INT_MAX);
  al__tls_clear_errors();
  tls->reading = true;
  int n = SSL_read(tls->ssl, base, most);
  tls->reading = false;
  tls->pending = n == most;
  if (n > 0) return (size_t)n;
  int why = SSL_get_error(tls->ssl, n);
  if (why == SSL_ERROR_ZERO_RETURN)
    tls->end = AL_ETLSZERO;
  else if (why == SSL_ERROR_WANT_WRITE)
    tls->blocked = true;
  else if (why != SSL_ERROR_WANT_READ)
    tls->end = al__tls_take_failure(tls);
  return 0;
}

static bool can_read(const al_tls *tls) { return al__tls_has_input(tls) || (tls->eof && !tls->end && !tls->blocked); }

/* Decrypts until nothing is left, or less than `least` bytes of base are. */
static size_t decrypt(al_tls *tls, char *base, size_t len, size_t least) {
  size_t done = 0;
  while (len - done >= least && can_read(tls)) {
    size_t n = decrypt_some(tls, base + done, len - done);
    if (!n) break;
    done += n;
  }
  return done;
}

static inline bool is_buffered(const al_protocol *protocol) {
  return protocol->ops->get_buffer && protocol->ops->buffer_updated;
}

static bool is_open(const al_tls *tls) {
  return tls->state == AL_TLS_OPEN && al__transport_is_open_for_reading(&tls->base);
}

static void deliver_buffered(al_tls *tls) {
  al_protocol *protocol = tls->base.protocol;
  size_t at_hand = tls->in_len + tls->kept.size, room = 0;
  char *base = NULL;
  int err = protocol->ops->get_buffer(protocol, at_hand ? (ssize_t)at_hand : -1, &base, &room);
  if (!err && room == 0) err = AL_ENOBUFFER;
  if (err) {
    al__transport_fatal(&tls->base, err, "Fatal error: protocol.get_buffer() call failed.");
    return;
  }
  protocol = tls->base.protocol;
  if (!is_buffered(protocol) || !is_open(tls)) return;
  size_t n = decrypt(tls, base, room, 1);
  if (n) protocol->ops->buffer_updated(protocol, n);
}

static void deliver_plain(al_tls *tls) {
  al_protocol *protocol = tls->base.protocol;
  char *plain = scratch_of(tls)->plain;
  size_t n = decrypt(tls, plain, PLAIN_SIZE, RECORD_SIZE);
  if (n && protocol->ops->data_received) protocol->ops->data_received(protocol, plain, n);
}

/* asyncio's: over TLS nothing is left open for writing. To TLS above, which goes with us, this is no news. */
static void tell_close(al_tls *tls) {
  al_protocol *protocol = tls->base.protocol;
  bool keep_open = protocol->ops->eof_received && protocol->ops->eof_received(protocol);
  if (keep_open && !tls->base.above)
    al_log(AL_LOG_WARNING, NULL, "returning true from eof_received() has no effect when using ssl");
  al_transport_close(&tls->base);
}

bool al__tls_is_readable(const al_tls *tls) { return is_open(tls) && (can_read(tls) || tls->end); }

void al__tls_deliver(al_tls *tls) {
  al_transport *t = &tls->base;
  while (is_open(tls) && can_read(tls) && !al__loop_broken(t->loop)) {
    if (is_buffered(t->protocol))
      deliver_buffered(tls);
    else
      deliver_plain(tls);
  }
  if (!al__tls_is_readable(tls)) return;
  if (al__loop_broken(t->loop)) {
    if (!al_handle_is_queued(&t->turn)) al_call_soon(t->loop, &t->turn);
  } else if (tls->end == AL_ETLSZERO) {
    tell_close(tls);
  } else {
    al__tls_fail(tls, tls->end, "Fatal error on SSL protocol");
  }
}

/* Not into the loop's buffer: a protocol may stand above us on the stack that has its bytes lent there. */
void al__tls_throw_away(al_tls *tls) {
  char waste[4096];
  while (al__tls_has_input(tls)) {
    size_t n = decrypt_some(tls, waste, sizeof(waste));
    if (!n) break;
    tls->thrown += n;
  }
}

void al__tls_io_close(al_tls *tls) {
  scratch *s = tls->base.loop ? scratch_of(tls) : NULL;
  if (s && s->owner == tls) {
    s->owner = NULL;
    s->out_len = 0;
  }
  tls->in_len = 0;
  tls->pending = false;
  al__buf_clear(&tls->kept);
  al__buf_clear(&tls->backlog);
}

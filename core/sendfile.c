/* sendfile.c - files sent over sockets by the kernel: loop:sendfile and sock_sendfile. On each machine by sendfile(2),
 * as much as the socket takes, whenever it is writable.
 *
 * Over a transport the file comes after what was written before: the sending waits until that is flushed, and while it
 * goes on the transport refuses writes, and isn't read, as in asyncio. The same hold on a transport is lent to those
 * who have to send a file piece by piece (al_feed). Knows transports only by transport.h.
 *
 * Two ends can come at any time: the transport closes, which is an error of the sending; and the one who asked loses
 * interest (al_sendfile_cancel), after which nobody is told. An operation in flight ends later in both cases; only then
 * the descriptor may be closed, and the memory goes.
 *
 * SPDX-License-Identifier: MIT */
#include "base.h"
#include "io.h"
#include "loop.h"
#include "mem.h"
#include "sock.h"
#include "transport.h"

#include <errno.h>

#define TURN_SIZE (4 * 1024 * 1024) /* the most that is sent in a turn: what a peer costs all others is bounded */

struct al_sendfile {
  al__feeder feeder;
  al_op op;       /* POLL until the socket is writable */
  al_handle told; /* queued: the transport has closed */
  al_loop *loop;
  al_transport *transport; /* a reference; NULL: a bare socket */
  void *data;
  al_sendfile_fn *done; /* NULL: nobody is interested any more */
  int file;             /* -1: there is none, see al_feed */
  int64_t offset, left, sent;
  int error;
  bool resume;  /* the transport was reading */
  bool is_feed; /* it goes when al_feed_free says so, and `done` is called for each al_feed_wait */
};

static al_sendfile *of_feeder(al__feeder *feeder) { return AL_CONTAINER(feeder, al_sendfile, feeder); }

/* ---- the hold on a transport ------------------------------------------------------------------------------------- */

static void let_go(al_sendfile *self) {
  al_transport *t = self->transport;
  if (!t || t->feeder != &self->feeder) return;
  t->feeder = NULL;
  if (self->resume) al_transport_resume_reading(t);
}

static void destroy(al_sendfile *self) {
  al_transport *t = self->transport;
  al_handle_cancel(&self->told);
  let_go(self);
  al__free(self);
  if (t) al_transport_release(t);
}

/* It is over, or the wait of a feed is; from the loop's turn. */
static void end(al_sendfile *self, int error) {
  void *data = self->data;
  al_sendfile_fn *done = self->done;
  int64_t sent = self->sent;
  self->done = NULL;
  if (!self->is_feed) destroy(self);
  done(data, error, sent);
}

static void on_told(al_loop *loop, al_handle *handle) {
  al_sendfile *self = AL_CONTAINER(handle, al_sendfile, told);
  (void)loop;
  end(self, self->error);
}

static void on_transport_lost(al__feeder *feeder) {
  al_sendfile *self = of_feeder(feeder);
  self->error = -ESHUTDOWN;
  self->transport->feeder = NULL;
  if (!al_op_is_idle(&self->op))
    self->loop->io->cancel(self->loop, &self->op);
  else if (self->loop->closed && !self->is_feed)
    destroy(self);
  else if (self->done && !self->loop->closed)
    al_call_soon(self->loop, &self->told);
}

/* ---- sending ----------------------------------------------------------------------------------------------------- */

/* 1: all is sent, or the file has ended; 0: the socket takes no more now; or an error. */
static int send_some(al_sendfile *self) {
  int64_t budget = TURN_SIZE;
  while (self->left > 0 && budget > 0) {
    ssize_t n = al__sock_sendfile(self->op.fd, self->file, self->offset, (size_t)AL_MIN(self->left, budget));
    if (n < 0) return n == -EAGAIN ? 0 : (int)n;
    if (n == 0) return 1;
    self->offset += n;
    self->sent += n;
    self->left -= n;
    budget -= n;
  }
  return self->left == 0;
}

/* Sends, and waits if something is left: 0. Else as send_some. */
static int go_on(al_sendfile *self) {
  int result = send_some(self);
  if (result) return result;
  result = self->loop->io->submit(self->loop, &self->op);
  if (!result && self->transport) self->transport->foreign_ops++;
  return result;
}

static void go_on_or_end(al_sendfile *self) {
  int result = go_on(self);
  if (result) end(self, AL_MIN(result, 0));
}

static void on_writable(al_loop *loop, al_op *op, int result, unsigned flags) {
  al_sendfile *self = AL_CONTAINER(op, al_sendfile, op);
  al_transport *t = self->transport;
  (void)flags;
  if (t) {
    t->foreign_ops--;
    al_transport_hold(t);
  }
  if (!self->done || loop->closed)
    destroy(self);
  else if (self->error || result < 0)
    end(self, self->error ? self->error : result);
  else
    go_on_or_end(self);
  if (!t) return;
  if (t->loop) al__transport_settle(t);
  al_transport_release(t);
}

static void on_flushed(al__feeder *feeder) {
  al_sendfile *self = of_feeder(feeder);
  if (!self->done) return;
  if (self->is_feed)
    end(self, 0);
  else
    go_on_or_end(self);
}

/* ---- the interface ----------------------------------------------------------------------------------------------- */

static al_sendfile *make(al_loop *loop, al_transport *transport, int fd) {
  al_sendfile *self = al__calloc(1, sizeof(*self));
  if (!self) return NULL;
  self->loop = loop;
  self->feeder = (al__feeder){.flushed = on_flushed, .lost = on_transport_lost};
  self->op = (al_op){.kind = AL_OP_POLL, .events = AL_POLL_OUT | AL_POLL_ONCE, .fd = fd, .done = on_writable};
  al_handle_init(&self->told, on_told);
  self->file = -1;
  if (!transport) return self;
  self->transport = transport;
  al_transport_hold(transport);
  transport->feeder = &self->feeder;
  self->resume = al_transport_is_reading(transport);
  al_transport_pause_reading(transport);
  return self;
}

static int check_transport(const al_transport *t) {
  if (!t->loop || t->closing) return -ESHUTDOWN;
  if (!t->made) return -ENOTCONN;
  if (!t->ops->is_two_way) return -ENOTSUP;
  if (t->above) return -EALREADY;
  return t->feeder ? -EBUSY : 0;
}

/* An error of the first call: of the file, which then has to be read instead, or of the socket? */
static bool is_of_file(const al_sendfile *self, int error) {
  if (self->sent > 0) return false;
  return error == -EINVAL || error == -ENOSYS || error == -EOPNOTSUPP || error == -ESPIPE || error == -EOVERFLOW;
}

static int start(al_sendfile *self, const al_sendfile_what *what, void *data, al_sendfile_fn *done,
                 al_sendfile **request, int64_t *sent) {
  self->file = what->file;
  self->offset = what->offset;
  self->left = what->count < 0 ? INT64_MAX : what->count;
  self->data = data;
  self->done = done;
  al_transport *t = self->transport;
  int result = t && t->ops->buffered(t) > 0 ? 0 : go_on(self);
  *request = self;
  *sent = 0;
  if (result == 0) return 0;
  *request = NULL;
  *sent = self->sent;
  if (result < 0 && is_of_file(self, result)) result = -ENOTSUP;
  destroy(self);
  return AL_MIN(result, 0);
}

int al_sendfile_start(al_loop *loop, int fd, const al_sendfile_what *what, void *data, al_sendfile_fn *done,
                      al_sendfile **request, int64_t *sent) {
  if (loop->closed) return AL_ECLOSED;
  al_sendfile *self = make(loop, NULL, fd);
  return self ? start(self, what, data, done, request, sent) : -ENOMEM;
}

int al_transport_sendfile(al_transport *transport, const al_sendfile_what *what, void *data, al_sendfile_fn *done,
                          al_sendfile **request, int64_t *sent) {
  int err = check_transport(transport);
  if (!err && !transport->ops->sends_files) err = -ENOTSUP;
  if (err) return err;
  al_sendfile *self = make(transport->loop, transport, transport->fd);
  return self ? start(self, what, data, done, request, sent) : -ENOMEM;
}

int64_t al_sendfile_cancel(al_sendfile *request) {
  int64_t sent = request->sent;
  request->done = NULL;
  if (al_op_is_idle(&request->op)) {
    destroy(request);
  } else {
    let_go(request);
    request->loop->io->cancel(request->loop, &request->op);
  }
  return sent;
}

/* ---- piece by piece ---------------------------------------------------------------------------------------------- */

int al_feed_new(al_transport *transport, al_sendfile **feed) {
  int err = check_transport(transport);
  if (err) return err;
  *feed = make(transport->loop, transport, transport->fd);
  if (!*feed) return -ENOMEM;
  (*feed)->is_feed = true;
  return 0;
}

int al_feed_write(al_sendfile *feed, const char *data, size_t len) {
  al_transport *t = feed->transport;
  if (feed->error || !t->loop || t->closing) return -ESHUTDOWN;
  return len > 0 ? t->ops->write(t, data, len, NULL, NULL) : 0;
}

int al_feed_wait(al_sendfile *feed, void *data, al_sendfile_fn *flushed) {
  al_transport *t = feed->transport;
  if (feed->error || !t->loop || t->closing) return -ESHUTDOWN;
  if (t->ops->buffered(t) == 0) return 1;
  feed->data = data;
  feed->done = flushed;
  return 0;
}

void al_feed_free(al_sendfile *feed) { destroy(feed); }

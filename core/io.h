/* io.h - the seam: operations on descriptors, and the table of functions of the machine that performs
 * them. Two machines stand behind it: io_ready.c (over selector.h: epoll, poll, select) and io_uring.c.
 * Above it nothing knows which one.
 *
 * The rules
 *  1. An op is embedded in its owner and belongs to the machine from submit until its one final completion (done
 *     without AL_OP_MORE): exactly one, after cancel and at close of the machine too (-ECANCELED). Its memory stays
 *     until then. It is idle when that calls done, which may submit it again or free it.
 *  2. done is called from dispatch only, never from inside submit, cancel, wait or close_fd. (At close: from close.)
 *  3. Bytes handed to done are lent until it returns.
 *  4. One op per descriptor and direction (RECV, RECV_INTO, RECVFROM, ACCEPT, POLL for reading | SEND, SENDTO, CONNECT,
 *     POLL for writing).
 *     A cancelled op no longer counts. A POLL gives way to the next op, with -ECANCELED (its user may have closed the
 *     descriptor behind our back); for any other submit may return -EBUSY (the ring need not notice).
 *  5. After cancel, an armed op may still complete with AL_OP_MORE (what had arrived already), then comes the final
 *     one. Datagrams that were received and not delivered yet are lost.
 *  6. dispatch stops after the completion during which the loop was broken (al__loop_broken); the rest comes with the
 *     next dispatch, before anything new.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_IO_H
#define AL_IO_H

#include "aloop.h"

#include <sys/uio.h>

typedef enum al_op_kind {
  /* armed: done(n > 0, MORE) for each piece, with its bytes lent; final: 0 at the end of data, or an error */
  AL_OP_RECV,
  /* one shot into base[0..len): n > 0, 0 at the end, or an error */
  AL_OP_RECV_INTO,
  /* one shot: how many bytes of the iovecs were sent (>= 1), or an error. The owner submits for the rest */
  AL_OP_SEND,
  /* armed: done(fd, MORE) for each connection, non-blocking and close-on-exec, peer lent; final: error */
  AL_OP_ACCEPT,
  /* one shot to addr: 0 or an error */
  AL_OP_CONNECT,
  /* armed: done(n >= 0, MORE) for each datagram, with its bytes and its sender lent, at most AL_DATAGRAMS a turn;
   * done(error, MORE) for an error that says nothing of the next one (ECONNREFUSED); final: any other error */
  AL_OP_RECVFROM,
  /* one shot: 0 when the datagram is sent, or an error. The owner has tried already */
  AL_OP_SENDTO,
  /* armed, level-triggered: done(AL_POLL_IN or _OUT, MORE) in each turn in which it holds; final: error.
   * With AL_POLL_ONCE one shot: done(AL_POLL_IN or _OUT), or an error */
  AL_OP_POLL
} al_op_kind;

#define AL_POLL_IN 1
#define AL_POLL_OUT 2 /* one of the two an op; errors and hang-ups count as both */
#define AL_POLL_ONCE 4
#define AL_OP_PLAIN 8 /* RECV, RECV_INTO, SEND: the descriptor is known to be no socket, which else is found out */

#define AL_OP_MORE 1u /* flag of done: the op stays with the machine */

typedef struct al_op al_op;
typedef void al_op_fn(al_loop *loop, al_op *op, int result, unsigned flags);

struct al_op {
  al_op_fn *done;
  al_op *next, *prev; /* the machine's */
  int fd;
  uint8_t kind;   /* al_op_kind */
  uint8_t state;  /* the machine's; 0 (AL_OP_IDLE): not submitted */
  uint8_t events; /* POLL: AL_POLL_IN or AL_POLL_OUT, perhaps with AL_POLL_ONCE; else 0 or AL_OP_PLAIN */
  uint8_t flags;  /* the machine's */
  union {
    /* RECV. lend (may be NULL) gives memory to read into just before bytes are read, or a NULL base, which leaves it
     * to the machine; one whose bytes come in buffers of its own need not ask. 0 or an error, which then is the op's
     * final one. A piece has at most AL_READ_SIZE bytes. */
    struct {
      const char *data;
      int (*lend)(al_op *op, char **base, size_t *len);
    } recv;
    struct { /* RECV_INTO */
      char *base;
      size_t len;
    } into;
    struct { /* SEND: the iovecs stay the owner's until done */
      const struct iovec *iov;
      int n;
    } send;
    struct { /* ACCEPT. limit: the most accepted in a turn */
      al_addr *peer;
      int limit;
    } accept;
    struct { /* CONNECT: the address stays the owner's until done */
      const al_addr *addr;
    } connect;
    struct { /* RECVFROM */
      const char *data;
      const al_addr *from; /* len 0: it has no name */
    } recvfrom;
    struct {                   /* SENDTO: both stay the owner's until done */
      const struct iovec *iov; /* one */
      const al_addr *to;       /* NULL: the socket is connected */
    } sendto;
    struct { /* POLL: the owner's; no machine looks at it */
      al_handle *handle;
    } poll;
  } u;
  /* Machine-private space, so that an op needs no allocation. The ring keeps msghdr-like state elsewhere. */
  uint32_t tag;
};

enum { AL_OP_IDLE = 0 };
static inline bool al_op_is_idle(const al_op *op) { return op->state == AL_OP_IDLE; }

/* Fairness, each number with its reason. */
#define AL_READ_SIZE (256 * 1024) /* the most bytes a descriptor delivers in one turn: asyncio's */
#define AL_EVENTS_PER_WAIT 1024   /* bounds a turn; what is left comes with the next wait */
#define AL_DATAGRAMS 16           /* from here on, receiving more in one system call saves next to nothing */

typedef struct al_io_ops {
  const char *name; /* "epoll", "poll", "select", "uring" */
  /* Sets loop->machine. *reason: see al_loop_new. */
  int (*open)(al_loop *loop, const char **reason);
  void (*close)(al_loop *loop); /* every op gets its final completion, then all is freed */
  /* 0, or an error (the op then stays the owner's and done is not called): -EBADF, -EPERM (POLL: cannot be watched),
   * AL_EFDRANGE (select: descriptor too large), -EBUSY (rule 4), -ENOMEM, AL_ECLOSED (from inside close). */
  int (*submit)(al_loop *loop, al_op *op);
  /* A submitted op; repeated: nothing. After the cancel of a POLL its user may close the descriptor behind our
   * back (remove_reader, close), and the number may come back as another file: the machine must not rely on
   * what the kernel was told before. */
  void (*cancel)(al_loop *loop, al_op *op);
  /* Closes a descriptor on which no op is in flight (asserted), a cancelled ACCEPT aside: it listens no more. A POLL on
   * it is somebody else's, and may end with -ECANCELED. */
  void (*close_fd)(al_loop *loop, int fd);
  /* Hands what is new to the kernel without waiting, for al_loop_timeout_ns. True: completions are at hand already,
   * which the descriptor of poll_fd doesn't tell. */
  bool (*flush)(al_loop *loop);
  /* Flushes, waits (timeout_ns -1: until something happens), collects. 1 if there is something to dispatch, 0 if there
   * is nothing (poll_io of loop.c spares polls that find nothing), or an error; EINTR is no error. Returns at once if
   * completions are left from before. */
  int (*wait)(al_loop *loop, int64_t timeout_ns);
  void (*dispatch)(al_loop *loop); /* calls done for what was collected; timed by al__slow_begin/end (debug.h) */
  int (*poll_fd)(al_loop *loop);   /* or -ENOSYS */
} al_io_ops;

extern const al_io_ops al__io_epoll, al__io_poll, al__io_select; /* io_ready.c */
extern const al_io_ops al__io_uring;                             /* io_uring.c, or its stand-in io_noring.c */

#endif

/* transport.h - what all kinds of transports share: who owns the descriptor, the order of connection_made and
 * connection_lost, water marks, names of both ends, references. A kind (stream.c) embeds al_transport as its first
 * member, gives it a table of operations and performs the I/O; server.c counts transports in a group. Knows no kind.
 *
 * The life of a transport
 *   new: al__transport_init, al__transport_begin (queues `turn`)
 *   made: connection_made has been called; the kind reads
 *   closing: close() while something is unsent; reading has stopped for good
 *   conn_lost: `lost` is queued, connection_lost will be called
 *   lost_done: connection_lost has returned; as soon as no operation is in flight the descriptor is closed (finish)
 * An open transport holds a reference to itself, which finish gives back, and finish is reached only from the loop's
 * own turn (or its close). So nothing that a protocol does inside a callback frees what the caller stands on;
 * pause_writing alone, which comes from outside of turns too, needs a reference around it.
 *
 * A transport may stand on another one, `below`, instead of a descriptor (tls.c). It holds that one, fails with it
 * (al_transport_fail goes downward, and connection_lost comes back up), and is finished right after it.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_TRANSPORT_H
#define AL_TRANSPORT_H

#include "aloop.h"
#include "handle.h"

#include <netinet/in.h>

#define AL_HIGH_WATER (64 * 1024) /* asyncio's; low is a quarter */
#define AL_LOST_WRITES_WARNED 5   /* a warning for each write from the 5th after the connection was lost */

/* What a kind does. All get a transport that is not finished, free aside. */
typedef struct al__transport_ops {
  const char *name;                       /* "stream" */
  bool is_two_way;                        /* a stream of bytes both ways; it calls al__feeder.flushed */
  bool sends_files;                       /* sendfile(2) works on its descriptor */
  bool pauses_at_high;                    /* writing is paused at the high mark; else above it */
  size_t high_water;                      /* the default mark; 0: AL_HIGH_WATER */
  const char *drops;                      /* the warning of a write that was dropped */
  void (*start)(al_transport *transport); /* connection_made has returned: reading may begin */
  void (*turn)(al_transport *transport);  /* the handle `turn`, queued by the kind, runs */
  /* For good, for closing is set already: cancels what reads, drops what was received and not yet delivered. */
  void (*stop_reading)(al_transport *transport);
  int (*pause_reading)(al_transport *transport);  /* paused was just set; NULL: this can't be asked for */
  int (*resume_reading)(al_transport *transport); /* paused was just cleared */
  /* al_transport_write, once it is clear that the connection is there and len > 0. */
  int (*write)(al_transport *transport, const char *data, size_t len, const al_keeper *keeper, void *ud);
  int (*write_eof)(al_transport *transport); /* eof_written was just set; NULL: it has no end */
  size_t (*buffered)(const al_transport *transport);
  void (*drop)(al_transport *transport);             /* forgets what is unsent; cancels what sends */
  bool (*is_idle)(const al_transport *transport);    /* no operation is in flight */
  void (*protocol_changed)(al_transport *transport); /* may be NULL */
  /* close() was called: ends in connection_lost. NULL: that is queued now, or by the kind when nothing is unsent. */
  void (*close)(al_transport *transport);
  void (*finished)(al_transport *transport); /* no callback comes any more; frees what is used by them. May be NULL */
  void (*free)(al_transport *transport);     /* the last reference is gone; frees what else it has. May be NULL */
} al__transport_ops;

/* A socket address that outlives its socket: an IP address takes no further memory. */
typedef struct al__name {
  socklen_t len;                           /* 0: unknown */
  char bytes[sizeof(struct sockaddr_in6)]; /* the address, or a pointer to one that is longer */
} al__name;

/* Who sends on the descriptor in place of the protocol, whose writes are refused meanwhile (sendfile.c). */
typedef struct al__feeder al__feeder;
struct al__feeder {
  void (*flushed)(al__feeder *feeder); /* nothing is unsent any more; from a turn */
  void (*lost)(al__feeder *feeder);    /* the transport is closing; the hold has to be given up */
};

/* The transports of a server. */
typedef struct al__group al__group;
struct al__group {
  al_link ring; /* of al_transport.in_group */
  size_t count;
  void (*left)(al__group *group); /* one less */
};

struct al_transport {
  const al__transport_ops *ops;
  al_loop *loop;         /* NULL once finished */
  al_protocol *protocol; /* never NULL: a mute one stands in */
  const al_transport_owner *owner;
  void *data;
  al_link in_room;  /* the ring of the loop's transports */
  al_link in_group; /* next NULL: in no group */
  al__group *group;
  al_transport *below; /* held; NULL: it has a descriptor */
  al_transport *above; /* whose `below` this is, or NULL */
  al_handle turn;      /* connection_made; later the kind's */
  al_handle lost;      /* connection_lost */
  al__feeder *feeder;  /* or NULL */
  size_t high, low;
  al__name peer;
  al__name *local; /* NULL until somebody has asked */
  int refs, fd;
  int error;           /* for connection_lost */
  uint8_t foreign_ops; /* in flight on the descriptor, of a feeder */
  /* 0; from 1 on: connection_lost was queued (or, over another transport, will come back up from that one), and so
   * many writes less one were dropped. */
  uint8_t conn_lost;
  bool made : 1; /* connection_made was called */
  bool closing : 1, lost_done : 1;
  bool dying : 1;          /* the loop closes: no callbacks of the protocol */
  bool paused : 1;         /* pause_reading() */
  bool writing_paused : 1; /* pause_writing was called last */
  bool eof_written : 1;    /* write_eof() */
  bool busy : 1;           /* what the owner knows */
};

/* Fills a zeroed transport: it owns fd from now on, unless this fails (-ENOMEM, AL_ECLOSED). peer may be NULL. */
int al__transport_init(al_transport *transport, const al__transport_ops *ops, al_loop *loop, int fd,
                       const al_addr *peer, al_protocol *protocol);
void al__transport_begin(al_transport *transport, al_handle *started); /* queues `turn`, and started behind it */

/* Fills a zeroed transport that stands on another one, of which it takes over a reference. Queues `turn`, which is the
 * kind's from the first time on: connection_made is the kind's matter. */
void al__transport_init_over(al_transport *transport, const al__transport_ops *ops, al_transport *below,
                             al_protocol *protocol);
/* The one below has been told connection_lost(error): so is this one, if it ever was connected. */
void al__transport_end(al_transport *transport, int error);

/* The kind's operation failed with -errno (logged in debug mode), or a callback with an AL_E*: al_transport_fail. */
void al__transport_fatal(al_transport *transport, int error, const char *message);
/* Nothing is left to send or to drop: queues connection_lost(error), once. */
void al__transport_lose(al_transport *transport, int error);
/* To be called when an operation has ended or begun: closes the descriptor if its time has come, tells the owner
 * whether the transport is busy. It may be gone afterwards. */
void al__transport_settle(al_transport *transport);

/* al_transport_write by the one above, beside which nobody may write. */
int al__transport_write(al_transport *transport, const char *data, size_t len, const al_keeper *keeper, void *ud);

/* Notes that something was written to a lost connection. */
void al__transport_drop_write(al_transport *transport);

/* Calls pause_writing if the buffer stands above the high mark, resume_writing if it is down to the low one. Both may
 * change anything, and free the transport when no turn is running. */
void al__transport_grown(al_transport *transport);
void al__transport_shrunk(al_transport *transport);

/* May the protocol be given data now? */
static inline bool al__transport_is_open_for_reading(const al_transport *transport) {
  return !transport->paused && !transport->closing;
}

int al__transport_family(const al_transport *transport); /* of the peer; AF_UNSPEC if it is not known */

void al__group_init(al__group *group, void (*left)(al__group *group));
void al__group_add(al__group *group, al_transport *transport);
void al__group_scatter(al__group *group); /* none belongs to it any more; left is not called */

#endif

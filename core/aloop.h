/* aloop.h - the event loop in C, complete without Lua: loops, callbacks, timers, threads, descriptors, signals,
 * children, transports of streams, datagrams and TLS, servers. The whole public interface of core/; one section a file.
 *
 * Conventions
 *   - A function that can fail returns 0 (or a result >= 0) or a negative error (section err): -errno, an AL_E* below.
 *     Results come through out-parameters, which are set on success only.
 *   - A loop and all that belongs to it are used from one thread, the one that runs it; only the functions marked
 *     "any thread" may be called from others.
 *   - Callbacks are never called from inside the call that asks for them; they come from a later moment of the loop's
 *     turn. From inside a callback everything may be called, closing its own object included; only running the loop
 *     again is refused.
 *   - Times are nanoseconds of the loop's clock (al_loop_time_ns), which is the monotonic one unless it has its own.
 *   - `data` and `ud` are the caller's, handed back as they are. What a pointer to const points to is copied or done
 *     with when the function returns, unless it says otherwise; strings are NUL-terminated if no length goes with them.
 *   - Misuse (a handle queued twice, a NULL where none is allowed) is not an error but a bug: debug builds stop there.
 *
 * A program: al_loop_new, timers, handles, servers or connections, al_loop_run_forever, al_loop_release; an echo server
 * is scripts/examples/echo_server.c.
 *
 * SPDX-License-Identifier: MIT */
#ifndef ALOOP_H
#define ALOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define AL_VERSION "0.1.0"

typedef struct al_loop al_loop;
typedef struct al_handle al_handle;
typedef struct al_timer al_timer;
typedef struct al_transport al_transport;
typedef struct al_protocol al_protocol;
typedef struct al_server al_server;
typedef struct al_executor al_executor;
typedef struct al_clock al_clock;

/* ---- mem: the allocator ------------------------------------------------------------------------------------------ */

/* Changes size bytes at ptr (NULL: none yet) to size bytes (0: free, returns NULL); NULL when it can't. As Lua's
 * lua_Alloc without the old size. Must be callable from any thread. */
typedef void *al_alloc_fn(void *ud, void *ptr, size_t size);

/* Replaces the allocator of all loops (NULL: realloc and free). Call it before anything else of aloop. */
void al_set_allocator(al_alloc_fn *alloc, void *ud);

/* How many blocks are allocated now, and how many allocations there have been (any thread). */
void al_mem_stats(size_t *live, size_t *total);

/* Debug builds: the allocation after the next n fails, and each one from there on until al_mem_fail_after(-1). In a
 * release build it does nothing and returns false. */
bool al_mem_fail_after(long n);

/* ---- err: one space of errors ------------------------------------------------------------------------------------ */

/* Errors are negative. -1 .. -4095 are errno values; the resolver's EAI_* codes and aloop's own stand below them. */
enum {
  AL_ECLOSED = -5001,    /* the loop is closed */
  AL_ERUNNING = -5002,   /* the loop is running already */
  AL_ENESTED = -5003,    /* another loop is running in this thread */
  AL_ETHREAD = -5004,    /* wrong thread */
  AL_EPROTOCOL = -5005,  /* a callback of the protocol failed; the protocol knows why (al_transport_fail) */
  AL_ENORING = -5006,    /* no io_uring here; al_loop_new gives the reason */
  AL_ENOBUFFER = -5007,  /* get_buffer() returned an empty buffer */
  AL_EFDRANGE = -5008,   /* select(2) can't watch a descriptor of so large a number */
  AL_ETLS = -5101,       /* a failure of TLS (section tls_ctx: al_tls_error tells what): OpenSSL refused something */
  AL_ETLSVERIFY = -5102, /* ... the other end's certificate was refused */
  AL_ETLSEOF = -5103,    /* ... the connection ended without close_notify: what came may be cut off */
  AL_ETLSZERO = -5104,   /* ... the other end has closed the connection */
  AL_ETLSSLOW = -5105,   /* ... the handshake took longer than its timeout */
  AL_ETLSSTUCK = -5106,  /* ... the shutdown took longer than its timeout */
  AL_EEAI = -6000        /* AL_EAI(c) for the resolver's EAI_* code c */
};
#define AL_EAI(code) (AL_EEAI - ((code) < 0 ? -(code) : (code)))
#define AL_IS_EAI(err) ((err) < AL_EEAI && (err) > AL_EEAI - 1000)

const char *al_err_name(int err); /* "ECONNREFUSED", "EAI_NONAME", "ECLOSED"; "E?" for an unknown one. Static text. */
const char *al_strerror(int err); /* "Connection refused". Static text or a buffer of this thread. */

/* ---- log: where warnings and debug lines go ---------------------------------------------------------------------- */

typedef enum al_log_level { AL_LOG_DEBUG, AL_LOG_INFO, AL_LOG_WARNING, AL_LOG_ERROR } al_log_level;

/* category is NULL, "ResourceWarning" or "RuntimeWarning". Called in the thread that has something to say. */
typedef void al_log_fn(void *ud, al_log_level level, const char *message, const char *category);

/* Sets the place of all of this process's log lines (NULL: al_log_stderr). */
void al_set_log(al_log_fn *log, void *ud);
/* An al_log_fn that writes "aloop: warning: ..." to stderr; ud is not looked at. */
void al_log_stderr(void *ud, al_log_level level, const char *message, const char *category);
/* Logs a line, printf's format without a newline at its end; any thread. */
void al_log(al_log_level level, const char *category, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* ---- loop -------------------------------------------------------------------------------------------------------- */

typedef struct al_loop_options {
  const char *machine; /* "epoll" (default), "poll", "select", "uring" */
  bool debug;          /* al_loop_set_debug */
  void *data;          /* al_loop_data */
  /* Called at close for each handle that won't run any more: queued ones, those of set timers, and those that watch a
   * descriptor or a signal; it stands in no list then. May be NULL. */
  void (*discard)(al_loop *loop, al_handle *handle);
  al_clock *clock; /* NULL: al_time_ns. Else the loop's own, which must outlive it */
} al_loop_options;

/* Makes a loop (options NULL: the defaults). Errors: -EINVAL for an unknown machine, AL_ENORING (then *reason, if
 * reason is not NULL, is a static sentence that says why), -errno. */
int al_loop_new(const al_loop_options *options, al_loop **loop, const char **reason);

/* Runs turns until al_loop_stop: asyncio's run_forever. One turn waits for I/O (not at all when callbacks are queued or
 * the loop is stopping), then runs the callbacks that were queued before the wait, then what the I/O completed, then
 * the timers that are due; what those add waits for the next turn. Errors: AL_ECLOSED, AL_ERUNNING, AL_ENESTED. */
int al_loop_run_forever(al_loop *loop);

/* Runs one turn that waits at most timeout_ns (-1: until something happens, 0: not at all). For programs with a loop of
 * their own. Errors as run_forever. An al_loop_stop before or in it is spent by it. */
int al_loop_run_once(al_loop *loop, int64_t timeout_ns);

/* Lets run_forever return after this turn; before it runs: it makes one turn that doesn't wait. */
void al_loop_stop(al_loop *loop);

/* Lets run_forever return as soon as the callback in progress returns; what it had not come to stays queued. */
void al_loop_break(al_loop *loop);

/* Discards all that is queued, ends every operation, closes the descriptors of the loop and of its transports and
 * servers (without connection_lost; see al_transport_owner). Idempotent. Errors: AL_ERUNNING. */
int al_loop_close(al_loop *loop);

/* A loop is born with one reference. hold and release: any thread; the last release closes it and frees it. */
void al_loop_hold(al_loop *loop);
void al_loop_release(al_loop *loop);

bool al_loop_is_running(const al_loop *loop); /* run_forever or run_once has not returned; any thread */
bool al_loop_is_closed(const al_loop *loop);  /* al_loop_close was called */
bool al_loop_in_thread(const al_loop *loop);  /* not running, or running in the calling thread; any thread */
al_loop *al_loop_running(void);               /* the loop that runs in this thread, or NULL */
/* In the child of a fork(2) that was called while a loop ran: that one runs in the parent,
 * and this thread may run another. */
void al_loop_forked(void);
const char *al_loop_machine(const al_loop *loop); /* "epoll", "poll", "select", "uring"; static text */
void *al_loop_data(const al_loop *loop);
void al_loop_set_data(al_loop *loop, void *data);
/* In debug mode slow callbacks are told (al_loop_set_slow), and what transports do is logged. Any time. */
bool al_loop_debug(const al_loop *loop);
void al_loop_set_debug(al_loop *loop, bool debug);

/* In debug mode: called after each callback that took at least this long (default 100 ms). handle is NULL for I/O; it
 * may be gone if its own callback freed it. */
typedef void al_slow_fn(al_loop *loop, al_handle *handle, int64_t took_ns);
void al_loop_set_slow(al_loop *loop, int64_t slow_ns, al_slow_fn *slow); /* slow NULL: a warning in the log */

int64_t al_time_ns(void);                     /* CLOCK_MONOTONIC; any thread */
int64_t al_loop_time_ns(const al_loop *loop); /* the same, unless the loop has a clock of its own */

/* For a foreign loop: watch the descriptor for reading, and wait at most the timeout (-1: for ever), then call
 * al_loop_run_once(loop, 0). Ask for the timeout after each use of the loop: it also hands the kernel what is new.
 * poll_fd is -ENOSYS for the machines poll and select. */
int al_loop_poll_fd(al_loop *loop);
int64_t al_loop_timeout_ns(al_loop *loop);

/* How many of each the loop has now, for leak checks: ops are I/O operations in flight, handles those that are queued,
 * timers those that are set, watchers readers and writers. turns: since it was made. */
typedef struct al_loop_stats {
  size_t transports, servers, ops, timers, handles, watchers;
  size_t refs; /* the maker's, that of the run in progress, and one for each job and each remote elsewhere */
  uint64_t turns;
} al_loop_stats;
void al_loop_get_stats(const al_loop *loop, al_loop_stats *stats);

/* Writes a line of text to the descriptor for each thing that is open. From the loop's thread. */
void al_loop_dump(const al_loop *loop, int fd);

/* ---- handle: call_soon ------------------------------------------------------------------------------------------- */

typedef struct al_link {
  struct al_link *next, *prev;
} al_link;
typedef struct al_link al_list; /* a ring of links with a head */

typedef void al_handle_fn(al_loop *loop, al_handle *handle);

/* A callback, embedded in its owner's struct. It stands in at most one list, and its memory stays as long as it does.
 * When run is called it stands in none: it may be queued again, or freed. */
struct al_handle {
  al_link link; /* the loop's. next NULL: in no list */
  al_handle_fn *run;
};

/* To be called once, before anything else is done with it. */
static inline void al_handle_init(al_handle *handle, al_handle_fn *run) {
  handle->link.next = handle->link.prev = NULL;
  handle->run = run;
}
static inline bool al_handle_is_queued(const al_handle *handle) { return handle->link.next != NULL; }

/* Lists of handles of one's own, in order, such as of all that wait for one event: see al_call_soon_list. */
void al_list_init(al_list *list);
bool al_list_is_empty(const al_list *list);
void al_list_append(al_list *list, al_handle *handle); /* the handle must stand in no list */

/* Queues the handle for the next turn, in order. It must stand in no list. The loop must be open. */
void al_call_soon(al_loop *loop, al_handle *handle);

/* Queues all handles of a list, in order, and empties it. */
void al_call_soon_list(al_loop *loop, al_list *list);

/* Takes the handle out of whatever list it stands in; false if it stood in none. */
bool al_handle_cancel(al_handle *handle);

/* ---- timer: call_at ---------------------------------------------------------------------------------------------- */

/* A timer, embedded in its owner's struct, which stays as long as it is set. handle.run is called once it is due, never
 * early; it may set the timer again, or free it. All fields are the loop's. */
struct al_timer {
  al_handle handle; /* queued while due and not yet run */
  int64_t when_ns;
  uint64_t seq;
  al_loop *loop; /* NULL while not set */
  size_t index;  /* its place in the heap */
};

void al_timer_init(al_timer *timer, al_handle_fn *run); /* once, before anything else is done with it */

/* Sets the timer to a time of al_loop_time_ns (one that has passed: it is due in the next turn), or moves it if it is
 * set. Timers of the same time run in the order in which they were set.
 * Errors: -ENOMEM (it then is not set; moving one that waits never fails), AL_ECLOSED. */
int al_timer_set(al_loop *loop, al_timer *timer, int64_t when_ns);
bool al_timer_cancel(al_timer *timer); /* false if it was not set */
bool al_timer_is_set(const al_timer *timer);

/* ---- clock: loops on a time of their own, for tests -------------------------------------------------------------- */

struct al_clock { /* embedded in its owner */
  int64_t (*now_ns)(al_clock *clock);
  /* The loop has nothing to do before when_ns (INT64_MAX: ever, as far as it knows), and no I/O is ready. Returns how
   * long to wait for some, in real time (-1: for ever), or 0 to go on with the turn: it has then set its time to
   * when_ns, or stopped the loop. round: 0, and one more each time that it is asked again because a wait found
   * nothing (or was interrupted). */
  int64_t (*idle)(al_clock *clock, al_loop *loop, int64_t when_ns, unsigned round);
  /* In each turn, before its callbacks run: may change the order of these, and of the timers
   * that are due. May be NULL. */
  void (*turn)(al_clock *clock, al_loop *loop, al_list *batch, al_list *due);
};

/* ---- wakeup: call_soon_threadsafe -------------------------------------------------------------------------------- */

typedef struct al_remote al_remote;
struct al_remote { /* embedded in its owner; belongs to the loop from the call until run */
  al_remote *next;
  void (*run)(al_loop *loop, al_remote *remote);
  void (*drop)(al_remote *remote); /* instead of run if the loop closes first; in the closing thread; may be NULL */
};

/* Queues remote->run for the next turn and wakes the loop; any thread, and signal handlers not. The caller holds a
 * reference to the loop. Calls from one thread keep their order. Errors: AL_ECLOSED (remote stays the caller's). */
int al_call_soon_threadsafe(al_loop *loop, al_remote *remote);

/* ---- executor: blocking work in threads -------------------------------------------------------------------------- */

typedef struct al_job al_job;
struct al_job {              /* embedded in its owner; belongs to the executor until done */
  al_remote remote;          /* the executor's */
  al_job *next;              /* the executor's */
  al_loop *loop;             /* the executor's */
  int state;                 /* the executor's */
  void (*work)(al_job *job); /* in a thread of the pool */
  /* Exactly once, in the loop's thread: 0, or -ECANCELED if work did not run or the loop closed before it heard of it.
   * If the loop is closed while work runs, this comes in the thread of the pool when work has ended; if the job is
   * cancelled when the loop is closed already, from inside al_executor_cancel. */
  void (*done)(al_job *job, int error);
};

/* Makes an executor without threads. name (NULL: "aloop") is theirs, cut at 15 bytes. Errors: -EINVAL for 0 threads,
 * -ENOMEM. One executor may serve several loops; submit and cancel: any thread. */
int al_executor_new(size_t max_threads, const char *name, al_executor **executor);
/* Queues the job, for which it holds the loop; starts a thread if none is idle. Errors (the job stays the caller's):
 * AL_ECLOSED, -EAGAIN (there is no thread and none can be started). */
int al_executor_submit(al_executor *executor, al_loop *loop, al_job *job);
bool al_executor_cancel(al_executor *executor, al_job *job); /* true: it had not begun; done(-ECANCELED) follows */
/* Ends the threads when their queue is empty (wait: returns after they have ended; not so from one of them), then frees
 * the executor, which the caller does not use any more. */
void al_executor_shutdown(al_executor *executor, bool wait);

/* ---- watch: readiness of any descriptor (add_reader, add_writer) ------------------------------------------------- */

/* Calls handle->run in each turn in which fd is readable (level-triggered). The handle belongs to the watch until it is
 * replaced or removed, which may happen inside run. If there was a reader already, it is replaced and returned in *old
 * (else NULL is). Errors: -EBADF, -EPERM (a file that can't be watched), AL_EFDRANGE, -ENOMEM, AL_ECLOSED. */
int al_add_reader(al_loop *loop, int fd, al_handle *handle, al_handle **old);
int al_add_writer(al_loop *loop, int fd, al_handle *handle, al_handle **old);
/* The same for once: handle->run is called when fd is readable, or can't be waited for any more, and nobody watches
 * from then on. They take the place of a reader or writer, and give theirs to one. */
int al_wait_readable(al_loop *loop, int fd, al_handle *handle, al_handle **old);
int al_wait_writable(al_loop *loop, int fd, al_handle *handle, al_handle **old);
al_handle *al_remove_reader(al_loop *loop, int fd); /* the handle that was watching (or waiting), or NULL */
al_handle *al_remove_writer(al_loop *loop, int fd);
al_transport *al_fd_transport(al_loop *loop, int fd); /* the live, not closing transport that owns fd, or NULL */
bool al_fd_has_server(const al_loop *loop, int fd);   /* does a server own fd that is not closed? */

/* ---- selector: readiness for programs without a loop ------------------------------------------------------------- */

typedef struct al_selector al_selector;

#define AL_SELECT_READ 1u /* errors and hang-ups count as both */
#define AL_SELECT_WRITE 2u

typedef struct al_selected {
  int fd;
  unsigned events;
} al_selected;

/* kind: "epoll", "poll" or "select". Errors: -EINVAL, -errno. */
int al_selector_new(const char *kind, al_selector **selector);
void al_selector_close(al_selector *selector); /* frees it; the descriptors stay open */
/* Watches fd for events (0: no longer), level-triggered. On error it isn't watched: -EBADF, -EPERM (epoll: a file that
 * is always ready), AL_EFDRANGE, -ENOMEM. */
int al_selector_set(al_selector *selector, int fd, unsigned events);
/* Waits until something is ready, at most timeout_ns (-1: for ever). Returns how many (<= max), 0
 * also when interrupted, or -errno. */
int al_selector_wait(al_selector *selector, al_selected *ready, int max, int64_t timeout_ns);

/* ---- signal ------------------------------------------------------------------------------------------------------ */

/* Calls handle->run in the loop once for each arrival of the signal, once a turn. One loop a signal in the process.
 * *old as for al_add_reader. Errors: -EINVAL (no such signal, SIGKILL, SIGSTOP), -EBUSY
 * (another loop has it), -errno. */
int al_add_signal(al_loop *loop, int signum, al_handle *handle, al_handle **old);
al_handle *al_remove_signal(al_loop *loop, int signum); /* gives back the disposition found by al_add_signal */
/* Gives SIGPIPE a handler that does nothing, which, unlike SIG_IGN, is not handed down to what is executed. For
 * programs; aloop itself lives with any disposition. */
void al_ignore_sigpipe(void);

/* ---- addr -------------------------------------------------------------------------------------------------------- */

typedef struct al_addr { /* a socket address of any family */
  socklen_t len;         /* 0: none */
  struct sockaddr_storage ss;
} al_addr;

/* host is numeric, an IPv6 one with or without %scope; else -EINVAL. */
int al_addr_ip(al_addr *addr, const char *host, uint16_t port, uint32_t flowinfo, uint32_t scope_id);
int al_addr_unix(al_addr *addr, const char *path, size_t len); /* a leading NUL: abstract. -ENAMETOOLONG, -EINVAL */
/* Writes "127.0.0.1:80", "[::1]:80", a path, "@abstract"; returns buf. */
const char *al_addr_format(const al_addr *addr, char *buf, size_t size);
#define AL_ADDR_STRLEN 160

/* ---- memory for bulk data ---------------------------------------------------------------------------------------- */

/* Where bytes stand that sockets take or give. The kernel copies them with one `rep movsb`, and its own side of them
 * begins at a page or shortly behind (53 bytes, say: what is over when 64 KiB are cut into segments). On AMD's Zen 3
 * and 4 that instruction takes 2 to 20 times as long if the destination lies up to 63 bytes behind the source, counted
 * within a page; 64 KiB echoed through a buffer 64 bytes behind a page cost 2.1 times the CPU of one at 2048. Half a
 * page away it never happens. */
#define AL_PLACE_SLACK 4095

/* The first such place in a block that is AL_PLACE_SLACK bytes larger than what is to stand there. */
static inline char *al_place(void *block) {
  char *bytes = (char *)block;
  return bytes + ((2048 - (uintptr_t)bytes) & AL_PLACE_SLACK);
}

/* ---- protocol: what a transport tells ---------------------------------------------------------------------------- */

/* asyncio's protocol callbacks. NULL where an event is not wanted. Order: connection_made, (data_received* | get_buffer
 * and buffer_updated*), eof_received?, connection_lost; each at most once but the data; nothing after connection_lost.
 * pause_writing and resume_writing alternate, and may come from inside al_transport_write and set_limits. */
typedef struct al_protocol_ops {
  /* The transport stays its owner's: who keeps it beyond connection_lost holds it. */
  void (*connection_made)(al_protocol *protocol, al_transport *transport);
  void (*data_received)(al_protocol *protocol, const char *data, size_t len); /* data is lent until it returns */
  /* For a plain protocol that would copy large pieces: memory for n bytes that are there to be read, good until room,
   * data_received or connection_lost is called. If reading them succeeds, data_received is called with that place and
   * at most n. NULL: it takes them where they come to stand. */
  char *(*room)(al_protocol *protocol, size_t n);
  /* With get_buffer the protocol is a buffered one: it gives memory for at most *len bytes (hint:
   * how many are expected, or -1), valid until buffer_updated or connection_lost; returns 0, or an
   * error that ends the connection. */
  int (*get_buffer)(al_protocol *protocol, ssize_t hint, char **base, size_t *len);
  void (*buffer_updated)(al_protocol *protocol, size_t n);
  bool (*eof_received)(al_protocol *protocol); /* true keeps the transport open for writing */
  void (*pause_writing)(al_protocol *protocol);
  void (*resume_writing)(al_protocol *protocol);
  void (*connection_lost)(al_protocol *protocol, int error); /* 0: end of data, close or abort */
  /* Of datagram transports, instead of the four about streams of bytes. data and from (len 0: it has no name) are lent
   * until it returns. An error is one of a datagram sent earlier, or being sent, or of receiving; it ends nothing. It
   * may come from inside al_datagram_sendto. */
  void (*datagram_received)(al_protocol *protocol, const char *data, size_t len, const al_addr *from);
  void (*error_received)(al_protocol *protocol, int error);
} al_protocol_ops;

struct al_protocol { /* embedded in its owner, which keeps it until connection_lost has returned */
  const al_protocol_ops *ops;
};

/* ---- transport --------------------------------------------------------------------------------------------------- */

/* The owner of a transport (a binding) hears of what its memory management needs. Both may be NULL. */
typedef struct al_transport_owner {
  /* busy: from now on an operation is in flight (reading, writing, a pending callback); else it waits for nothing. */
  void (*activity)(al_transport *transport, void *data, bool busy);
  /* The descriptor is closed and no callback comes any more: after connection_lost, or at loop close without it. The
   * last call to the owner; it says "no longer busy" too. */
  void (*closed)(al_transport *transport, void *data);
} al_transport_owner;

/* Makes a stream transport over a connected, non-blocking socket, which it owns from then on (on error it stays the
 * caller's). connection_made comes from the next turn, then reading starts, then `started` (may be NULL) is called, in
 * the same turn, before anything is read; it must stay in place until then, or until it is cancelled.
 * TCP sockets get TCP_NODELAY. peer (may be NULL) is the address of the other end if it is known. The transport is born
 * with one reference, the caller's, and stays open without any. Errors: -ENOMEM, AL_ECLOSED. */
int al_stream_new(al_loop *loop, int fd, const al_addr *peer, al_protocol *protocol, al_handle *started,
                  al_transport **transport);

/* If the transport is busy, as it is when it was just made, activity is called at once. owner NULL: nobody. */
void al_transport_set_owner(al_transport *transport, const al_transport_owner *owner, void *data);
void *al_transport_data(const al_transport *transport); /* of al_transport_set_owner; NULL: none */
void al_transport_hold(al_transport *transport);
void al_transport_release(al_transport *transport); /* the memory goes when it is closed and no reference is left */

/* Sends now what the kernel takes and keeps the rest, in order. hold (may be NULL: the rest is copied) is asked to
 * keep the whole of data alive instead of the copy when the rest is large; it returns a token for `unhold`, called
 * once when the bytes are no longer needed, or NULL to have them copied. Results: 0, -EPIPE after write_eof,
 * -EBUSY while a file is sent, -EALREADY if TLS stands on the transport (al_tls_start; nothing goes past it
 * unencrypted), -ENOMEM (nothing was kept; the connection is lost). A write on a lost connection is dropped and
 * returns 0 (a warning from the 5th on). */
typedef struct al_keeper {
  void *(*hold)(void *ud, const char *data, size_t len);
  void (*unhold)(void *token);
} al_keeper;
int al_transport_write(al_transport *transport, const char *data, size_t len, const al_keeper *keeper, void *ud);
/* Ends our side once all is sent; what comes is still received. 0 (also if it has ended already), -ENOTSUP (datagrams,
 * TLS), -EALREADY, -EBUSY as for a write, -errno. */
int al_transport_write_eof(al_transport *transport);
bool al_transport_can_write_eof(const al_transport *transport); /* false: of a kind that gets -ENOTSUP */

void al_transport_close(al_transport *transport);           /* flushes, then connection_lost(0) */
void al_transport_abort(al_transport *transport);           /* drops what is unsent, connection_lost(0) */
void al_transport_fail(al_transport *transport, int error); /* drops what is unsent, connection_lost(error) */
bool al_transport_is_closing(const al_transport *transport);

/* Nothing is delivered from now on; nothing is lost. Idempotent. 0, -ENOTSUP (a kind that doesn't read, or datagrams),
 * or what submitting the operation failed with. */
int al_transport_pause_reading(al_transport *transport);
int al_transport_resume_reading(al_transport *transport);
bool al_transport_is_reading(const al_transport *transport);

/* Bytes that are not sent yet, and the marks between which the protocol is told to pause and resume writing. */
size_t al_transport_write_buffer_size(const al_transport *transport);
void al_transport_get_limits(const al_transport *transport, size_t *low, size_t *high);
/* SIZE_MAX for a mark means "derive it" (low is a quarter of high). 0, or -EINVAL unless high >= low. May call
 * pause_writing or resume_writing. */
int al_transport_set_limits(al_transport *transport, size_t high, size_t low);

void al_transport_set_protocol(al_transport *transport, al_protocol *protocol); /* NULL: one that does nothing */
al_protocol *al_transport_protocol(const al_transport *transport);              /* NULL after connection_lost */
al_loop *al_transport_loop(const al_transport *transport);                      /* NULL once closed */
int al_transport_fd(const al_transport *transport);                             /* -1 once closed */
int al_transport_peername(al_transport *transport, al_addr *addr); /* also after close; -ENOTCONN if there is none */
int al_transport_sockname(al_transport *transport, al_addr *addr); /* the same of our end */

/* ---- datagram: transports of datagrams --------------------------------------------------------------------------- */

typedef struct al_datagram_options {
  int family, proto;
  const al_addr *local, *remote; /* to bind to, to connect to; may be NULL. A stale socket file at local is removed */
  bool reuse_port, allow_broadcast; /* allow_broadcast: remote is not connected to */
} al_datagram_options;

/* Makes a socket for al_datagram_new and returns its descriptor, or -errno; then *failed (may be NULL) is the
 * address that would not do, or NULL. */
int al_datagram_open(const al_datagram_options *options, const al_addr **failed);

/* Makes a datagram transport over a non-blocking socket: see al_stream_new. remote (may be NULL) is where datagrams
 * without an address go if the socket isn't connected. Pausing reading, writing an end and al_transport_write are not
 * for it; the rest of section transport is. Each datagram that waits to be sent counts 8 bytes more than it has. */
int al_datagram_new(al_loop *loop, int fd, const al_addr *remote, al_protocol *protocol, al_handle *started,
                    al_transport **transport);

/* Sends now, or keeps a copy when the kernel takes none. addr NULL: to the remote address. What is wrong with the
 * datagram or the way is told to error_received. Results: 0, -EDESTADDRREQ (there is no remote address), -EISCONN
 * (there is one, and addr is another), -ENOMEM. On a closed transport it is dropped, with a warning from the 5th on. */
int al_datagram_sendto(al_transport *transport, const char *data, size_t len, const al_addr *addr);
/* The same for a datagram to an address that could not be found, which is what is wrong with it. */
int al_datagram_sendto_failed(al_transport *transport, int error);
int al_datagram_remote(const al_transport *transport, al_addr *addr); /* -ENOTCONN if there is none */

/* ---- pipe: one way only ------------------------------------------------------------------------------------------ */

/* Make a transport over the end of a pipe or FIFO, over a terminal or another character device, or over a stream
 * socket, which it makes non-blocking and owns from then on; all else as al_stream_new. -EINVAL: fd is of no such kind
 * (a file). A reader closes after eof_received, whatever that returns. A writer closes when nobody reads any more:
 * connection_lost gets -EPIPE if something was unsent, else 0. Its write_eof closes it once all is sent. */
int al_pipe_reader_new(al_loop *loop, int fd, al_protocol *protocol, al_handle *started, al_transport **transport);
int al_pipe_writer_new(al_loop *loop, int fd, al_protocol *protocol, al_handle *started, al_transport **transport);

/* ---- sendfile: files, by the kernel ------------------------------------------------------------------------------ */

typedef struct al_sendfile al_sendfile;
typedef struct al_sendfile_what {
  int file;       /* its descriptor, which stays the caller's */
  int64_t offset; /* its position is neither used nor changed */
  int64_t count;  /* the most to send; -1: to the end */
} al_sendfile_what;
/* sent: how many bytes the socket took, also on error. */
typedef void al_sendfile_fn(void *data, int error, int64_t sent);

/* Send a part of a file over a connected, non-blocking socket, which nobody else writes to meanwhile; or over a stream
 * transport: after what was written before, and while it goes on, writes get -EBUSY and nothing is read. A file that
 * ends early ends it. If it can be done at once, or fails at once, *request is NULL, *sent tells how much, and this
 * returns 0 or the error. Else done is called once, from a later turn, unless it is cancelled or the loop closes.
 * Errors: -ENOTSUP: this kind of file, or transport, can't be sent so, and nothing was; -EBUSY: the transport is
 * sending already; -EALREADY: TLS stands on it; -ENOTCONN: its connection_made is still to come; -ESHUTDOWN: it is
 * closing, or was closed meanwhile; -ENOMEM, AL_ECLOSED, -errno. */
int al_sendfile_start(al_loop *loop, int fd, const al_sendfile_what *what, void *data, al_sendfile_fn *done,
                      al_sendfile **request, int64_t *sent);
int al_transport_sendfile(al_transport *transport, const al_sendfile_what *what, void *data, al_sendfile_fn *done,
                          al_sendfile **request, int64_t *sent);
int64_t al_sendfile_cancel(al_sendfile *request); /* done won't be called; how much was sent */

/* The same hold on a stream transport for a sender that has the bytes itself; new has the errors of
 * al_transport_sendfile. write keeps what it can't send: 0, -ESHUTDOWN (the transport is closing), -ENOMEM. wait: 1 if
 * nothing is unsent; 0: flushed is called when that is so, or with -ESHUTDOWN; or an error. free ends the hold. */
int al_feed_new(al_transport *transport, al_sendfile **feed);
int al_feed_write(al_sendfile *feed, const char *data, size_t len);
int al_feed_wait(al_sendfile *feed, void *data, al_sendfile_fn *flushed);
void al_feed_free(al_sendfile *feed);

/* ---- process: children ------------------------------------------------------------------------------------------- */

typedef struct al_process al_process;

/* What a child's descriptor 0, 1 or 2 is, if no descriptor of ours. */
enum {
  AL_STDIO_INHERIT = -1, /* ours of the same number */
  AL_STDIO_PIPE = -2,    /* one end of a new pipe; the other is handed out */
  AL_STDIO_NULL = -3,    /* /dev/null */
  AL_STDIO_OUTPUT = -4   /* of 2 only: whatever its 1 is */
};

/* What to start, and how: AL_SPAWN_DEFAULTS and argv will do. All of it stays the caller's. A child begins with an
 * empty signal mask and without handlers, and has no descriptor of ours but those given. */
typedef struct al_spawn_options {
  const char *const *argv; /* ended by NULL; at least one */
  const char *const *env;  /* "NAME=value", ended by NULL. NULL: this process's */
  const char *program;     /* the file to run (NULL: argv[0]). Without a slash it is searched in the PATH of env */
  const char *cwd;         /* NULL: this process's */
  int stdio[3];            /* AL_STDIO_*, or a descriptor */
  const int *pass_fds;     /* stay open, in ascending order */
  size_t n_pass_fds;
  bool keep_fds;     /* what isn't close-on-exec stays open */
  bool keep_signals; /* SIGPIPE, SIGXFSZ and SIGCHLD stay ignored if we ignore them; other signals do in any case */
  bool new_session;  /* setsid */
  bool set_pgid, set_umask, set_groups, set_gid, set_uid;
  pid_t pgid; /* 0: a process group of its own */
  mode_t umask;
  const gid_t *groups;
  size_t n_groups;
  gid_t gid;
  uid_t uid;
} al_spawn_options;

#define AL_SPAWN_DEFAULTS                                             \
  (al_spawn_options) {                                                \
    .stdio = { AL_STDIO_INHERIT, AL_STDIO_INHERIT, AL_STDIO_INHERIT } \
  }

/* The step of a start that failed, and how. fd: of the child in step STDIO, ours in step PASS_FDS. */
typedef enum al_spawn_step {
  AL_SPAWN_FORK,
  AL_SPAWN_STDIO,
  AL_SPAWN_PASS_FDS,
  AL_SPAWN_CWD,
  AL_SPAWN_SESSION,
  AL_SPAWN_PGID,
  AL_SPAWN_GROUPS,
  AL_SPAWN_GID,
  AL_SPAWN_UID,
  AL_SPAWN_EXEC
} al_spawn_step;

typedef struct al_spawn_failure {
  al_spawn_step step;
  int fd;
} al_spawn_failure;

typedef struct al_process_owner {
  /* The child has ended and is reaped. returncode: its exit code, or minus the signal that ended it; 255 (with a
   * warning) if somebody else has reaped it, or SIGCHLD is ignored. Once, from a turn. */
  void (*exited)(al_process *process, void *data, int returncode);
  /* The loop closes: exited won't be called. running: it was killed then, and reaped. */
  void (*closed)(al_process *process, void *data, bool running);
} al_process_owner;

/* Starts a child, and returns when its program runs. pipes[i] is our end of the pipe for AL_STDIO_PIPE, blocking,
 * close-on-exec and the caller's; else -1. The owner's functions may be NULL. The process is the caller's until
 * al_process_release. On failure (-errno, AL_ECLOSED) nothing is left of it, and *failure (may be NULL) says where:
 * -ENOENT in step CWD and in step EXEC are different things. */
int al_process_spawn(al_loop *loop, const al_spawn_options *options, const al_process_owner *owner, void *data,
                     al_process **process, int pipes[3], al_spawn_failure *failure);
pid_t al_process_pid(const al_process *process); /* also after its end, when another process may have the number */
/* Never reaches another process that has the number by now. -ESRCH: it has ended, -EINVAL, -EPERM. */
int al_process_kill(al_process *process, int signum);
/* No call to the owner comes from now on. A child that runs goes on, and is reaped all the same. */
void al_process_release(al_process *process);

/* ---- server ------------------------------------------------------------------------------------------------------ */

typedef struct al_server_ops {
  /* A connection was accepted. Takes over fd (closes it on failure), usually with al_stream_new and
   * al_server_attach. */
  void (*accepted)(al_server *server, void *data, int fd, const al_addr *peer);
  /* Accepting failed: -EMFILE and its kin (it goes on by itself after a second). fd is the listener. */
  void (*error)(al_server *server, void *data, int fd, int error);
  /* close() was called and all attached transports have lost their connections; or at loop close. */
  void (*closed)(al_server *server, void *data);
} al_server_ops;

/* Makes a server without sockets. Born with one reference. Without sockets it goes with its last reference, in silence;
 * with them it lives until ops->closed has returned. */
int al_server_new(al_loop *loop, const al_server_ops *ops, void *data, al_server **server);
void al_server_set_data(al_server *server, void *data); /* what the functions of ops get from then on */
/* Adds a bound socket, which it owns from then on (on error it stays the caller's) and makes non-blocking. backlog:
 * also the most connections accepted in one turn. unlink (may be NULL): the path of a Unix socket to remove at close
 * if it still is the same file. */
int al_server_add(al_server *server, int fd, int backlog, const char *unlink);
int al_server_start(al_server *server);  /* listen(2) and accept; idempotent. 0, AL_ECLOSED, -errno */
void al_server_close(al_server *server); /* stops accepting and closes the sockets; idempotent. Clients stay */
bool al_server_is_serving(const al_server *server);
bool al_server_is_closed(const al_server *server);                 /* al_server_close was called */
void al_server_attach(al_server *server, al_transport *transport); /* a client until its connection is lost */
void al_server_close_clients(al_server *server);                   /* al_transport_close for each */
void al_server_abort_clients(al_server *server);                   /* al_transport_abort for each */
size_t al_server_clients(const al_server *server);                 /* how many there are */
/* Writes at most max of the listening descriptors, which stay the server's; returns how many there are, 0 once it is
 * closed. */
size_t al_server_sockets(const al_server *server, int *fds, size_t max);
al_loop *al_server_loop(const al_server *server);
void al_server_hold(al_server *server);
void al_server_release(al_server *server);

/* ---- resolve: getaddrinfo in the loop's own pool ----------------------------------------------------------------- */

typedef struct al_resolve al_resolve;
struct addrinfo;
/* error: 0, AL_EAI(..) or -errno. res is the callback's; free it with freeaddrinfo. host and service are lent. */
typedef void al_resolved_fn(void *data, int error, struct addrinfo *res);
typedef void al_nameinfo_fn(void *data, int error, const char *host, const char *service);

/* Look up as getaddrinfo(3) and getnameinfo(3) do, with their hints and flags, in at most 4 threads of the loop's own;
 * a numeric host with a numeric port never waits for a thread. host or service may be NULL. The callback comes once,
 * from a later turn, unless cancelled or the loop closes; *request is good until then. Errors: AL_ECLOSED, -ENOMEM,
 * -EAGAIN (no thread can be started). */
int al_getaddrinfo(al_loop *loop, const char *host, const char *service, const struct addrinfo *hints, void *data,
                   al_resolved_fn *resolved, al_resolve **request);
int al_getnameinfo(al_loop *loop, const al_addr *addr, int flags, void *data, al_nameinfo_fn *resolved,
                   al_resolve **request);
void al_resolve_cancel(al_resolve *request); /* its callback won't come */

/* ---- tls_ctx: what TLS connections have in common ---------------------------------------------------------------- */

struct ssl_ctx_st; /* OpenSSL's SSL_CTX and SSL */
struct ssl_st;
typedef struct al_tls_ctx al_tls_ctx; /* wraps an SSL_CTX, and is counted with it */

typedef enum al_tls_kind { AL_TLS_CLIENT, AL_TLS_SERVER, AL_TLS_BOTH } al_tls_kind;
#define AL_TLS_CA_DER 1u /* al_tls_ctx_load_ca_data: the data is DER, not PEM */

/* What failed, in OpenSSL's words. */
typedef struct al_tls_error {
  int error;               /* AL_ETLS ...; or -errno: a file could not be read */
  const char *library;     /* "SSL", "X509", "PEM" ..., NULL: not known. Static text */
  char reason[64];         /* "CERTIFICATE_VERIFY_FAILED"; "": not known */
  long verify_code;        /* AL_ETLSVERIFY: X509_V_ERR_* */
  char verify_message[96]; /* AL_ETLSVERIFY: "self-signed certificate" */
  char message[320];       /* "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate" */
} al_tls_error;

/* Loads OpenSSL, which else comes with the first context: for programs that give up rights or change their root first.
 * 0, or AL_ETLS if it isn't there (the message says why); may be tried again. Any thread. */
int al_tls_load(al_tls_error *why);

/* Makes a context with the defaults of Python's ssl.SSLContext: TLS 1.2 or newer, its ciphers, no compression, and no
 * renegotiation; a client's requires a certificate that is trusted and made out to the host (one of AL_TLS_BOTH must
 * ask for that), but trusts nobody yet: see al_tls_ctx_load_defaults and load_ca. Born with one reference; hold and
 * release: any thread. A connection keeps the context that it began with. Functions that can fail fill *why (may be
 * NULL) and return why->error: AL_ETLS, -errno, -ENOMEM. */
int al_tls_ctx_new(al_tls_kind kind, al_tls_ctx **ctx, al_tls_error *why);
void al_tls_ctx_hold(al_tls_ctx *ctx);
void al_tls_ctx_release(al_tls_ctx *ctx);
al_tls_kind al_tls_ctx_kind(const al_tls_ctx *ctx);
/* For what is not here; stays the context's. Whoever calls OpenSSL's functions on it links with its shared library
 * himself: that is the one which al_tls_load finds. */
struct ssl_ctx_st *al_tls_ctx_native(const al_tls_ctx *ctx);
al_tls_ctx *al_tls_ctx_of(const struct ssl_ctx_st *native); /* or NULL: it is none of ours */
void *al_tls_ctx_data(const al_tls_ctx *ctx);
void al_tls_ctx_set_data(al_tls_ctx *ctx, void *data);

/* A client's connections compare the name that they are made for with the certificate. It can't be on without a check
 * of the certificate itself: -EINVAL from set_verify. */
bool al_tls_ctx_check_hostname(const al_tls_ctx *ctx);
void al_tls_ctx_set_check_hostname(al_tls_ctx *ctx, bool check); /* on: requires a certificate, too */
bool al_tls_ctx_check_common_name(const al_tls_ctx *ctx);        /* if it has no DNS name. Default: no */
void al_tls_ctx_set_check_common_name(al_tls_ctx *ctx, bool check);
int al_tls_ctx_set_verify(al_tls_ctx *ctx, int mode); /* SSL_VERIFY_* */

/* Our own certificate with its chain, and its key (keyfile NULL: in certfile), which must belong
 * together; PEM. password (may be NULL) is called for a key that is encrypted: it writes at most size
 * bytes and returns how many, or -1. */
typedef int al_tls_password_fn(void *ud, char *buf, int size);
int al_tls_ctx_load_chain(al_tls_ctx *ctx, const char *certfile, const char *keyfile, al_tls_password_fn *password,
                          void *ud, al_tls_error *why);
/* Whom to trust: a PEM file and a directory of hashed names (NULL: none); certificates in memory; the system's.
 * CRLs are loaded the same way. */
int al_tls_ctx_load_ca(al_tls_ctx *ctx, const char *cafile, const char *capath, al_tls_error *why);
int al_tls_ctx_load_ca_data(al_tls_ctx *ctx, const void *data, size_t len, unsigned flags, al_tls_error *why);
int al_tls_ctx_load_defaults(al_tls_ctx *ctx, al_tls_error *why);

int al_tls_ctx_set_ciphers(al_tls_ctx *ctx, const char *ciphers, al_tls_error *why); /* of TLS 1.2 */
/* Protocols to offer or to choose from, in order of preference: each with its length in front, as on the wire. Without
 * one in common the connection goes on without. len 0: none. -ENOMEM, -EINVAL. */
int al_tls_ctx_set_alpn(al_tls_ctx *ctx, const unsigned char *protocols, size_t len);
/* Appends the secrets of all connections to the file, for wireshark; NULL: no longer. -errno. */
int al_tls_ctx_set_keylog(al_tls_ctx *ctx, const char *path);

/* A client has named the server that it wants (name NULL: it has not). Called in the course of a server's handshake,
 * with the transport (NULL: the connection is none of ours); it may choose another context. Returns 0, or the number of
 * an alert with which the client is refused. */
typedef int al_tls_servername_fn(al_tls_ctx *ctx, al_transport *transport, struct ssl_st *ssl, const char *name);
void al_tls_ctx_set_servername(al_tls_ctx *ctx, al_tls_servername_fn *servername); /* NULL: none */
/* The connection has the certificate, and the demand for a client's, of this context from now on. */
int al_tls_choose_ctx(struct ssl_st *ssl, al_tls_ctx *ctx);

/* ---- tls: encrypted transports ----------------------------------------------------------------------------------- */

/* A TLS transport is the protocol of another transport, the one below: a stream, or again a TLS transport. It is used,
 * held and closed as any; close, abort and fail act on the one below, too. What differs, as in asyncio:
 *   - connection_made comes when the handshake has succeeded. If it fails there is none, and no connection_lost.
 *   - What is written before is sent after it.
 *   - Its marks are 512 and 128 KiB; writing is paused when as much as the high mark is unsent (that is: not yet handed
 *     to the one below, which has marks of its own).
 *   - It has no write_eof. When the other end has closed, eof_received is told, and whatever it returns the transport
 *     closes. If the connection ends without such a close, connection_lost gets AL_ETLSEOF and there is no
 *     eof_received, unless the context has SSL_OP_IGNORE_UNEXPECTED_EOF.
 *   - close sends what is unsent, then waits for the other end to close, until the shutdown's
 *     timeout (AL_ETLSSTUCK). */

/* The handshake is over: 0, or why it failed (AL_ETLS..: al_tls_failure tells more; -ECONNRESET: the other end has
 * left; -ECONNABORTED: it was closed on our side). Once, from the loop's turn; after connection_made. */
typedef void al_tls_done_fn(al_transport *transport, void *data, int error);

struct ssl_session_st; /* OpenSSL's SSL_SESSION */

typedef struct al_tls_options {
  al_tls_ctx *ctx; /* need not outlive the call */
  bool server_side;
  const char *host;               /* a client's: whom it wants to reach, by name or address; "": no name is checked */
  struct ssl_session_st *session; /* a client's: of an earlier connection, to be resumed; may be NULL */
  int64_t handshake_timeout_ns, shutdown_timeout_ns; /* 0: 60 s, 30 s */
  bool upgrade; /* the protocol has a connection already: no connection_made, and connection_lost in any case */
  void *data;
  al_tls_done_fn *done; /* may be NULL. Not called if the loop closes first */
} al_tls_options;

/* Makes a TLS transport over a connected stream socket, for which see al_stream_new, or over a transport whose protocol
 * it becomes (what that one receives belongs to TLS from then on; it is resumed if it was paused). The handshake begins
 * in the next turn. The transport holds the one below. On error all stays as it was: -EINVAL (see host of
 * al_tls_ctx_check_hostname), -ENOTSUP (the one below is no two-way stream), -ESHUTDOWN (it is closing), -EBUSY (a file
 * is being sent over it), -EALREADY (another TLS transport stands on it), AL_ETLS, -ENOMEM, AL_ECLOSED. */
int al_tls_new(al_loop *loop, int fd, const al_addr *peer, const al_tls_options *options, al_protocol *protocol,
               al_transport **transport);
int al_tls_start(al_transport *below, const al_tls_options *options, al_protocol *protocol, al_transport **transport);

/* What the former protocol had received already of the TLS connection; to be called before the loop's next turn. */
int al_tls_feed(al_transport *transport, const char *data, size_t len);
void al_tls_forget(al_transport *transport); /* `done` won't be called any more */

bool al_transport_is_tls(const al_transport *transport);
bool al_transport_is_upgraded(const al_transport *transport); /* TLS stands on it */
/* OpenSSL's own object, for looking at; NULL once the transport is closed (SSL_up_ref keeps it). */
struct ssl_st *al_tls_native(const al_transport *transport);
/* What failed, as long as the transport is held; NULL if nothing of TLS has. */
const al_tls_error *al_tls_failure(const al_transport *transport);

/* ---- net: endpoints by name -------------------------------------------------------------------------------------- */

typedef struct al_connect al_connect;
typedef struct al_connect_error { /* one attempt that failed, or an address that it could not be bound to */
  int error;
  int attempt;                       /* which one, from 0 on */
  char message[AL_ADDR_STRLEN + 96]; /* names what was tried and the address */
} al_connect_error;

typedef struct al_connect_options {
  const char *host, *service;             /* as getaddrinfo; or: */
  const al_addr *addr;                    /* this address (Unix sockets); or: */
  const struct addrinfo *list;            /* these, which stay the caller's until the callback or cancel */
  const struct addrinfo *local_list;      /* with list: bound before connecting; may be NULL */
  int family, proto, flags;               /* as getaddrinfo's hints */
  const char *local_host, *local_service; /* bound before connecting; NULL: not */
  /* RFC 8305: the next attempt begins when the one before has failed, or after delay_ns if that comes first; the first
   * to succeed is taken and the others are closed. Else it begins only when the one before has failed. */
  bool happy_eyeballs;
  int64_t delay_ns;
} al_connect_options;

/* fd >= 0: connected, the callback's from then on; peer is its address. Else at least one
 * error, in the order of attempts. */
typedef void al_connected_fn(void *data, int fd, const al_addr *peer, const al_connect_error *errors, size_t n);
/* Resolves, then tries the addresses, beginning in their order, until one connects. The callback comes once, from a
 * later turn, unless cancelled or the loop closes; *request (request may be NULL) is good until then. Errors:
 * AL_ECLOSED, -ENOMEM, and those of al_getaddrinfo. */
int al_connect_start(al_loop *loop, const al_connect_options *options, void *data, al_connected_fn *connected,
                     al_connect **request);
void al_connect_cancel(al_connect *request); /* its callback won't come; nothing stays open */

typedef struct al_listen_options {
  int backlog;                                              /* 0: 100 */
  bool no_reuse_address, reuse_port, keep_alive, keep_file; /* keep_file: don't unlink a Unix socket at close */
} al_listen_options;

/* Binds a socket for each address (duplicates once, IPv6 apart from IPv4, those of -EADDRNOTAVAIL
 * skipped if another binds) and adds them to the server; all or nothing. *failed (may be NULL) gets the
 * address that failed, n if none did. */
int al_server_bind(al_server *server, const struct addrinfo *list, const al_listen_options *options, al_addr *failed);
/* The same at the path, or abstract name, of a Unix socket, which replaces a socket file that was left there. */
int al_server_bind_unix(al_server *server, const al_addr *addr, const al_listen_options *options);

#ifdef __cplusplus
}
#endif
#endif

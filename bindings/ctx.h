/* ctx.h - what all bindings share: the context of a Lua state, its anchors, the gate from C to Lua, classes and errors.
 *
 * Which function may throw: those that take `lua_State *L` first, and no others. Upcalls of the core (al_handle.run,
 * protocol callbacks, ...) run outside of any protected call: they enter by al_enter and use nothing that throws before
 * they are inside al_pcall.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_CTX_H
#define AL_CTX_H

#include "aloop.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

typedef struct al_ctx al_ctx;
typedef struct l_loop l_loop;     /* lloop.h */
typedef struct l_future l_future; /* lfuture.h */
typedef struct l_task l_task;     /* ltask.h */

/* Every class that C knows. A class is a Lua table that is the metatable of its instances too: __index is itself,
 * __name its name, __base its base class. AL_CLASSES(X) lists X(id, name, base): bases before their subclasses. */
#define AL_CLASSES(X)                                                     \
  X(Object, "Object", Object)                                             \
  X(AbstractEventLoop, "AbstractEventLoop", Object)                       \
  X(BaseEventLoop, "BaseEventLoop", AbstractEventLoop)                    \
  X(SelectorEventLoop, "SelectorEventLoop", BaseEventLoop)                \
  X(ProactorEventLoop, "ProactorEventLoop", BaseEventLoop)                \
  X(Handle, "Handle", Object)                                             \
  X(TimerHandle, "TimerHandle", Handle)                                   \
  X(Future, "Future", Object)                                             \
  X(Task, "Task", Future)                                                 \
  X(Timeout, "Timeout", Object)                                           \
  X(ConcurrentFuture, "ConcurrentFuture", Object)                         \
  X(Executor, "Executor", Object)                                         \
  X(ThreadPoolExecutor, "ThreadPoolExecutor", Executor)                   \
  X(InterpreterPool, "InterpreterPoolExecutor", ThreadPoolExecutor)       \
  X(ProcessPoolExecutor, "ProcessPoolExecutor", Executor)                 \
  X(RemoteLoop, "RemoteLoop", Object)                                     \
  X(ContextVar, "ContextVar", Object)                                     \
  X(Context, "Context", Object)                                           \
  X(Token, "Token", Object)                                               \
  X(AbstractServer, "AbstractServer", Object)                             \
  X(Server, "Server", AbstractServer)                                     \
  X(BaseTransport, "BaseTransport", Object)                               \
  X(ReadTransport, "ReadTransport", BaseTransport)                        \
  X(WriteTransport, "WriteTransport", BaseTransport)                      \
  X(Transport, "Transport", ReadTransport)                                \
  X(DatagramTransport, "DatagramTransport", BaseTransport)                \
  X(SubprocessTransport, "SubprocessTransport", BaseTransport)            \
  X(Process, "Process", Object)                                           \
  X(BaseProtocol, "BaseProtocol", Object)                                 \
  X(Protocol, "Protocol", BaseProtocol)                                   \
  X(BufferedProtocol, "BufferedProtocol", BaseProtocol)                   \
  X(StreamReaderProtocol, "StreamReaderProtocol", Protocol)               \
  X(StreamReader, "StreamReader", Object)                                 \
  X(StreamWriter, "StreamWriter", Object)                                 \
  X(DatagramProtocol, "DatagramProtocol", BaseProtocol)                   \
  X(SubprocessProtocol, "SubprocessProtocol", BaseProtocol)               \
  X(Buffer, "Buffer", Object)                                             \
  X(Socket, "Socket", Object)                                             \
  X(TransportSocket, "TransportSocket", Object)                           \
  X(PipeEnd, "PipeEnd", Object)                                           \
  X(SSLContext, "SSLContext", Object)                                     \
  X(SSLObject, "SSLObject", Object)                                       \
  X(SSLSession, "SSLSession", Object)                                     \
  X(BaseError, "BaseError", Object)                                       \
  X(CancelledError, "CancelledError", BaseError)                          \
  X(KeyboardInterrupt, "KeyboardInterrupt", BaseError)                    \
  X(SystemExit, "SystemExit", BaseError)                                  \
  X(GeneratorExit, "GeneratorExit", BaseError)                            \
  X(Error, "Error", BaseError)                                            \
  X(RuntimeError, "RuntimeError", Error)                                  \
  X(SendfileNotAvailableError, "SendfileNotAvailableError", RuntimeError) \
  X(NotImplementedError, "NotImplementedError", RuntimeError)             \
  X(BrokenExecutor, "BrokenExecutor", RuntimeError)                       \
  X(BrokenThreadPool, "BrokenThreadPool", BrokenExecutor)                 \
  X(BrokenProcessPool, "BrokenProcessPool", BrokenExecutor)               \
  X(ValueError, "ValueError", Error)                                      \
  X(LookupError, "LookupError", Error)                                    \
  X(InvalidStateError, "InvalidStateError", Error)                        \
  X(OSError, "OSError", Error)                                            \
  X(TimeoutError, "TimeoutError", OSError)                                \
  X(gaierror, "gaierror", OSError)                                        \
  X(ConnectionError, "ConnectionError", OSError)                          \
  X(BrokenPipeError, "BrokenPipeError", ConnectionError)                  \
  X(ConnectionAbortedError, "ConnectionAbortedError", ConnectionError)    \
  X(ConnectionRefusedError, "ConnectionRefusedError", ConnectionError)    \
  X(ConnectionResetError, "ConnectionResetError", ConnectionError)        \
  X(FileNotFoundError, "FileNotFoundError", OSError)                      \
  X(FileExistsError, "FileExistsError", OSError)                          \
  X(PermissionError, "PermissionError", OSError)                          \
  X(ProcessLookupError, "ProcessLookupError", OSError)                    \
  X(ChildProcessError, "ChildProcessError", OSError)                      \
  X(BlockingIOError, "BlockingIOError", OSError)                          \
  X(InterruptedError, "InterruptedError", OSError)                        \
  X(NotADirectoryError, "NotADirectoryError", OSError)                    \
  X(IsADirectoryError, "IsADirectoryError", OSError)                      \
  X(SSLError, "SSLError", OSError)                                        \
  X(SSLCertVerificationError, "SSLCertVerificationError", SSLError)       \
  X(SSLEOFError, "SSLEOFError", SSLError)                                 \
  X(SSLZeroReturnError, "SSLZeroReturnError", SSLError)                   \
  X(IncompleteReadError, "IncompleteReadError", Error)                    \
  X(LimitOverrunError, "LimitOverrunError", Error)                        \
  X(QueueEmpty, "QueueEmpty", Error)                                      \
  X(QueueFull, "QueueFull", Error)                                        \
  X(QueueShutDown, "QueueShutDown", Error)                                \
  X(BrokenBarrierError, "BrokenBarrierError", RuntimeError)               \
  X(ExceptionGroup, "ExceptionGroup", Error)

typedef enum al_class {
#define X(id, name, base) AL_C_##id,
  AL_CLASSES(X)
#undef X
      AL_C_COUNT
} al_class;

/* ---- the context: one per Lua state (not per coroutine) ---------------------------------------------------------- */

#define AL_MAX_DEPTH 64 /* nested upcalls: a callback that makes C call back at once, and so on */

struct al_ctx {
  /* upcalls: call.c */
  lua_State *main;                  /* the state's main thread */
  struct al_alloc *alloc;           /* lalloc.h; NULL: the state has another */
  lua_State *threads[AL_MAX_DEPTH]; /* callback threads by depth; each begins with [1] anchors, [2] al_traceback */
  int depth;
  bool times_upcalls; /* the running loop is in debug mode */
  bool passing;       /* the error just raised has its traceback from further in: it stays, even that of a string */
  bool reraised;      /* outside of tasks, an error of a task was raised: its traceback stays as it is */
  bool exiting;       /* anchors[AL_SLOT_EXIT] holds a KeyboardInterrupt or SystemExit on its way out of run_forever */
  bool ended;         /* by its finalizer: other finalizers may still come, and find nothing to work with */

  /* anchors: ctx.c */
  int anchors_ref; /* registry reference of the anchor table */
  int *free_slots; /* anchors: the free slots; slots are array indices of the table */
  int n_free, size_free, n_slots;
  int stale; /* a free slot that still has its value, or 0 */

  /* classes: lclass.c */
  const void *class_ptr[AL_C_COUNT]; /* lua_topointer of each class */
  int class_ref[AL_C_COUNT];         /* registry reference of each class */
  const void *future_gc, *task_gc;   /* the metatables of futures that still have something to report when collected */

  /* loops */
  l_loop *running;   /* the loop that runs in this state, or NULL */
  l_loop *loops;     /* all that were not finalized */
  l_loop *no_loop;   /* stands in for the loop of a main chunk that needed none yet */
  bool debug;        /* new loops are in debug mode: ALOOPDEBUG, -X debug */
  bool takes_sigint; /* lsigint.h */
  bool forked;       /* llooprun.c: this process is a child of the one whose current loop is known */

  /* tasks, and the coroutines in which they run */
  l_task *current;      /* the task being stepped, or NULL */
  int step_depth;       /* depth as it was stepped: where there is more, what it did has called a callback at once */
  l_task *main_task;    /* while a main chunk runs */
  lua_State *innermost; /* the coroutine resumed last by ours of coroutine.*, or NULL: it may be the one that runs */
  lua_State *co_top;    /* the innermost coroutine that aloop knows to run in the current task; NULL outside of tasks */
  lua_State *co_blocked; /* a coroutine below co_top that can't be suspended now, or NULL */
  bool came_first;       /* no script ran in this state before, so none has coroutine.* as it was before ours */
  uint64_t task_names;   /* the N of the next Task-N */
  int n_coroutines;      /* in AL_SLOT_COROUTINES */
  size_t n_unread;       /* futures in AL_SLOT_UNREAD that still are */

  /* contexts: lcontext.h */
  int context_kind; /* what anchors[AL_SLOT_CONTEXT] is */
  int n_entered;    /* contexts in which a Context:run is */

  /* what single bindings keep */
  al_ctx *log_next; /* lreport.c: the states with a log handler, and the thread that each is in */
  uint64_t log_thread;
  struct l_sockops *sockops;   /* lsockops.c */
  struct l_pause *pauses;      /* lpause.c: the unused ones */
  struct al_mailbox *mailbox;  /* lrelay.c */
  struct al_pool_entry *pools; /* lexecutor.c: those whose threads were not joined yet */
};

/* The anchors with a fixed place. */
enum {
  AL_SLOT_CONTEXT = 1,  /* the current context (lcontext.h) */
  AL_SLOT_EXIT,         /* a KeyboardInterrupt or SystemExit on its way out of run_forever */
  AL_SLOT_TRACES,       /* weak table: what is known of objects and errors without keeping them */
  AL_SLOT_LOG,          /* aloop.set_log_handler's function, or false */
  AL_SLOT_CURRENT_LOOP, /* set_event_loop's, or false */
  AL_SLOT_MAIN_LOOP,    /* the loop that a main chunk has settled on, to be closed at its end; or false */
  AL_SLOT_LOOP_FACTORY, /* makes the interpreter's loop when the main chunk first needs one, or false */
  AL_SLOT_FUTURE_GC,    /* the metatables of futures and tasks with a finalizer */
  AL_SLOT_TASK_GC,
  AL_SLOT_UNREAD,     /* weak set of the futures with an error that nobody looked at */
  AL_SLOT_LOOPS,      /* weak table: l_loop pointer to userdata */
  AL_SLOT_COROUTINES, /* array of finished coroutines, for the next tasks */
  AL_SLOT_TASK_MAIN,  /* the function at the bottom of these */
  AL_SLOT_TEXTS,      /* weak table: task to its name (else it is Task-N); or to {name, message of the last cancel()} */
  AL_SLOT_FIRST_FREE
};

/* The context of a C function of ours: they all have it as first upvalue. */
#define al_ctx_of(L) ((al_ctx *)lua_touserdata((L), lua_upvalueindex(1)))

/* Makes the context of a state, or finds it. Pushes nothing. */
al_ctx *al_ctx_open(lua_State *L);

/* Registers functions with the context as upvalue 1 into the table on top. */
void al_ctx_setfuncs(lua_State *L, al_ctx *ctx, const luaL_Reg *functions);
void al_ctx_pushfunction(lua_State *L, al_ctx *ctx, lua_CFunction f);

/* The state's own allocator, as a lua_Alloc, for what C keeps for long or asks for often: it has blocks at hand where
 * malloc may take them from the kernel each time. Doesn't throw. */
void *al_allocate(al_ctx *ctx, void *block, size_t old, size_t new);

/* Pushes the anchor table. */
void al_ctx_anchors(lua_State *L, al_ctx *ctx);
/* Pushes a new table whose keys ("k") or values ("v") are weak. */
void al_pushweak(lua_State *L, const char *mode);

/* Keeps the value at idx alive until al_unanchor; returns its slot (> 0). */
int al_anchor(lua_State *L, al_ctx *ctx, int idx);
static inline bool al_anchor_is_free(const al_ctx *ctx) { return ctx->n_free > 0; } /* the next one takes no memory */
/* The same for the value on top, which stays; anchors is where the anchor table is. */
int al_anchor_top(lua_State *L, al_ctx *ctx, int anchors);
void al_pushanchored(lua_State *L, al_ctx *ctx, int slot); /* doesn't throw, given a free stack slot */
void al_unanchor(al_ctx *ctx, int slot);                   /* 0: nothing. Doesn't throw */
/* The same in two steps, for a value that the stack keeps in between: often the slot is taken again meanwhile, and
 * then there is nothing to clear. */
void al_unanchor_begin(al_ctx *ctx, int slot);
void al_unanchor_clear(al_ctx *ctx);
static inline void al_unanchor_end(al_ctx *ctx) {
  if (ctx->stale) al_unanchor_clear(ctx);
}

/* ---- call.c: the gate from C to Lua ------------------------------------------------------------------------------ */

/* Begins an upcall: a Lua thread of its own at base level, with anchors at [1], traceback handler at [2] and at least
 * 20 free stack slots. NULL when upcalls nest too deeply or there is no memory (the event is then dropped and logged).
 * Never throws. Each al_enter has its al_leave, which empties the thread again. */
lua_State *al_enter(al_ctx *ctx);
lua_State *al_try_enter(al_ctx *ctx); /* the same without the log: nothing is dropped */
void al_leave(al_ctx *ctx, lua_State *L);

/* Is it such a thread while nothing is called in it? coroutine.running() in a callback tells scripts of it; they must
 * take it for a coroutine that is over, for what stands on it is ours. */
bool al_is_upcall_thread(lua_State *L);

/* lua_pcall with the handler at [2]: an error gets its traceback. LUA_OK, or the error is on
 * top. L is from al_enter. */
int al_pcall(lua_State *L, int nargs, int nresults);

/* Runs a C function of ours under al_pcall with one light userdata as argument: for upcalls that have to allocate. */
int al_pcall_c(lua_State *L, lua_CFunction f, void *arg, int nresults);

/* Reports the error on top (and pops it) to the exception handler of the loop, as asyncio's context table; interrupts
 * (KeyboardInterrupt, SystemExit) leave run_forever instead. keys: pairs of a context key and the stack index of its
 * value, ended by NULL. Never throws. L is from al_enter, or protect is on otherwise. */
typedef struct al_key {
  const char *key;
  int idx;
} al_key;
void al_report(al_ctx *ctx, lua_State *L, l_loop *loop, const char *message, const al_key *keys);

/* The message handler: sets e.traceback of an aloop error that has none; remembers the traceback of any other value. */
int al_traceback(lua_State *L);
/* The error that is raised next came from an awaited task: to the current task, or to who is outside of tasks. */
void al_set_reraised(al_ctx *ctx);
/* Sets the traceback on top (popped) for the error value at idx. */
void al_settraceback(lua_State *L, al_ctx *ctx, int idx);
/* Pushes the traceback that belongs to the error value at idx, or nil. */
void al_pushtraceback(lua_State *L, al_ctx *ctx, int idx);
/* Pushes value and traceback of the last error, in the current task if there is one, that was no aloop error; false,
 * and nothing, if there was none. */
bool al_pushlasttraceback(lua_State *L, al_ctx *ctx);
/* Of the current task, which has failed; if that has left the lists already, nothing. */
void al_forget_traceback(lua_State *L, al_ctx *ctx);

/* A debug line, to the same place. Never throws; who calls it knows that debug mode is on. */
void al_debug_line(al_ctx *ctx, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A warning, to the function in AL_SLOT_LOG (aloop.set_log_handler), or else to al_log. Never throws. */
void al_warn(al_ctx *ctx, const char *category, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* ---- lclass.c ---------------------------------------------------------------------------------------------------- */

/* Makes all classes of AL_CLASSES. Each has extend([name]), is callable (if it may be made by scripts), and shows its
 * name. Methods are added by each binding with al_class_methods. */
void al_class_open(lua_State *L, al_ctx *ctx);
void al_pushclass(lua_State *L, al_ctx *ctx, al_class class);
/* Adds functions to a class (metamethods too; they are inherited by copying, so add before
 * making subclasses elsewhere). */
void al_class_methods(lua_State *L, al_ctx *ctx, al_class class, const luaL_Reg *functions);
/* Is the value at idx an instance of class or of a subclass of it? Doesn't throw. */
bool al_isinstance(lua_State *L, al_ctx *ctx, int idx, al_class class);
/* A userdata that is an instance of class (or of a subclass): its memory; else raises
 * "bad argument #n to 'f' (Class expected, got type)". al_test: NULL instead. */
void *al_check(lua_State *L, al_ctx *ctx, int arg, al_class class);
void *al_test(lua_State *L, al_ctx *ctx, int arg, al_class class);
/* Makes a userdata with size bytes (zeroed), nuv user values and the class as metatable; pushes it. */
void *al_new(lua_State *L, al_ctx *ctx, al_class class, size_t size, int nuv);
/* The same with the class table at index class, for the __new functions of classes that scripts may extend: a C
 * function __new in a class is called as __new(class, ...) when the class or a subclass is called. Raises if the class
 * is neither `of` nor a subclass of it: a script may have put the function elsewhere. */
void *al_new_instance(lua_State *L, int class, al_class of, size_t size, int nuv);
void al_class_openlib(lua_State *L, al_ctx *ctx);
/* For an __index of C: what the class of the object at 1 has at the key at 2. */
int al_class_lookup(lua_State *L);
/* Is it what calling a class calls? */
bool al_class_is_call(lua_CFunction f);
/* A function or something with __call; raises otherwise. */
void al_check_callable(lua_State *L, int arg);
bool al_iscallable(lua_State *L, int idx);

/* ---- lerror.c ---------------------------------------------------------------------------------------------------- */

/* Push an error object / raise it (with position-free message; traceback is added by the gate). */
void al_pusherror(lua_State *L, al_ctx *ctx, al_class class, const char *format, ...); /* lua_pushfstring's formats */
int al_raise(lua_State *L, al_ctx *ctx, al_class class, const char *format, ...);
/* From an error of the core: -errno → OSError's subclass with errno, code and filename; AL_EAI → gaierror;
 * AL_ECLOSED... → RuntimeError. message NULL: al_strerror. filename may be NULL. */
void al_pushoserror(lua_State *L, al_ctx *ctx, int err, const char *message, const char *filename);
int al_raise_os(lua_State *L, al_ctx *ctx, int err, const char *message, const char *filename);
/* Pushes tostring of the value at idx; one whose __tostring fails is named by its type, with that error. */
void al_push_text(lua_State *L, int idx);
/* Pushes all that there is to say of the error value at idx: message, traceback, members of a group, causes. What is
 * written of an error that nobody takes. */
void al_pusherrortext(lua_State *L, al_ctx *ctx, int idx);
void al_error_openlib(lua_State *L, al_ctx *ctx);
/* KeyboardInterrupt or SystemExit. */
bool al_isinterrupt(lua_State *L, al_ctx *ctx, int idx);

void al_group_openlib(lua_State *L, al_ctx *ctx); /* lgroup.c: parts of an ExceptionGroup */

/* ---- loptions.c: wrong arguments --------------------------------------------------------------------------------- */

/* luaL_argerror and its kin for our functions: arguments are numbered as Lua numbers those of methods, and
 * the method is named, even if the call was pcall(loop.call_later, loop, ...). A table of options among
 * positional arguments is told. */
int al_argerror(lua_State *L, int arg, const char *text);
int al_typeerror(lua_State *L, int arg, const char *expected);
lua_Number al_checknumber(lua_State *L, int arg);
lua_Integer al_checkinteger(lua_State *L, int arg);
void al_checkany(lua_State *L, int arg);
lua_Integer al_optinteger(lua_State *L, int arg, lua_Integer otherwise);

/* ---- options: keyword tables ------------------------------------------------------------------------------------- */

/* The option table at arg (nil or none: no options) of function f: raises "unknown option 'k' to 'f'" unless every key
 * stands in names (ended by NULL), and a type error if it is no table. Returns whether there is one. */
bool al_options(lua_State *L, int arg, const char *f, const char *const *names);
/* Raises "unknown option 'name' to 'f'". */
int al_unknown_option(lua_State *L, const char *f, const char *name);
/* Pushes the option's value (nil if there is no table) and returns its type. */
int al_option(lua_State *L, int arg, const char *name);
/* Is there a number with an integer value, be it a float's (2 ^ 16)? No string is taken for one. */
bool al_isinteger(lua_State *L, int idx, lua_Integer *n);
/* Raises "bad option 'name' to 'f' (expected expected, got type)". */
int al_option_error(lua_State *L, const char *f, const char *name, const char *expected, int idx);
/* Options of the table at arg to function f: what isn't given is `otherwise`; raise "bad option ...". */
int al_int_option(lua_State *L, int arg, const char *f, const char *name, int otherwise);
bool al_bool_option(lua_State *L, int arg, const char *f, const char *name, bool otherwise);
bool al_option_given(lua_State *L, int arg, const char *name); /* it is there and not nil */
/* As luaL_where, for the innermost line of a script's: pushes "file:line: ", or "" if there is none. */
void al_where(lua_State *L);

#endif

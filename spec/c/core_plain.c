/* core_plain.c - tests of the plain things of core (rung 0): memory, timer heap and output chain against models,
 * errors, addresses, socket calls. The one program of the specs that looks inside core.
 *
 * SPDX-License-Identifier: MIT */
#include "check.h"

#include "addr.h"
#include "buf.h"
#include "heap.h"
#include "mem.h"
#include "sock.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

static size_t live_blocks(void) {
  size_t live;
  al_mem_stats(&live, NULL);
  return live;
}

/* ---- mem --------------------------------------------------------------------------------------------------------- */

static void test_mem_counts(void) {
  size_t live, total, live_after, total_after;
  al_mem_stats(&live, &total);
  char *a = al__malloc(10), *b = al__calloc(3, 5), *c = al__strndup("hello world", 5);
  a = al__realloc(a, 1000);
  CHECK(a && b && c);
  for (int i = 0; i < 15; i++) CHECK(b[i] == 0);
  CHECK(!strcmp(c, "hello"));
  al_mem_stats(&live_after, &total_after);
  CHECK_EQ(live_after, live + 3);
  CHECK_EQ(total_after, total + 3);
  al__free(a), al__free(b), al__free(c), al__free(NULL);
  CHECK_EQ(live_blocks(), live);
  CHECK(!al__calloc(SIZE_MAX / 2, 3));
}

static void test_mem_fails_on_demand(void) {
  if (!al_mem_fail_after(2)) return; /* a release build */
  void *a = al__malloc(1), *b = al__malloc(1);
  CHECK(a && b);
  CHECK(!al__malloc(1) && !al__malloc(1) && !al__realloc(a, 100));
  al_mem_fail_after(-1);
  void *c = al__malloc(1);
  CHECK(c);
  al__free(a), al__free(b), al__free(c);
}

static void *count_alloc(void *ud, void *ptr, size_t size) {
  ++*(int *)ud;
  if (size) return realloc(ptr, size);
  free(ptr);
  return NULL;
}

static void test_mem_allocator(void) {
  int calls = 0;
  al_set_allocator(count_alloc, &calls);
  al__free(al__malloc(8));
  CHECK_EQ(calls, 2);
  al_set_allocator(NULL, NULL);
  al__free(al__malloc(8));
  CHECK_EQ(calls, 2);
}

static void test_array_grow(void) {
  void *array = NULL;
  size_t capacity = 0, last = 0;
  for (size_t need = 1; need <= 1000; need++) {
    CHECK_EQ(al__array_grow(&array, &capacity, sizeof(int), need), 0);
    CHECK(capacity >= need && capacity >= last);
    last = capacity;
    ((int *)array)[need - 1] = (int)need;
  }
  for (int i = 0; i < 1000; i++) CHECK_EQ(((int *)array)[i], i + 1);
  CHECK_EQ(al__array_grow(&array, &capacity, sizeof(int), SIZE_MAX / 2), -ENOMEM);
  CHECK_EQ(capacity, last);
  al__free(array);
}

/* ---- heap -------------------------------------------------------------------------------------------------------- */

#define TIMERS 200

static al_timer timers[TIMERS];
static bool in_heap[TIMERS]; /* the model: which are in; the order is that of (when_ns, seq) */
static uint64_t next_seq;

static void set_key(al_timer *timer, int64_t when_ns) {
  timer->when_ns = when_ns;
  timer->seq = ++next_seq;
}

static bool is_before(const al_timer *a, const al_timer *b) {
  return a->when_ns < b->when_ns || (a->when_ns == b->when_ns && a->seq < b->seq);
}

static al_timer *model_top(void) {
  al_timer *top = NULL;
  for (int i = 0; i < TIMERS; i++)
    if (in_heap[i] && (!top || is_before(&timers[i], top))) top = &timers[i];
  return top;
}

static void random_heap_op(al_heap *heap, int i) {
  int64_t when_ns = check_random() % 1000; /* many of the same time */
  if (!in_heap[i]) {
    set_key(&timers[i], when_ns);
    CHECK_EQ(al__heap_push(heap, &timers[i]), 0);
    in_heap[i] = true;
  } else if (check_random() % 3) {
    set_key(&timers[i], check_random() % 2 ? timers[i].when_ns + when_ns : when_ns); /* later; any time */
    al__heap_moved(heap, &timers[i]);
  } else {
    al__heap_remove(heap, &timers[i]);
    CHECK(timers[i].index == AL_HEAP_NONE);
    in_heap[i] = false;
  }
}

static void test_heap_against_model(void) {
  al_heap heap = {0};
  size_t live = live_blocks();
  for (int i = 0; i < TIMERS; i++) al_timer_init(&timers[i], NULL);
  for (int round = 0; round < 60000; round++) {
    random_heap_op(&heap, (int)(check_random() % TIMERS));
    if (round % 3 == 0) CHECK(al__heap_top(&heap) == model_top()); /* not each time, so that lagging entries gather */
  }
  for (al_timer *top; (top = al__heap_top(&heap)) != NULL;) {
    CHECK(top == model_top());
    al__heap_remove(&heap, top);
    in_heap[top - timers] = false;
  }
  CHECK(!model_top());
  al__heap_free(&heap);
  CHECK_EQ(live_blocks(), live);
}

static void test_heap_many(void) {
  enum { MANY = 50000 };
  al_heap heap = {0};
  al_timer *many = al__calloc(MANY, sizeof(*many));
  CHECK(many);
  for (int i = 0; i < MANY; i++) {
    al_timer_init(&many[i], NULL);
    set_key(&many[i], check_random() % 100000);
    CHECK_EQ(al__heap_push(&heap, &many[i]), 0);
  }
  for (int i = 0; i < MANY; i += 2) al__heap_remove(&heap, &many[i]);
  size_t grown = heap.capacity;
  const al_timer *last = NULL;
  for (int left = MANY / 2; left > 0; left--) {
    al_timer *top = al__heap_top(&heap);
    CHECK(!last || is_before(last, top));
    last = top;
    al__heap_remove(&heap, top);
  }
  CHECK(!al__heap_top(&heap));
  CHECK(heap.capacity < grown / 4); /* what a burst took goes back */
  al__heap_free(&heap);
  al__free(many);
}

/* ---- buf --------------------------------------------------------------------------------------------------------- */

#define MODEL_SIZE (4u << 20)

static char *model; /* all bytes ever appended, in order */
static size_t model_head, model_tail;
static int released;

static void count_release(void *token) {
  CHECK(token == &released);
  released++;
}

static void append_to_model(size_t len) {
  for (size_t i = 0; i < len; i++) model[model_tail + i] = (char)check_random();
  model_tail += len;
}

static void check_against_model(const al_buf *buf, int max, size_t max_bytes) {
  struct iovec iov[64];
  size_t at = model_head;
  int n = al__buf_iov(buf, iov, max, max_bytes);
  CHECK_EQ(buf->size, model_tail - model_head);
  for (int i = 0; i < n; i++) {
    CHECK(iov[i].iov_len > 0 && !memcmp(iov[i].iov_base, model + at, iov[i].iov_len));
    at += iov[i].iov_len;
  }
  CHECK(n <= max && at - model_head <= max_bytes);
  if (n < max) CHECK_EQ(at - model_head, buf->size < max_bytes ? buf->size : max_bytes);
}

static int random_buf_op(al_buf *buf) {
  size_t len = check_random() % (check_random() % 8 ? 300 : 50000);
  switch (check_random() % 8) {
  case 0:
    if (!len) return 0;
    append_to_model(len);
    CHECK_EQ(al__buf_lend(buf, model + model_tail - len, len, count_release, &released), 0);
    return 1;
  case 1:
  case 2:
    len = check_random() % 4 ? len % (buf->size + 1) : buf->size;
    al__buf_consume(buf, len);
    model_head += len;
    return 0;
  default:
    append_to_model(len);
    CHECK_EQ(al__buf_append(buf, model + model_tail - len, len), 0);
    return 0;
  }
}

static void test_buf_against_model(void) {
  al_buf buf = {0};
  size_t live = live_blocks();
  int lent = 0;
  model = malloc(MODEL_SIZE);
  CHECK(model);
  while (model_tail + 50000 < MODEL_SIZE) {
    lent += random_buf_op(&buf);
    check_against_model(&buf, 1 + (int)(check_random() % 64), 1 + check_random() % 100000);
    if (!buf.size) CHECK_EQ(live_blocks(), live);
  }
  al__buf_clear(&buf);
  CHECK(buf.size == 0 && !buf.head && !buf.tail);
  CHECK_EQ(released, lent);
  CHECK_EQ(live_blocks(), live);
  free(model);
}

static void test_buf_bytes_do_not_move(void) {
  al_buf buf = {0};
  struct iovec before, after;
  CHECK_EQ(al__buf_append(&buf, "abc", 3), 0);
  CHECK_EQ(al__buf_iov(&buf, &before, 1, SIZE_MAX), 1);
  for (int i = 0; i < 10000; i++) CHECK_EQ(al__buf_append(&buf, "0123456789", 10), 0);
  CHECK_EQ(al__buf_iov(&buf, &after, 1, SIZE_MAX), 1);
  CHECK(before.iov_base == after.iov_base && !memcmp(before.iov_base, "abc", 3));
  al__buf_clear(&buf);
}

static void test_buf_without_memory(void) {
  al_buf buf = {0};
  CHECK_EQ(al__buf_append(&buf, "x", 1), 0);
  if (al_mem_fail_after(0)) {
    char *large = calloc(1, 100000);
    CHECK_EQ(al__buf_append(&buf, large, 100000), -ENOMEM);
    CHECK_EQ(al__buf_lend(&buf, large, 100000, count_release, &released), -ENOMEM);
    CHECK_EQ(buf.size, 1);
    al_mem_fail_after(-1);
    free(large);
  }
  al__buf_clear(&buf);
}

/* ---- err and log ------------------------------------------------------------------------------------------------- */

static void test_errors(void) {
  CHECK(!strcmp(al_err_name(-ECONNREFUSED), "ECONNREFUSED"));
  CHECK(!strcmp(al_strerror(-ECONNREFUSED), "Connection refused"));
  CHECK(!strcmp(al_err_name(AL_EAI(EAI_NONAME)), "EAI_NONAME"));
  CHECK(!strcmp(al_strerror(AL_EAI(EAI_NONAME)), gai_strerror(EAI_NONAME)));
  CHECK(!strcmp(al_err_name(AL_ECLOSED), "ECLOSED"));
  CHECK(!strcmp(al_strerror(AL_ECLOSED), "Event loop is closed"));
  CHECK(!strcmp(al_err_name(-4000), "E?") && !strcmp(al_err_name(-123456), "E?") && !strcmp(al_err_name(7), "E?"));
  CHECK(strstr(al_strerror(-4000), "4000") && !strstr(al_strerror(-4000), "-"));
  for (int err = -4095; err < 0; err++) CHECK(al_err_name(err)[0] && al_strerror(err)[0]);
}

static char logged[2000];
static al_log_level logged_level;

static void keep_line(void *ud, al_log_level level, const char *message, const char *category) {
  CHECK(ud == logged);
  logged_level = level;
  snprintf(logged, sizeof(logged), "%s|%s", category ? category : "-", message);
}

static void test_log(void) {
  al_set_log(keep_line, logged);
  al_log(AL_LOG_WARNING, "ResourceWarning", "%s %d", "unclosed", 7);
  CHECK(!strcmp(logged, "ResourceWarning|unclosed 7") && logged_level == AL_LOG_WARNING);
  al_log(AL_LOG_DEBUG, NULL, "%1500d", 1);
  CHECK_EQ(strlen(logged), 1502);
  al_set_log(NULL, NULL);
}

/* ---- addr -------------------------------------------------------------------------------------------------------- */

static void check_ip(const char *host, uint16_t port, const char *shown) {
  char text[AL_ADDR_STRLEN];
  al_addr addr;
  CHECK_EQ(al_addr_ip(&addr, host, port, 0, 0), 0);
  CHECK(!strcmp(al_addr_format(&addr, text, sizeof(text)), shown));
}

static void test_addr_ip(void) {
  al_addr addr, other;
  check_ip("127.0.0.1", 80, "127.0.0.1:80");
  check_ip("::1", 65535, "[::1]:65535");
  check_ip("fe80::1%3", 1, "[fe80::1%3]:1");
  check_ip("fe80::1%lo", 1, "[fe80::1%1]:1");
  static const char *const bad[] = {"",         "localhost",          "1.2.3", "1.2.3.4.5", "::g",
                                    "fe80::1%", "fe80::1%no-such-if", ":::"};
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) CHECK_EQ(al_addr_ip(&addr, bad[i], 1, 0, 0), -EINVAL);
  CHECK_EQ(al_addr_ip(&addr, "::1", 5, 0, 9), 0);
  CHECK_EQ(al_addr_ip(&other, "::1", 5, 0, 0), 0);
  CHECK(al__addr_equal(&addr, &addr) && !al__addr_equal(&addr, &other));
}

static void test_addr_unix(void) {
  char text[AL_ADDR_STRLEN], path[200];
  al_addr addr, other;
  memset(path, 'p', sizeof(path));
  CHECK_EQ(al_addr_unix(&addr, "/tmp/x", 6), 0);
  CHECK(!strcmp(al_addr_format(&addr, text, sizeof(text)), "/tmp/x"));
  CHECK_EQ(al_addr_unix(&other, "\0ab\0c", 5), 0);
  CHECK(!strcmp(al_addr_format(&other, text, sizeof(text)), "@ab@c"));
  CHECK(!al__addr_equal(&addr, &other));
  CHECK_EQ(al_addr_unix(&addr, path, 107), 0);
  CHECK_EQ(strlen(al_addr_format(&addr, text, sizeof(text))), 107);
  CHECK_EQ(al_addr_unix(&addr, path, 108), -ENAMETOOLONG);
  CHECK_EQ(al_addr_unix(&addr, "a\0b", 3), -EINVAL);
  CHECK_EQ(al_addr_unix(&addr, "", 0), -EINVAL);
  CHECK(!strcmp(al_addr_format(&(al_addr){0}, text, sizeof(text)), ""));
  CHECK(strlen(al_addr_format(&other, text, 3)) == 2);
}

/* ---- sock -------------------------------------------------------------------------------------------------------- */

static void check_flags(int fd) {
  CHECK(fd >= 0);
  CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
  CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK);
}

static void test_sock_stream(void) {
  al_addr addr, name, peer;
  char bytes[10];
  struct iovec iov[2] = {{(char *)"hel", 3}, {(char *)"lo", 2}};
  int listener = al__sock_open(AF_INET, SOCK_STREAM, 0), client = al__sock_open(AF_INET, SOCK_STREAM, 0);
  check_flags(listener);
  check_flags(client);
  CHECK_EQ(al_addr_ip(&addr, "127.0.0.1", 0, 0, 0), 0);
  CHECK_EQ(al__sock_bind(listener, &addr), 0);
  CHECK_EQ(al__sock_listen(listener, 5), 0);
  CHECK_EQ(al__sock_accept(listener, NULL), -EAGAIN);
  CHECK_EQ(al__sock_peer(client, &peer), -ENOTCONN);
  CHECK_EQ(al__sock_name(listener, &name), 0);
  int err = al__sock_connect(client, &name);
  CHECK(err == 0 || err == -EINPROGRESS);
  int conn;
  while ((conn = al__sock_accept(listener, &peer)) == -EAGAIN) continue;
  check_flags(conn);
  CHECK_EQ(al__sock_error(client), 0);
  CHECK_EQ(al__sock_name(client, &addr), 0);
  CHECK(al__addr_equal(&addr, &peer));
  CHECK_EQ(al__sock_set_nodelay(conn), 0);
  CHECK_EQ(al__sock_set_keepalive(conn), 0);
  CHECK_EQ(al__sock_recv(conn, bytes, sizeof(bytes)), -EAGAIN);
  CHECK_EQ(al__sock_send(client, iov, 2), 5);
  while (al__sock_recv(conn, bytes, sizeof(bytes)) != 5) continue;
  CHECK(!memcmp(bytes, "hello", 5));
  CHECK_EQ(al__sock_end_writing(client), 0);
  while (al__sock_recv(conn, bytes, sizeof(bytes)) != 0) continue;
  al__fd_close(conn), al__fd_close(client), al__fd_close(listener);
}

static void test_sock_no_sigpipe(void) {
  int fds[2];
  struct iovec iov[2] = {{(char *)"x", 1}, {(char *)"y", 1}};
  CHECK_EQ(al__sock_pair(AF_UNIX, SOCK_STREAM, fds), 0);
  check_flags(fds[0]), check_flags(fds[1]);
  al__fd_close(fds[1]);
  CHECK_EQ(al__sock_send(fds[0], iov, 1), -EPIPE); /* SIGPIPE would end the program */
  CHECK_EQ(al__sock_send(fds[0], iov, 2), -EPIPE);
  al__fd_close(fds[0]);
}

static void test_descriptors(void) {
  int fds[2], event = al__fd_eventfd(), sock = al__sock_open(AF_UNIX, SOCK_DGRAM, 0);
  char byte;
  CHECK_EQ(pipe2(fds, O_NONBLOCK | O_CLOEXEC), 0);
  check_flags(event);
  CHECK_EQ(al__fd_read(fds[0], &byte, 1), -EAGAIN);
  CHECK_EQ(al__fd_write(fds[1], &(struct iovec){(char *)"z", 1}, 1), 1);
  CHECK_EQ(al__fd_read(fds[0], &byte, 1), 1);
  CHECK_EQ(al__fd_kind(fds[0]), AL_FD_PIPE);
  CHECK_EQ(al__fd_kind(event), AL_FD_OTHER);
  CHECK_EQ(al__fd_kind(sock), AL_FD_SOCKET);
  CHECK_EQ(fcntl(fds[0], F_SETFL, 0), 0);
  CHECK_EQ(al__fd_set_nonblocking(fds[0]), 0);
  check_flags(fds[0]);
  CHECK_EQ(al__fd_set_nonblocking(-1), -EBADF);
  al__fd_close(fds[0]), al__fd_close(fds[1]), al__fd_close(event), al__fd_close(sock), al__fd_close(-1);
  CHECK(!al__fd_is_open(fds[0]) && !al__fd_is_open(-1));
  CHECK_EQ(al__fd_kind(fds[0]), -EBADF);
}

int main(void) {
  RUN(test_mem_counts);
  RUN(test_mem_fails_on_demand);
  RUN(test_mem_allocator);
  RUN(test_array_grow);
  RUN(test_heap_against_model);
  RUN(test_heap_many);
  RUN(test_buf_against_model);
  RUN(test_buf_bytes_do_not_move);
  RUN(test_buf_without_memory);
  RUN(test_errors);
  RUN(test_log);
  RUN(test_addr_ip);
  RUN(test_addr_unix);
  RUN(test_sock_stream);
  RUN(test_sock_no_sigpipe);
  RUN(test_descriptors);
  return check_done();
}

/* http_epoll.c - the baseline of HTTP: HTTP/1.1 with keep-alive and pipelining over a plain epoll server, the same
 * routes and the same bytes as scripts/examples/http_server.lua. What came in one recv is answered in one send.
 *
 *   http_epoll [tcp]       prints its address
 *
 * SPDX-License-Identifier: MIT */
#include "bench.h"
#include "epoll_server.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MAX_HEAD 65536
#define OUT_SIZE (1024 * 1024)

struct request {
  const char *path;
  size_t path_len, body_len;
  bool keep_alive;
};

static char out[OUT_SIZE];

/* The value of a header line if it has this name (given in lower case, with the colon), else NULL. */
static const char *header_value(const char *line, size_t len, const char *name) {
  size_t n = strlen(name);
  if (len < n || strncasecmp(line, name, n) != 0) return NULL;
  for (line += n; *line == ' ' || *line == '\t';) line++;
  return line;
}

/* Reads a head of len bytes, the empty line included; false if it is none. */
static bool parse_head(const char *head, size_t len, struct request *request) {
  const char *end = memmem(head, len, "\r\n", 2), *space = memchr(head, ' ', (size_t)(end - head));
  if (!space) return false;
  request->path = space + 1;
  space = memchr(request->path, ' ', (size_t)(end - request->path));
  if (!space || end - space != 9 || memcmp(space, " HTTP/1.", 8) != 0) return false;
  request->path_len = (size_t)(space - request->path);
  request->keep_alive = space[8] == '1';
  request->body_len = 0;
  for (const char *line = end + 2, *value; line < head + len - 2; line = end + 2) {
    end = memmem(line, (size_t)(head + len - line), "\r\n", 2);
    size_t line_len = (size_t)(end - line);
    if ((value = header_value(line, line_len, "connection:"))) {
      if (strncasecmp(value, "close", 5) == 0)
        request->keep_alive = false;
      else if (strncasecmp(value, "keep-alive", 10) == 0)
        request->keep_alive = true;
    } else if ((value = header_value(line, line_len, "content-length:"))) {
      request->body_len = strtoul(value, NULL, 10);
    }
  }
  return true;
}

#define ANSWER(status, connection, body, length) \
  "HTTP/1.1 " status "\r\nContent-Type: text/plain\r\nContent-Length: " length "\r\n" connection "\r\n" body

static size_t respond(char *to, const struct request *request) {
  static const char *const answers[2][2] = {
      {ANSWER("404 Not Found", "Connection: close\r\n", "Not Found\n", "10"),
       ANSWER("404 Not Found", "", "Not Found\n", "10")},
      {ANSWER("200 OK", "Connection: close\r\n", "Hello, World!\n", "14"),
       ANSWER("200 OK", "", "Hello, World!\n", "14")},
  };
  bool found = request->path_len == 1 && *request->path == '/';
  const char *answer = answers[found][request->keep_alive];
  size_t len = strlen(answer);
  memcpy(to, answer, len);
  return len;
}

/* Answers all whole requests of data. Sets *used to the bytes they took; false: what came is no HTTP. */
static bool answer(struct conn *conn, const char *data, size_t len, size_t *used, size_t *out_len) {
  const char *at = data, *end = data + len, *head_end;
  while (!conn->close_when_sent && OUT_SIZE - *out_len > 512 &&
         (head_end = memmem(at, (size_t)(end - at), "\r\n\r\n", 4))) {
    struct request request;
    head_end += 4;
    if (!parse_head(at, (size_t)(head_end - at), &request)) return false;
    if ((size_t)(end - head_end) < request.body_len) break;
    at = head_end + request.body_len;
    *out_len += respond(out + *out_len, &request);
    conn->close_when_sent = !request.keep_alive;
  }
  *used = (size_t)(at - data);
  return (size_t)(end - at) <= MAX_HEAD;
}

static void keep(struct conn *conn, const char *data, size_t len) {
  char *kept = NULL;
  if (len) {
    kept = bench_alloc(len);
    memcpy(kept, data, len);
  }
  free(conn->kept);
  conn->kept = kept;
  conn->kept_len = len;
}

static bool http_data(struct conn *conn, const char *data, size_t len) {
  size_t used = 0, out_len = 0;
  if (conn->kept) {
    char *joined = realloc(conn->kept, conn->kept_len + len);
    if (!joined) bench_die("realloc");
    memcpy(joined + conn->kept_len, data, len);
    conn->kept = joined;
    data = joined;
    len += conn->kept_len;
  }
  if (!answer(conn, data, len, &used, &out_len)) return false;
  if (used < len || conn->kept) keep(conn, data + used, len - used);
  return out_len == 0 || conn_send(conn, out, out_len);
}

int main(int argc, char **argv) { epoll_serve(argc > 1 ? argv[1] : "tcp", http_data); }

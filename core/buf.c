/* buf.c - see buf.h.
 *
 * SPDX-License-Identifier: MIT */
#include "buf.h"

#include "base.h"
#include "mem.h"

#include <errno.h>
#include <string.h>

/* A small write that has to wait seldom waits alone: room for its followers. The next blocks are larger, for then the
 * peer is slow. With the chunk's head both are sizes that malloc serves without waste. */
#define FIRST_BLOCK (4096 - sizeof(al_buf_chunk) - 16)
#define NEXT_BLOCK (32768 - sizeof(al_buf_chunk) - 16)

struct al_buf_chunk {
  al_buf_chunk *next;
  const char *data;           /* first unsent byte: of memory[], or of lent bytes */
  size_t len;                 /* unsent bytes */
  size_t room;                /* free bytes after them; 0 for lent bytes */
  al_buf_release_fn *release; /* lent bytes: called with token */
  void *token;
  char memory[]; /* owned bytes */
};

static void link_chunk(al_buf *buf, al_buf_chunk *chunk) {
  chunk->next = NULL;
  if (buf->tail)
    buf->tail->next = chunk;
  else
    buf->head = chunk;
  buf->tail = chunk;
  buf->size += chunk->len;
}

static al_buf_chunk *new_block(const al_buf *buf, const char *data, size_t len) {
  size_t size = AL_MAX(len, buf->tail ? NEXT_BLOCK : FIRST_BLOCK);
  if (size > SIZE_MAX - sizeof(al_buf_chunk)) return NULL;
  al_buf_chunk *chunk = al__malloc(sizeof(*chunk) + size);
  if (!chunk) return NULL;
  *chunk = (al_buf_chunk){.data = chunk->memory, .len = len, .room = size - len};
  memcpy(chunk->memory, data, len);
  return chunk;
}

static size_t fill_tail(al_buf *buf, const char *data, size_t len) {
  al_buf_chunk *tail = buf->tail;
  if (!tail || !tail->room) return 0;
  size_t n = AL_MIN(len, tail->room);
  memcpy((char *)tail->data + tail->len, data, n);
  tail->len += n;
  tail->room -= n;
  buf->size += n;
  return n;
}

int al__buf_append(al_buf *buf, const char *data, size_t len) {
  size_t spare = buf->tail ? buf->tail->room : 0;
  al_buf_chunk *block = NULL;
  if (!len) return 0;
  if (len > spare) { /* made first, so that a failure appends nothing */
    block = new_block(buf, data + spare, len - spare);
    if (!block) return -ENOMEM;
  }
  fill_tail(buf, data, len);
  if (block) link_chunk(buf, block);
  return 0;
}

int al__buf_lend(al_buf *buf, const char *data, size_t len, al_buf_release_fn *release, void *token) {
  al_assert(len > 0);
  al_buf_chunk *chunk = al__malloc(sizeof(*chunk));
  if (!chunk) return -ENOMEM;
  *chunk = (al_buf_chunk){.data = data, .len = len, .release = release, .token = token};
  link_chunk(buf, chunk);
  return 0;
}

int al__buf_iov(const al_buf *buf, struct iovec *iov, int max, size_t max_bytes) {
  int n = 0;
  for (const al_buf_chunk *chunk = buf->head; chunk && n < max && max_bytes > 0; chunk = chunk->next) {
    size_t len = AL_MIN(chunk->len, max_bytes);
    iov[n++] = (struct iovec){.iov_base = (char *)chunk->data, .iov_len = len};
    max_bytes -= len;
  }
  return n;
}

static void drop_head(al_buf *buf) {
  al_buf_chunk *chunk = buf->head;
  buf->head = chunk->next;
  if (!buf->head) buf->tail = NULL;
  if (chunk->release) chunk->release(chunk->token);
  al__free(chunk);
}

void al__buf_consume(al_buf *buf, size_t n) {
  al_assert(n <= buf->size);
  buf->size -= n;
  while (n > 0) {
    al_buf_chunk *head = buf->head;
    if (n < head->len) {
      head->data += n;
      head->len -= n;
      return;
    }
    n -= head->len;
    drop_head(buf);
  }
}

void al__buf_clear(al_buf *buf) { al__buf_consume(buf, buf->size); }

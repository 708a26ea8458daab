/* buf.h - the bytes that a stream has yet to send: a chain of owned blocks, which small appends fill up, and of bytes
 * lent by the caller. Bytes in the chain never move, so iovecs made of it stay right until the bytes are consumed,
 * whatever is appended meanwhile. Knows nothing of descriptors.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_BUF_H
#define AL_BUF_H

#include "aloop.h"

#include <sys/uio.h>

typedef struct al_buf_chunk al_buf_chunk;

typedef struct al_buf { /* all zero: empty. No memory is held while it is empty. */
  al_buf_chunk *head, *tail;
  size_t size; /* bytes in it */
} al_buf;

typedef void al_buf_release_fn(void *token);

int al__buf_append(al_buf *buf, const char *data, size_t len); /* a copy. 0 or -ENOMEM (nothing appended) */
/* Appends data without a copy; release(token) is called once the bytes are consumed or cleared, from inside consume or
 * clear; it must not touch the buffer. -ENOMEM: nothing appended, release not called. len > 0. */
int al__buf_lend(al_buf *buf, const char *data, size_t len, al_buf_release_fn *release, void *token);
/* Fills at most max iovecs from the front, with at most max_bytes in all; returns how many. */
int al__buf_iov(const al_buf *buf, struct iovec *iov, int max, size_t max_bytes);
void al__buf_consume(al_buf *buf, size_t n); /* n <= size */
void al__buf_clear(al_buf *buf);             /* all of it; the buffer may be used again */

#endif

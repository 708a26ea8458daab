/* addr.h - socket addresses inside core; the public part stands in aloop.h. Used by all that
 * name an endpoint. Knows no descriptors.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_ADDR_H
#define AL_ADDR_H

#include "aloop.h"

/* len beyond the storage is cut (the kernel reports the length it would have needed). */
void al__addr_set(al_addr *addr, const struct sockaddr *sa, socklen_t len);
bool al__addr_equal(const al_addr *a, const al_addr *b);
const char *al__addr_path(const al_addr *addr); /* of a Unix socket in the file system; else NULL */

static inline int al__addr_family(const al_addr *addr) { return addr->len ? addr->ss.ss_family : AF_UNSPEC; }
static inline const struct sockaddr *al__addr_sa(const al_addr *addr) { return (const struct sockaddr *)&addr->ss; }

#endif

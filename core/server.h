/* server.h - what net.c asks of a server beyond aloop.h.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_SERVER_H
#define AL_SERVER_H

#include "aloop.h"

/* al_server_add of several sockets: all or, on failure, none. */
int al__server_add_all(al_server *server, const int *fds, size_t n, int backlog);

#endif

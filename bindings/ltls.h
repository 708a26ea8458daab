/* ltls.h - TLS transports for scripts: the option `ssl` and its kin of every function that makes endpoints, and
 * loop:start_tls. The objects around it are in lssl.h.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LTLS_H
#define AL_LTLS_H

#include "ltransport.h"

/* User values of a TLS transport. */
enum {
  AL_TLS_UV_CONTEXT = AL_TRANSPORT_UV_OWN, /* its SSLContext */
  AL_TLS_UV_OBJECT,                        /* its SSLObject, once somebody asked */
  AL_TLS_UV_HOSTNAME,                      /* a client's: server_hostname */
  AL_TLS_UV_BELOW,                         /* of start_tls: the transport below */
  AL_TLS_UV_END
};

#endif

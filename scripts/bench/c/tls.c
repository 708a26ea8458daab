/* tls.c - see tls.h.
 *
 * SPDX-License-Identifier: MIT */
#include "tls.h"

#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>

void tls_die(const char *what) {
  unsigned long code = ERR_get_error();
  const char *text = code ? ERR_reason_error_string(code) : NULL;
  fprintf(stderr, "%s: %s\n", what, text ? text : "failed");
  exit(1);
}

SSL_CTX *tls_context(const SSL_METHOD *method) {
  SSL_CTX *ctx = SSL_CTX_new(method);
  if (!ctx) tls_die("SSL_CTX_new");
  if (SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) != 1 ||
      SSL_CTX_set_ciphersuites(ctx, "TLS_AES_256_GCM_SHA384") != 1 || SSL_CTX_set1_groups_list(ctx, "X25519") != 1)
    tls_die("context");
  SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  return ctx;
}

/* tls.h - what the C programs of the TLS benchmarks share: contexts, so that all speak the same TLS. Used by echo_tls.c
 * and loadtls.c.
 *
 * SPDX-License-Identifier: MIT */
#ifndef BENCH_TLS_H
#define BENCH_TLS_H

#include <openssl/ssl.h>

/* Says what failed with the text of OpenSSL's queue and ends the program. */
void tls_die(const char *what) __attribute__((noreturn));

/* A context of TLS 1.3 alone, one cipher (TLS_AES_256_GCM_SHA384, OpenSSL's own first choice) and one group (X25519),
 * whose connections give their buffers back while they are idle. */
SSL_CTX *tls_context(const SSL_METHOD *method);

#endif

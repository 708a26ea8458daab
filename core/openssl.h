/* openssl.h - OpenSSL, for all that calls it: its headers, and its functions by their own names. They aren't linked but
 * looked up when TLS is first used (al_tls_load), for loading OpenSSL takes longer than all else that the interpreter
 * does before its script begins. Calls go through a table, which the names stand for; so this is the only way in which
 * its headers may be included. Before al_tls_load has succeeded the table is empty: whatever takes an object of OpenSSL
 * comes after that, and al_tls_ctx_new is what makes the first one.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_OPENSSL_H
#define AL_OPENSSL_H

#include <openssl/comp.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

struct al_openssl {
#define X(name) __typeof__(name) *name;
#include "openssl_names.h"
#undef X
};

extern struct al_openssl al_openssl;

/* #define SSL_new al_openssl.SSL_new, and so on: made from openssl_names.h by the Makefile. */
#include "openssl_calls.h"

#endif

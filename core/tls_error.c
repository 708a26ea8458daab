/* tls_error.c - OpenSSL's queue of errors as one al_tls_error, in the words of Python's ssl module. For tls_ctx.c and
 * tls.c; knows neither.
 *
 * SPDX-License-Identifier: MIT */
#include "base.h"
#include "tls_ctx.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

static const struct {
  int number;
  const char *name;
} libraries[] = {
    {ERR_LIB_SSL, "SSL"},
    {ERR_LIB_X509, "X509"},
    {ERR_LIB_X509V3, "X509V3"},
    {ERR_LIB_PEM, "PEM"},
    {ERR_LIB_ASN1, "ASN1"},
    {ERR_LIB_EVP, "EVP"},
    {ERR_LIB_RSA, "RSA"},
    {ERR_LIB_EC, "EC"},
    {ERR_LIB_DH, "DH"},
    {ERR_LIB_BIO, "BIO"},
    {ERR_LIB_BN, "BN"},
    {ERR_LIB_CRYPTO, "CRYPTO"},
    {ERR_LIB_CONF, "CONF"},
    {ERR_LIB_PKCS12, "PKCS12"},
    {ERR_LIB_PROV, "PROV"},
    {ERR_LIB_RAND, "RAND"},
    {ERR_LIB_OSSL_DECODER, "OSSL_DECODER"},
    {ERR_LIB_OSSL_STORE, "OSSL_STORE"},
};

static const char *library_name(unsigned long code) {
  for (size_t i = 0; i < AL_COUNT(libraries); i++)
    if (libraries[i].number == ERR_GET_LIB(code)) return libraries[i].name;
  return NULL;
}

/* "certificate verify failed" → CERTIFICATE_VERIFY_FAILED: so OpenSSL's own names of its reasons are made. */
static void set_reason(al_tls_error *why, const char *text) {
  size_t n = 0;
  for (; *text && n + 1 < sizeof why->reason; text++)
    why->reason[n++] = isalnum((unsigned char)*text) ? (char)toupper((unsigned char)*text) : '_';
  why->reason[n] = '\0';
}

/* What the certificate was to be made out to. */
static void describe_mismatch(al_tls_error *why, const SSL *ssl) {
  X509_VERIFY_PARAM *param = SSL_get0_param((SSL *)ssl);
  bool is_ip = why->verify_code == X509_V_ERR_IP_ADDRESS_MISMATCH;
  char *ip = is_ip ? X509_VERIFY_PARAM_get1_ip_asc(param) : NULL;
  const char *name = is_ip ? ip : X509_VERIFY_PARAM_get0_host(param, 0);
  snprintf(why->verify_message, sizeof why->verify_message, "%s mismatch, certificate is not valid for '%s'.",
           is_ip ? "IP address" : "Hostname", name ? name : "");
  OPENSSL_free(ip);
}

static void set_verify_result(al_tls_error *why, const SSL *ssl) {
  why->error = AL_ETLSVERIFY;
  why->verify_code = SSL_get_verify_result(ssl);
  if (why->verify_code == X509_V_ERR_HOSTNAME_MISMATCH || why->verify_code == X509_V_ERR_IP_ADDRESS_MISMATCH)
    describe_mismatch(why, ssl);
  else
    snprintf(why->verify_message, sizeof why->verify_message, "%s", X509_verify_cert_error_string(why->verify_code));
}

/* Puts the message together; detail (may be NULL) is what lies behind it. */
static void set_message(al_tls_error *why, const char *text, const char *detail) {
  char head[96] = "";
  if (why->library) snprintf(head, sizeof head, "[%s%s%s] ", why->library, *why->reason ? ": " : "", why->reason);
  snprintf(why->message, sizeof why->message, "%s%s%s%s", head, text, detail ? ": " : "", detail ? detail : "");
}

/* last: the outermost failure, first: what it began with. */
static void describe(al_tls_error *why, unsigned long last, unsigned long first, const SSL *ssl) {
  const char *text = ERR_reason_error_string(last), *detail = NULL;
  bool common = (ERR_GET_REASON(last) & ERR_RFLAG_COMMON) != 0; /* "PEM lib": says only who failed below */
  why->library = library_name(last);
  if (!text) text = "unknown error";
  if (!common) set_reason(why, text);
  if (common && first != last) detail = ERR_reason_error_string(first);
  if (ERR_GET_LIB(last) == ERR_LIB_SSL && ERR_GET_REASON(last) == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
    why->error = AL_ETLSEOF;
    text = "EOF occurred in violation of protocol";
  } else if (ssl && ERR_GET_LIB(last) == ERR_LIB_SSL && ERR_GET_REASON(last) == SSL_R_CERTIFICATE_VERIFY_FAILED) {
    set_verify_result(why, ssl);
    detail = why->verify_message;
  }
  set_message(why, text, detail);
}

int al__tls_take_error(al_tls_error *why, const SSL *ssl) {
  al_tls_error unwanted;
  if (!why) why = &unwanted;
  *why = (al_tls_error){.error = AL_ETLS};
  unsigned long last = ERR_peek_last_error(), first = 0;
  int system = 0;
  bool no_memory = ERR_GET_REASON(last) == ERR_R_MALLOC_FAILURE;
  for (unsigned long code; (code = ERR_get_error()) != 0;) {
    if (!first) first = code;
    if (ERR_SYSTEM_ERROR(code) && !system) system = ERR_GET_REASON(code);
  }
  if (no_memory || system) {
    why->error = no_memory ? -ENOMEM : -system;
    snprintf(why->message, sizeof why->message, "%s", al_strerror(why->error));
  } else if (last) {
    describe(why, last, first, ssl);
  } else {
    set_message(why, "A failure in the SSL library occurred", NULL);
  }
  return why->error;
}

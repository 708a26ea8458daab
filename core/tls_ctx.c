/* tls_ctx.c - al_tls_ctx: OpenSSL's SSL_CTX with the defaults of Python's ssl module, and with what it must keep for
 * its connections. tls.c makes these from it, programs and bindings set it up; it knows neither, nor loops.
 *
 * An al_tls_ctx hangs on its SSL_CTX and goes with it: their references are the same, so a connection keeps both.
 *
 * SPDX-License-Identifier: MIT */
#include "tls_ctx.h"

#include "base.h"
#include "mem.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct al_tls_ctx {
  SSL_CTX *native;
  al_tls_kind kind;
  bool check_hostname;
  void *data;
  unsigned char *alpn;
  size_t alpn_len;
  al_tls_servername_fn *servername;
  int keylog_fd; /* -1: none */
};

#define CIPHERS "@SECLEVEL=2:ECDH+AESGCM:ECDH+CHACHA20:ECDH+AES:DHE+AES:!aNULL:!eNULL:!aDSS:!SHA1:!AESCCM"

/* ---- life -------------------------------------------------------------------------------------------------------- */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static _Atomic int ctx_index = -1; /* where an SSL_CTX has its al_tls_ctx; -1: none has one */

/* The last reference to the SSL_CTX is gone. */
static void free_ctx(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int index, long argl, void *argp) {
  al_tls_ctx *ctx = ptr;
  (void)parent, (void)ad, (void)index, (void)argl, (void)argp;
  if (!ctx) return;
  if (ctx->keylog_fd >= 0) close(ctx->keylog_fd);
  al__free(ctx->alpn);
  al__free(ctx);
}

static void get_index(void) { ctx_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, free_ctx); }

static const SSL_METHOD *method_of(al_tls_kind kind) {
  return kind == AL_TLS_CLIENT ? TLS_client_method() : kind == AL_TLS_SERVER ? TLS_server_method() : TLS_method();
}

/* Names in the subject are no names of hosts, and a wildcard is a whole label. */
#define HOST_FLAGS (X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT)

#define REQUIRED (SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT)

static bool set_defaults(al_tls_ctx *ctx) {
  static const unsigned char session_id[] = "aloop"; /* a server that asks for certificates can't resume without one */
  SSL_CTX *native = ctx->native;
  SSL_CTX_set_options(native, SSL_OP_ALL | SSL_OP_NO_SSLv3 | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE |
                                  SSL_OP_NO_RENEGOTIATION);
  SSL_CTX_set_mode(native, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_AUTO_RETRY |
                               SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  X509_VERIFY_PARAM *param = SSL_CTX_get0_param(native);
  X509_VERIFY_PARAM_set_hostflags(param, HOST_FLAGS);
  ctx->check_hostname = ctx->kind == AL_TLS_CLIENT;
  SSL_CTX_set_verify(native, ctx->check_hostname ? REQUIRED : SSL_VERIFY_NONE, NULL);
  return X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_TRUSTED_FIRST) &&
         SSL_CTX_set_min_proto_version(native, TLS1_2_VERSION) && SSL_CTX_set_cipher_list(native, CIPHERS) &&
         SSL_CTX_set_session_id_context(native, session_id, sizeof session_id - 1);
}

int al_tls_ctx_new(al_tls_kind kind, al_tls_ctx **out, al_tls_error *why) {
  int err = al_tls_load(why);
  if (err) return err;
  ERR_clear_error();
  pthread_once(&once, get_index);
  SSL_CTX *native = SSL_CTX_new(method_of(kind));
  if (!native) return al__tls_take_error(why, NULL);
  al_tls_ctx *ctx = al__calloc(1, sizeof *ctx);
  if (!ctx) goto fail;
  *ctx = (al_tls_ctx){.native = native, .kind = kind, .keylog_fd = -1};
  if (!SSL_CTX_set_ex_data(native, ctx_index, ctx)) {
    al__free(ctx);
    goto fail;
  }
  if (!set_defaults(ctx)) goto fail;
  *out = ctx;
  return 0;
fail:
  if (!ctx) ERR_raise(ERR_LIB_SSL, ERR_R_MALLOC_FAILURE);
  SSL_CTX_free(native);
  return al__tls_take_error(why, NULL);
}

void al_tls_ctx_hold(al_tls_ctx *ctx) { SSL_CTX_up_ref(ctx->native); }
void al_tls_ctx_release(al_tls_ctx *ctx) { SSL_CTX_free(ctx->native); }
al_tls_kind al_tls_ctx_kind(const al_tls_ctx *ctx) { return ctx->kind; }
SSL_CTX *al_tls_ctx_native(const al_tls_ctx *ctx) { return ctx->native; }
void *al_tls_ctx_data(const al_tls_ctx *ctx) { return ctx->data; }
void al_tls_ctx_set_data(al_tls_ctx *ctx, void *data) { ctx->data = data; }

al_tls_ctx *al_tls_ctx_of(const SSL_CTX *native) {
  return ctx_index < 0 ? NULL : SSL_CTX_get_ex_data(native, ctx_index);
}

/* ---- whom to believe --------------------------------------------------------------------------------------------- */

bool al_tls_ctx_check_hostname(const al_tls_ctx *ctx) { return ctx->check_hostname; }

void al_tls_ctx_set_check_hostname(al_tls_ctx *ctx, bool check) {
  ctx->check_hostname = check;
  if (check && SSL_CTX_get_verify_mode(ctx->native) == SSL_VERIFY_NONE) SSL_CTX_set_verify(ctx->native, REQUIRED, NULL);
}

int al_tls_ctx_set_verify(al_tls_ctx *ctx, int mode) {
  if (mode == SSL_VERIFY_NONE && ctx->check_hostname) return -EINVAL;
  SSL_CTX_set_verify(ctx->native, mode, NULL);
  return 0;
}

bool al_tls_ctx_check_common_name(const al_tls_ctx *ctx) {
  return !(X509_VERIFY_PARAM_get_hostflags(SSL_CTX_get0_param(ctx->native)) & X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
}

void al_tls_ctx_set_check_common_name(al_tls_ctx *ctx, bool check) {
  unsigned flags = HOST_FLAGS & ~(check ? (unsigned)X509_CHECK_FLAG_NEVER_CHECK_SUBJECT : 0u);
  X509_VERIFY_PARAM_set_hostflags(SSL_CTX_get0_param(ctx->native), flags);
}

int al__tls_set_host(SSL *ssl, const al_tls_ctx *ctx, const char *host) {
  if (!host) return ctx->check_hostname ? -EINVAL : 0;
  size_t len = strlen(host);
  if (len == 0) return 0;
  if (*host == '.') return -EINVAL;
  ERR_clear_error();
  ASN1_OCTET_STRING *ip = a2i_IPADDRESS(host);
  ERR_clear_error();
  X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
  X509_VERIFY_PARAM_set_hostflags(param, X509_VERIFY_PARAM_get_hostflags(SSL_CTX_get0_param(ctx->native)));
  bool ok = ip || SSL_set_tlsext_host_name(ssl, host); /* an address is no server name (RFC 6066) */
  if (ok && ctx->check_hostname)
    ok = ip ? X509_VERIFY_PARAM_set1_ip(param, ASN1_STRING_get0_data(ip), (size_t)ASN1_STRING_length(ip))
            : X509_VERIFY_PARAM_set1_host(param, host, len);
  ASN1_OCTET_STRING_free(ip);
  ERR_clear_error();
  return ok ? 0 : len > TLSEXT_MAXLEN_host_name ? -EINVAL : -ENOMEM;
}

/* ---- what is read from files ------------------------------------------------------------------------------------- */

typedef struct password_call {
  al_tls_password_fn *password; /* or NULL */
  void *ud;
  bool missed; /* it would have been needed */
} password_call;

/* Without this OpenSSL would ask at the terminal, and the loop stand still. */
static int call_password(char *buf, int size, int writing, void *ud) {
  password_call *call = ud;
  (void)writing;
  if (call && call->password) return call->password(call->ud, buf, size);
  if (call) call->missed = true;
  return -1;
}

/* Fills *why, and says what OpenSSL does not. */
static int load_failed(al_tls_error *why, const password_call *call) {
  int err = al__tls_take_error(why, NULL);
  if (why && call->missed)
    snprintf(why->message, sizeof why->message, "[SSL] the key is encrypted, and no password was given");
  return err;
}

int al_tls_ctx_load_chain(al_tls_ctx *ctx, const char *certfile, const char *keyfile, al_tls_password_fn *password,
                          void *ud, al_tls_error *why) {
  password_call call = {password, ud, false};
  SSL_CTX *native = ctx->native;
  ERR_clear_error();
  SSL_CTX_set_default_passwd_cb(native, call_password);
  SSL_CTX_set_default_passwd_cb_userdata(native, &call);
  bool ok = SSL_CTX_use_certificate_chain_file(native, certfile) == 1 &&
            SSL_CTX_use_PrivateKey_file(native, keyfile ? keyfile : certfile, SSL_FILETYPE_PEM) == 1 &&
            SSL_CTX_check_private_key(native) == 1;
  SSL_CTX_set_default_passwd_cb_userdata(native, NULL);
  return ok ? 0 : load_failed(why, &call);
}

int al_tls_ctx_load_ca(al_tls_ctx *ctx, const char *cafile, const char *capath, al_tls_error *why) {
  ERR_clear_error();
  return SSL_CTX_load_verify_locations(ctx->native, cafile, capath) == 1 ? 0 : al__tls_take_error(why, NULL);
}

int al_tls_ctx_load_defaults(al_tls_ctx *ctx, al_tls_error *why) {
  ERR_clear_error();
  return SSL_CTX_set_default_verify_paths(ctx->native) == 1 ? 0 : al__tls_take_error(why, NULL);
}

/* No certificate in the data, in Python's words. */
static int no_certificate(al_tls_error *why, const char *what) {
  ERR_clear_error();
  if (!why) return AL_ETLS;
  *why = (al_tls_error){.error = AL_ETLS};
  snprintf(why->message, sizeof why->message, "%s: cadata does not contain a certificate", what);
  return AL_ETLS;
}

static int load_der(X509_STORE *store, const unsigned char *at, size_t len, al_tls_error *why) {
  const unsigned char *end = at + len;
  for (size_t n = 0; at < end; n++) {
    X509 *cert = d2i_X509(NULL, &at, (long)(end - at));
    if (!cert && n == 0) return no_certificate(why, "not enough data");
    bool ok = cert && X509_STORE_add_cert(store, cert); /* one that is there already is no error */
    X509_free(cert);
    if (!ok) return al__tls_take_error(why, NULL);
  }
  return 0;
}

/* Adds the certificate or the list of revoked ones; what else may stand in a PEM file is left out. */
static bool add_info(X509_STORE *store, const X509_INFO *info, size_t *n) {
  if (!info->x509 && !info->crl) return true;
  *n += 1;
  return (!info->x509 || X509_STORE_add_cert(store, info->x509)) &&
         (!info->crl || X509_STORE_add_crl(store, info->crl));
}

static int load_pem(X509_STORE *store, const void *data, size_t len, al_tls_error *why) {
  BIO *bio = BIO_new_mem_buf(data, (int)len);
  STACK_OF(X509_INFO) *infos = bio ? PEM_X509_INFO_read_bio(bio, NULL, call_password, NULL) : NULL;
  size_t n = 0;
  bool ok = infos != NULL;
  for (int i = 0; ok && i < sk_X509_INFO_num(infos); i++) ok = add_info(store, sk_X509_INFO_value(infos, i), &n);
  sk_X509_INFO_pop_free(infos, X509_INFO_free);
  BIO_free(bio);
  if (!ok) return al__tls_take_error(why, NULL);
  return n > 0 ? 0 : no_certificate(why, "no start line");
}

int al_tls_ctx_load_ca_data(al_tls_ctx *ctx, const void *data, size_t len, unsigned flags, al_tls_error *why) {
  X509_STORE *store = SSL_CTX_get_cert_store(ctx->native);
  ERR_clear_error();
  if (len == 0 || len > INT32_MAX) return no_certificate(why, "not enough data");
  return flags & AL_TLS_CA_DER ? load_der(store, data, len, why) : load_pem(store, data, len, why);
}

/* ---- what is offered --------------------------------------------------------------------------------------------- */

int al_tls_ctx_set_ciphers(al_tls_ctx *ctx, const char *ciphers, al_tls_error *why) {
  ERR_clear_error();
  if (SSL_CTX_set_cipher_list(ctx->native, ciphers) == 1) return 0;
  int err = al__tls_take_error(why, NULL);
  if (why && err == AL_ETLS) snprintf(why->message, sizeof why->message, "No cipher can be selected.");
  return err;
}

static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *offered,
                           unsigned offered_len, void *arg) {
  const al_tls_ctx *ctx = arg;
  (void)ssl;
  int found =
      SSL_select_next_proto((unsigned char **)out, out_len, ctx->alpn, (unsigned)ctx->alpn_len, offered, offered_len);
  return found == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}

static bool is_list(const unsigned char *protocols, size_t len) {
  size_t at = 0;
  while (at < len && protocols[at] > 0) at += 1u + protocols[at];
  return at == len && len <= UINT16_MAX;
}

int al_tls_ctx_set_alpn(al_tls_ctx *ctx, const unsigned char *protocols, size_t len) {
  if (!is_list(protocols, len)) return -EINVAL;
  unsigned char *copy = len ? al__malloc(len) : NULL;
  if (len && !copy) return -ENOMEM;
  if (SSL_CTX_set_alpn_protos(ctx->native, protocols, (unsigned)len) != 0) { /* 0: it worked */
    al__free(copy);
    return -ENOMEM;
  }
  if (len) memcpy(copy, protocols, len);
  al__free(ctx->alpn);
  ctx->alpn = copy;
  ctx->alpn_len = len;
  SSL_CTX_set_alpn_select_cb(ctx->native, len ? choose_protocol : NULL, ctx);
  return 0;
}

/* ---- secrets for who debugs -------------------------------------------------------------------------------------- */

/* One write a line: those of several processes don't mix. What can't be written is lost. */
static void write_secret(const SSL *ssl, const char *line) {
  const al_tls_ctx *ctx = al_tls_ctx_of(SSL_get_SSL_CTX(ssl));
  char text[1024];
  int n = snprintf(text, sizeof text, "%s\n", line);
  if (ctx && ctx->keylog_fd >= 0 && n > 0 && (size_t)n < sizeof text && write(ctx->keylog_fd, text, (size_t)n) < 0)
    al_log(AL_LOG_WARNING, NULL, "can't write to keylog_filename: %s", al_strerror(-errno));
}

int al_tls_ctx_set_keylog(al_tls_ctx *ctx, const char *path) {
  int fd = path ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
  if (path && fd < 0) return -errno;
  if (ctx->keylog_fd >= 0) close(ctx->keylog_fd);
  ctx->keylog_fd = fd;
  SSL_CTX_set_keylog_callback(ctx->native, path ? write_secret : NULL);
  return 0;
}

/* ---- servers of several names ------------------------------------------------------------------------------------ */

static int on_servername(SSL *ssl, int *alert, void *arg) {
  al_tls_ctx *ctx = arg;
  if (!ctx->servername) return SSL_TLSEXT_ERR_NOACK;
  int refused = ctx->servername(ctx, SSL_get_app_data(ssl), ssl, SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name));
  if (!refused) return SSL_TLSEXT_ERR_OK;
  *alert = refused;
  return SSL_TLSEXT_ERR_ALERT_FATAL;
}

void al_tls_ctx_set_servername(al_tls_ctx *ctx, al_tls_servername_fn *servername) {
  ctx->servername = servername;
  SSL_CTX_set_tlsext_servername_callback(ctx->native, on_servername);
  SSL_CTX_set_tlsext_servername_arg(ctx->native, ctx);
}

/* OpenSSL changes the certificate alone; a name for which clients need one shall not be had without. */
int al_tls_choose_ctx(SSL *ssl, al_tls_ctx *ctx) {
  ERR_clear_error();
  if (!SSL_set_SSL_CTX(ssl, ctx->native)) return al__tls_take_error(NULL, NULL);
  SSL_set_verify(ssl, SSL_CTX_get_verify_mode(ctx->native), NULL);
  return X509_VERIFY_PARAM_set1(SSL_get0_param(ssl), SSL_CTX_get0_param(ctx->native)) ? 0 : -ENOMEM;
}

/* core_tls_ctx.c - tests of TLS contexts through aloop.h alone: what a new one is like, what it refuses and how that is
 * told, who keeps it, and what happens without memory.
 *
 * SPDX-License-Identifier: MIT */
#include "aloop.h"
#include "check.h"

#include <errno.h>
#include <openssl/ssl.h>
#include <string.h>
#include <unistd.h>

static const al_tls_kind kinds[] = {AL_TLS_CLIENT, AL_TLS_SERVER, AL_TLS_BOTH};

static al_tls_ctx *new_ctx(al_tls_kind kind) {
  al_tls_ctx *ctx = NULL;
  al_tls_error why;
  CHECK_EQ(al_tls_ctx_new(kind, &ctx, &why), 0);
  return ctx;
}

/* The first of all: OpenSSL is linked here, but al_tls_load has not looked for it yet. */
static void test_load(void) {
  SSL_CTX *foreign = SSL_CTX_new(TLS_method());
  CHECK(al_tls_ctx_of(foreign) == NULL);
  CHECK_EQ(al_tls_load(NULL), 0);
  CHECK_EQ(al_tls_load(NULL), 0);
  CHECK(al_tls_ctx_of(foreign) == NULL);
  al_tls_ctx_release(new_ctx(AL_TLS_BOTH));
  CHECK(al_tls_ctx_of(foreign) == NULL);
  SSL_CTX_free(foreign);
}

static void test_defaults(void) {
  for (int i = 0; i < 3; i++) {
    al_tls_ctx *ctx = new_ctx(kinds[i]);
    SSL_CTX *native = al_tls_ctx_native(ctx);
    bool client = kinds[i] == AL_TLS_CLIENT;
    CHECK_EQ(al_tls_ctx_kind(ctx), kinds[i]);
    CHECK_EQ(al_tls_ctx_check_hostname(ctx), client);
    CHECK(!al_tls_ctx_check_common_name(ctx));
    CHECK_EQ((SSL_CTX_get_verify_mode(native) & SSL_VERIFY_PEER) != 0, client);
    CHECK_EQ(SSL_CTX_get_min_proto_version(native), TLS1_2_VERSION);
    CHECK_EQ(SSL_CTX_get_security_level(native), 2);
    CHECK(SSL_CTX_get_mode(native) & SSL_MODE_RELEASE_BUFFERS);
    CHECK(SSL_CTX_get_options(native) & SSL_OP_NO_RENEGOTIATION);
    CHECK(SSL_CTX_get_options(native) & SSL_OP_NO_COMPRESSION);
    CHECK(!(SSL_CTX_get_options(native) & SSL_OP_IGNORE_UNEXPECTED_EOF));
    al_tls_ctx_release(ctx);
  }
}

/* The SSL_CTX and its context are counted as one. */
static void test_references(void) {
  static int data;
  al_tls_ctx *ctx = new_ctx(AL_TLS_SERVER);
  al_tls_ctx_set_data(ctx, &data);
  SSL *ssl = SSL_new(al_tls_ctx_native(ctx));
  CHECK(ssl != NULL);
  al_tls_ctx_hold(ctx);
  al_tls_ctx_release(ctx);
  al_tls_ctx_release(ctx);
  CHECK(al_tls_ctx_of(SSL_get_SSL_CTX(ssl)) == ctx);
  CHECK(al_tls_ctx_data(ctx) == &data);
  SSL_free(ssl);
  SSL_CTX *foreign = SSL_CTX_new(TLS_method());
  CHECK(foreign && al_tls_ctx_of(foreign) == NULL);
  SSL_CTX_free(foreign);
}

static void test_check_hostname(void) {
  al_tls_ctx *ctx = new_ctx(AL_TLS_BOTH);
  al_tls_ctx_set_check_hostname(ctx, true);
  CHECK(SSL_CTX_get_verify_mode(al_tls_ctx_native(ctx)) & SSL_VERIFY_PEER);
  CHECK_EQ(al_tls_ctx_set_verify(ctx, SSL_VERIFY_NONE), -EINVAL);
  al_tls_ctx_set_check_hostname(ctx, false);
  CHECK_EQ(al_tls_ctx_set_verify(ctx, SSL_VERIFY_NONE), 0);
  al_tls_ctx_set_check_common_name(ctx, true);
  CHECK(al_tls_ctx_check_common_name(ctx));
  al_tls_ctx_release(ctx);
}

static void test_alpn(void) {
  al_tls_ctx *ctx = new_ctx(AL_TLS_CLIENT);
  CHECK_EQ(al_tls_ctx_set_alpn(ctx, (const unsigned char *)"\2h2\10http/1.1", 12), 0);
  CHECK_EQ(al_tls_ctx_set_alpn(ctx, (const unsigned char *)"\3h2", 3), -EINVAL);
  CHECK_EQ(al_tls_ctx_set_alpn(ctx, (const unsigned char *)"\0", 1), -EINVAL);
  CHECK_EQ(al_tls_ctx_set_alpn(ctx, NULL, 0), 0);
  al_tls_ctx_release(ctx);
}

static void test_errors(void) {
  al_tls_ctx *ctx = new_ctx(AL_TLS_SERVER);
  al_tls_error why;
  CHECK_EQ(al_tls_ctx_set_ciphers(ctx, "NOPE", &why), AL_ETLS);
  CHECK(strcmp(why.message, "No cipher can be selected.") == 0 && strcmp(why.library, "SSL") == 0);
  CHECK(strcmp(why.reason, "NO_CIPHER_MATCH") == 0);
  CHECK_EQ(al_tls_ctx_set_ciphers(ctx, "NOPE", NULL), AL_ETLS);
  CHECK_EQ(al_tls_ctx_load_chain(ctx, "/nowhere", NULL, NULL, NULL, &why), -ENOENT);
  CHECK_EQ(why.error, -ENOENT);
  CHECK_EQ(al_tls_ctx_load_ca(ctx, "/nowhere", NULL, &why), -ENOENT);
  CHECK_EQ(al_tls_ctx_load_ca(ctx, "/nowhere", NULL, NULL), -ENOENT);
  CHECK_EQ(al_tls_ctx_load_ca_data(ctx, "", 0, 0, &why), AL_ETLS);
  CHECK_EQ(al_tls_ctx_load_ca_data(ctx, "x", 1, AL_TLS_CA_DER, &why), AL_ETLS);
  CHECK(strstr(why.message, "does not contain a certificate") != NULL);
  CHECK_EQ(al_tls_ctx_load_ca_data(ctx, "x", 1, AL_TLS_CA_DER, NULL), AL_ETLS);
  CHECK_EQ(al_tls_ctx_set_keylog(ctx, "/nowhere/file"), -ENOENT);
  CHECK_EQ(al_tls_ctx_set_keylog(ctx, NULL), 0);
  al_tls_ctx_release(ctx);
}

/* The file stays open as long as the context. */
static void test_keylog(void) {
  char path[] = "/tmp/aloop-keylog-XXXXXX";
  int fd = mkstemp(path);
  CHECK(fd >= 0);
  close(fd);
  al_tls_ctx *ctx = new_ctx(AL_TLS_CLIENT);
  CHECK_EQ(al_tls_ctx_set_keylog(ctx, path), 0);
  CHECK_EQ(al_tls_ctx_set_keylog(ctx, path), 0);
  al_tls_ctx_release(ctx);
  CHECK_EQ(unlink(path), 0);
}

static void test_no_memory(void) {
  al_tls_error why;
  al_tls_ctx *ctx = NULL;
  if (!al_mem_fail_after(0)) return; /* a release build */
  CHECK_EQ(al_tls_ctx_new(AL_TLS_CLIENT, &ctx, &why), -ENOMEM);
  CHECK_EQ(why.error, -ENOMEM);
  al_mem_fail_after(-1);
  ctx = new_ctx(AL_TLS_CLIENT);
  al_mem_fail_after(0);
  CHECK_EQ(al_tls_ctx_set_alpn(ctx, (const unsigned char *)"\2h2", 3), -ENOMEM);
  al_mem_fail_after(-1);
  al_tls_ctx_release(ctx);
}

int main(void) {
  RUN(test_load);
  RUN(test_defaults);
  RUN(test_references);
  RUN(test_check_hostname);
  RUN(test_alpn);
  RUN(test_errors);
  RUN(test_keylog);
  RUN(test_no_memory);
  size_t live, total;
  al_mem_stats(&live, &total);
  CHECK_EQ(live, 0);
  return check_done();
}

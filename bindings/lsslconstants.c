/* lsslconstants.c - the constants of aloop.ssl, by Python's names.
 *
 * SPDX-License-Identifier: MIT */
#include "lssl.h"

typedef struct constant {
  const char *name;
  lua_Integer value;
} constant;

#define OP(name) \
  { "OP_" #name, (lua_Integer)SSL_OP_##name }
#define ALERT(name) \
  { "ALERT_DESCRIPTION_" #name, SSL_AD_##name }

static const constant constants[] = {
    {"PROTOCOL_TLS", AL_SSL_PROTOCOL_TLS},
    {"PROTOCOL_TLS_CLIENT", AL_SSL_PROTOCOL_TLS_CLIENT},
    {"PROTOCOL_TLS_SERVER", AL_SSL_PROTOCOL_TLS_SERVER},
    {"CERT_NONE", 0},
    {"CERT_OPTIONAL", 1},
    {"CERT_REQUIRED", 2},
    {"VERIFY_DEFAULT", 0},
    {"VERIFY_CRL_CHECK_LEAF", X509_V_FLAG_CRL_CHECK},
    {"VERIFY_CRL_CHECK_CHAIN", X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL},
    {"VERIFY_X509_STRICT", X509_V_FLAG_X509_STRICT},
    {"VERIFY_ALLOW_PROXY_CERTS", X509_V_FLAG_ALLOW_PROXY_CERTS},
    {"VERIFY_X509_TRUSTED_FIRST", X509_V_FLAG_TRUSTED_FIRST},
    {"VERIFY_X509_PARTIAL_CHAIN", X509_V_FLAG_PARTIAL_CHAIN},
    OP(ALL),
    OP(NO_SSLv2),
    OP(NO_SSLv3),
    OP(NO_TLSv1),
    OP(NO_TLSv1_1),
    OP(NO_TLSv1_2),
    OP(NO_TLSv1_3),
    OP(NO_COMPRESSION),
    OP(NO_TICKET),
    OP(NO_RENEGOTIATION),
    OP(CIPHER_SERVER_PREFERENCE),
    OP(SINGLE_DH_USE),
    OP(SINGLE_ECDH_USE),
    OP(ENABLE_MIDDLEBOX_COMPAT),
    OP(LEGACY_SERVER_CONNECT),
    OP(IGNORE_UNEXPECTED_EOF),
    OP(ENABLE_KTLS),
    ALERT(CLOSE_NOTIFY),
    ALERT(UNEXPECTED_MESSAGE),
    ALERT(BAD_RECORD_MAC),
    ALERT(RECORD_OVERFLOW),
    ALERT(DECOMPRESSION_FAILURE),
    ALERT(HANDSHAKE_FAILURE),
    ALERT(BAD_CERTIFICATE),
    ALERT(UNSUPPORTED_CERTIFICATE),
    ALERT(CERTIFICATE_REVOKED),
    ALERT(CERTIFICATE_EXPIRED),
    ALERT(CERTIFICATE_UNKNOWN),
    ALERT(ILLEGAL_PARAMETER),
    ALERT(UNKNOWN_CA),
    ALERT(ACCESS_DENIED),
    ALERT(DECODE_ERROR),
    ALERT(DECRYPT_ERROR),
    ALERT(PROTOCOL_VERSION),
    ALERT(INSUFFICIENT_SECURITY),
    ALERT(INTERNAL_ERROR),
    ALERT(USER_CANCELLED),
    ALERT(NO_RENEGOTIATION),
    ALERT(UNSUPPORTED_EXTENSION),
    ALERT(CERTIFICATE_UNOBTAINABLE),
    ALERT(UNRECOGNIZED_NAME),
    ALERT(BAD_CERTIFICATE_STATUS_RESPONSE),
    ALERT(BAD_CERTIFICATE_HASH_VALUE),
    ALERT(UNKNOWN_PSK_IDENTITY),
    {"OPENSSL_VERSION_NUMBER", OPENSSL_VERSION_NUMBER},
};

static const constant versions[] = {{"MINIMUM_SUPPORTED", AL_SSL_MINIMUM_SUPPORTED},
                                    {"SSLv3", SSL3_VERSION},
                                    {"TLSv1", TLS1_VERSION},
                                    {"TLSv1_1", TLS1_1_VERSION},
                                    {"TLSv1_2", TLS1_2_VERSION},
                                    {"TLSv1_3", TLS1_3_VERSION},
                                    {"MAXIMUM_SUPPORTED", AL_SSL_MAXIMUM_SUPPORTED}};

static const struct {
  const char *name;
  bool has;
} features[] = {{"HAS_ALPN", true},    {"HAS_ECDH", true},    {"HAS_NEVER_CHECK_COMMON_NAME", true},
                {"HAS_NPN", false},    {"HAS_SNI", true},     {"HAS_SSLv2", false},
                {"HAS_SSLv3", false},  {"HAS_TLSv1", true},   {"HAS_TLSv1_1", true},
                {"HAS_TLSv1_2", true}, {"HAS_TLSv1_3", true}, {"HAS_PSK", false}};

static void add_constants(lua_State *L, const constant *list, size_t n) {
  for (size_t i = 0; i < n; i++) {
    lua_pushinteger(L, list[i].value);
    lua_setfield(L, -2, list[i].name);
  }
}

/* {major, minor, fix, patch, status}, as Python's; and the library that is linked, not the one of the headers. */
static void add_version(lua_State *L) {
  const lua_Integer parts[] = {OPENSSL_version_major(), OPENSSL_version_minor(), 0, OPENSSL_version_patch(), 0};
  lua_createtable(L, 5, 0);
  for (int i = 0; i < 5; i++) {
    lua_pushinteger(L, parts[i]);
    lua_rawseti(L, -2, i + 1);
  }
  lua_setfield(L, -2, "OPENSSL_VERSION_INFO");
  lua_pushstring(L, OpenSSL_version(OPENSSL_VERSION));
  lua_setfield(L, -2, "OPENSSL_VERSION");
}

void al_ssl_constants(lua_State *L) {
  add_constants(L, constants, sizeof constants / sizeof *constants);
  for (size_t i = 0; i < sizeof features / sizeof *features; i++) {
    lua_pushboolean(L, features[i].has);
    lua_setfield(L, -2, features[i].name);
  }
  lua_createtable(L, 0, sizeof versions / sizeof *versions);
  add_constants(L, versions, sizeof versions / sizeof *versions);
  lua_setfield(L, -2, "TLSVersion");
  add_version(L);
}

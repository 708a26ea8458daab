/* lsslcert.c - certificates as tables, in the form of Python's getpeercert().
 *
 * What OpenSSL hands out stands in one userdata until the table is done, so that an error of memory in between loses
 * nothing.
 *
 * SPDX-License-Identifier: MIT */
#include "lresolve.h"
#include "lssl.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

typedef struct reading {
  l_op base;
  al_ctx *ctx;
  GENERAL_NAMES *names;
  AUTHORITY_INFO_ACCESS *access;
  CRL_DIST_POINTS *points;
  unsigned char *bytes; /* of one text, or of the certificate */
  BIO *bio;             /* where OpenSSL prints to */
} reading;

static void free_bytes(reading *r) {
  OPENSSL_free(r->bytes);
  r->bytes = NULL;
}

static void reading_dispose(l_op *op) {
  reading *r = (reading *)(void *)op;
  GENERAL_NAMES_free(r->names);
  AUTHORITY_INFO_ACCESS_free(r->access);
  CRL_DIST_POINTS_free(r->points);
  free_bytes(r);
  BIO_free(r->bio);
  r->names = NULL;
  r->access = NULL;
  r->points = NULL;
  r->bio = NULL;
  ERR_clear_error(); /* what could not be read is left out */
}

/* ---- texts ------------------------------------------------------------------------------------------------------- */

/* Pushes what was printed, and empties the BIO. */
static void push_printed(lua_State *L, reading *r) {
  char *data;
  long len = BIO_get_mem_data(r->bio, &data);
  lua_pushlstring(L, len > 0 ? data : "", len > 0 ? (size_t)len : 0);
  (void)BIO_reset(r->bio);
}

static void push_utf8(lua_State *L, reading *r, const ASN1_STRING *text) {
  int len = ASN1_STRING_to_UTF8(&r->bytes, text);
  lua_pushlstring(L, len > 0 ? (const char *)r->bytes : "", len > 0 ? (size_t)len : 0);
  free_bytes(r);
}

static void push_ascii(lua_State *L, const ASN1_STRING *text) {
  lua_pushlstring(L, (const char *)ASN1_STRING_get0_data(text), (size_t)ASN1_STRING_length(text));
}

/* Pushes an object's long name, or its numbers with dots. */
static void push_object(lua_State *L, const ASN1_OBJECT *object, bool numbers) {
  char name[256];
  int len = OBJ_obj2txt(name, sizeof name, object, numbers);
  lua_pushstring(L, len > 0 ? name : "");
}

/* {kind, value (on top)} in its place. */
static void pair(lua_State *L, const char *kind) {
  lua_createtable(L, 2, 0);
  lua_pushstring(L, kind);
  lua_rawseti(L, -2, 1);
  lua_insert(L, -2);
  lua_rawseti(L, -2, 2);
}

/* ---- names ------------------------------------------------------------------------------------------------------- */

/* Pushes {{name, value}, ...}, in order. */
static void push_name(lua_State *L, reading *r, const X509_NAME *name) {
  int n = X509_NAME_entry_count(name);
  lua_createtable(L, n, 0);
  for (int i = 0; i < n; i++) {
    X509_NAME_ENTRY *entry = X509_NAME_get_entry(name, i);
    lua_createtable(L, 2, 0);
    push_object(L, X509_NAME_ENTRY_get_object(entry), false);
    lua_rawseti(L, -2, 1);
    push_utf8(L, r, X509_NAME_ENTRY_get_data(entry));
    lua_rawseti(L, -2, 2);
    lua_rawseti(L, -2, i + 1);
  }
}

static void push_ip(lua_State *L, const ASN1_OCTET_STRING *ip) {
  const unsigned char *p = ASN1_STRING_get0_data(ip);
  char text[48] = "<invalid>";
  int len = ASN1_STRING_length(ip);
  if (len == 4) snprintf(text, sizeof text, "%d.%d.%d.%d", p[0], p[1], p[2], p[3]);
  for (int i = 0, at = 0; len == 16 && i < 16; i += 2)
    at += snprintf(text + at, sizeof text - (size_t)at, "%s%X", i ? ":" : "", p[i] << 8 | p[i + 1]);
  lua_pushstring(L, text);
}

/* A kind that has no form of its own: what OpenSSL prints, "kind:value". */
static void push_other(lua_State *L, reading *r, GENERAL_NAME *name) {
  GENERAL_NAME_print(r->bio, name);
  push_printed(L, r);
  const char *text = lua_tostring(L, -1), *colon = strchr(text, ':');
  lua_pushlstring(L, text, colon ? (size_t)(colon - text) : 0);
  lua_pushstring(L, colon ? colon + 1 : text);
  pair(L, lua_tostring(L, -2));
  lua_replace(L, -3);
  lua_pop(L, 1);
}

/* Pushes {kind, value}. */
static void push_general_name(lua_State *L, reading *r, GENERAL_NAME *name) {
  switch (name->type) {
  case GEN_DNS: push_ascii(L, name->d.dNSName); return pair(L, "DNS");
  case GEN_EMAIL: push_ascii(L, name->d.rfc822Name); return pair(L, "email");
  case GEN_URI: push_ascii(L, name->d.uniformResourceIdentifier); return pair(L, "URI");
  case GEN_IPADD: push_ip(L, name->d.iPAddress); return pair(L, "IP Address");
  case GEN_RID: push_object(L, name->d.registeredID, true); return pair(L, "Registered ID");
  case GEN_DIRNAME: push_name(L, r, name->d.directoryName); return pair(L, "DirName");
  default: push_other(L, r, name);
  }
}

static void set_alternatives(lua_State *L, reading *r) {
  if (!r->names) return;
  lua_newtable(L);
  for (int i = 0; i < sk_GENERAL_NAME_num(r->names); i++) {
    push_general_name(L, r, sk_GENERAL_NAME_value(r->names, i));
    lua_rawseti(L, -2, i + 1);
  }
  lua_setfield(L, -2, "subjectAltName");
}

/* ---- places where more is to be had ------------------------------------------------------------------------------ */

/* Appends the name, if it is a URI, to the table on top. */
static void add_uri(lua_State *L, const GENERAL_NAME *name) {
  if (name->type != GEN_URI) return;
  push_ascii(L, name->d.uniformResourceIdentifier);
  lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
}

/* Sets the table on top (popped) as a field of the one below, unless it is empty. */
static void set_list(lua_State *L, const char *field) {
  if (lua_rawlen(L, -1) > 0)
    lua_setfield(L, -2, field);
  else
    lua_pop(L, 1);
}

static void set_access(lua_State *L, const reading *r, int method, const char *field) {
  lua_newtable(L);
  for (int i = 0; i < sk_ACCESS_DESCRIPTION_num(r->access); i++) {
    const ACCESS_DESCRIPTION *description = sk_ACCESS_DESCRIPTION_value(r->access, i);
    if (OBJ_obj2nid(description->method) == method) add_uri(L, description->location);
  }
  set_list(L, field);
}

static void set_points(lua_State *L, const reading *r) {
  lua_newtable(L);
  for (int i = 0; i < sk_DIST_POINT_num(r->points); i++) {
    const DIST_POINT_NAME *point = sk_DIST_POINT_value(r->points, i)->distpoint;
    if (!point || point->type != 0) continue; /* relative to the issuer's name */
    for (int j = 0; j < sk_GENERAL_NAME_num(point->name.fullname); j++)
      add_uri(L, sk_GENERAL_NAME_value(point->name.fullname, j));
  }
  set_list(L, "crlDistributionPoints");
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static void set_time(lua_State *L, reading *r, const char *field, const ASN1_TIME *time) {
  ASN1_TIME_print(r->bio, time);
  push_printed(L, r);
  lua_setfield(L, -2, field);
}

static void push_table(lua_State *L, reading *r, X509 *cert) {
  r->bio = BIO_new(BIO_s_mem());
  if (!r->bio) al_raise_os(L, r->ctx, -ENOMEM, NULL, NULL);
  r->names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
  r->access = X509_get_ext_d2i(cert, NID_info_access, NULL, NULL);
  r->points = X509_get_ext_d2i(cert, NID_crl_distribution_points, NULL, NULL);
  lua_createtable(L, 0, 8);
  push_name(L, r, X509_get_subject_name(cert));
  lua_setfield(L, -2, "subject");
  push_name(L, r, X509_get_issuer_name(cert));
  lua_setfield(L, -2, "issuer");
  lua_pushinteger(L, X509_get_version(cert) + 1);
  lua_setfield(L, -2, "version");
  i2a_ASN1_INTEGER(r->bio, X509_get0_serialNumber(cert));
  push_printed(L, r);
  lua_setfield(L, -2, "serialNumber");
  set_time(L, r, "notBefore", X509_get0_notBefore(cert));
  set_time(L, r, "notAfter", X509_get0_notAfter(cert));
  set_alternatives(L, r);
  set_access(L, r, NID_ad_OCSP, "OCSP");
  set_access(L, r, NID_ad_ca_issuers, "caIssuers");
  set_points(L, r);
}

static void push_der(lua_State *L, reading *r, X509 *cert) {
  int len = i2d_X509(cert, &r->bytes);
  if (len < 0) al_raise_os(L, r->ctx, -ENOMEM, NULL, NULL);
  lua_pushlstring(L, (const char *)r->bytes, (size_t)len);
}

void al_push_certificate(lua_State *L, al_ctx *ctx, X509 *cert, bool binary) {
  luaL_checkstack(L, 20, NULL);
  reading *r = al_op_new(L, ctx, sizeof *r, reading_dispose);
  r->ctx = ctx;
  if (binary)
    push_der(L, r, cert);
  else
    push_table(L, r, cert);
  reading_dispose(&r->base);
  lua_remove(L, -2);
}

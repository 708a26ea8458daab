/* err.c - the one space of errors: the name and text of each. Used by all, in any thread; knows nothing of loops.
 *
 * SPDX-License-Identifier: MIT */
#include "aloop.h"
#include "base.h"

#include <netdb.h>
#include <string.h>

typedef struct err_text {
  int err;
  const char *name, *text;
} err_text;

static const err_text own[] = {
    {AL_ECLOSED, "ECLOSED", "Event loop is closed"},
    {AL_ERUNNING, "ERUNNING", "This event loop is already running"},
    {AL_ENESTED, "ENESTED", "Cannot run the event loop while another loop is running"},
    {AL_ETHREAD, "ETHREAD", "Non-thread-safe operation invoked on an event loop other than the current one"},
    {AL_EPROTOCOL, "EPROTOCOL", "A protocol callback failed"},
    {AL_ENORING, "ENORING", "io_uring is not available"},
    {AL_ENOBUFFER, "ENOBUFFER", "get_buffer() returned an empty buffer"},
    {AL_EFDRANGE, "EFDRANGE", "filedescriptor out of range in select(), which can't watch those from 1024 on"},
    {AL_ETLS, "ETLS", "TLS failed"},
    {AL_ETLSVERIFY, "ETLSVERIFY", "certificate verify failed"},
    {AL_ETLSEOF, "ETLSEOF", "EOF occurred in violation of protocol"},
    {AL_ETLSZERO, "ETLSZERO", "TLS/SSL connection has been closed (EOF)"},
    {AL_ETLSSLOW, "ETLSSLOW", "SSL handshake is taking too long: aborting the connection"},
    {AL_ETLSSTUCK, "ETLSSTUCK", "SSL shutdown timed out"},
};

static const err_text eai[] = {
    {EAI_BADFLAGS, "EAI_BADFLAGS", NULL}, {EAI_NONAME, "EAI_NONAME", NULL},
    {EAI_AGAIN, "EAI_AGAIN", NULL},       {EAI_FAIL, "EAI_FAIL", NULL},
    {EAI_NODATA, "EAI_NODATA", NULL},     {EAI_FAMILY, "EAI_FAMILY", NULL},
    {EAI_SOCKTYPE, "EAI_SOCKTYPE", NULL}, {EAI_SERVICE, "EAI_SERVICE", NULL},
    {EAI_MEMORY, "EAI_MEMORY", NULL},     {EAI_SYSTEM, "EAI_SYSTEM", NULL},
    {EAI_OVERFLOW, "EAI_OVERFLOW", NULL}, {EAI_ADDRFAMILY, "EAI_ADDRFAMILY", NULL},
    {EAI_CANCELED, "EAI_CANCELED", NULL},
};

static const err_text *find(const err_text *table, size_t count, int err) {
  for (size_t i = 0; i < count; i++)
    if (table[i].err == err) return &table[i];
  return NULL;
}

const char *al_err_name(int err) {
  const err_text *entry = AL_IS_EAI(err) ? find(eai, AL_COUNT(eai), err - AL_EEAI) : find(own, AL_COUNT(own), err);
  if (entry) return entry->name;
  const char *name = err <= 0 && err > -4096 ? strerrorname_np(-err) : NULL;
  return name ? name : "E?";
}

const char *al_strerror(int err) {
  static _Thread_local char unknown[40];
  if (AL_IS_EAI(err)) return gai_strerror(err - AL_EEAI);
  const err_text *entry = find(own, AL_COUNT(own), err);
  if (entry) return entry->text;
  const char *text = err <= 0 && err > -4096 ? strerrordesc_np(-err) : NULL;
  if (text) return text;
  snprintf(unknown, sizeof(unknown), "Unknown error %d", err < 0 ? -err : err);
  return unknown;
}

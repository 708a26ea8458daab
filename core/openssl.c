/* openssl.c - loads OpenSSL when TLS is first used, and fills the table of openssl.h. Knows nothing of TLS.
 *
 * SPDX-License-Identifier: MIT */
#include "openssl.h"

#include "aloop.h"
#include "base.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
#define LIBRARY "libssl.so." TEXT(OPENSSL_SHLIB_VERSION) /* the headers' version; it brings libcrypto along */

struct al_openssl al_openssl;

/* In the order of the table. */
static const char *const names[] = {
#define X(name) #name,
#include "openssl_names.h"
#undef X
};
_Static_assert(sizeof al_openssl == sizeof names, "a table of pointers and nothing else");

/* False if the library lacks one. */
static bool look_up(void *library, struct al_openssl *table) {
  for (size_t i = 0; i < AL_COUNT(names); i++) {
    void *function = dlsym(library, names[i]);
    if (!function) return false;
    memcpy((char *)table + i * sizeof function, &function, sizeof function);
  }
  return true;
}

/* All is bound now: a connection is no place to find out what is missing. The library stays for as long as the process:
 * it has handlers of its own for its end. */
static bool load(void) {
  struct al_openssl found;
  void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
  if (!library || !look_up(library, &found)) return false;
  al_openssl = found;
  return true;
}

int al_tls_load(al_tls_error *why) {
  static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  static bool loaded;
  int err = 0;
  pthread_mutex_lock(&mutex);
  if (!loaded) loaded = load();
  if (!loaded) {
    err = AL_ETLS;
    const char *reason = dlerror();
    if (why) {
      *why = (al_tls_error){.error = AL_ETLS};
      snprintf(why->message, sizeof why->message, "OpenSSL can't be loaded: %s", reason ? reason : "unknown error");
    }
  }
  pthread_mutex_unlock(&mutex);
  return err;
}

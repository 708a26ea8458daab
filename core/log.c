/* log.c - the one place of the process where warnings and debug lines go. Who logs decides whether a debug line is
 * wanted; what comes here is written. Called by everybody, in any thread; knows no loop.
 *
 * SPDX-License-Identifier: MIT */
#include "aloop.h"
#include "base.h"
#include "mem.h"

#include <stdarg.h>

void al_log_stderr(void *ud, al_log_level level, const char *message, const char *category) {
  static const char *const names[] = {"debug", "info", "warning", "error"};
  (void)ud;
  fprintf(stderr, "aloop: %s: %s%s%s\n", names[level], category ? category : "", category ? ": " : "", message);
}

static al_log_fn *log_fn = al_log_stderr;
static void *log_ud;

void al_set_log(al_log_fn *log, void *ud) {
  log_fn = log ? log : al_log_stderr;
  log_ud = log ? ud : NULL;
}

void al_log(al_log_level level, const char *category, const char *format, ...) {
  char line[512];
  va_list args;
  va_start(args, format);
  int len = vsnprintf(line, sizeof(line), format, args);
  va_end(args);
  char *text = line;
  if (len >= (int)sizeof(line) && (text = al__malloc((size_t)len + 1)) != NULL) {
    va_start(args, format);
    vsnprintf(text, (size_t)len + 1, format, args);
    va_end(args);
  }
  log_fn(log_ud, level, text ? text : line, category); /* without memory: cut */
  if (text != line) al__free(text);
}

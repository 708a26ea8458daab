/* addr.c - socket addresses: made of text, compared, shown. Makes no system calls but if_nametoindex.
 *
 * SPDX-License-Identifier: MIT */
#include "addr.h"

#include "base.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/un.h>

/* The families' views of an address. Each starts with sa_family_t, as the storage does. */
static const struct sockaddr_in *in4(const al_addr *addr) { return (const struct sockaddr_in *)&addr->ss; }
static const struct sockaddr_in6 *in6(const al_addr *addr) { return (const struct sockaddr_in6 *)&addr->ss; }
static const struct sockaddr_un *un(const al_addr *addr) { return (const struct sockaddr_un *)&addr->ss; }

void al__addr_set(al_addr *addr, const struct sockaddr *sa, socklen_t len) {
  memset(addr, 0, sizeof(*addr));
  addr->len = AL_MIN(len, (socklen_t)sizeof(addr->ss));
  if (addr->len) memcpy(&addr->ss, sa, addr->len);
}

/* The scope after '%' in a numeric IPv6 address: a number or the name of an interface. */
static int parse_scope(const char *scope, uint32_t *id) {
  char *end;
  unsigned long number = strtoul(scope, &end, 10);
  if (*scope >= '0' && *scope <= '9' && !*end && number <= UINT32_MAX)
    *id = (uint32_t)number;
  else
    *id = if_nametoindex(scope);
  return *id || !strcmp(scope, "0") ? 0 : -EINVAL;
}

static int parse_ip6(const char *host, struct sockaddr_in6 *sin6) {
  char bare[INET6_ADDRSTRLEN];
  const char *percent = strchr(host, '%');
  size_t len = percent ? (size_t)(percent - host) : strlen(host);
  if (len >= sizeof(bare)) return -EINVAL;
  memcpy(bare, host, len);
  bare[len] = '\0';
  if (inet_pton(AF_INET6, bare, &sin6->sin6_addr) != 1) return -EINVAL;
  return percent ? parse_scope(percent + 1, &sin6->sin6_scope_id) : 0;
}

int al_addr_ip(al_addr *addr, const char *host, uint16_t port, uint32_t flowinfo, uint32_t scope_id) {
  struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(port)};
  if (inet_pton(AF_INET, host, &sin.sin_addr) == 1) {
    al__addr_set(addr, (struct sockaddr *)&sin, sizeof(sin));
    return 0;
  }
  struct sockaddr_in6 sin6 = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_flowinfo = htonl(flowinfo)};
  int err = parse_ip6(host, &sin6);
  if (err) return err;
  if (!strchr(host, '%')) sin6.sin6_scope_id = scope_id;
  al__addr_set(addr, (struct sockaddr *)&sin6, sizeof(sin6));
  return 0;
}

int al_addr_unix(al_addr *addr, const char *path, size_t len) {
  struct sockaddr_un sun = {.sun_family = AF_UNIX};
  if (!len) return -EINVAL;
  bool abstract = path[0] == '\0';
  if (!abstract && memchr(path, '\0', len)) return -EINVAL;
  if (len + !abstract > sizeof(sun.sun_path)) return -ENAMETOOLONG;
  memcpy(sun.sun_path, path, len);
  /* The length tells the end of an abstract name; a path also has its NUL. */
  al__addr_set(addr, (struct sockaddr *)&sun, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + !abstract));
  return 0;
}

bool al__addr_equal(const al_addr *a, const al_addr *b) {
  int family = al__addr_family(a);
  if (family != al__addr_family(b)) return false;
  if (family == AF_INET)
    return in4(a)->sin_port == in4(b)->sin_port && in4(a)->sin_addr.s_addr == in4(b)->sin_addr.s_addr;
  if (family == AF_INET6)
    return in6(a)->sin6_port == in6(b)->sin6_port && in6(a)->sin6_scope_id == in6(b)->sin6_scope_id &&
           !memcmp(&in6(a)->sin6_addr, &in6(b)->sin6_addr, sizeof(struct in6_addr));
  return a->len == b->len && !memcmp(&a->ss, &b->ss, a->len);
}

const char *al__addr_path(const al_addr *addr) {
  if (al__addr_family(addr) != AF_UNIX || addr->len <= offsetof(struct sockaddr_un, sun_path)) return NULL;
  const char *path = un(addr)->sun_path;
  return path[0] ? path : NULL;
}

static uint16_t port_of(const al_addr *addr) {
  switch (al__addr_family(addr)) {
  case AF_INET: return ntohs(in4(addr)->sin_port);
  case AF_INET6: return ntohs(in6(addr)->sin6_port);
  default: return 0;
  }
}

static void format_ip6(const al_addr *addr, char *buf, size_t size) {
  const struct sockaddr_in6 *sin6 = in6(addr);
  char text[INET6_ADDRSTRLEN], scope[16] = "";
  inet_ntop(AF_INET6, &sin6->sin6_addr, text, sizeof(text));
  if (sin6->sin6_scope_id) snprintf(scope, sizeof(scope), "%%%" PRIu32, sin6->sin6_scope_id);
  snprintf(buf, size, "[%s%s]:%u", text, scope, ntohs(sin6->sin6_port));
}

static void format_unix(const al_addr *addr, char *buf, size_t size) {
  size_t head = offsetof(struct sockaddr_un, sun_path);
  size_t len = addr->len > head ? AL_MIN(addr->len - head, sizeof(struct sockaddr_un) - head) : 0;
  const char *path = un(addr)->sun_path;
  if (!len || path[0] != '\0') {
    snprintf(buf, size, "%.*s", (int)len, path); /* empty: an unnamed socket */
    return;
  }
  size_t n = AL_MIN(len, size - 1);
  for (size_t i = 0; i < n; i++) buf[i] = path[i] ? path[i] : '@'; /* an abstract name may hold any byte */
  buf[n] = '\0';
}

const char *al_addr_format(const al_addr *addr, char *buf, size_t size) {
  char text[INET_ADDRSTRLEN];
  if (!size) return buf;
  switch (al__addr_family(addr)) {
  case AF_INET:
    inet_ntop(AF_INET, &in4(addr)->sin_addr, text, sizeof(text));
    snprintf(buf, size, "%s:%u", text, port_of(addr));
    break;
  case AF_INET6: format_ip6(addr, buf, size); break;
  case AF_UNIX: format_unix(addr, buf, size); break;
  case AF_UNSPEC: buf[0] = '\0'; break;
  default: snprintf(buf, size, "family %d", addr->ss.ss_family);
  }
  return buf;
}

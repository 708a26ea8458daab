#!/bin/sh
# deps.sh [--check] SET...: makes sure that what the sets below name is on this machine. Without --check it installs
# what is missing through apt, as root or through sudo, without questions; where there is no apt, and with --check, it
# names what is missing and fails, unless the build can do without it. Takes no time when nothing is missing, so the
# Makefile calls it before each of its main targets.
# The Makefile hands in what may be overridden: CC, LUA, LUA_INC, LUA_LIB, PKG_CONFIG.
# SPDX-License-Identifier: MIT
set -eu

cc=${CC:-gcc}
lua=${LUA:-lua5.4}
pkg_config=${PKG_CONFIG:-pkg-config}
missing=

have() { command -v "$1" >/dev/null 2>&1; }
have_header() { have "$cc" && printf '#include <%s>\n' "$1" | $cc -E -x c - >/dev/null 2>&1; }
have_library() { have "$cc" && echo "int main(void) { return 0; }" | $cc -o /dev/null -x c - -l:"$1" >/dev/null 2>&1; }
have_lua_module() { have "$lua" && "$lua" -e "require '$1'" >/dev/null 2>&1; }
have_lua_headers() {
  if [ -n "${LUA_INC:-}" ]; then [ -f "$LUA_INC/lua.h" ]; else $pkg_config --exists lua5.4 2>/dev/null; fi
}

# need PACKAGE TEST...: notes the Debian package unless the test succeeds.
need() {
  package=$1
  shift
  "$@" || missing="$missing $package"
}

# wish PACKAGE TEST...: the same for what can be done without.
wish() {
  package=$1
  shift
  "$@" || optional="$optional $package"
}

# Without these nothing can be compiled.
set_build() {
  need gcc have "$cc"
  need libc6-dev have_header stdio.h
  need make have make
  need pkg-config have "$pkg_config"
  need lua5.4 have "$lua"
  need liblua5.4-dev have_lua_headers
  need libssl-dev have_header openssl/ssl.h
}
# These are used when they are there: a machine that can't have them builds without.
set_libs() {
  wish liburing-dev have_header liburing.h
  wish libedit2 have_library libedit.so.2
}
set_run() {
  need curl have curl
}
set_test() {
  need lua-busted have_lua_module busted.core
  need lua-filesystem have_lua_module lfs
  need lua-cjson have_lua_module cjson
  need lua-lpeg have_lua_module lpeg
  need bsdutils have script
  need curl have curl
  need netbase getent services http >/dev/null
  need openssl have openssl
  # Specs that need these are skipped without. A redis-server and an nginx are used, too, but not installed: that would
  # start services.
  wish redis-tools have redis-benchmark
  wish gnutls-bin have gnutls-cli
}
set_lint() {
  need clang-format have clang-format
  need cppcheck have cppcheck
  need lua-check have luacheck
}
# Parts that need these are skipped without, and so are the peers that aren't there; the runner says which.
set_bench() {
  wish wrk have wrk
  wish redis-tools have redis-benchmark
  wish openssl have openssl
}

find_missing() {
  missing=
  optional=
  for set in $sets; do
    case $set in
    build | libs | run | test | lint | bench) "set_$set" ;;
    *) echo "deps.sh: no such set: $set" >&2 && exit 2 ;;
    esac
  done
}

# Installs the packages named; fails where it can't.
install() {
  have apt-get || return 1
  as_root=
  if [ "$(id -u)" -ne 0 ]; then
    have sudo && sudo -n true 2>/dev/null || return 1
    as_root="sudo -n"
  fi
  echo "deps.sh: installing $*"
  apt="$as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300"
  # The package lists may be absent or out of date; they are fetched only when the first attempt shows that.
  $apt install --no-install-recommends "$@" >/dev/null 2>&1 ||
    { $apt update && $apt install --no-install-recommends "$@"; } >&2
}

check_only=
if [ "${1:-}" = --check ]; then
  check_only=yes
  shift
fi
sets=$*
find_missing
[ -n "$missing$optional" ] || exit 0

if [ -n "$check_only" ]; then
  [ -n "$missing" ] || exit 0
  echo "Missing:$missing (names of Debian packages). 'make deps' installs them through apt." >&2
  exit 1
fi
# shellcheck disable=SC2086
if install $missing $optional; then
  find_missing
  [ -z "$missing" ] || echo "deps.sh: apt is content, but these still cannot be found:$missing" >&2
elif [ -n "$missing" ]; then
  echo "Please install what these Debian packages provide, then try again:$missing$optional" >&2
else
  echo "deps.sh: going on without$optional" >&2
fi
[ -z "$missing" ]

#!/bin/bash
# test.sh [FILE...]: runs the specs (all of spec/, or these files) under $BUILD/aloop. The last line is the count; fails
# unless every spec ran and none failed. `make test` calls it, and hands in BUILD and VARIANT.
# SPDX-License-Identifier: MIT
set -euo pipefail
cd "$(dirname "$0")/../.."

export ALOOP_BUILD=${BUILD:-build} ALOOP_VARIANT=${VARIANT:-release} ALOOP_LUA=${LUA:-lua5.4}
export ALOOP=$ALOOP_BUILD/aloop
limit=${TEST_TIMEOUT:-1200} # seconds for the whole run, so that a spec that hangs can't hang its caller

# A module built with a sanitizer loads into a plain lua only if the sanitizer's library is there first.
runtime=
case $ALOOP_VARIANT in
debug) runtime=$(${CC:-gcc} -print-file-name=libasan.so) ;;
tsan) runtime=$(${CC:-gcc} -print-file-name=libtsan.so) ;;
esac
export ALOOP_PRELOAD=$runtime

# A spec that runs wild shall not take the machine with it. (The sanitizers reserve terabytes; ASan can watch what is
# used, TSan can't.)
[ "$ALOOP_VARIANT" != release ] || ulimit -v 4194304
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:abort_on_error=0:strict_string_checks=1:hard_rss_limit_mb=4096}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
export TSAN_OPTIONS=${TSAN_OPTIONS:-halt_on_error=0:second_deadlock_stack=1}

mkdir -p "$ALOOP_BUILD"
export SPEC_LOG=$ALOOP_BUILD/spec-running
output=$ALOOP_BUILD/test.log
[ $# -gt 0 ] || set -- spec

# Whoever starts this in the background hands down SIGINT ignored; the specs send it.
signals=
! env --default-signal=INT,QUIT true 2>/dev/null || signals="env --default-signal=INT,QUIT"

status=0
# shellcheck disable=SC2086
timeout --foreground -k 10 "$limit" $signals \
  "$ALOOP" scripts/dev/busted.lua -o scripts/dev/report.lua "$@" 2>&1 | tee "$output" || status=${PIPESTATUS[0]}

count=$(grep -aE '^tests: [0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$output" | tail -n 1 || true)
if [ -z "$count" ]; then
  [ "$status" -ne 124 ] || echo "test.sh: stopped after $limit s"
  echo "test.sh: the run ended early (status $status), during:"
  sed 's/ *$//' "$SPEC_LOG" 2>/dev/null || echo "the start"
  echo "tests: 0 passed, 1 failed, 0 skipped"
  exit 1
fi
case $count in
*", 0 failed, "*) ;;
*) status=1 ;;
esac
# Whatever was written after the count (a sanitizer's report at exit, say), the count comes last.
if [ "$(tail -n 1 "$output")" != "$count" ]; then
  [ "$status" -eq 0 ] || echo "test.sh: the interpreter ended with status $status"
  echo "$count"
fi
exit "$((status != 0))"

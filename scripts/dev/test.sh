#!/bin/bash
# test.sh [FILE|DIRECTORY...]: runs the specs (all of spec/, or these) under $BUILD/aloop, each file in a process of its
# own, as many at a time as there are processors and one more, for specs wait a lot (TEST_JOBS=N: so many). What a file
# writes comes in one piece, in the order of the files; the last line is the count. Fails unless every spec ran and none
# failed. `make test` calls it, and hands in BUILD and VARIANT.
# SPDX-License-Identifier: MIT
set -euo pipefail
cd "$(dirname "$0")/../.."

export ALOOP_BUILD=${BUILD:-build} ALOOP_VARIANT=${VARIANT:-release} ALOOP_LUA=${LUA:-lua5.4}
export ALOOP=$ALOOP_BUILD/aloop
limit=${TEST_TIMEOUT:-1200} # seconds for the whole run, so that a spec that hangs can't hang its caller
jobs=${TEST_JOBS:-$(($(nproc) + 1))}

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
work=$(mktemp -d "$ALOOP_BUILD/test.XXXXXX")
declare -A running=() # the number of a file by the pid of the shell that runs it
trap 'kill "${!running[@]}" 2>/dev/null || true; rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The spec files of the arguments, in order.
list_files() {
  for place; do
    if [ -d "$place" ]; then find "$place" -name '*_spec.lua' | LC_ALL=C sort; else echo "$place"; fi
  done
}
[ $# -gt 0 ] || set -- spec
mapfile -t files < <(list_files "$@")

# Whoever starts this in the background hands down SIGINT ignored; the specs send it.
signals=
! env --default-signal=INT,QUIT true 2>/dev/null || signals="env --default-signal=INT,QUIT"

# What a run that ended with this status, before it wrote its result, was about.
tell_early_end() {
  case $1 in
  124 | 137) echo "was stopped after $limit s, during" ;;
  *) echo "ended early (status $1), during" ;;
  esac
  sed 's/ *$//' "$SPEC_LOG" 2>/dev/null || echo "the start"
}

# Runs the n-th file; what it writes goes to $work/N.log, its result to $work/N.
run_file() {
  export SPEC_LOG=$work/$1.running SPEC_RESULT=$work/$1
  status=0
  # shellcheck disable=SC2086
  timeout --foreground -k 10 $((limit > SECONDS ? limit - SECONDS : 1)) $signals \
    "$ALOOP" scripts/dev/busted.lua -o scripts/dev/report.lua "${files[$1]}" >"$work/$1.log" 2>&1 &
  child=$!
  trap 'kill "$child" 2>/dev/null || true; exit 143' TERM
  wait "$child" 2>/dev/null || status=$?
  if [ ! -s "$SPEC_RESULT" ]; then
    how=$(tell_early_end "$status" | paste -sd ' ')
  elif [ "$status" -ne 0 ] && grep -q '^failed	0	' "$SPEC_RESULT"; then # a sanitizer's report at exit, say
    how="ended with status $status"
  else
    return 0
  fi
  echo "FAILED ${files[$1]} $how" >>"$work/$1.log"
  printf 'failed\t1\t\nbroken\t0\t%s\n' "${files[$1]} $how" >>"$SPEC_RESULT"
}

log=$ALOOP_BUILD/test.log
: >"$log"
started=0
shown=0
while [ "$shown" -lt ${#files[@]} ]; do
  while [ "$started" -lt ${#files[@]} ] && [ ${#running[@]} -lt "$jobs" ]; do
    run_file "$started" &
    running[$!]=$started
    started=$((started + 1))
  done
  wait -n -p ended "${!running[@]}" || true
  : >"$work/${running[$ended]}.done"
  unset "running[$ended]"
  while [ -e "$work/$shown.done" ]; do
    tee -a "$log" <"$work/$shown.log"
    shown=$((shown + 1))
  done
done

results=("${!files[@]}")
"$ALOOP_LUA" scripts/dev/summary.lua "${results[@]/#/$work/}" | tee -a "$log"
tail -n 1 "$log" | grep -qE '^tests: [1-9][0-9]* passed, 0 failed, [0-9]+ skipped$'

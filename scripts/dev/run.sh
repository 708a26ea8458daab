#!/bin/bash
# run.sh: shows the main job at work. Starts the HTTP example under $BUILD/aloop on a free port, asks it with curl,
# shows the answer, ends it, and says how to go on. `make run` calls it.
# SPDX-License-Identifier: MIT
set -euo pipefail
cd "$(dirname "$0")/../.."

aloop=${BUILD:-build}/aloop
example=scripts/examples/http_server.lua
output=$(mktemp)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -f "$output"' EXIT

echo "+ $aloop $example"
"$aloop" "$example" >"$output" 2>&1 &
server=$!

# The example prints the address that it got.
address=
for _ in $(seq 100); do
  address=$(grep -oE '(127\.0\.0\.1|localhost):[0-9]+' "$output" | head -n 1 || true)
  [ -z "$address" ] && kill -0 "$server" 2>/dev/null || break
  sleep 0.1
done
cat "$output"
if [ -z "$address" ]; then
  echo "run.sh: the server did not start" >&2
  exit 1
fi

echo "+ curl -v http://$address/"
curl -v --no-progress-meter --max-time 10 --fail --noproxy '*' "http://$address/"
echo
kill "$server"
wait "$server" || true
server=

how() { printf '  %-60s %s\n' "$1" "$2"; }
echo
echo "aloop answered a real HTTP request. To go on:"
how "$aloop $example 8080" "serve on port 8080, until Ctrl-C"
how "$aloop -X proactor $example 8080" "the same on io_uring"
how "$aloop SCRIPT.lua" "run a script; every option of lua is taken"
how "ls scripts/examples" "more examples"
how "make test" "run every spec"
how "make help" "what else there is"

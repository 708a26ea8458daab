#!/bin/sh
# run.sh - what `make bench` calls. Options and variables: see `run.sh --help`.
# SPDX-License-Identifier: MIT
exec "${LUA:-lua5.4}" "$(dirname "$0")/run.lua" "$@"

#!/bin/bash
# What the raw stream costs: the engine's own event stream against the one that cclocal puts in its place (`src/engine/patches/raw.py`), for the same
# request and the same tiny model, in turns, on the real engine. Prints tokens per second by the clock, processor time per token, and the median of
# the pairs' ratios.
#
#   bash benches/bench-stream.sh HOME [TOKENS [PAIRS]]     HOME: a CCLOCAL_HOME in which `cclocal setup` has been run
#
# Wants a machine that does nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."
home=$(realpath "${1:?the home of an installed engine}")
environment=$(echo "$home"/data/engine/envs/*)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$environment/bin/python" tests/e2e/models/raw_models.py "$scratch" >/dev/null
"$environment/bin/python" benches/stream.py "$environment" "$scratch/text" "${2:-3000}" "${3:-9}"

#!/bin/bash
# What the turns of a tool loop cost: 20 turns of the shape that Claude Code sends, on the real engine, for a tiny model of each architecture of the
# catalogue; cclocal's own start of it (through its supervisor and gateway) against the flags of the scripts that it replaces, in the same run. Prints
# the table of docs/performance.md.
#
#   bash benches/bench-turns.sh HOME [ARCHITECTURE...]     HOME: a CCLOCAL_HOME in which `cclocal setup` has been run
#
# The models are made by tests/e2e/models/turn_models.py. CCLOCAL_BENCH_TABLES=1 prints every turn. Takes minutes for each architecture, and
# wants a machine that does nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."

CCLOCAL_E2E_HOME=$(realpath "${1:?the home of an installed engine}")
shift
export CCLOCAL_E2E_HOME
# The client is not run.
export CCLOCAL_E2E_CLAUDE=${CCLOCAL_E2E_CLAUDE:-/usr/bin/true} CCLOCAL_E2E_CLAUDE_OLD=${CCLOCAL_E2E_CLAUDE_OLD:-/usr/bin/true}
if [ $# -gt 0 ]; then
    export CCLOCAL_BENCH_TURNS="$*"
fi
exec cargo test --locked --release --features e2e --test e2e -- --ignored --exact --nocapture turns::bench_turns

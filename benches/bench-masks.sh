#!/bin/bash
# What arrays for masks cost: one conversation in the engine's batches with them, as the engine has it, and without, as cclocal starts it
# (`src/engine/patches/masks.py`). First layers of tiny models by themselves; then a conversation through cclocal's gateway, on the engine in simple
# mode as well. In turns. Prints the tables of docs/performance.md.
#
#   bash benches/bench-masks.sh HOME [LENGTHS [PAIRS]]     HOME: a CCLOCAL_HOME in which `cclocal setup` has been run
#
# LENGTHS: tokens that stand before what is measured, such as 2048,32768. Linux; wants a machine that does nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."
home=$(realpath "${1:?the home of an installed engine}")
environment=$(echo "$home"/data/engine/envs/*)
lengths=${2:-2048,32768}
pairs=${3:-9}
cargo build --locked --release
"$environment/bin/python" -W ignore benches/masks.py src/engine/patches "$lengths" "$pairs"
"$environment/bin/python" -W ignore benches/masks_served.py "$PWD/target/release/cclocal" "$environment" "$lengths" "$pairs"

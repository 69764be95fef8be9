#!/usr/bin/env bash
# What a supervisor costs that has nothing to do: resident memory, and processor time over a minute. It serves the demo model, which is asked once before.
#
#   bash benches/measure-idle.sh [CCLOCAL] [SECONDS]     default: target/release/cclocal, 60
#
# Needs what `cclocal demo` needs: an engine and Claude Code. Linux tells nanoseconds and proportional memory; macOS hundredths of a second, by `ps`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cclocal=$(realpath "${1:-${CARGO_TARGET_DIR:-target}/release/cclocal}")
seconds=${2:-60}
scratch=$(mktemp -d)
session=
finish() {
    [ -z "$session" ] || { kill -INT "$session" 2>/dev/null; wait "$session" 2>/dev/null; } || true
    rm -rf "$scratch" "${demo:-$scratch}"
}
trap finish EXIT

# The model, and proof that all of it works.
"$cclocal" demo --keep 2>"$scratch/demo" || { cat "$scratch/demo" >&2; exit 1; }
demo=$(sed -n "s/^The demo's folder: //p" "$scratch/demo")
# From such a name the form of its tool calls is known.
mv "$demo/model" "$demo/hermes-model"
rm "$demo/work/hello.txt"
cd "$demo/work"

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
# Interrupts are ignored by what a script starts in the background, unless it is told otherwise.
python3 -c 'import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])' \
    "$cclocal" --server --model "$demo/hermes-model" --port "$port" >"$scratch/printed" 2>"$scratch/said" &
session=$!
until [ -s "$scratch/printed" ]; do
    kill -0 "$session" 2>/dev/null || { cat "$scratch/said" >&2; exit 1; }
    sleep 0.2
done
"$cclocal" connect --port "$port" -- -p "Create hello.txt" >/dev/null 2>"$scratch/said"
supervisor=$("$cclocal" status --json | python3 -c 'import json, sys
print(next(s["pid"] for s in json.load(sys.stdin) if s["port"] == int(sys.argv[1])))' "$port")

python3 - "$supervisor" "$seconds" <<'PYTHON'
import subprocess, sys, time

pid, seconds = sys.argv[1], float(sys.argv[2])


def processor():
    """Seconds of processor time so far."""
    try:
        with open(f"/proc/{pid}/schedstat") as file:
            return int(file.read().split()[0]) / 1e9
    except FileNotFoundError:
        told = subprocess.run(["ps", "-o", "time=", "-p", pid], check=True, capture_output=True, text=True).stdout
        return sum(float(part) * 60**power for power, part in enumerate(reversed(told.strip().split(":"))))


def memory():
    """Bytes by their names."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            fields = [line.split() for line in file]
        return {f[0][:-1]: int(f[1]) * 1024 for f in fields if f[0] in ("Rss:", "Pss:", "Anonymous:")}
    except FileNotFoundError:
        told = subprocess.run(["ps", "-o", "rss=", "-p", pid], check=True, capture_output=True, text=True).stdout
        return {"Rss": int(told) * 1024}


before, since = processor(), time.monotonic()
time.sleep(seconds)
used, passed = processor() - before, time.monotonic() - since
for name, size in memory().items():
    print(f"{name}: {size / 1e6:.1f} MB")
print(f"processor: {used * 1000:.1f} ms in {passed:.0f} s, {100 * used / passed:.3f} %")
PYTHON

#!/usr/bin/env bash
# Writes the engine's lock files, one per platform, from src/engine/locks/packages.in and src/engine/locks/left-out.txt.
#
#   .ci/lock-engine.sh            write them
#   .ci/lock-engine.sh --check    only tell whether writing them would change anything
#
# Needs uv. The same inputs give the same files: nothing newer than src/engine/locks/newest.txt's date is taken. To renew the lock, change
# that date (and the versions in packages.in), run this, then .ci/check-engine-packages.sh. See docs/engine-packages.md.
set -euo pipefail
cd "$(dirname "$0")/.."
locks=src/engine/locks

# Pins must have wheels for all of these.
pythons=(3.11 3.12 3.13)
# The lock file's name, and uv's name for the oldest system of that platform that is supported.
platforms=(macos-arm64=aarch64-apple-darwin linux-x86_64=x86_64-manylinux_2_35 linux-aarch64=aarch64-manylinux_2_35)
export MACOSX_DEPLOYMENT_TARGET=14.0

out=$locks
if [[ ${1:-} == --check ]]; then
    out=$(mktemp -d)
    trap 'rm -rf "$out"' EXIT
fi

compile() { # platform python input output, then more options
    uv pip compile --quiet --no-config --generate-hashes --only-binary :all: --no-emit-index-url --no-annotate --no-header \
        --exclude-newer "$(grep -v '^#' src/engine/locks/newest.txt)" --python-platform "$1" --python-version "$2" "$3" --output-file "$4" "${@:5}"
}

for entry in "${platforms[@]}"; do
    name=${entry%%=*} platform=${entry#*=}
    fresh=$(mktemp)
    # The oldest Python decides: what supports it supports the newer ones too, which is checked below.
    compile "$platform" "${pythons[0]}" src/engine/locks/packages.in "$fresh" --excludes src/engine/locks/left-out.txt >/dev/null
    {
        echo "# The engine's packages for $name. Written by .ci/lock-engine.sh: do not edit."
        cat "$fresh"
    } >"$out/$name.lock"
    for python in "${pythons[@]}"; do
        compile "$platform" "$python" "$out/$name.lock" "$fresh" --no-deps >/dev/null
    done
    rm -f "$fresh"
    echo "$name: $(grep -c '==' "$out/$name.lock") packages"
done

# Only Linux is tested with the real engine, so the other platforms get the very same versions.
versions() { grep -o '^[a-z][a-z0-9.-]*==[^ ]*' "$1" | grep -v -E '^mlx-(cpu|metal)=='; }
for entry in "${platforms[@]}"; do
    if ! diff <(versions "$out/linux-x86_64.lock") <(versions "$out/${entry%%=*}.lock"); then
        echo "error: ${entry%%=*} got other versions than linux-x86_64: pin them in src/engine/locks/packages.in" >&2
        exit 1
    fi
done

if [[ $out != "$locks" ]]; then
    for entry in "${platforms[@]}"; do
        diff "src/engine/locks/${entry%%=*}.lock" "$out/${entry%%=*}.lock" || { echo "error: the lock is not what the inputs give" >&2; exit 1; }
    done
    echo "the lock is what the inputs give"
fi

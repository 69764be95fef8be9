#!/usr/bin/env bash
# Proves that the locked packages serve: a text model, a whole Gemma-4 (vision and audio parts) and a whole Qwen3.5, each in both modes, with tools,
# streams and pictures, in a network namespace that has nothing but loopback. About a minute.
#
#   .ci/check-engine-packages.sh [ENVIRONMENT]    the environment's folder (it holds bin/vllm-mlx);
#                                                     without it, one is made from this platform's lock, with uv
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

environment=${1:-}
if [[ -z $environment ]]; then
    case "$(uname -s)-$(uname -m)" in
        Darwin-arm64) lock=src/engine/locks/macos-arm64.lock ;;
        Linux-aarch64) lock=src/engine/locks/linux-aarch64.lock ;;
        *) lock=src/engine/locks/linux-x86_64.lock ;;
    esac
    environment=$work/environment
    uv venv --quiet --no-project --python "${PYTHON:->=3.11,<3.14}" "$environment"
    uv pip install --quiet --python "$environment" --no-deps --require-hashes --only-binary=:all: -r "$lock"
fi
environment=$(cd "$environment" && pwd)

# Nothing that serving never reaches may have crept back in.
while read -r name; do
    if compgen -G "$environment/lib/python3.*/site-packages/${name//-/_}-*.dist-info" >/dev/null; then
        echo "error: $name is in src/engine/locks/left-out.txt and is installed all the same" >&2
        exit 1
    fi
done < <(grep -v -E '^(#|$)' src/engine/locks/left-out.txt)
echo "installed: $(du -sm "$environment" | cut -f1) MiB"

"$environment/bin/python" -W ignore tests/e2e/models/import_all.py
"$environment/bin/python" tests/e2e/models/tiny_models.py "$work/models"

check=("$environment/bin/python" tests/e2e/models/serve_models.py "$environment" "$work/models" "$work")
if unshare --net true 2>/dev/null; then
    unshare --net sh -c 'ip link set lo up && exec "$@"' sh "${check[@]}"
elif unshare --user --map-root-user --net true 2>/dev/null; then
    unshare --user --map-root-user --net sh -c 'ip link set lo up && exec "$@"' sh "${check[@]}"
else
    echo "note: no network namespace here, so this run does not prove that serving needs no network" >&2
    "${check[@]}"
fi

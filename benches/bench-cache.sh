#!/usr/bin/env bash
# How fast the cache is listed: 300 models and 30,000 files, by cclocal, by `du -sk`, and by huggingface_hub's own `hf cache ls` if there is one.
#
#   bash benches/bench-cache.sh [CCLOCAL] [HF]     default: target/release/cclocal, hf on PATH
#
# The files are sparse and take no room. Prints medians of 11 runs with a warm page cache, in milliseconds.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cclocal=$(realpath "${1:-${CARGO_TARGET_DIR:-target}/release/cclocal}")
hf=${2:-$(command -v hf || true)}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

python3 - "$scratch/hub" "$cclocal" "$hf" <<'PYTHON'
import os, statistics, subprocess, sys, time

hub, cclocal, hf = sys.argv[1:]
for model in range(300):
    folder = f"{hub}/models--org--model-{model:03}"
    snapshot = f"{folder}/snapshots/{'a' * 40}"
    for made in (f"{folder}/blobs", f"{folder}/refs", snapshot):
        os.makedirs(made)
    with open(f"{folder}/refs/main", "w") as file:
        file.write("a" * 40)
    # 49 blobs, 49 links and the reference: 99 files, and a lone one to make it 100.
    names = ["config.json", "tokenizer.json"] + [f"model-{part:02}.safetensors" for part in range(47)]
    for index, name in enumerate(names):
        blob = f"{index:064x}"
        with open(f"{folder}/blobs/{blob}", "wb") as file:
            file.truncate(100_000_000)
        os.symlink(f"../../blobs/{blob}", f"{snapshot}/{name}")
    open(f"{snapshot}/.lone", "w").close()

environment = {**os.environ, "HF_HUB_CACHE": hub, "HF_HUB_OFFLINE": "1", "CCLOCAL_HOME": f"{hub}/../home"}


def median(*command):
    times = []
    for _ in range(11):
        started = time.perf_counter()
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times)


ours = median(cclocal, "list")
print(f"cclocal list        {ours:8.1f} ms")
rivals = [("du -sk", ("du", "-sk", hub))]
if hf:
    rivals.append(("hf cache ls", (hf, "cache", "ls")))
for name, command in rivals:
    theirs = median(*command)
    print(f"{name:<18}  {theirs:8.1f} ms  {theirs / ours:6.1f} times as long")
for option in ("--version", "--help"):
    print(f"cclocal {option:<10}  {median(cclocal, option):8.1f} ms")
PYTHON

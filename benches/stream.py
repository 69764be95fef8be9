"""The measuring part of `bench-stream.sh`: ENVIRONMENT MODEL TOKENS PAIRS. With `engine raw|own PORT` behind them it is one of the engines."""

import http.client
import json
import os
import runpy
import socket
import statistics
import subprocess
import sys
import time

FLAGS = ["--continuous-batching", "--max-num-seqs", "1", "--stream-interval", "4", "--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
TOOL = {"name": "Read", "description": "Reads", "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}}}
KINDS = ("raw", "own")


def engine(environment, model, kind, port):
    if kind == "raw":
        names = {}
        for name in ("patches", "raw"):
            with open(f"src/engine/patches/{name}.py") as source:
                exec(source.read(), names)
        names["stream_raw"]()
    script = f"{environment}/bin/vllm-mlx"
    sys.argv = [script, "serve", model, "--host", "127.0.0.1", "--port", port, "--served-model-name", "served", *FLAGS]
    runpy.run_path(script, run_name="__main__")


def free_port():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def wait_until_ready(port):
    for _ in range(240):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.5)
    sys.exit("the engine did not start")


def ask(port, tokens):
    """Seconds from the first byte of the reply to its last."""
    request = {"model": "served", "max_tokens": tokens, "stream": True, "temperature": 0, "tools": [TOOL]}
    request["messages"] = [{"role": "user", "content": "ask endless"}]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("POST", "/v1/messages", json.dumps(request), {"content-type": "application/json"})
    reply = connection.getresponse()
    began = None
    while piece := reply.read1(65536):
        if began is None and b"content_block_delta" in piece:
            began = time.perf_counter()
    return time.perf_counter() - began


def processor_seconds(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main():
    environment, model, tokens, pairs, *rest = sys.argv[1:]
    if rest:
        return engine(environment, model, *rest[1:])
    tokens, pairs = int(tokens), int(pairs)
    ports = {kind: free_port() for kind in KINDS}
    arguments = [f"{environment}/bin/python", __file__, environment, model, str(tokens), str(pairs), "engine"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": {**os.environ, "HF_HUB_OFFLINE": "1"}}
    engines = {kind: subprocess.Popen([*arguments, kind, str(ports[kind])], **quiet) for kind in KINDS}
    speed, work = ({kind: [] for kind in KINDS} for _ in range(2))
    try:
        for kind in KINDS:
            wait_until_ready(ports[kind])
            ask(ports[kind], 200)
        for pair in range(pairs):
            for kind in KINDS if pair % 2 == 0 else reversed(KINDS):
                before = processor_seconds(engines[kind].pid)
                speed[kind].append(tokens / ask(ports[kind], tokens))
                work[kind].append((processor_seconds(engines[kind].pid) - before) / tokens * 1e6)
    finally:
        for running in engines.values():
            running.terminate()
        for running in engines.values():
            running.wait()
    for what, figures in (("tokens/s by the clock", speed), ("us of processor time for a token", work)):
        ratios = sorted(raw / own for raw, own in zip(figures["raw"], figures["own"]))
        medians = [f"{kind} {statistics.median(figures[kind]):.0f}" for kind in KINDS]
        print(f"{what}: {', '.join(medians)}; raw / own {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})")


main()

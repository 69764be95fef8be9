"""The served part of `bench-masks.sh`: CCLOCAL ENVIRONMENT LENGTHS PAIRS.

One conversation through cclocal's gateway, on three engines that run side by side and are asked in turns: batched as cclocal starts it (`ours`), the same
with arrays for masks (`arrays`), and in simple mode (`simple`). The conversation's tokens are nearly all in its system prompt, which simple mode keeps as
well. Prints the time for a token, by the clock and of the engine's processor, and the median of the pairs' ratios with the shortest and the longest.
"""

import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("ours", "arrays", "simple")
TOKENS = 160
# What stands before the engine's own script, in which `sys.argv` is what cclocal gives it.
BEFORE = {
    "ours": "",
    # The patch is there: its functions give way to those of another copy of the module.
    "arrays": """
import importlib.util
from mlx_lm.models import cache
spec = importlib.util.spec_from_file_location("mlx_lm.models.cache_as_it_is", cache.__file__)
own = importlib.util.module_from_spec(spec)
spec.loader.exec_module(own)
for kind in ("ArraysCache", "BatchKVCache", "BatchRotatingKVCache"):
    getattr(cache, kind).make_mask = getattr(own, kind).make_mask
""",
    "simple": """
if "--continuous-batching" in sys.argv:
    sys.argv.remove("--continuous-batching")
    at = sys.argv.index("--max-num-seqs")
    del sys.argv[at : at + 2]
""",
}


def make_model(out):
    """A Llama of four layers with heads of 128 that replies without end when it is asked to. A byte is a token."""
    sys.path.insert(0, str(ROOT / "tests/e2e/models"))
    import raw_models
    from mlx_lm.models import llama
    from tiny_models import END, HIDDEN, Chain, write

    tok, chains = raw_models.tokenizer()
    size = tok.get_vocab_size()
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": HIDDEN, "num_hidden_layers": 4, "intermediate_size": 128, "num_attention_heads": 8, "num_key_value_heads": 2,
        "head_dim": 128, "rms_norm_eps": 1e-5, "vocab_size": size, "rope_theta": 10000.0, "max_position_embeddings": 131072, "tie_word_embeddings": False,
    }  # fmt: skip
    write(out, tok, llama.Model(llama.ModelArgs.from_dict(config)), config, Chain(size, chains), template=raw_models.TEMPLATE, end=END)


def free_port():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


class Gateway:
    def __init__(self, cclocal, environment, scratch, model, kind):
        self.home = scratch / kind
        for folder in ("home", "cclocal"):
            (self.home / folder).mkdir(parents=True)
        script = self.home / "vllm-mlx"
        script.write_text(f'#!{environment}/bin/python\nimport runpy, sys\n{BEFORE[kind]}\nrunpy.run_path("{environment}/bin/vllm-mlx", run_name="__main__")\n')
        script.chmod(0o755)
        self.port = free_port()
        variables = {"PATH": os.environ["PATH"], "HOME": str(self.home / "home"), "CCLOCAL_HOME": str(self.home / "cclocal"), "CCLOCAL_ENGINE": str(script), "HF_HUB_OFFLINE": "1"}
        self.output = open(self.home / "output", "wb")
        arguments = [cclocal, "--server", "--model", str(model), "--port", str(self.port), "--no-mem-check", "--ctx", "65536"]
        self.process = subprocess.Popen(arguments, env=variables, cwd=self.home, stdin=subprocess.DEVNULL, stdout=self.output, stderr=self.output)
        self.script = str(script).encode()

    def wait_until_ready(self):
        while not (self.home / "output").stat().st_size or not self.keys():
            if self.process.poll() is not None:
                sys.exit((self.home / "output").read_text())
            time.sleep(0.2)
        self.key = self.keys()[0].read_text().strip()
        while True:
            try:
                return self.ask("Be brief.", 8)
            except (OSError, ValueError):
                if self.process.poll() is not None:
                    sys.exit((self.home / "output").read_text())
                time.sleep(0.5)

    def keys(self):
        return [path for path in (self.home / "cclocal").rglob("key") if str(self.port) in str(path.parent)]

    def ask(self, system, tokens):
        """Seconds for a token of the reply, and the reply's length in tokens."""
        request = {"model": self.name(), "max_tokens": tokens, "stream": True, "temperature": 0, "system": system, "messages": [{"role": "user", "content": "ask endless"}]}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1800)
        headers = {"content-type": "application/json", "authorization": f"Bearer {self.key}", "anthropic-version": "2023-06-01"}
        connection.request("POST", "/v1/messages", json.dumps(request), headers)
        reply = connection.getresponse()
        if reply.status != 200:
            raise ValueError(reply.read())
        times, letters, generated = [], [], 0
        for line in reply:
            if not line.startswith(b"data: "):
                continue
            event = json.loads(line[6:])
            if event["type"] == "content_block_delta":
                times.append(time.perf_counter())
                letters.append(len(event["delta"].get("text", "")))
            if event["type"] == "message_delta":
                generated = event["usage"]["output_tokens"]
        # The first piece came before the clock was started, and each letter is as many tokens as the others.
        return (times[-1] - times[0]) / (generated * (1 - letters[0] / sum(letters))), generated

    def processor_seconds(self):
        """Of the engine."""
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if self.script in (process / "cmdline").read_bytes().split(b"\0"):
                    fields = (process / "stat").read_text().rsplit(")", 1)[1].split()
                    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            except OSError:
                pass
        sys.exit("the engine is gone")

    def name(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", "/v1/models", headers={"authorization": f"Bearer {self.key}"})
        return json.loads(connection.getresponse().read())["data"][0]["id"]

    def end(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait()
        self.output.close()


def main():
    cclocal, environment, lengths, pairs = sys.argv[1:]
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        model = scratch / "model"
        make_model(model)
        gateways = {}
        try:
            for kind in KINDS:
                gateways[kind] = Gateway(cclocal, environment, scratch, model, kind)
                gateways[kind].wait_until_ready()
            measure(gateways, [int(length) for length in lengths.split(",")], int(pairs))
        finally:
            for gateway in gateways.values():
                gateway.end()


def measure(gateways, lengths, pairs):
    print("| tokens before | a token's | ours | arrays | simple | ours / arrays | ours / simple |\n| --- | --- | --- | --- | --- | --- | --- |")
    for length in lengths:
        system = "Be brief. " + "word " * (length // 5)
        for gateway in gateways.values():  # Computes the prompt.
            gateway.ask(system, 16)
        clock, processor = ({kind: [] for kind in KINDS} for _ in range(2))
        for pair in range(pairs):
            for kind in KINDS if pair % 2 else reversed(KINDS):
                before = gateways[kind].processor_seconds()
                seconds, generated = gateways[kind].ask(system, TOKENS)
                assert generated == TOKENS, f"{kind}: {generated} tokens"
                clock[kind].append(seconds)
                processor[kind].append((gateways[kind].processor_seconds() - before) / TOKENS)
        for what, took in (("time", clock), ("processor time", processor)):
            medians = " | ".join(f"{statistics.median(took[kind]) * 1e3:.1f} ms" for kind in KINDS)
            ratios = [sorted(ours / other for ours, other in zip(took["ours"], took[kind])) for kind in KINDS[1:]]
            ratios = " | ".join(f"{statistics.median(found):.3f} ({found[0]:.3f} to {found[-1]:.3f})" for found in ratios)
            print(f"| {length:,} | {what} | {medians} | {ratios} |", flush=True)


main()

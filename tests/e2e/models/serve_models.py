#!/usr/bin/env python3
"""Serves the tiny models with an installed engine and sends what Claude Code sends, to prove that its packages are enough.

    serve_models.py ENGINE_DIR MODELS_DIR WORK_DIR      (standard library only; no network but loopback)

ENGINE_DIR holds bin/vllm-mlx and bin/python. Each model is served in the two modes that cclocal uses, and asked, through /v1/messages: a tool
call, the turn after it, the same as a stream, and, on the multimodal route, with a picture. Every import that failed while serving is
recorded: one that is not in TOLERATED fails the check, because it is a package left out that the engine wanted.
"""

import base64
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zlib
from pathlib import Path

# Absent packages that the engine looks for and does without: each is asked for by a `try`, and nothing that we serve needs it.
TOLERATED = {
    "_winapi", "_wmi", "a2wsgi", "backports", "brotli", "brotlicffi", "chardet", "colorama", "cv2", "cython", "defusedxml", "dotenv",
    "email_validator", "envwrap", "essentia", "fqdn", "g2p_en", "gradio", "h2", "httptools", "isoduration", "itsdangerous",
    "jsonpointer", "librosa", "mistral_common", "org", "rich", "mlx_audio", "modelscope", "msvcrt", "nt", "num2words", "openai_harmony", "orjson",
    "pretty_midi", "pydantic_extra_types", "rfc3339_validator", "rfc3986_validator", "rfc3987", "rfc3987_syntax", "scipy",
    "simplejson", "sitecustomize", "snappy", "sniffio", "socks", "socksio", "soundfile", "soxr", "tiktoken", "torch", "torchvision",
    "trio", "ujson", "uri_template", "usercustomize", "uvloop", "vllm", "watchfiles", "webcolors", "websockets", "winreg", "wsproto",
}

# Runs in the engine before anything of its own: writes down each top-level import that no finder knows.
RECORDER = """
import atexit, os, sys
class Recorder:
    def find_spec(self, name, path=None, target=None):
        if path is None:
            with open(os.environ["CCLOCAL_MISSED_IMPORTS"], "a") as out:
                out.write(name + "\\n")
        return None
sys.meta_path.append(Recorder())
"""

TOOL = {
    "name": "Write",
    "description": "Writes a file.",
    "input_schema": {
        "type": "object",
        "properties": {"file_path": {"type": "string"}, "content": {"type": "string"}},
        "required": ["file_path", "content"],
    },
}


def png(width, height):
    """A picture with a gradient, as bytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(v for x in range(width) for v in (x % 256, y % 256, 128)) for y in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Server:
    """One engine, serving one model."""

    def __init__(self, engine, model, work, flags):
        self.port = free_port()
        self.log = work / f"{model.name}-{'batched' if '--continuous-batching' in flags else 'simple'}.log"
        hook = work / "hook"
        hook.mkdir(exist_ok=True)
        (hook / "sitecustomize.py").write_text(RECORDER)
        self.missed = self.log.with_suffix(".missed")
        self.missed.write_text("")
        home = work / "home"
        home.mkdir(exist_ok=True)
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "PYTHONPATH": str(hook),
            "CCLOCAL_MISSED_IMPORTS": str(self.missed),
            "HF_HUB_OFFLINE": "1",
        }
        argv = [engine / "bin/vllm-mlx", "serve", model, "--host", "127.0.0.1", "--port", str(self.port), "--served-model-name", "tiny"]
        argv += ["--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--enable-metrics", "--max-tokens", "256", *flags]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def wait(self):
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise RuntimeError(f"the engine ended with {self.process.returncode}:\n{self.log.read_text()[-3000:]}")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5) as answer:
                    if json.load(answer).get("model_loaded"):
                        return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError(f"the engine was not healthy in 60 s:\n{self.log.read_text()[-3000:]}")

    def post(self, path, body):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            json.dumps(body).encode(),
            {"content-type": "application/json", "anthropic-version": "2023-06-01"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{path}: {error.code} {error.read().decode()[:500]}\n{self.log.read_text()[-3000:]}") from error

    def messages(self, messages, **more):
        body = {"model": "tiny", "max_tokens": 200, "system": "Be brief.", "messages": messages, "tools": [TOOL], **more}
        return self.post("/v1/messages", body)

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return answer.read().decode()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


def tool_call(answer):
    blocks = [block for block in answer["content"] if block["type"] == "tool_use"]
    assert answer["stop_reason"] == "tool_use" and len(blocks) == 1, answer
    assert blocks[0]["name"] == "Write" and blocks[0]["input"]["content"] == "hello world", answer
    return blocks[0]


def ask_everything(server, picture):
    user = {"role": "user", "content": "Write hello world to a file."}
    call = tool_call(json.loads(server.messages([user])))
    after = [
        user,
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call["id"], "content": "File written."}]},
    ]
    answer = json.loads(server.messages(after))
    assert answer["stop_reason"] == "end_turn" and "the file is written" in answer["content"][0]["text"], answer
    stream = server.messages([user], stream=True)
    assert "event: message_stop" in stream and '"tool_use"' in stream and "input_json_delta" in stream, stream
    counted = json.loads(server.post("/v1/messages/count_tokens", {"model": "tiny", "messages": [user]}))
    assert counted["input_tokens"] > 0, counted
    assert "vllm_mlx" in server.get("/metrics"), "no metrics"
    if picture:
        source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(png(96, 64)).decode()}
        shown = [{"role": "user", "content": [{"type": "image", "source": source}, {"type": "text", "text": "Write what you see."}]}]
        tool_call(json.loads(server.messages(shown)))
        with_picture = json.loads(server.messages(shown))["usage"]["input_tokens"]
        without = json.loads(server.messages([{"role": "user", "content": "Write what you see."}]))["usage"]["input_tokens"]
        assert with_picture >= without + 4, f"the picture was not put into the prompt: {with_picture} tokens with it, {without} without"


def main():
    engine, models, work = (Path(arg).resolve() for arg in sys.argv[1:4])
    batched = ["--continuous-batching", "--max-num-seqs", "1"]
    failed = False
    for name, modes in (("text", ([], batched)), ("gemma4", ([], batched)), ("qwen3_5", ([], batched))):
        for flags in modes:
            label = f"{name}, {'batched' if flags else 'simple'}"
            started = time.monotonic()
            server = Server(engine, models / name, work, flags)
            try:
                server.wait()
                ask_everything(server, picture=name != "text")
            except (AssertionError, RuntimeError) as error:
                failed = True
                print(f"FAILED  {label}: {error}")
                continue
            finally:
                server.stop()
            wanted = {line.split(".")[0] for line in server.missed.read_text().splitlines()} - TOLERATED
            wanted = {module for module in wanted if module not in sys.stdlib_module_names}
            if wanted:
                failed = True
                print(f"FAILED  {label}: it looked for {', '.join(sorted(wanted))}")
            else:
                print(f"ok      {label}: {time.monotonic() - started:.1f} s")
    sys.exit(failed)


main()

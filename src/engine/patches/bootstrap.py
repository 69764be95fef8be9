"""Starts the engine so that it cannot outlive cclocal, and so that its key is on nobody's command line.

Run as `python -c … SCRIPT ARGS...`, with a pipe from cclocal as standard input. The first line of the pipe is JSON: `key`, which requests
have to carry (empty: none), `socket`, where the engine is to serve, and `proof_key` (see `listen.py`). The pipe then stays open for as long as cclocal lives: its end means that cclocal is gone, however it went, and the engine's
whole process group is killed. There is no signal for a parent's death on macOS; a pipe works everywhere.
"""

import json
import os
import runpy
import signal
import sys
import threading


def watch(pipe):
    while os.read(pipe, 4096):
        pass
    os.killpg(0, signal.SIGKILL)


def main():
    pipe = os.dup(0)  # Not inherited by the engine's own children.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(pipe, 1)
        if not byte:
            sys.exit("cclocal ended before the engine started")
        line += byte
    threading.Thread(target=watch, args=(pipe,), daemon=True).start()

    script, *arguments = sys.argv[1:]
    told = json.loads(line)
    if told["key"]:
        arguments += ["--api-key", told["key"]]
    sys.argv = [script, *arguments]

    serve_on_socket(told["socket"], told["proof_key"])
    resume_downloads()
    # Before those that read what was downloaded.
    check_model_files()
    stream_raw()
    write_history()
    count_prompts()
    settle_entries()
    handover = take_over_entries()
    attend_without_arrays()
    stay_within_memory()
    tell_progress()
    take_text_route()
    # Before the snapshots: what they look at passes through here, and what is looked at here does not concern them.
    keep_prefixes()
    settle_snapshots(handover)

    # At shutdown the engine writes its prefix cache, which holds the conversation, below ~/.cache in the clear, and takes seconds
    # for it. Nothing of a conversation stays behind here; what stands before one does, see `keep_prefixes`.
    keep_conversations_off_the_disk()

    runpy.run_path(script, run_name="__main__")


def keep_conversations_off_the_disk():
    try:
        from vllm_mlx import server
    except ImportError as error:
        return not_applied("nothing-on-disk", error)

    async def nothing_to_do(*_arguments, **_options):
        return None

    names = ("_save_prefix_cache_to_disk", "_load_prefix_cache_from_disk")
    for name in names:
        if hasattr(server, name):
            setattr(server, name, nothing_to_do)
    if missing := [name for name in names if not hasattr(server, name)]:
        return not_applied("nothing-on-disk", f"{missing[0]} is missing")
    applied("nothing-on-disk")


main()

#!/usr/bin/env bash
# How long it takes until Claude Code's prompt is on the screen: `claude` by itself against `cclocal` with an engine that runs already, in turns, both
# with the same environment, arguments and gateway; and a cold start: `cclocal` until the engine is ready, against the engine started by itself.
#
#   bash benches/bench-start.sh [CCLOCAL] [RUNS]     default: target/release/cclocal, 11
#
# Needs what `cclocal demo` needs: an engine and Claude Code. The demo model loads in a moment, so a cold start shows what comes on top of loading.
# A terminal of its own for every run. Prints the rows of docs/performance.md, medians; wants a machine that does nothing else.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cclocal=$(realpath "${1:-${CARGO_TARGET_DIR:-target}/release/cclocal}")
runs=${2:-11}
scratch=$(mktemp -d)
finish() {
    CCLOCAL_HOME=$scratch/home "$cclocal" stop --force >/dev/null 2>&1 || true
    rm -rf "$scratch" "${demo:-$scratch}"
}
trap finish EXIT

# The model, and proof that all of it works.
"$cclocal" demo --keep 2>"$scratch/demo" || { cat "$scratch/demo" >&2; exit 1; }
demo=$(sed -n "s/^The demo's folder: //p" "$scratch/demo")
# From such a name the form of its tool calls is known.
mv "$demo/model" "$demo/hermes-model"

python3 - "$cclocal" "$runs" "$scratch" "$demo/hermes-model" "$demo/work" <<'PYTHON'
import glob, json, os, platform, pty, select, signal, socket, statistics, subprocess, sys, time, urllib.request

cclocal, runs, scratch, model, work = sys.argv[1], int(sys.argv[2]), *sys.argv[3:]
DEADLINE = 120
# A terminal tells nothing of the one that the script runs in.
environment = {**os.environ, "TERM": "xterm-256color", "CCLOCAL_HOME": f"{scratch}/home"}
for name in ("CLAUDECODE", "CLAUDE_CONFIG_DIR", "CCLOCAL_LINGER"):
    environment.pop(name, None)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def wait_until(what, is_so, pause=0.002):
    since = time.monotonic()
    while not is_so():
        if time.monotonic() - since > DEADLINE:
            sys.exit(f"{what}: nothing in {DEADLINE} s")
        time.sleep(pause)


class Terminal:
    """A program in a terminal of its own."""

    def __init__(self, argv, env):
        self.started, self.seen = time.monotonic(), b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(work)
            os.execve(argv[0], argv, env)

    def until(self, mark):
        """Seconds until the mark is on the screen."""
        while mark not in self.seen:
            ready, _, _ = select.select([self.fd], [], [], DEADLINE)
            try:
                piece = os.read(self.fd, 65536) if ready else b""
            except OSError:
                piece = b""
            if not piece:
                sys.exit(f"no {mark.decode()} on the screen: {self.seen.decode(errors='replace')}")
            self.seen += piece
        return time.monotonic() - self.started

    def end(self):
        os.kill(self.pid, signal.SIGTERM)
        since = time.monotonic()
        while os.waitpid(self.pid, os.WNOHANG) == (0, 0):
            if time.monotonic() - since > DEADLINE:
                sys.exit("a session does not end")
            # What it still says has to be read, or it could not end.
            if select.select([self.fd], [], [], 0.01)[0]:
                try:
                    os.read(self.fd, 65536)
                except OSError:
                    pass
        os.close(self.fd)


def script(name, text):
    path = f"{scratch}/{name}"
    with open(path, "w") as file:
        file.write("#!/bin/sh\n" + text)
    os.chmod(path, 0o755)
    return path


def dry_run():
    told = subprocess.run([cclocal, "--model", model, "--dry-run", "--json"], env=environment, cwd=work, check=True, capture_output=True)
    return json.loads(told.stdout)


planned = dry_run()
claude = planned["claude"]["argv"][0]
# Whatever the demo used is used here, wherever it was found.
environment["CCLOCAL_ENGINE"] = planned["engine"]["argv"][0]
environment["CCLOCAL_CLAUDE"] = claude
port = free_port()
launch = [cclocal, "--model", model, "--port", port, "--no-mem-check"]

# A session that stays: it keeps the engine, and what its client was started with is what `claude` is started with here. It shows nothing in a rehearsal.
holder = script("holder", f'[ "$1" != --help ] || exec "{claude}" --help\ncase $ANTHROPIC_BASE_URL in */rehearsal) exit;; esac\nprintf "%s\\0" "$@" >{scratch}/argv\nenv -0 >{scratch}/env.new\nmv {scratch}/env.new {scratch}/env\nexec sleep 100000\n')
held = Terminal(launch, {**environment, "CCLOCAL_CLAUDE": holder})
wait_until("the session that stays", lambda: os.path.exists(f"{scratch}/env"))
with open(f"{scratch}/argv") as file:
    plain = [claude, *file.read().split("\0")[:-1]]
with open(f"{scratch}/env") as file:
    plain_environment = dict(entry.split("=", 1) for entry in file.read().split("\0")[:-1])

# The question whether to trust the folder would stand before the prompt. This profile is the script's own.
state = f"{scratch}/home/data/claude/.claude.json"
with open(state) as file:
    known = json.load(file)
known.setdefault("projects", {})[os.path.realpath(work)] = {"hasTrustDialogAccepted": True}
with open(state, "w") as file:
    json.dump(known, file)

PROMPT = "❯".encode()


def prompt(argv, env):
    terminal = Terminal(argv, env)
    seconds = terminal.until(PROMPT)
    terminal.end()
    return seconds


def median(times):
    return statistics.median(times) * 1000


def rehearsals():
    """What is written down of each Claude Code that has shown how it begins."""
    return glob.glob(f"{scratch}/home/cache/prefixes/rehearsal-*.json")


def unseen(argv, env):
    """The first session of a Claude Code that was not seen yet: another one starts beside it."""
    seen = {path: open(path).read() for path in rehearsals()}
    for path in seen:
        os.remove(path)
    seconds = prompt(argv, env)
    for path, text in seen.items():
        with open(path, "w") as file:
            file.write(text)
    return seconds


kinds = {"claude": (prompt, plain, plain_environment), "cclocal": (prompt, launch, environment), "unseen": (unseen, launch, environment)}
# Files are in memory, answers remembered, and the rehearsal is over before it counts.
prompt(plain, plain_environment)
wait_until("the rehearsal of the session that stays", rehearsals)
first = Terminal(launch, environment)
wait_until("the rehearsal", lambda: len(rehearsals()) == 2)
first.end()
load = os.getloadavg()[0]
times = {kind: [] for kind in kinds}
for run in range(runs):
    for kind in (list(kinds) if run % 2 == 0 else list(reversed(kinds))):
        measure, *how = kinds[kind]
        times[kind].append(measure(*how))
warm = {kind: median(taken) for kind, taken in times.items()}

# What is ours of it: until the client is started. A client that ends at once takes the real one's place.
mark = f"{scratch}/client-started"
client = script("client", f'[ "$1" != --help ] || exec "{claude}" --help\n: >{mark}\n')


def until_client(env):
    if os.path.exists(mark):
        os.remove(mark)
    started = time.monotonic()
    session = subprocess.Popen(launch, env=env, cwd=work, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until("the client", lambda: os.path.exists(mark))
    seconds = time.monotonic() - started
    session.wait()
    return seconds


stub_environment = {**environment, "CCLOCAL_CLAUDE": client}
until_client(stub_environment)
own = median([until_client(stub_environment) for _ in range(runs)])
held.end()
subprocess.run([cclocal, "stop", "--force"], env=environment, capture_output=True)

# Cold: until the client is started, which is when the engine is ready.
cold_environment = {**stub_environment, "CCLOCAL_LINGER": "0"}


def engine_alone():
    planned = dry_run()["engine"]
    there = free_port()
    argv = [there if word == "0" and planned["argv"][at - 1] == "--port" else word for at, word in enumerate(planned["argv"])]
    env = {name: environment[name] for name in planned["inherited"] if name in environment} | planned["env"]
    started = time.monotonic()
    engine = subprocess.Popen(argv, env=env, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def is_ready():
        if engine.poll() is not None:
            sys.exit("the engine ended by itself")
        try:
            return json.load(direct.open(f"http://127.0.0.1:{there}/health", timeout=5)).get("model_loaded") is True
        except OSError:
            return False

    wait_until("the engine", is_ready)
    seconds = time.monotonic() - started
    engine.kill()
    engine.wait()
    return seconds


def cold(forget):
    if forget:
        subprocess.run(["rm", "-rf", f"{scratch}/home/cache"], check=True)
    return until_client(cold_environment)


engine_alone(), cold(False)
alone, remembered, forgotten = [], [], []
for _ in range(runs):
    alone.append(engine_alone())
    remembered.append(cold(False))
    forgotten.append(cold(True))
alone, remembered, forgotten = median(alone), median(remembered), median(forgotten)

version = subprocess.run([claude, "--version"], env=environment, capture_output=True, text=True).stdout.split()[0]
print(f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, load average {load:.1f} before and {os.getloadavg()[0]:.1f} after; Claude Code {version}; medians of {runs}\n")
print("| | time | |\n| --- | --- | --- |")
print(f"| `claude` to its prompt | {warm['claude']:.0f} ms | |")
print(f"| `cclocal` to the same prompt, engine running | {warm['cclocal']:.0f} ms | {warm['cclocal'] - warm['claude']:+.0f} ms, {warm['cclocal'] / warm['claude']:.2f} times as long |")
print(f"| the same, the first session of this Claude Code | {warm['unseen']:.0f} ms | {warm['unseen'] - warm['claude']:+.0f} ms |")
print(f"| ours of that: until the client is started | {own:.0f} ms | |")
print(f"| the engine by itself, until it is ready | {alone:.0f} ms | |")
print(f"| `cclocal`, cold, until the client is started | {remembered:.0f} ms | {remembered - alone:+.0f} ms |")
print(f"| the same, nothing remembered of engine and client | {forgotten:.0f} ms | {forgotten - alone:+.0f} ms |")
PYTHON

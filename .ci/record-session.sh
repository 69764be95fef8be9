#!/usr/bin/env bash
# Records a session as a picture that moves: the real engine, the real Claude Code and the demo model, in a real terminal (tmux), offline if it
# has to be. Where pictures do not move, it shows the moment after the answer.
#
#   bash .ci/record-session.sh [SVG] [CCLOCAL]     default: docs/session.svg, target/release/cclocal
#
# The engine and Claude Code are those that this cclocal finds (`cclocal setup`, CCLOCAL_HOME, CCLOCAL_ENGINE, CCLOCAL_CLAUDE). The session
# runs with a home of its own, so nothing of yours is in the picture; the script refuses to write one that names this machine's folders.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."
picture=$(realpath -m "${1:-docs/session.svg}")
cclocal=$(realpath "${2:-${CARGO_TARGET_DIR:-target}/release/cclocal}")

readonly WIDTH=92 HEIGHT=30
readonly SECONDS_AT_MOST=120

scratch=$(mktemp -d)
home=$scratch/home
finish() {
    tmux -S "$scratch/tmux" kill-server 2>/dev/null || true
    # The model stays loaded after the session.
    env -i HOME="$home" PATH=/usr/bin:/bin "$cclocal" stop --force >/dev/null 2>&1 || true
    rm -rf "$scratch"
}
trap finish EXIT

main() {
    local plan engine claude
    plan=$("$cclocal" --gemma-light --dry-run --json)
    engine=$(jq_first "$plan" engine)
    claude=$(jq_first "$plan" claude)
    mkdir -p "$home/project" "$scratch/bin"
    ln -s "$cclocal" "$scratch/bin/cclocal"
    cargo run --quiet --locked --example write_demo_model -- "$home/hermes-llama" "$home/project/hello.txt" $'hello world\n'

    # Nothing of this shell's environment but what a terminal has.
    in_tmux() {
        env -i HOME="$home" PATH="$scratch/bin:/usr/bin:/bin" LANG=C.UTF-8 TERM=xterm-256color COLORTERM=truecolor \
            CCLOCAL_ENGINE="$engine" CCLOCAL_CLAUDE="$claude" TMPDIR="$scratch" tmux -f /dev/null -S "$scratch/tmux" "$@"
    }
    in_tmux new-session -d -x $WIDTH -y $HEIGHT -c "$home/project" 'bash --norc --noprofile -i'
    # Else Claude Code says what tmux could do.
    in_tmux set-option -g focus-events on
    type_line "PS1='\\[\\e[1;32m\\]~/project \$\\[\\e[0m\\] '; clear"
    # shellcheck disable=SC2088 # as it stands on the screen
    wait_for '~/project \$'
    in_tmux send-keys -l "cclocal --model ../hermes-llama --port $(free_port)"
    frame 2
    in_tmux send-keys Enter
    wait_for loading
    frame 1
    wait_for 'Yes, I trust this folder'
    settle
    # The newest client proposes no, older ones yes.
    screen | grep -q '❯.*Yes, I trust' || in_tmux send-keys Down
    wait_for '❯.*Yes, I trust'
    frame 2
    in_tmux send-keys Enter
    wait_for 'Claude Code v'
    settle
    frame 1
    in_tmux send-keys -l 'Create hello.txt'
    wait_for '❯.*Create hello.txt'
    frame 1
    in_tmux send-keys Enter
    wait_for 'Done: the Write tool has written the file'
    settle
    frame 4
    still=$frames
    type_line '/exit'
    wait_for 'go on with'
    settle
    type_line 'cat hello.txt'
    wait_for '^hello world'
    frame 5
    python3 -c "$RENDER" $WIDTH $HEIGHT "$still" "$scratch"/frame-* >"$scratch/session.svg"
    for private in "$scratch" "$HOME" "$(uname -n)" "$PWD"; do
        if [ "${#private}" -gt 2 ] && grep -qF -- "$private" "$scratch/session.svg"; then
            echo "the picture would show $private: it is not written" >&2
            exit 1
        fi
    done
    mkdir -p "$(dirname "$picture")"
    mv "$scratch/session.svg" "$picture"
    echo "$picture"
}

# The program of a plan.
jq_first() {
    python3 -c 'import json, sys; print(json.loads(sys.argv[1])[sys.argv[2]]["argv"][0])' "$1" "$2"
}

# Keeps what is on the screen, to be shown for so many seconds. This home is written as everybody writes theirs.
frames=0
frame() {
    frames=$((frames + 1))
    { echo "$1"; in_tmux capture-pane -e -p | sed "s|$home|~|g"; } >"$scratch/frame-$frames"
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 8000 if s.connect_ex(("127.0.0.1", 8000)) else 0)); print(s.getsockname()[1])'
}

type_line() {
    in_tmux send-keys -l "$1"
    in_tmux send-keys Enter
}

screen() {
    in_tmux capture-pane -p
}

wait_for() {
    local since=$SECONDS
    until screen | grep -q -- "$1"; do
        if ((SECONDS - since > SECONDS_AT_MOST)); then
            echo "'$1' did not appear:" >&2
            screen >&2
            exit 1
        fi
        sleep 0.1
    done
}

# Until nothing has changed for a while: Claude Code ignores keys for about a second after it has painted a question.
settle() {
    local before now still=0
    before=$(screen)
    while ((still < 15)); do
        sleep 0.1
        now=$(screen)
        if [ "$now" = "$before" ]; then ((still += 1)); else still=0; fi
        before=$now
    done
}

# From the text of a terminal with its colours to a picture. Every run of letters of one look is one element, and is told its width, so that
# columns stand under each other in any font.
readonly RENDER='
import html, re, sys, unicodedata

WIDTH, HEIGHT, STILL, FRAMES = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
CELL, LINE, SIZE, EDGE, TOP = 8.4, 19, 14, 16, 44
BACK, FORE = "#1e1e2e", "#cdd6f4"
BASE = ["#45475a", "#f38ba8", "#a6e3a1", "#f9e2af", "#89b4fa", "#f5c2e7", "#94e2d5", "#bac2de"]
BRIGHT = ["#6c7086", "#f38ba8", "#a6e3a1", "#f9e2af", "#89b4fa", "#f5c2e7", "#94e2d5", "#ffffff"]

def indexed(n):
    if n < 16:
        return (BASE + BRIGHT)[n]
    if n > 231:
        grey = 8 + 10 * (n - 232)
        return f"#{grey:02x}{grey:02x}{grey:02x}"
    n -= 16
    level = lambda value: 0 if value == 0 else 55 + 40 * value
    return "#%02x%02x%02x" % (level(n // 36), level(n // 6 % 6), level(n % 6))

PLAIN = {"fore": None, "back": None, "bold": False, "dim": False, "italic": False, "underline": False, "inverse": False}

def styled(look, codes):
    codes = [int(code or 0) for code in re.split("[;:]", codes)] if codes else [0]
    look = dict(look)
    while codes:
        code = codes.pop(0)
        if code == 0: look = dict(PLAIN)
        elif code == 1: look["bold"] = True
        elif code == 2: look["dim"] = True
        elif code == 3: look["italic"] = True
        elif code == 4: look["underline"] = True
        elif code == 7: look["inverse"] = True
        elif code == 22: look["bold"] = look["dim"] = False
        elif code == 23: look["italic"] = False
        elif code == 24: look["underline"] = False
        elif code == 27: look["inverse"] = False
        elif code in (38, 48):
            kind = codes.pop(0)
            colour = indexed(codes.pop(0)) if kind == 5 else "#%02x%02x%02x" % tuple(codes.pop(0) for _ in range(3))
            look["fore" if code == 38 else "back"] = colour
        elif code == 39: look["fore"] = None
        elif code == 49: look["back"] = None
        elif 30 <= code <= 37: look["fore"] = BASE[code - 30]
        elif 40 <= code <= 47: look["back"] = BASE[code - 40]
        elif 90 <= code <= 97: look["fore"] = BRIGHT[code - 90]
        elif 100 <= code <= 107: look["back"] = BRIGHT[code - 100]
    return look

def cells(text):
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)

def painted(lines):
    body, look = [], dict(PLAIN)
    for row, line in enumerate(lines):
        column, y = 0, TOP + row * LINE
        for part in re.split("(\x1b\\[[0-9;:]*m)", line):
            if part.startswith("\x1b"):
                look = styled(look, part[2:-1])
                continue
            part = re.sub("\x1b\\][^\x1b\x07]*(\x1b\\\\|\x07)|[\x00-\x1f]", "", part)
            width = cells(part)
            if not width:
                continue
            fore, back = look["fore"] or FORE, look["back"]
            if look["inverse"]:
                fore, back = back or BACK, fore
            x = EDGE + column * CELL
            if back:
                body.append(f"<rect x=\"{x:.1f}\" y=\"{y}\" width=\"{width * CELL:.1f}\" height=\"{LINE}\" fill=\"{back}\"/>")
            start = len(part) - len(part.lstrip(" "))
            word = part.strip(" ")
            if word:
                more = "".join([
                    " font-weight=\"bold\"" if look["bold"] else "", " opacity=\"0.6\"" if look["dim"] else "",
                    " font-style=\"italic\"" if look["italic"] else "", " text-decoration=\"underline\"" if look["underline"] else ""])
                body.append(f"<text x=\"{x + start * CELL:.1f}\" y=\"{y + 14}\" fill=\"{fore}\" textLength=\"{cells(word) * CELL:.1f}\" lengthAdjust=\"spacingAndGlyphs\"{more}>{html.escape(word)}</text>")
            column += width
    return body

frames = []
for name in sorted(FRAMES, key=lambda name: int(name.rsplit("-", 1)[1])):
    with open(name) as file:
        seconds, *lines = file.read().split("\n")
    frames.append((float(seconds), painted(lines)))
whole = sum(seconds for seconds, _ in frames)

wide, high = 2 * EDGE + WIDTH * CELL, TOP + HEIGHT * LINE + EDGE
print(f"<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {wide:.0f} {high}\" width=\"{wide:.0f}\" height=\"{high}\" role=\"img\" xml:space=\"preserve\" font-family=\"ui-monospace, SFMono-Regular, Menlo, Consolas, DejaVu Sans Mono, monospace\" font-size=\"{SIZE}\">")
print("<title>A session of cclocal: Claude Code writes a file with a model of this machine</title>")
print(f"<rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"{BACK}\"/>")
for number, colour in enumerate(["#f38ba8", "#f9e2af", "#a6e3a1"]):
    print(f"<circle cx=\"{EDGE + 6 + 20 * number}\" cy=\"20\" r=\"6\" fill=\"{colour}\"/>")
# Each is seen in its own time. Without movement the one after the answer is seen.
print("<style>")
print(f".f {{ opacity: 0 }} #f{STILL} {{ opacity: 1 }}")
print("@media (prefers-reduced-motion: no-preference) {")
before = 0
for number, (seconds, _) in enumerate(frames, 1):
    start, end = 100 * before / whole, 100 * (before + seconds) / whole
    seen = [(0, 0), (start, 1), (end, 0)] if before else [(0, 1), (end, 0)]
    steps = " ".join(f"{at:.2f}% {{ opacity: {shown} }}" for at, shown in seen if at < 100)
    print(f"@keyframes k{number} {{ {steps} }}")
    print(f"#f{number} {{ animation: k{number} {whole:g}s step-end infinite }}")
    before += seconds
print("}")
print("</style>")
for number, (_, body) in enumerate(frames, 1):
    shown = 1 if number == STILL else 0
    print(f"<g id=\"f{number}\" class=\"f\" opacity=\"{shown}\">")
    print("\n".join(body))
    print("</g>")
print("</svg>")
'
main

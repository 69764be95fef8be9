//! The fakes: an engine and a client, as executables.
//!
//! The engine's Python is a shell script that answers `serve --help` by itself and otherwise becomes this very test binary, in which the
//! ignored test [`engine_process`] then plays the engine. What the engine does is told by files in the stage's `engine` folder:
//! `says` (what it writes into its log first), `die-before` (its text is the log's last line, and its status is 1), `slow` (it does not get ready while that is there), `stubborn` (it ignores SIGTERM),
//! `memory` (what it says of its memory, and `memory-cleared` what it says once its prefix cache was cleared; `cleared` counts that),
//! `reads` (it begins no reply while that is there), `progress` (how far it says it is),
//! `liar` (it does not know the key by which it has to prove itself), `insists` (it serves on its port), `prompt-tokens` (how long it counts every prompt to be), `die-after` (it is killed, as by Metal, once the file `die-now` appears, and its successors at once if it is still there).

use std::io::{BufRead, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cclocal::engine::proof;
use serde_json::Value;

use crate::support::Stage;

/// The chat template of models that look whole: it shows the form of Hermes, and no thoughts.
pub const TEMPLATE: &str =
    r#"{% if tools %}<tool_call>{"name": "", "arguments": {}}</tool_call>{% endif %}"#;

/// The window for which Claude Code is told this one, in tokens, with replies of up to 20,000.
pub fn real_window(told: &str) -> String {
    let told: u64 = told.parse().expect("tokens");
    (told - 10_500).to_string()
}

/// A stage with a fake engine, a fake client and a model folder that looks whole.
pub fn stage() -> Stage {
    let mut stage = Stage::bare();
    stage.write("model/config.json", r#"{"model_type": "llama"}"#);
    stage.write("model/tokenizer.json", "{}");
    stage.write("model/model.safetensors", "weights");
    stage.write("model/chat_template.jinja", TEMPLATE);
    engine(&mut stage);
    client(&mut stage, "");
    stage
}

/// The flags that the fake engine says it has.
const HELP: &str = "usage: vllm-mlx serve [-h] [--host HOST] [--port PORT] [--served-model-name NAME] [--api-key KEY] [--continuous-batching] [--max-num-seqs N]
  [--tool-call-parser {auto,hermes,gemma4,glm47,qwen3_coder}] [--enable-auto-tool-choice] [--default-chat-template-kwargs JSON] [--max-tokens N]";

fn engine(stage: &mut Stage) {
    let exe = std::env::current_exe().expect("this binary");
    let python = stage.script(
        "python3",
        &format!(
            "#!/bin/sh
case \"$*\" in *device_info*) cat '{device}' 2>/dev/null; exit;; esac
if [ \"$1\" != -c ]; then cat <<'HELP'\n{HELP}\nHELP\nexit 0; fi
shift 4
if [ \"$2\" = --help ]; then cat '{says}' >&2 2>/dev/null; exit 0; fi
STAGE_ENGINE='{}' ENGINE_ARGS=\"$*\" exec '{}' --exact fakes::engine_process --ignored --nocapture
",
            stage.path("engine").display(),
            exe.display(),
            device = stage.path("engine/device").display(),
            says = stage.path("engine/says").display(),
        ),
    );
    std::fs::create_dir_all(stage.path("engine")).expect("made");
    let script = stage.script(
        "vllm-mlx",
        &format!(
            "#!/bin/sh\n'''exec' '{}' \"$0\" \"$@\"\n' '''\n",
            python.display()
        ),
    );
    stage.set("CCLOCAL_ENGINE", script.display().to_string());
}

/// Makes it a Mac of this much RAM (GiB): `sysctl` knows its memory and keeps the GPU limit in the file `wired`, which `sudo` may set if
/// the file `sudo` says `yes`, or asks for a password first if it says `ask`. What sudo was asked is in the file `sudo-log`.
pub fn mac(stage: &mut Stage, ram_gib: u64) {
    let file = |name: &str| stage.path(name).display().to_string();
    let (wired, sudo, log) = (file("wired"), file("sudo"), file("sudo-log"));
    stage.write("wired", "0\n");
    stage.script(
        "sysctl",
        &format!(
            "#!/bin/sh
case \"$*\" in
*-n*hw.memsize) echo {};;
*-n*hw.optional.arm64) echo 1;;
*-n*iogpu.wired_limit_mb) cat '{wired}';;
iogpu.wired_limit_mb=*) if [ -n \"$AS_ROOT\" ]; then echo \"${{1#*=}}\" > '{wired}'; else exit 1; fi;;
*) exit 1;;
esac
",
            ram_gib << 30
        ),
    );
    stage.script(
        "sudo",
        &format!(
            "#!/bin/sh
echo \"$*\" >> '{log}'
may=$(cat '{sudo}' 2>/dev/null)
if [ \"$1\" = -n ]; then
    shift
    [ \"$may\" = yes ] || exit 1
else
    [ \"$1\" = -p ] && prompt=$2 && shift 2
    case $may in
    yes) ;;
    ask)
        printf '%s' \"$prompt\" >/dev/tty
        read -r word </dev/tty || exit 1
        [ \"$word\" = secret ] || {{ echo 'sudo: 1 incorrect password attempt' >&2; exit 1; }};;
    *) echo 'you are not in the sudoers file' >&2; exit 1;;
    esac
fi
AS_ROOT=1 exec \"$@\"
"
        ),
    );
    stage.script("sw_vers", "#!/bin/sh\necho 15.1\n");
    stage.script("uname", "#!/bin/sh\necho arm64\n");
    stage.set("CCLOCAL_PLATFORM", "macos");
}

/// A client that does nothing in a rehearsal but write down its profile in `client/rehearsals`, and else writes down its arguments and environment, then runs `rest` (shell) in the work folder.
pub fn client(stage: &mut Stage, rest: &str) {
    client_that_rehearses(stage, "exit 0", rest);
}

/// The same with what it does in a rehearsal.
pub fn client_that_rehearses(stage: &mut Stage, rehearsing: &str, rest: &str) {
    let record = stage.path("client");
    std::fs::create_dir_all(&record).expect("made");
    let record = record.display();
    let script = stage.script(
        "claude",
        &format!(
            "#!/bin/sh
case \"$1\" in --help) echo 'Usage: claude [options] --exclude-dynamic-system-prompt-sections'; exit 0;; --version) echo '2.1.330 (Claude Code)'; exit 0;; esac
case \"$ANTHROPIC_BASE_URL\" in */rehearsal) echo \"$CLAUDE_CONFIG_DIR\" >> '{record}/rehearsals'; {rehearsing};; esac
for word in \"$@\"; do printf '%s\\n' \"$word\"; done > '{record}/args'
env > '{record}/env'
cp '{settings}'/*/claude-settings.json '{record}/settings.json' 2>/dev/null
echo $$ > '{record}/pid'
{rest}
",
            settings = stage.path("cclocal/state/run").display(),
        ),
    );
    stage.set("CCLOCAL_CLAUDE", script.display().to_string());
}

/// A second model, like the first, in the folder `other`.
pub fn other_model(stage: &Stage) {
    for name in [
        "config.json",
        "tokenizer.json",
        "model.safetensors",
        "chat_template.jinja",
    ] {
        stage.write(
            &format!("other/{name}"),
            &stage.read(&format!("model/{name}")),
        );
    }
}

/// A client that stays until the file `home/go-on` appears.
pub fn staying_client(stage: &mut Stage) {
    client(stage, "while [ ! -e \"$HOME/go-on\" ]; do sleep 0.05; done");
}

/// A client that asks the gateway for an answer, with the body in `home/body` if that is there, keeps what comes in `client/stream`, and stays until the file `home/go-on` appears.
pub fn asking_client(stage: &mut Stage) {
    let exe = std::env::current_exe().expect("this binary");
    let rest = format!(
        "STAGE_CLIENT='{}' exec '{}' --exact fakes::client_process --ignored --nocapture",
        stage.path("client").display(),
        exe.display()
    );
    client(stage, &rest);
}

/// Plays the client. Ignored, because it is no test: the fake client runs it.
#[test]
#[ignore = "the fake client's process, run by the fakes"]
fn client_process() {
    let folder = PathBuf::from(std::env::var_os("STAGE_CLIENT").expect("run by the fake client"));
    let var = |name: &str| std::env::var(name).expect("set");
    let url = var("ANTHROPIC_BASE_URL");
    let address = url.strip_prefix("http://").expect("plain");
    let home = PathBuf::from(var("HOME"));
    let body = std::fs::read_to_string(home.join("body")).unwrap_or_else(|_| r#"{"model":"any","max_tokens":100,"stream":true,"messages":[{"role":"user","content":"hello"}]}"#.into());
    let mut stream = std::net::TcpStream::connect(address).expect("connected");
    write!(
        stream,
        "POST /v1/messages HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        var("ANTHROPIC_AUTH_TOKEN"),
        body.len()
    )
    .expect("asked");
    let mut kept = std::fs::File::create(folder.join("stream")).expect("made");
    let mut bytes = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut bytes) {
        kept.write_all(&bytes[..read]).expect("kept");
    }
    while !home.join("go-on").exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    std::process::exit(0);
}

/// Plays the engine. Ignored, because it is no test: the fake Python runs it.
#[test]
#[ignore = "the fake engine's process, run by the fakes"]
fn engine_process() {
    let folder = PathBuf::from(std::env::var_os("STAGE_ENGINE").expect("run by the fake Python"));
    let has = |name: &str| folder.join(name).exists();
    let args: Vec<String> = std::env::var("ENGINE_ARGS")
        .expect("arguments")
        .split(' ')
        .map(str::to_owned)
        .collect();
    let value = |flag: &str| {
        let at = args.iter().position(|word| word == flag).expect("a flag");
        args[at + 1].clone()
    };
    if has("stubborn") {
        // SAFETY: no handler is installed.
        unsafe {
            nix::sys::signal::signal(
                nix::sys::signal::Signal::SIGTERM,
                nix::sys::signal::SigHandler::SigIgn,
            )
        }
        .expect("ignored");
    }
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .expect("a line");
    let told: Value = serde_json::from_str(&line).expect("JSON");
    let told = |name: &str| told[name].as_str().expect("a word").to_owned();
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(9);
    });
    let note = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("written");
    note("args", &args.join("\n"));
    note("key", &told("key"));
    let env: String = std::env::vars()
        .map(|(name, value)| format!("{name}={value}\n"))
        .collect();
    note("env", &env);
    note("pid", &std::process::id().to_string());
    // One line for each engine that was ever started.
    let mut starts = std::fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("starts"))
        .expect("open");
    writeln!(starts, "{}", std::process::id()).expect("written");
    if let Ok(words) = std::fs::read_to_string(folder.join("says")) {
        eprintln!("{words}");
    }
    if let Ok(last_words) = std::fs::read_to_string(folder.join("die-before")) {
        eprintln!("{last_words}");
        std::process::exit(1);
    }
    while has("slow") {
        std::thread::sleep(Duration::from_millis(10));
    }
    if has("die-after") {
        let folder = folder.clone();
        std::thread::spawn(move || {
            while !folder.join("die-now").exists() {
                std::thread::sleep(Duration::from_millis(10));
            }
            eprintln!(
                "[METAL] Command buffer execution failed: Insufficient Memory (kIOGPUCommandBufferCallbackErrorOutOfMemory)"
            );
            std::process::abort();
        });
    }
    if has("insists") {
        let address = format!("127.0.0.1:{}", value("--port"));
        let listener = std::net::TcpListener::bind(address);
        let error = listener.expect_err("the port is not to be had");
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
        eprintln!("ERROR:    address already in use");
        std::process::exit(3);
    }
    let proof_key = match has("liar") {
        true => "another".into(),
        false => told("proof_key"),
    };
    let model = value("--served-model-name");
    serve(&told("socket"), &model, &proof_key, &folder);
}

fn serve(socket: &str, model: &str, proof_key: &str, folder: &Path) -> ! {
    let listener = UnixListener::bind(socket).expect("bound");
    std::fs::write(folder.join("serving"), socket).expect("written");
    loop {
        let (stream, _) = listener.accept().expect("accepted");
        let (model, folder) = (model.to_owned(), folder.to_owned());
        let proof_key = proof_key.to_owned();
        std::thread::spawn(move || answer(stream, &model, &proof_key, &folder));
    }
}

fn answer(mut stream: UnixStream, model: &str, proof_key: &str, folder: &Path) {
    let mut request = vec![0; 64 * 1024];
    let read = stream.read(&mut request).unwrap_or(0);
    let request = String::from_utf8_lossy(&request[..read]).into_owned();
    if request.starts_with("POST /v1/messages HTTP") {
        let _ = stream_for_ever(stream, folder);
        return;
    }
    let told = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    if request.starts_with("DELETE /v1/cache/prefix") {
        note_clearing(folder);
    }
    let body = if request.starts_with("POST /v1/messages/count_tokens") {
        let tokens = told("prompt-tokens").unwrap_or_else(|| "10".into());
        format!(r#"{{"input_tokens":{tokens}}}"#)
    } else if let Some(rest) = request.strip_prefix("GET /cclocal/proof?") {
        proof::answer(proof_key, rest.split(' ').next().unwrap_or_default())
    } else if request.starts_with("GET /cclocal/progress") {
        told("progress").unwrap_or_else(|| "{}".into())
    } else if request.starts_with("GET /cclocal/memory") {
        told("memory").unwrap_or_default()
    } else {
        format!(r#"{{"status":"healthy","model_loaded":true,"model_name":"{model}"}}"#)
    };
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
}

fn note_clearing(folder: &Path) {
    let mut cleared = std::fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("cleared"))
        .expect("open");
    writeln!(cleared, "cleared").expect("written");
    let _ = std::fs::rename(folder.join("memory-cleared"), folder.join("memory"));
}

/// An answer that does not end before the one who asked has gone, or the file `finish` appears.
fn stream_for_ever(mut stream: UnixStream, folder: &Path) -> std::io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    )?;
    while folder.join("reads").exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut event = |data: &str| {
        let kind = data.split('"').nth(3).unwrap_or_default();
        write!(stream, "event: {kind}\ndata: {data}\n\n").and_then(|()| stream.flush())
    };
    event(
        r#"{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":0,"output_tokens":0}}}"#,
    )?;
    event(r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#)?;
    while !folder.join("finish").exists() {
        event(
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"word "}}"#,
        )?;
        std::thread::sleep(Duration::from_millis(50));
    }
    event(r#"{"type":"content_block_stop","index":0}"#)?;
    event(
        r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":3}}"#,
    )?;
    event(r#"{"type":"message_stop"}"#)
}

//! The fakes: an engine and a client, as executables.
//!
//! The engine's Python is a shell script that answers `serve --help` by itself and otherwise becomes this very test binary, in which the
//! ignored test [`engine_process`] then plays the engine. What the engine does is told by files in the stage's `engine` folder:
//! `die-before` (its text is the log's last line, and its status is 1), `slow` (it never gets ready), `stubborn` (it ignores SIGTERM),
//! `die-after` (it is killed once the file `die-now` appears).

use std::io::{BufRead, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::Stage;

/// A stage with a fake engine, a fake client and a model folder that looks whole.
pub fn stage() -> Stage {
    let mut stage = Stage::bare();
    stage.write("model/config.json", r#"{"model_type": "llama"}"#);
    stage.write("model/tokenizer.json", "{}");
    stage.write("model/model.safetensors", "weights");
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
shift 2
STAGE_ENGINE='{}' ENGINE_ARGS=\"$*\" exec '{}' --exact fakes::engine_process --ignored --nocapture
",
            stage.path("engine").display(),
            exe.display(),
            device = stage.path("engine/device").display(),
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

/// A client that writes down its arguments and environment, then runs `rest` (shell) in the work folder.
pub fn client(stage: &mut Stage, rest: &str) {
    let record = stage.path("client");
    std::fs::create_dir_all(&record).expect("made");
    let record = record.display();
    let script = stage.script(
        "claude",
        &format!(
            "#!/bin/sh
case \"$1\" in --help) echo 'Usage: claude [options] --exclude-dynamic-system-prompt-sections'; exit 0;; --version) echo '2.1.330 (Claude Code)'; exit 0;; esac
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
    let mut key = String::new();
    std::io::stdin().lock().read_line(&mut key).expect("a key");
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(9);
    });
    let note = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("written");
    note("args", &args.join("\n"));
    note("key", key.trim());
    let env: String = std::env::vars()
        .map(|(name, value)| format!("{name}={value}\n"))
        .collect();
    note("env", &env);
    note("pid", &std::process::id().to_string());
    if let Ok(last_words) = std::fs::read_to_string(folder.join("die-before")) {
        eprintln!("{last_words}");
        std::process::exit(1);
    }
    if has("slow") {
        std::thread::sleep(Duration::from_secs(600));
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
    serve(&value("--port"), &value("--served-model-name"), &folder);
}

fn serve(port: &str, model: &str, folder: &Path) -> ! {
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).expect("bound");
    std::fs::write(folder.join("serving"), port).expect("written");
    loop {
        let (mut stream, _) = listener.accept().expect("accepted");
        let mut request = [0; 4096];
        let _ = stream.read(&mut request);
        let body = format!(r#"{{"status":"healthy","model_loaded":true,"model_name":"{model}"}}"#);
        let _ = write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
    }
}

//! Installing the engine, through the binary, with `uv` and `python` as small shell scripts: no Python, no network.

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::symlink;

use nix::sys::signal::Signal;
use support::{Ran, Stage, finish, signal};

const ENGINE: &str = "cclocal/data/engine";

/// A stage on which nothing but the shell is on PATH.
fn bare() -> Stage {
    let mut stage = Stage::bare();
    let bin = stage.path("bin").display().to_string();
    stage.set("PATH", bin);
    stage.script("uname", "#!/bin/sh\necho x86_64\n");
    stage.script("getconf", "#!/bin/sh\necho glibc 2.36\n");
    stage
}

/// A Python of this minor version, which passes the check of what was installed unless the file `check-fails` is there.
fn python(stage: &Stage, minor: u32) {
    let fails = stage.path("check-fails").display().to_string();
    stage.script(
        &format!("python3.{minor}"),
        &format!(
            r#"#!/bin/sh
case "$*" in
version) echo 3.{minor} ;;
*mlx.core*) [ ! -e '{fails}' ] && echo 3.{minor}.1 || {{ echo 'ImportError: libmlx.so'; exit 1; }} ;;
*) exit 9 ;;
esac
"#
        ),
    );
}

/// A uv, which writes down what it is asked in `uv.log`. It finds a Python on PATH, unless one in its first folder is broken, and can fetch
/// none. It installs as the file `mode` says.
fn uv(stage: &Stage) {
    let root = stage.path("").display().to_string();
    stage.script(
        "uv",
        &format!(
            r#"#!/bin/sh
path=$PATH PATH=/usr/bin:/bin
root='{}'
echo "$*" >>"$root/uv.log"
env >"$root/uv.env"
case "$1" in
--version) echo 'uv 0.13.9 (x86_64-unknown-linux-gnu)' ;;
python)
    [ ! -e "${{path%%:*}}/broken" ] || {{ echo 'error: Failed to inspect Python' >&2; exit 2; }}
    IFS=:
    for folder in $path; do
        for minor in 12 13 11; do
            python="$folder/python3.$minor"
            [ ! -e "$python" ] || {{ echo "$python"; exit 0; }}
        done
    done
    echo 'error: No interpreter found' >&2; exit 2 ;;
venv)
    python=
    for at; do case "$at" in */python3.*) python=$at ;; esac; done
    [ -n "$python" ] || {{ echo 'error: Failed to download python: dns error'; exit 2; }}
    mkdir -p "$at/bin" "$at/lib/python$("$python" version)/site-packages"
    ln -s "$python" "$at/bin/python" ;;
pip)
    at=$4
    . "$root/bin/fake-install" ;;
esac
"#,
            root.trim_end_matches('/'),
        ),
    );
    fake_install(stage);
}

/// Installs into `$at`, or does what the file `mode` says.
fn fake_install(stage: &Stage) {
    stage.script(
        "fake-install",
        r#"
[ -e "$root/mode" ] && mode=$(cat "$root/mode")
case "$mode" in
hash) echo "  × Failed to download mlx"; echo "  Hash mismatch for mlx"; exit 1 ;;
network) echo "error: Request failed"; echo "  cause: dns error" >&2; exit 2 ;;
full) echo "error: failed to write to file: No space left on device (os error 28)"; exit 2 ;;
hang) mkdir -p "$at/half"; echo $$ >"$root/hanging"; sleep 1000 & sleep 1000 ;;
slow) echo $$ >"$root/hanging"; sleep 1 ;;
esac
for site in "$at"/lib/*/site-packages; do mkdir -p "$site/vllm_mlx"; : >"$site/vllm_mlx/__init__.py"; done
printf '#!/bin/sh\necho "usage: vllm-mlx serve [-h] [--port PORT]"\n' >"$at/bin/vllm-mlx"
chmod +x "$at/bin/vllm-mlx"
echo "installed into $at" >>"$root/installs"
"#,
    );
}

fn with_uv() -> Stage {
    let stage = bare();
    python(&stage, 12);
    uv(&stage);
    stage
}

fn setup(stage: &Stage) -> Ran {
    stage.run(&["setup", "--yes"])
}

#[track_caller]
fn done(ran: &Ran) {
    assert_eq!(ran.status, 0, "{}", ran.stderr);
}

#[track_caller]
fn fails(ran: &Ran, status: i32, words: &[&str]) {
    assert_eq!(ran.status, status, "{}", ran.stderr);
    for word in words {
        assert!(
            ran.stderr.contains(word),
            "{word:?} is not in:\n{}",
            ran.stderr
        );
    }
}

/// The error, without what a tool said.
fn error(stage: &Stage, ran: &Ran) -> String {
    let start = ran.stderr.find("error: ").unwrap_or(0);
    stage
        .filtered(&ran.stderr[start..])
        .lines()
        .filter(|line| !line.starts_with("  | "))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// The name of the wheel that an error speaks of.
fn host_wheel(text: &str) -> String {
    let word = text.split_whitespace().find(|word| word.ends_with(".whl"));
    word.unwrap_or("no wheel").to_owned()
}

fn environments(stage: &Stage) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(stage.path(ENGINE).join("envs")) else {
        return Vec::new();
    };
    entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

fn installs(stage: &Stage) -> usize {
    stage.read("installs").lines().count()
}

#[test]
fn uv_installs_what_the_lock_says_and_nothing_else() {
    let mut stage = with_uv();
    for (name, value) in [
        ("PYTHONPATH", "/x"),
        ("PIP_TARGET", "/x"),
        ("ANTHROPIC_API_KEY", "sk-secret"),
        ("HF_TOKEN", "hf"),
        ("UV_HTTP_TIMEOUT", "9"),
    ] {
        stage.set(name, value);
    }
    done(&setup(&stage));
    let asked = stage.read("uv.log");
    assert!(
        asked.contains("--no-deps --require-hashes --only-binary=:all: -r "),
        "{asked}"
    );
    let env = stage.read("uv.env");
    for absent in [
        "PYTHONPATH",
        "PIP_TARGET",
        "ANTHROPIC",
        "HF_TOKEN",
        "secret",
    ] {
        assert!(!env.contains(absent), "{env}");
    }
    assert!(env.contains("UV_HTTP_TIMEOUT=9"));
    let [environment] = &environments(&stage)[..] else {
        panic!("one environment")
    };
    assert!(
        stage
            .read(&format!("{ENGINE}/envs/{environment}/engine.lock"))
            .contains("vllm-mlx==0.6.0")
    );
    let log = stage.path("cclocal/state/setup.log");
    assert!(
        std::fs::read_to_string(&log)
            .expect("a log")
            .contains("uv pip install")
    );
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(&log).expect("a log").permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn the_first_session_need_not_ask_for_flags() {
    let stage = with_uv();
    done(&setup(&stage));
    let remembered = std::fs::read_dir(stage.path("cclocal/cache"))
        .expect("a cache")
        .flatten()
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with("engine-flags-")
        });
    assert_eq!(remembered.count(), 1);
}

#[test]
fn the_second_setup_asks_nobody() {
    let stage = with_uv();
    done(&setup(&stage));
    let asked = stage.read("uv.log");
    done(&setup(&stage));
    assert_eq!(stage.read("uv.log"), asked);
}

#[test]
fn the_python_is_one_that_the_packages_exist_for() {
    let stage = with_uv();
    std::fs::rename(stage.path("bin/python3.12"), stage.path("bin/aside")).expect("moved");
    fails(
        &setup(&stage),
        10,
        &[
            "there is no Python 3.11, 3.12 or 3.13 here, and uv could not fetch one",
            "install Python 3.12",
        ],
    );
    let asked = stage.read("uv.log");
    assert!(asked.contains("python find --no-project --system cpython->=3.11,<3.14-linux-x86_64"));
    assert!(asked.contains("--managed-python --python 3.12"), "{asked}");
    std::fs::rename(stage.path("bin/aside"), stage.path("bin/python3.12")).expect("moved");
    done(&setup(&stage));
}

#[test]
fn a_broken_python_does_not_hide_those_behind_it() {
    let mut stage = with_uv();
    stage.write("shims/broken", "");
    let path = [stage.path("shims"), stage.path("bin")].map(|path| path.display().to_string());
    stage.set("PATH", path.join(":"));
    done(&setup(&stage));
}

/// An index whose wheels of uv are not uv's. Its address.
fn index_of_wrong_wheels() -> String {
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = server.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in server.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 2000];
            let length = stream.read(&mut request).unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let body = if request.starts_with("GET /simple/uv/ ") {
                let names = [
                    "uv-0.13.9-py3-none-macosx_11_0_arm64.whl",
                    "uv-0.13.9-py3-none-manylinux_2_28_aarch64.whl",
                    "uv-0.13.9-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
                ];
                names
                    .map(|name| format!("<a href=\"../../files/{name}#sha256=00\">{name}</a>"))
                    .join("\n")
            } else {
                "not the wheel".to_owned()
            };
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    format!("http://user:password@127.0.0.1:{port}/simple")
}

#[test]
fn without_uv_it_is_fetched_and_its_hash_is_checked() {
    let mut stage = bare();
    python(&stage, 12);
    stage.set("UV_INDEX_URL", index_of_wrong_wheels());
    let ran = setup(&stage);
    assert_eq!(ran.status, 10);
    insta::assert_snapshot!(
        error(&stage, &ran).replace(&host_wheel(&ran.stderr), "uv-[VERSION].whl"),
        @"
    error: uv could not be fetched
      cause: the file uv-[VERSION].whl is not the one that this cclocal knows (its hash differs)
      hint: your package index serves a changed file: use another, or install uv 0.7 or newer yourself, then run `cclocal setup` again
    "
    );
    assert!(!stage.path(ENGINE).join("uv").exists());
    assert!(ran.stderr.contains("fetching uv"));

    stage.set("UV_INDEX_URL", "http://user:password@127.0.0.1:9/simple");
    let ran = setup(&stage);
    assert_eq!(ran.status, 10);
    let refused = error(&stage, &ran);
    // The system's own words for it follow.
    let start = refused.lines().next().unwrap_or_default().to_owned();
    let end = refused.lines().last().unwrap_or_default().to_owned();
    insta::assert_snapshot!(format!("{start}\n{end}"), @"
    error: uv could not be fetched
      hint: connect to the network, or install uv 0.7 or newer yourself, then run `cclocal setup` again
    ");
    assert!(
        !ran.stderr.contains("password")
            && !stage.read("cclocal/state/setup.log").contains("password")
    );

    stage.set("UV_OFFLINE", "1");
    let ran = setup(&stage);
    assert_eq!(ran.status, 10);
    insta::assert_snapshot!(error(&stage, &ran), @"
    error: uv could not be fetched
      cause: UV_OFFLINE is set, or pip's no-index
      hint: unset it, or install uv 0.7 or newer yourself, then run `cclocal setup` again
    ");
}

#[test]
fn an_old_uv_is_not_used_and_the_configuration_of_pip_says_where_one_is_fetched() {
    let stage = with_uv();
    let old = stage.read("bin/uv").replace("uv 0.13.9", "uv 0.6.17");
    stage.script("uv", &old);
    let index = index_of_wrong_wheels();
    let configuration = format!("[global]\nindex-url = {index}\n");
    stage.write("home/.config/pip/pip.conf", &configuration);
    fails(
        &setup(&stage),
        10,
        &["uv could not be fetched", "its hash differs"],
    );
    assert_eq!(stage.read("uv.log"), "--version\n");
}

#[test]
fn what_goes_wrong_is_named_and_leaves_nothing_half_made() {
    let stage = with_uv();
    for (mode, status, words) in [
        (
            "hash",
            10,
            &[
                "a downloaded package is not the one that the lock file names",
                "| ",
            ][..],
        ),
        (
            "network",
            10,
            &[
                "the package index cannot be reached",
                "connect to the network",
            ],
        ),
        ("full", 12, &["the disk is full"]),
    ] {
        stage.write("mode", mode);
        fails(&setup(&stage), status, words);
        assert_eq!(environments(&stage), Vec::<String>::new(), "{mode}");
    }
    stage.write("mode", "");
    stage.write("check-fails", "");
    fails(
        &setup(&stage),
        10,
        &["checking the engine failed", "ImportError: libmlx.so"],
    );
    std::fs::remove_file(stage.path("check-fails")).expect("removed");
    done(&setup(&stage));
}

#[test]
fn killed_half_way_it_leaves_no_process_and_is_made_anew() {
    for with in [
        Signal::SIGKILL,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
    ] {
        let stage = with_uv();
        stage.write("mode", "hang");
        let child = stage.start(&["setup", "--yes"]);
        stage.wait_for("hanging");
        signal(&child, with);
        assert_ne!(finish(child).status, 0);
        stage.assert_nothing_left();
        stage.write("mode", "");
        done(&setup(&stage));
        assert_eq!(
            environments(&stage).len(),
            1,
            "the half-made one is removed"
        );
        assert_eq!(installs(&stage), 1);
    }
}

#[test]
fn two_at_once_install_once() {
    let stage = with_uv();
    stage.write("mode", "slow");
    let first = stage.start(&["setup", "--yes"]);
    stage.wait_for("hanging");
    let second = stage.start(&["setup", "--yes"]);
    let (first, second) = (finish(first), finish(second));
    done(&first);
    done(&second);
    assert_eq!(installs(&stage), 1);
}

#[test]
fn another_lock_makes_another_environment_and_the_old_one_goes() {
    let stage = with_uv();
    done(&setup(&stage));
    let old = environments(&stage);
    let record = stage.read(&format!("{ENGINE}/current.json"));
    let at = record.find("\"lock\": \"").expect("a lock") + 9;
    stage.write(
        &format!("{ENGINE}/current.json"),
        &format!("{}0000{}", &record[..at], &record[at + 4..]),
    );

    stage.write("mode", "network");
    fails(&setup(&stage), 10, &[]);
    assert_eq!(
        environments(&stage),
        old,
        "the old one stays until the new one is there"
    );

    stage.write("mode", "");
    done(&setup(&stage));
    let new = environments(&stage);
    assert_eq!(new.len(), 1);
    assert_ne!(new, old);
}

#[test]
fn an_environment_whose_python_is_gone_is_made_anew() {
    let stage = with_uv();
    done(&setup(&stage));
    std::fs::remove_file(stage.path("bin/python3.12")).expect("removed");
    python(&stage, 13);
    done(&setup(&stage));
    assert!(
        stage
            .read(&format!("{ENGINE}/current.json"))
            .contains("3.13.1")
    );

    // The same name, but another version behind it, as a system's upgrade does.
    python(&stage, 11);
    std::fs::remove_file(stage.path("bin/python3.13")).expect("removed");
    symlink(stage.path("bin/python3.11"), stage.path("bin/python3.13")).expect("linked");
    done(&setup(&stage));
    assert!(
        stage
            .read(&format!("{ENGINE}/current.json"))
            .contains("3.11.1")
    );
    assert_eq!(environments(&stage).len(), 1);
}

#[test]
fn force_makes_it_anew() {
    let stage = with_uv();
    done(&setup(&stage));
    done(&stage.run(&["setup", "--yes", "--force"]));
    assert_eq!((installs(&stage), environments(&stage).len()), (2, 1));
}

#[test]
fn platforms_without_packages_are_refused_with_the_reason() {
    let refused = |change: &dyn Fn(&mut Stage), words: &[&str]| {
        let mut stage = with_uv();
        change(&mut stage);
        fails(&setup(&stage), 12, words);
        assert_eq!(installs(&stage), 0);
    };
    let mac = |stage: &mut Stage, arch: &str, version: &str| {
        stage.set("CCLOCAL_PLATFORM", "macos");
        stage.script("uname", &format!("#!/bin/sh\necho {arch}\n"));
        stage.script("sw_vers", &format!("#!/bin/sh\necho {version}\n"));
    };
    refused(
        &|stage| mac(stage, "x86_64", "15.1"),
        &["Intel Macs cannot run the engine"],
    );
    refused(
        &|stage| mac(stage, "arm64", "13.6.1"),
        &["macOS 13.6 is too old", "macOS 14"],
    );
    refused(
        &|stage| {
            stage.script("getconf", "#!/bin/sh\necho glibc 2.31\n");
        },
        &["glibc 2.31 is too old", "2.35"],
    );
    refused(
        &|stage| {
            stage.script("getconf", "#!/bin/sh\nexit 1\n");
            stage.script("ldd", "#!/bin/sh\necho 'musl libc (x86_64)' >&2\nexit 1\n");
        },
        &["musl"],
    );
    refused(
        &|stage| {
            stage.script("uname", "#!/bin/sh\necho riscv64\n");
        },
        &["does not run on riscv64"],
    );
}

#[test]
fn a_mac_with_apple_silicon_is_taken_also_when_translated() {
    let mut stage = with_uv();
    stage.set("CCLOCAL_PLATFORM", "macos");
    stage.script("sw_vers", "#!/bin/sh\necho 14.6.1\n");
    stage.script(
        "sysctl",
        "#!/bin/sh\n[ \"$2\" = hw.optional.arm64 ] && echo 1\n",
    );
    stage.set(
        "PATH",
        stage.path("bin").display().to_string() + ":/usr/bin",
    );
    done(&setup(&stage));
    let asked = stage.read("uv.log");
    assert!(
        asked.contains("cpython->=3.11,<3.14-macos-aarch64"),
        "{asked}"
    );
}

#[test]
fn folders_that_cannot_be_used() {
    let refused = |place: &str| {
        let stage = with_uv();
        stage.write(place, "a file");
        let ran = setup(&stage);
        assert_eq!(ran.status, 10, "{}", ran.stderr);
        error(&stage, &ran)
    };
    insta::assert_snapshot!(refused("cclocal/state"), @"
    error: the log of the installation cannot be written
      cause: File exists (os error 17)
    ");
    insta::assert_snapshot!(refused(ENGINE), @"
    error: the engine's folder cannot be used
      cause: File exists (os error 17)
      hint: make sure that you may write to [STAGE]/cclocal/data/engine
    ");
    insta::assert_snapshot!(refused("cclocal/data/engine/envs"), @"
    error: the engine's folder cannot be written
      cause: File exists (os error 17)
    ");
    let stage = with_uv();
    std::fs::create_dir_all(stage.path(ENGINE).join("current.json/x")).expect("made");
    let ran = setup(&stage);
    assert_eq!(ran.status, 10);
    insta::assert_snapshot!(error(&stage, &ran), @"
    error: the installation cannot be recorded
      cause: Is a directory (os error 21)
    ");
}

#[test]
fn pythons_that_cannot_be_had_or_used() {
    // No Python at all, and a uv that fetches none.
    let stage = bare();
    uv(&stage);
    let ran = setup(&stage);
    assert_eq!(ran.status, 10);
    insta::assert_snapshot!(error(&stage, &ran), @"
    error: there is no Python 3.11, 3.12 or 3.13 here, and uv could not fetch one
      cause: the server that it comes from cannot be reached
      hint: install Python 3.12 (macOS: `brew install python@3.12`; Debian and Ubuntu: `apt install python3`), then run `cclocal setup` again
    ");
    // One that uv can make no environment with.
    let stage = with_uv();
    let text = stage.read("bin/uv");
    stage.script("uv", &text.replace("ln -s", "exit 1; ln -s"));
    let ran = setup(&stage);
    assert_eq!(ran.status, 10);
    insta::assert_snapshot!(error(&stage, &ran), @"
    error: making the Python environment with uv failed
      cause: it ended with exit status: 1
      hint: the whole output is in setup.log in cclocal's state folder; run `cclocal setup` to try again
    ");
}

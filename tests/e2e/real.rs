//! A stage with the real engine, the real client and the demo model.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cclocal::claude::features;
use cclocal::demo::model;
use cclocal::engine::flags;
use cclocal::engine::install::{self, Status};
use cclocal::sys::environment::Environment;
use cclocal::sys::paths::Paths;
use cclocal::sys::{capabilities, files};

use crate::support::Stage;
pub use crate::support::free_port;

/// What the demo model writes, wherever it is asked to.
pub const TEXT: &str = "hello world\n";

fn required(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run the end-to-end suite with .ci/run"))
}

/// The newest client.
pub fn client() -> PathBuf {
    required("CCLOCAL_E2E_CLAUDE").into()
}

/// An old client, 2.1.197.
pub fn old_client() -> PathBuf {
    required("CCLOCAL_E2E_CLAUDE_OLD").into()
}

/// The real engine's executable.
pub fn engine() -> PathBuf {
    let home = required("CCLOCAL_E2E_HOME");
    let host = Environment::for_tests(Path::new(&home), &[("CCLOCAL_HOME", &home)]);
    match install::status(&Paths::of(&host)) {
        Status::Ready(installed) => installed.executable,
        status => panic!("the engine in {home} is not ready: {status:?}"),
    }
}

/// A home with the real engine and this client, as cclocal leaves it once it knows both, and the model in `hermes-llama`, which writes `work/hello.txt`.
pub fn stage(client: &Path) -> Stage {
    let stage = fresh_stage(client);
    share_answers(&stage, client);
    stage
}

/// The same without anything that is remembered of engine and client.
pub fn fresh_stage(client: &Path) -> Stage {
    let engine = engine();
    let mut stage = Stage::bare();
    share_kernels(&stage);
    stage
        .set("CCLOCAL_ENGINE", engine.display().to_string())
        .set("CCLOCAL_CLAUDE", client.display().to_string());
    let file = stage.path("work/hello.txt");
    model::write(
        &stage.path("hermes-llama"),
        &file.display().to_string(),
        TEXT,
    )
    .expect("the model is written");
    stage
}

/// Lets stages share what engine and client answer when they are asked for their options, which takes seconds, and has the client's beginning be
/// known, so that no session rehearses it.
fn share_answers(stage: &Stage, client: &Path) {
    static ASKING: Mutex<()> = Mutex::new(());
    let _asking = ASKING.lock().unwrap_or_else(PoisonError::into_inner);
    let home = required("CCLOCAL_E2E_HOME");
    let host = Environment::for_tests(Path::new(&home), &[("CCLOCAL_HOME", &home)]);
    let paths = Paths::of(&host);
    let (kept, profile) = (&paths.cache, paths.claude_profile());
    flags::probe(&host, kept, &engine()).expect("the engine's flags");
    features::probe(&host, kept, &profile, client).expect("the client's options");
    let cache = stage.path("cclocal/cache");
    files::private_folder(&cache).expect("made");
    for entry in std::fs::read_dir(kept).expect("read").flatten() {
        let name = entry.file_name();
        if ["engine-flags-", "client-features-"]
            .iter()
            .any(|topic| name.to_string_lossy().starts_with(topic))
        {
            std::fs::copy(entry.path(), cache.join(name)).expect("copied");
        }
    }
    let prefixes = cache.join("prefixes");
    files::private_folder(&prefixes).expect("made");
    capabilities::remember(&prefixes, "rehearsal", client, &true);
}

/// Lets engines share the kernels that mlx compiles for a processor, into its folder of temporary files: each takes a C++ compiler seconds.
fn share_kernels(stage: &Stage) {
    let shared = Path::new(&required("CCLOCAL_E2E_HOME")).join("kernels");
    std::fs::create_dir_all(&shared).expect("made");
    std::fs::create_dir_all(stage.path("tmp")).expect("made");
    std::os::unix::fs::symlink(shared, stage.path("tmp/mlx")).expect("linked");
}

/// The arguments that serve the stage's model on a free port, and then these.
pub fn launch<'a>(port: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["--model", "../hermes-llama", "--port", port];
    args.extend(rest);
    args
}

/// The files and folders of the home folder that have to do with Claude Code.
pub fn claude_files(stage: &Stage) -> Vec<String> {
    std::fs::read_dir(stage.path("home"))
        .expect("read")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(".claude"))
        .collect()
}

//! What the engine's start reads of a model: files alone, and no more than they may have.

use std::path::Path;
use std::process::Command;

use crate::real;

/// Puts everything that is no file in the place of one, and something that is none beside them that nobody reads.
const KINDS: &str = r#"
import pathlib, socket, sys
folder = pathlib.Path(sys.argv[1])
good = folder / "good.json"
good.write_text("{}")
assert read_file(good, 2) == b"{}"
(folder / "pipe.json").unlink(missing_ok=True)
os.mkfifo(folder / "pipe.json")
os.symlink("/dev/zero", folder / "device.json")
os.symlink(folder / "endless.json", folder / "endless.json")
socket.socket(socket.AF_UNIX).bind(str(folder / "s.json"))
with open(folder / "sparse.json", "wb") as file:
    file.truncate(1 << 40)
(folder / "folder.json").mkdir()
odd = ["pipe.json", "device.json", "endless.json", "s.json", "sparse.json", "folder.json", "none.json"]
for name in odd:
    try:
        read_file(folder / name, 1 << 20)
    except OSError as error:
        print(name, type(error).__name__)
try:
    read_file(good, 1)
except OSError as error:
    print(error.args[0].rsplit("/", 1)[-1])

check_model_files()
from vllm_mlx.utils import download
# Links that lead nowhere by now, and folders, are nobody's concern here.
for name in odd:
    model = folder / f"with-{name}"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"x")
    os.mkfifo(model / "of nobody")
    os.rename(folder / name, model / name) if name != "none.json" else os.symlink(folder / name, model / name)
    try:
        download.ensure_model_downloaded(str(model))
        print(name, "is let in")
    except OSError as error:
        print(name, "is not")
"#;

#[test]
fn files_alone_are_read_and_no_more_than_they_may_have() {
    let stage = real::stage(&real::client());
    let folder = stage.path("f");
    std::fs::create_dir_all(&folder).expect("made");
    let script = Path::new(&stage.env()["CCLOCAL_ENGINE"]).to_owned();
    let code = format!(
        "{}{}{KINDS}",
        include_str!("../../src/engine/patches/patches.py"),
        include_str!("../../src/engine/patches/files.py")
    );
    let ran = Command::new(script.with_file_name("python"))
        .arg("-c")
        .arg(&code)
        .arg(&folder)
        .env_clear()
        .envs(stage.env())
        .output()
        .expect("started");
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    insta::assert_snapshot!(String::from_utf8_lossy(&ran.stdout), @"
    pipe.json OSError
    device.json OSError
    endless.json OSError
    s.json OSError
    sparse.json OSError
    folder.json OSError
    none.json FileNotFoundError
    good.json is longer than 1 bytes
    pipe.json is not
    device.json is not
    endless.json is let in
    s.json is not
    sparse.json is not
    folder.json is let in
    none.json is let in
    ");
}

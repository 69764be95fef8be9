//! Writes the built-in demo model into a folder: `write_demo_model FOLDER FILE TEXT`. Asked for anything, it writes TEXT to FILE, which is
//! absolute. For `.ci/record-session.sh`.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, file, text] = arguments.as_slice() else {
        eprintln!("usage: write_demo_model FOLDER FILE TEXT");
        return ExitCode::from(2);
    };
    match cclocal::demo::model::write(Path::new(folder), file, text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

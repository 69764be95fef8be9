use std::process::ExitCode;

fn main() -> ExitCode {
    cclocal::cli::start_logging();
    ExitCode::from(cclocal::cli::run(std::env::args_os()))
}

//! A server: the engine alone, for Claude Code in other terminals, until it is ended.

use std::path::Path;

use nix::sys::signal::Signal;

use super::engine::{self, Up};
use super::prepare::Prepared;
use super::reservation::Reservation;
use super::signals::{self, Signals};
use crate::engine::executable::Executable;
use crate::engine::server;
use crate::error::Result;
use crate::host::Host;
use crate::paths::Paths;
use crate::ui::{self, Ui};

/// What decides where a cclocal finds its folders and programs: in another terminal these have to be the same.
const SAME_ELSEWHERE: &[&str] = &[
    "CCLOCAL_HOME",
    "CCLOCAL_CLAUDE",
    "XDG_DATA_HOME",
    "XDG_STATE_HOME",
    "XDG_CACHE_HOME",
];

/// Serves until a signal comes or the engine ends. Returns the status to exit with. Ctrl-C is the way to end it, and no failure.
pub async fn serve(
    host: &Host,
    paths: &Paths,
    ui: &Ui,
    prepared: &Prepared,
    engine: &Executable,
    signals: &mut Signals,
) -> Result<u8> {
    let mut reservation =
        Reservation::take(host, paths, prepared.port, &prepared.model.served_name)?;
    let log = engine::log_path(paths, prepared.port);
    let (mut server, took) =
        match engine::bring_up(host, paths, ui, prepared, engine, log, signals).await? {
            Up::Ready { server, took } => (server, took),
            Up::Interrupted(signal) => return Ok(signals::status(signal)),
        };
    let key_file = reservation.publish(
        host,
        &prepared.token,
        prepared.memory.context_window,
        prepared.output_tokens,
    )?;
    ui.done(&format!(
        "{} ready in {} · window {} tokens · http://127.0.0.1:{}",
        prepared.model.name,
        took,
        ui::thousands(prepared.memory.context_window),
        prepared.port
    ));
    ui.say("\nClaude Code on this model, in another terminal and any folder:\n");
    ui.data(&format!("  {}\n", command(host, prepared.port)));
    ui.say(&format!(
        "\nOther programs: the Anthropic Messages API, model {}, with the key in\n{}\n\nCtrl-C ends the server.",
        prepared.model.served_name,
        host.tilde(&key_file)
    ));
    let outcome = tokio::select! {
        end = server.ended() => Err(server.explain(end)),
        signal = signals.next() => Ok(signal),
    };
    engine::take_down(ui, &mut server, signals, server::GRACE).await;
    match outcome? {
        Signal::SIGINT => {
            ui.done("the server has ended");
            Ok(0)
        }
        signal => Ok(signals::status(signal)),
    }
}

/// The command for another terminal: complete, quoted for a shell, and true for this server.
fn command(host: &Host, port: u16) -> String {
    let quoted = |word: &str| shlex::try_quote(word).map_or(word.to_owned(), Into::into);
    let mut words: Vec<String> = SAME_ELSEWHERE
        .iter()
        .filter_map(|name| Some(format!("{name}={}", quoted(host.var(name)?))))
        .collect();
    words.push(quoted(&this_program(host)));
    words.push("connect".into());
    if port != super::reservation::USUAL_PORT {
        words.extend(["--port".into(), port.to_string()]);
    }
    words.join(" ")
}

/// `cclocal` where a shell finds this very program by that name, else its path.
fn this_program(host: &Host) -> String {
    let Ok(program) = std::env::current_exe() else {
        return "cclocal".into();
    };
    let same =
        |found: &Path| fs_err::canonicalize(found).ok() == fs_err::canonicalize(&program).ok();
    match host.which("cclocal") {
        Some(found) if same(&found) => "cclocal".into(),
        _ => program.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_quoted_and_carries_what_differs() {
        let home = Path::new("/home/someone");
        let plain = command(&Host::for_tests(home, &[]), 8000);
        assert!(plain.ends_with(" connect"), "{plain}");
        let vars = [("CCLOCAL_HOME", "/a folder/it's"), ("HOME", "/x")];
        let other = command(&Host::for_tests(home, &vars), 8123);
        assert!(
            other.starts_with(r#"CCLOCAL_HOME="/a folder/it's" "#),
            "{other}"
        );
        assert!(other.ends_with(" connect --port 8123"), "{other}");
    }
}

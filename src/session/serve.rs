//! `--server`: the engine alone, for Claude Code in other terminals, until it is stopped.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::release;
use super::run::{over, say_ready};
use crate::app::App;
use crate::error::Result;
use crate::session::wait_ready::{self, WaitOutcome};
use crate::supervisor::protocol::SupervisorMessage;
use crate::supervisor::{Lease, registry, reservation};
use crate::sys::environment::Environment;
use crate::sys::process::signals::{self, Signals};

/// Variables for the folders and programs of cclocal. They must be the same in the other terminal.
const SAME_ELSEWHERE: &[&str] = &[
    "CCLOCAL_HOME",
    "CCLOCAL_CLAUDE",
    "XDG_DATA_HOME",
    "XDG_STATE_HOME",
    "XDG_CACHE_HOME",
];

/// Serves until a signal comes or the engine ends. Returns the status to exit with. Ctrl-C is the way to end it, and no failure.
pub async fn serve(
    app: &App,
    mut lease: Lease,
    web_search: Option<&str>,
    signals: &mut Signals,
) -> Result<u8> {
    let App {
        environment: host,
        paths,
        ui,
        ..
    } = app;
    let took = match wait_ready::until_ready(app, &mut lease, signals).await? {
        WaitOutcome::Ready { took } => took,
        WaitOutcome::Interrupted(signal) => {
            release::leave(app, &mut lease, signals, Duration::ZERO).await;
            return Ok(signals::status(signal));
        }
    };
    let port = lease.granted.port;
    say_ready(ui, &lease, &took);
    ui.say("\nTo run Claude Code on it, in another terminal and any folder:\n");
    ui.data(&format!("  {}\n", command(host, port, web_search)));
    ui.say(&format!(
        "\nOther programs: the Anthropic Messages API at http://127.0.0.1:{port}, model {}, with the key in\n{}\n\nCtrl-C ends the server.",
        lease.granted.served_name,
        host.tilde(&reservation::key_file(paths, port))
    ));
    let signal = loop {
        tokio::select! {
            tell = lease.told() => match tell {
                Some(SupervisorMessage::Restarting { why }) => {
                    ui.notice(&format!("the engine crashed ({why}) and is starting again"));
                }
                Some(SupervisorMessage::Ready { took, .. }) => ui.done(&format!("ready again in {took}")),
                tell => if let Some(error) = over(tell) {
                    reservation::sweep_after(paths, port);
                    return Err(error);
                },
            },
            signal = signals.next() => break signal,
        }
    };
    if signal == Signal::SIGINT
        && let Some(more) = wait_for_others(app, port, signals).await
    {
        release::leave(app, &mut lease, signals, Duration::ZERO).await;
        return Ok(signals::status(more));
    }
    release::leave(app, &mut lease, signals, Duration::ZERO).await;
    match signal {
        Signal::SIGINT => {
            ui.done("the server has stopped");
            Ok(0)
        }
        signal => Ok(signals::status(signal)),
    }
}

/// Sessions that use the server are not cut off by one key: it ends when they have, or at a second Ctrl-C. Some signal, if another one came.
async fn wait_for_others(app: &App, port: u16, signals: &mut Signals) -> Option<Signal> {
    let others = || match registry::at(&app.paths, port) {
        Some(registry::Running::Known(status)) => status.sessions.len().saturating_sub(1),
        _ => 0,
    };
    let mut said = false;
    loop {
        let others = others();
        if others == 0 {
            return None;
        }
        if !said {
            said = true;
            app.ui.notice(&format!(
                "{} still used by {}: it ends with {}; Ctrl-C again ends it now",
                "the server is",
                if others == 1 {
                    "another session".to_owned()
                } else {
                    format!("{others} other sessions")
                },
                if others == 1 { "that one" } else { "the last" }
            ));
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
            signal = signals.next() => match signal {
                Signal::SIGINT => {
                    let _progress = app.ui.progress("stopping the engine");
                    let _ = registry::stop(&app.paths, port, true);
                    return None;
                }
                signal => return Some(signal),
            }
        }
    }
}

/// The command for another terminal: complete, quoted for a shell, and true for this server.
fn command(host: &Environment, port: u16, web_search: Option<&str>) -> String {
    let quoted = |word: &str| shlex::try_quote(word).map_or(word.to_owned(), Into::into);
    let mut words: Vec<String> = SAME_ELSEWHERE
        .iter()
        .filter_map(|name| Some(format!("{name}={}", quoted(host.var(name)?))))
        .collect();
    words.push(quoted(&host.this_program()));
    words.push("connect".into());
    if port != reservation::USUAL_PORT {
        words.extend(["--port".into(), port.to_string()]);
    }
    if let Some(word) = web_search {
        words.extend(["--web-search".into(), quoted(word)]);
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_command_is_quoted_and_carries_what_differs() {
        let home = Path::new("/home/someone");
        let plain = command(&Environment::for_tests(home, &[]), 8000, None);
        assert!(plain.ends_with(" connect"), "{plain}");
        let vars = [("CCLOCAL_HOME", "/a folder/it's"), ("HOME", "/x")];
        let other = command(&Environment::for_tests(home, &vars), 8123, Some("brave"));
        assert!(
            other.starts_with(r#"CCLOCAL_HOME="/a folder/it's" "#),
            "{other}"
        );
        assert!(
            other.ends_with(" connect --port 8123 --web-search brave"),
            "{other}"
        );
    }
}

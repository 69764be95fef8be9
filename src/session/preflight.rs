//! The memory preflight's prompt: before an engine can run out of GPU memory, it is said what can be done, and done.

use super::window::{self, Alternative};
use crate::app::App;
use crate::error::{Context, Exit, Result};
use crate::memory::budget::{BudgetSource, Memory};
use crate::memory::gpu_limit::{self, Asking, Found, Raised};
use crate::memory::plan::Refusal;
use crate::memory::preflight::{Answer, Checking, Choices, Limit};
use crate::memory::{MemoryEstimate, chart};
use crate::sys::platform::Os;
use crate::sys::process::signals;
use crate::sys::syscalls;
use crate::ui::{Row, Ui};

/// Message for a record of the GPU limit that cannot be used.
const NOT_WRITTEN: &str =
    "the record of the GPU limit in cclocal's state folder cannot be read or written";

/// The raised limit that other sessions use, or that one left behind: this session uses it too, or puts it back. To be called before memory
/// is looked at.
pub fn take_over_limit(app: &App) -> Result<Option<Raised>> {
    let App {
        environment: host,
        paths,
        ui,
        ..
    } = app;
    if app.os()? != Os::Macos {
        return Ok(None);
    }
    match gpu_limit::find(host, paths).context(Exit::Other, NOT_WRITTEN)? {
        Found::Untouched => Ok(None),
        Found::Shared(raised) => Ok(Some(raised)),
        Found::LeftBehind(raised) => {
            let record = raised.record;
            ui.notice(&format!(
                "an interrupted session left the GPU memory limit raised: it is {}, and was {}",
                mib(record.raised),
                mib(record.original)
            ));
            if ui.interactive
                && !ui.confirm("Restore it now? (If not, cclocal does it when this session ends.)")
            {
                return Ok(Some(raised));
            }
            let asking = if ui.interactive {
                Asking::Allowed
            } else {
                Asking::No
            };
            put_back(app, raised, asking);
            Ok(None)
        }
    }
}

/// Puts the limit back if this session was the last that used it. If that does not work, the next start offers it again.
pub fn put_back(app: &App, raised: Raised, asking: Asking) {
    let record = raised.record;
    let caught = syscalls::catch();
    let done = raised.put_back(&app.environment, asking);
    drop(caught);
    if !done {
        app.ui.notice(&format!(
            "the GPU memory limit is still {}; to restore it: {}",
            mib(record.raised),
            gpu_limit::command(record.original)
        ));
    }
}

/// Outcome of the preflight.
pub enum Outcome {
    /// Go on. The raised GPU limit, if it was raised for that: whoever called puts it back.
    Go(Option<Raised>),
    /// End with this exit status, and the limit as it was: the person quit, or a signal came, such as Ctrl-C at sudo's question.
    Left(u8),
}

/// Checks memory, asks where there is something to ask, and changes the figures as was answered. `name`: the model's, for people.
///
/// Errors: the memory holds no session, and nothing that was chosen helps.
pub fn check(
    app: &App,
    name: &str,
    checking: Checking,
    estimate: &mut MemoryEstimate,
) -> Result<Outcome> {
    let ui = &app.ui;
    let limit = Limit::find(&app.environment, app.os()?, estimate.machine);
    let choices = Choices::of(estimate, limit).filter(|choices| choices.are_asked(checking));
    let Some(mut choices) = choices else {
        return Ok(Outcome::Go(None));
    };
    let refused = |estimate: &MemoryEstimate, refusal: &Refusal| {
        window::refused(name, refusal, Alternative::of(estimate, limit))
    };
    if let Err(refusal) = &choices.now
        && !(ui.interactive && choices.raise.is_some())
    {
        return Err(refused(estimate, refusal));
    }
    if !ui.interactive && checking != Checking::Always {
        return Ok(Outcome::Go(None));
    }
    for line in chart::of(name, estimate) {
        ui.say(&line);
    }
    if !ui.interactive {
        return Ok(Outcome::Go(None));
    }
    loop {
        match ask(ui, &chart::answers(&choices), choices.recommended()) {
            Answer::Continue => return Ok(Outcome::Go(None)),
            Answer::Shrink => {
                if let Some(smaller) = &choices.smaller {
                    estimate.shrink(smaller.window.tokens);
                }
                return Ok(Outcome::Go(None));
            }
            Answer::Raise => {
                let Some(raise) = choices.raise.take() else {
                    continue;
                };
                let outcome = self::raise(app, raise.to)?;
                if let Outcome::Go(Some(_)) = &outcome {
                    estimate.with_machine(Memory {
                        ram: estimate.machine.map_or(0, |machine| machine.ram),
                        budget: raise.to << 20,
                        budget_source: BudgetSource::WiredLimit,
                    });
                }
                match outcome {
                    // What is left to choose is asked for again.
                    Outcome::Go(None) => {}
                    done => return Ok(done),
                }
            }
            Answer::Quit => {
                ui.say("Nothing was started.");
                return Ok(Outcome::Left(0));
            }
        }
    }
}

/// Asks for one of the answers, each with its row. Leaving the question quits.
fn ask(ui: &Ui, answers: &[(Answer, Row)], recommended: Answer) -> Answer {
    let rows: Vec<Row> = answers.iter().map(|(_, row)| row.clone()).collect();
    let default = answers
        .iter()
        .position(|(answer, _)| *answer == recommended);
    let keys = (ui.paints_prompts()).then(|| "Enter choose · q quit · ↑↓ j k move".to_owned());
    let heading: Vec<String> = keys.into_iter().collect();
    match ui.select(&heading, &rows, default.unwrap_or_default()) {
        Some(chosen) => {
            ui.say(&format!("> {}", rows[chosen].text));
            answers[chosen].0
        }
        None => Answer::Quit,
    }
}

/// Raises the GPU limit to this, in MiB, and says what came of it. Without it in the outcome: it was not raised.
fn raise(app: &App, to: u64) -> Result<Outcome> {
    let App {
        environment,
        paths,
        ui,
        ..
    } = app;
    let caught = syscalls::catch();
    let raised = gpu_limit::raise(environment, paths, to).context(Exit::Other, NOT_WRITTEN)?;
    if let Some(signal) = caught.signal() {
        if let Some(raised) = raised {
            raised.put_back(environment, Asking::No);
        }
        return Ok(Outcome::Left(signals::status(signal)));
    }
    match &raised {
        Some(_) => ui.done(&format!(
            "GPU memory limit raised to {} until the session ends",
            mib(to)
        )),
        None => ui.notice(&format!(
            "the GPU limit was not raised; to raise it by hand: {}",
            gpu_limit::command(to)
        )),
    }
    Ok(Outcome::Go(raised))
}

fn mib(mib: u64) -> String {
    if mib == 0 {
        "0 (macOS decides)".into()
    } else {
        format!("{mib} MiB")
    }
}

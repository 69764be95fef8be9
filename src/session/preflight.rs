//! The memory preflight: before an engine can run out of GPU memory, it is said what can be done, and done.

use nix::sys::signal::Signal;

use super::choose;
use crate::app::App;
use crate::error::{Context, Error, Exit, Result};
use crate::memory::budget::{BudgetSource, Memory, wired_limit};
use crate::memory::choices::Choices;
use crate::memory::gpu_limit::{self, Asking, Found, Raised};
use crate::memory::preflight::{Answer, Checking, Limit, Question};
use crate::memory::{Figures, Fit};
use crate::sys::environment::Environment;
use crate::sys::platform::Os;
use crate::sys::syscalls;
use crate::ui::{self, Row, Ui};

/// What the preflight found wrong at the files of the raised limit.
const NOT_WRITTEN: &str =
    "what is known of the GPU limit cannot be read or written down in cclocal's state folder";

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
                "a session that was cut off left the GPU memory limit raised: {}, before {}",
                mib(record.raised),
                mib(record.original)
            ));
            if ui.interactive && !ui.confirm("Put it back now? (If not, when this session ends.)") {
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
            "the GPU memory limit is still {}; to put it back: {}",
            mib(record.raised),
            gpu_limit::command(record.original)
        ));
    }
}

/// What is checked.
pub struct Check<'a> {
    pub app: &'a App,
    /// The model's name, for people.
    pub name: &'a str,
    pub checking: Checking,
}

/// Checks memory, asks where it is tight, and changes the figures as was answered. `limit` is the raised limit, if this session uses it; if it
/// is raised now, it is put there, and whoever called has to put it back. A signal that came meanwhile ends the session.
pub fn check(
    check: &Check,
    figures: &mut Figures,
    limit: &mut Option<Raised>,
) -> Result<Option<Signal>> {
    let &Check {
        app,
        name,
        checking,
    } = check;
    let ui = &app.ui;
    let option = limit_option(&app.environment, app.os()?, figures.machine);
    if let Some(choices) = Choices::of(figures, option) {
        return choose::choose(check, figures, limit, option, choices);
    }
    let Some(mut question) = Question::of(figures, checking, option) else {
        return Ok(None);
    };
    if !ui.interactive {
        return unasked(ui, name, figures, &question).map(|()| None);
    }
    for line in lines(name, figures, &question) {
        ui.say(&line);
    }
    loop {
        let answers: Vec<_> = (question.answers().into_iter())
            .map(|answer| (answer, row(&question, answer)))
            .collect();
        let answer = ask(ui, &answers, question.recommended());
        if let (Answer::Raise | Answer::Both, Some(to)) = (answer, question.limit.raised()) {
            match raise(check, figures, limit, to)? {
                Raising::Signalled(signal) => return Ok(Some(signal)),
                Raising::Refused => {
                    // What is left to choose is asked for again.
                    question.limit = Limit::None;
                    continue;
                }
                Raising::Done => {}
            }
        }
        if let (Answer::Shrink | Answer::Both, Some(window)) = (answer, question.shrunk) {
            figures.shrink(window);
        }
        return match answer {
            Answer::Quit => Err(Error::new(Exit::Machine, format!("{name} was not started"))
                .cause(short(&question))
                .hint("take a smaller model: cclocal --gemma-light")),
            _ => Ok(None),
        };
    }
}

/// The limit of GPU memory, as it is and as it could be.
pub fn limit_option(host: &Environment, os: Os, machine: Option<Memory>) -> Limit {
    let ram = machine.map_or(0, |machine| machine.ram);
    let set = match os {
        Os::Macos => wired_limit(host),
        Os::Linux => None,
    };
    Limit::of(os, ram, set)
}

/// Without anybody to ask: the window is shrunk, and a model whose weights alone exceed the memory is not started.
fn unasked(ui: &Ui, name: &str, figures: &mut Figures, question: &Question) -> Result<()> {
    if let Fit::TooBig(_) = question.fit {
        return Err(
            Error::new(Exit::Machine, format!("{name} does not fit this machine"))
                .cause(format!("{} ({})", short(question), budget_words(figures)))
                .hint("take a smaller model (cclocal --gemma-light), or try it all the same with --no-mem-check"),
        );
    }
    match question.shrunk {
        Some(window) if figures.asked.window.is_none() => {
            figures.shrink(window);
            ui.notice(&format!(
                "{}: the window is {} tokens instead of {}; --ctx or --no-mem-check keep it",
                short(question),
                ui::thousands(window),
                ui::thousands(question.window)
            ));
        }
        _ => ui.notice(&short(question)),
    }
    Ok(())
}

fn budget_words(figures: &Figures) -> &'static str {
    figures
        .machine
        .map_or("unknown", |machine| machine.budget_source.words())
}

/// The arithmetic in one line.
fn short(question: &Question) -> String {
    let weights = ui::bytes(question.weights);
    let budget = ui::bytes(question.budget);
    match question.fit {
        Fit::TooBig(short) => format!(
            "its weights take {weights}, {} more than the {budget} that there is for it",
            ui::bytes(short)
        ),
        Fit::Tight(left) => format!(
            "memory is tight: weights of {weights} leave {} of {budget} for the conversation",
            ui::bytes(left)
        ),
        Fit::Ample | Fit::Unknown => {
            format!("weights of {weights} leave ample room in {budget}")
        }
    }
}

/// The question as a person sees it.
fn lines(name: &str, figures: &Figures, question: &Question) -> Vec<String> {
    let left = match question.fit {
        Fit::TooBig(short) => format!("{} more than there is", ui::bytes(short)),
        Fit::Tight(left) => format!(
            "{} left for the conversation (KV cache): tight",
            ui::bytes(left)
        ),
        Fit::Ample | Fit::Unknown => {
            let left = question.budget.saturating_sub(question.weights);
            format!(
                "{} left for the conversation (KV cache): ample",
                ui::bytes(left)
            )
        }
    };
    let mut lines = vec![
        format!("GPU memory for {name}"),
        format!(
            "  {:<9} {:>9}  {}",
            "budget",
            ui::bytes(question.budget + question.others),
            budget_words(figures)
        ),
        format!(
            "  {:<9} {:>9}  {left}",
            "weights",
            ui::bytes(question.weights)
        ),
    ];
    if question.others > 0 {
        let others = ui::bytes(question.others);
        lines.insert(
            2,
            format!(
                "  {:<9} {others:>9}  models that run, with room for their conversations",
                "others"
            ),
        );
    }
    if question.shrunk.is_none() {
        let window = ui::thousands(question.window);
        lines.push(format!(
            "  {:<9} {window:>9}  tokens, small already",
            "window"
        ));
    }
    if let Limit::Fine { mib } = question.limit {
        let limit = format!("{mib} MiB");
        lines.push(format!("  {:<9} {limit:>9}  fine already", "GPU limit"));
    }
    lines
}

/// An answer as a row to choose.
fn row(question: &Question, answer: Answer) -> Row {
    let window = ui::thousands(question.window);
    let shrunk = ui::thousands(question.shrunk.unwrap_or(question.window));
    let recommended = match question.recommended() == answer {
        true => " (recommended)",
        false => "",
    };
    let text = match (answer, question.limit) {
        (Answer::Shrink, _) => {
            format!("Shrink the context window  {window} → {shrunk} tokens{recommended}")
        }
        (Answer::Raise, Limit::Raise { from, to }) => format!(
            "Raise the GPU limit        {from} → {to} MiB (sudo, until the session ends){recommended}"
        ),
        (Answer::Raise, _) => "Raise the GPU limit".into(),
        (Answer::Both, _) => format!("Both{recommended}"),
        (Answer::Continue, _) if question.fit == Fit::Ample => {
            format!("Continue as it is{recommended}")
        }
        (Answer::Continue, _) => {
            format!("Continue as it is (risky: the engine may crash){recommended}")
        }
        (Answer::Quit, _) => format!("Quit{recommended}"),
    };
    Row::new(text)
}

/// Asks for one of the answers, each with its row. Leaving the question quits.
pub(super) fn ask(ui: &Ui, answers: &[(Answer, Row)], recommended: Answer) -> Answer {
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

pub(super) enum Raising {
    Done,
    Refused,
    /// A signal came at sudo's question, such as Ctrl-C, and the limit is as it was.
    Signalled(Signal),
}

/// Raises the GPU limit to this, in MiB, says what came of it, and changes the figures if it did.
pub(super) fn raise(
    check: &Check,
    figures: &mut Figures,
    limit: &mut Option<Raised>,
    to: u64,
) -> Result<Raising> {
    let App {
        environment: host,
        paths,
        ui,
        ..
    } = check.app;
    let caught = syscalls::catch();
    let raised = gpu_limit::raise(host, paths, to).context(Exit::Other, NOT_WRITTEN)?;
    match (caught.signal(), raised) {
        (None, Some(raised)) => {
            *limit = Some(raised);
            figures.with_machine(Memory {
                ram: figures.machine.map_or(0, |machine| machine.ram),
                budget: to << 20,
                budget_source: BudgetSource::WiredLimit,
            });
            ui.done(&format!(
                "GPU memory limit raised to {} until the session ends",
                mib(to)
            ));
            Ok(Raising::Done)
        }
        (None, None) => {
            ui.notice(&format!(
                "the GPU limit was not raised; by hand it is: {}",
                gpu_limit::command(to)
            ));
            Ok(Raising::Refused)
        }
        (Some(signal), raised) => {
            if let Some(raised) = raised {
                raised.put_back(host, Asking::No);
            }
            Ok(Raising::Signalled(signal))
        }
    }
}

fn mib(mib: u64) -> String {
    if mib == 0 {
        "0 (the system's own choice)".into()
    } else {
        format!("{mib} MiB")
    }
}

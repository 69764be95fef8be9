//! The preflight where there is a plan: the picture, and what can be done, each with what it comes to.

use nix::sys::signal::Signal;

use super::memory_chart;
use super::preflight::{self, Check, Raising};
use super::window::{self, Instead};
use crate::error::{Error, Exit, Result};
use crate::memory::Figures;
use crate::memory::choices::Choices;
use crate::memory::gpu_limit::Raised;
use crate::memory::plan::Refusal;
use crate::memory::preflight::{Answer, Checking, Limit};
use crate::ui;

/// Shows and asks, where there is something to ask, and changes the figures as was answered. Errors: the memory holds no session, and nothing that
/// was chosen helps. See [`preflight::check`] for the rest.
pub fn choose(
    check: &Check,
    figures: &mut Figures,
    limit: &mut Option<Raised>,
    option: Limit,
    mut choices: Choices,
) -> Result<Option<Signal>> {
    let ui = &check.app.ui;
    if !choices.are_asked(check.checking) {
        return Ok(None);
    }
    let helps = choices.raise.is_some();
    if let Err(refusal) = &choices.now
        && !(ui.interactive && helps)
    {
        return Err(refused(check, figures, refusal, option));
    }
    if !ui.interactive && check.checking != Checking::Always {
        return Ok(None);
    }
    for line in lines(check.name, figures) {
        ui.say(&line);
    }
    if !ui.interactive {
        return Ok(None);
    }
    loop {
        match preflight::ask(ui, &memory_chart::answers(&choices), choices.recommended()) {
            Answer::Continue => return Ok(None),
            Answer::Shrink | Answer::Both => {
                if let Some(smaller) = &choices.smaller {
                    figures.shrink(smaller.window.tokens);
                }
                return Ok(None);
            }
            Answer::Raise => {
                let Some(raise) = choices.raise.take() else {
                    continue;
                };
                match preflight::raise(check, figures, limit, raise.to)? {
                    Raising::Signalled(signal) => return Ok(Some(signal)),
                    // What is left to choose is asked for again.
                    Raising::Refused => {}
                    Raising::Done => return Ok(None),
                }
            }
            Answer::Quit => {
                return Err(match &choices.now {
                    Err(refusal) => refused(check, figures, refusal, option),
                    Ok(plan) => {
                        Error::new(Exit::Machine, format!("{} was not started", check.name))
                            .cause(format!(
                                "memory gives it a window of {} tokens",
                                ui::thousands(plan.window.tokens)
                            ))
                            .hint("take a smaller model: cclocal --gemma-light")
                    }
                });
            }
        }
    }
}

/// The picture of what there is, or of what is missing. Nothing where too little is known.
pub fn lines(name: &str, figures: &Figures) -> Vec<String> {
    let known = (figures.machine.as_ref())
        .zip(figures.planner.as_ref())
        .zip(figures.budget());
    let Some(((machine, planner), budget)) = known else {
        return Vec::new();
    };
    let plan = match (&figures.plan, planner.on(budget)) {
        (Some(plan), _) => plan.clone(),
        (None, Ok(plan)) => plan,
        (None, Err(_)) => planner.thriftiest_on(budget),
    };
    memory_chart::lines(name, machine, figures.others, &plan)
}

fn refused(check: &Check, figures: &Figures, refusal: &Refusal, option: Limit) -> Error {
    let instead = Instead::of(figures, option);
    window::refused(check.name, refusal, instead)
}

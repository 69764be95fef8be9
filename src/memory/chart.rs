//! A plan of memory as a picture: what the budget is shared out to, in letters, so that it works without colour and in 80 columns. Pure.

use crate::memory::MemoryEstimate;
use crate::memory::budget::Memory;
use crate::memory::plan::{Plan, usable};
use crate::memory::preflight::{Answer, Choices, left_by};
use crate::ui::{self, Row};

/// Letters in the bar.
const WIDTH: u64 = 74;

/// A part of the bar, and its line.
struct Part {
    letter: char,
    name: &'static str,
    bytes: u64,
    remark: String,
}

/// A model's plan, else what would be tried. Empty: nothing is known of the model's size or the machine's memory.
pub fn of(name: &str, estimate: &MemoryEstimate) -> Vec<String> {
    let known = (estimate.machine.as_ref())
        .zip(estimate.planner.as_ref())
        .zip(estimate.budget());
    let Some(((machine, planner), budget)) = known else {
        return Vec::new();
    };
    let plan = (estimate.plan.clone())
        .or_else(|| planner.on(budget).ok())
        .unwrap_or_else(|| planner.thriftiest_on(budget));
    lines(name, machine, estimate.others, &plan)
}

/// The budget of a machine as a plan shares it out beside other engines, which take `others` bytes. What does not fit is beyond a bar.
fn lines(name: &str, machine: &Memory, others: u64, plan: &Plan) -> Vec<String> {
    let shares = plan.shares;
    let taken = others + shares.taken();
    let limit = others + usable(machine.budget.saturating_sub(others));
    let step = format!("reading a prompt, {} tokens at a time", plan.prefill_step);
    let (moment, remark) = match shares.copies > shares.working {
        true => (shares.copies, "copies at the end of a turn".into()),
        false => (shares.working, step),
    };
    let kept = match plan.conversations {
        1 => "what is kept beside the conversation",
        _ => "one more conversation, kept whole",
    };
    let tokens = format!("{} tokens", ui::thousands(plan.window.tokens));
    let running = "loaded models, with their conversations";
    let parts = [
        Part::new('o', "others", others, running),
        Part::new('#', "weights", shares.weights, ""),
        Part::new('=', "conversation", shares.conversation, &tokens),
        Part::new('+', "prefix cache", shares.prefix_cache, kept),
        Part::new('~', "working memory", moment, &remark),
        Part::new('e', "engine", shares.engine, "the process itself"),
        Part::new('.', "free", machine.budget.saturating_sub(taken), ""),
    ];
    let parts: Vec<&Part> = parts.iter().filter(|part| part.bytes > 0).collect();
    let source = machine.budget_source.words();
    let budget = ui::memory(machine.budget);
    let short = taken.checked_sub(limit).filter(|&short| short > 0);
    let mut lines = vec![
        format!("Memory for {name}: {budget}, {source}"),
        format!("  [{}]", bar(&parts, short.map(|_| limit))),
    ];
    // One that is short has no use for what is left over.
    let rows = (parts.iter()).filter(|part| short.is_none() || part.letter != '.');
    lines.extend(rows.map(|part| part.line()));
    lines.extend(short.map(|bytes| Part::new('|', "over by", bytes, "").line()));
    lines
}

impl Part {
    fn new(letter: char, name: &'static str, bytes: u64, remark: &str) -> Self {
        Self {
            letter,
            name,
            bytes,
            remark: remark.to_owned(),
        }
    }

    fn line(&self) -> String {
        let bytes = ui::memory(self.bytes);
        let line = format!(
            "  {} {:<14} {bytes:>8}  {}",
            self.letter, self.name, self.remark
        );
        line.trim_end().to_owned()
    }
}

/// The parts by their letters. `limit`: where what there is ends, in bytes, if it ends before they do.
fn bar(parts: &[&Part], limit: Option<u64>) -> String {
    let total: u64 = parts.iter().map(|part| part.bytes).sum::<u64>().max(1);
    let place = |bytes: u64| ((bytes as f64 / total as f64) * WIDTH as f64).round() as usize;
    let mut bar = String::new();
    let mut end = 0;
    for part in parts {
        end += part.bytes;
        let letters = place(end).saturating_sub(bar.len());
        bar.extend(std::iter::repeat_n(part.letter, letters));
    }
    if let Some(limit) = limit {
        let at = place(limit).min(bar.len().saturating_sub(1));
        bar.replace_range(at..=at, "|");
    }
    bar
}

/// The answers that are offered, each with what it comes to.
pub fn answers(choices: &Choices) -> Vec<(Answer, Row)> {
    let recommended = |answer: Answer| match choices.recommended() == answer {
        true => " (recommended)",
        false => "",
    };
    let mut answers = Vec::new();
    if let (Ok(now), Some(smaller)) = (&choices.now, &choices.smaller) {
        let row = Row::new(format!(
            "Smaller window       {}: leaves {} more to other programs",
            effect(Some(now), smaller),
            ui::memory(left_by(now, smaller))
        ));
        answers.push((Answer::Shrink, row));
    }
    if let Some(raise) = &choices.raise {
        let row = Row {
            note: format!(
                "                   {} → {} MiB, with sudo, until the session ends",
                raise.from, raise.to
            ),
            ..Row::new(format!(
                "Raise the GPU limit  {}{}",
                effect(choices.now.as_ref().ok(), &raise.plan),
                recommended(Answer::Raise)
            ))
        };
        answers.push((Answer::Raise, row));
    }
    let go_on = match &choices.now {
        Ok(now) => format!(
            "Go on                {} tokens{}",
            ui::kilo(now.window.tokens),
            recommended(Answer::Continue)
        ),
        Err(_) => "Start it anyway      (risky: the engine may crash)".into(),
    };
    answers.push((Answer::Continue, Row::new(go_on)));
    let quit = format!("Quit{}", recommended(Answer::Quit));
    answers.push((Answer::Quit, Row::new(quit)));
    answers
}

/// What a choice does to the window: `24k → 61k tokens`. Without a plan now it is `none`.
fn effect(now: Option<&Plan>, then: &Plan) -> String {
    let now = now.map_or("none".into(), |plan| ui::kilo(plan.window.tokens));
    format!("{now} → {} tokens", ui::kilo(then.window.tokens))
}

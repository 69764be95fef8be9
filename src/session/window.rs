//! Messages about the window: why a model does not fit, and what helps.

use crate::error::{Error, Exit, Result};
use crate::memory::fit;
use crate::memory::gpu_limit;
use crate::memory::plan::{Refusal, Shares, usable};
use crate::memory::preflight::Limit;
use crate::memory::{ContextWindow, MemoryEstimate, smallest_window};
use crate::ui;

/// Alternatives to a model that does not fit. Windows are in tokens.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alternative {
    /// The flag of a model that fits, and its window.
    pub model: Option<(&'static str, u64)>,
    /// The GPU limit that would do, in MiB, and the window with it.
    pub raised: Option<(u64, u64)>,
}

impl Alternative {
    /// The alternatives on this machine.
    pub fn of(estimate: &MemoryEstimate, limit: Limit) -> Self {
        let planner = estimate.planner.as_ref().zip(estimate.budget());
        let model = planner
            .and_then(|(planner, budget)| fit::instead(budget, planner.device, estimate.asked));
        let raised = limit.raised().and_then(|mib| {
            let plan = estimate.planned_on((mib << 20).saturating_sub(estimate.others))?;
            Some((mib, plan.ok()?.window.tokens))
        });
        Self {
            model: model.map(|(entry, window)| (entry.flag.as_str(), window)),
            raised,
        }
    }

    /// In words, for a hint.
    fn words(self) -> String {
        let mut said = Vec::new();
        if let Some((mib, window)) = self.raised {
            said.push(format!(
                "with the GPU limit raised it gets {} tokens: cclocal offers that on a terminal, or {} until the next restart",
                ui::thousands(window),
                gpu_limit::command(mib)
            ));
        }
        if let Some((flag, window)) = self.model {
            said.push(format!(
                "cclocal --{flag} fits, with a window of {} tokens",
                ui::thousands(window)
            ));
        }
        if said.is_empty() {
            said.push("free some memory".into());
        }
        said.push("--no-mem-check tries it anyway".into());
        said.join("; ")
    }
}

/// Why a model is not started, with the arithmetic.
pub fn refused(name: &str, refusal: &Refusal, instead: Alternative) -> Error {
    let thousands = ui::thousands;
    match *refusal {
        Refusal::Memory {
            needed,
            shares,
            usable,
            window,
        } => {
            Error::new(
                Exit::Machine,
                format!("{name} does not fit in memory"),
            )
            .cause(format!(
                "it needs {1} even with a window of {0} tokens, and {2} are available: {3}",
                thousands(window),
                ui::memory(needed),
                ui::memory(usable),
                parts(&shares)
            ))
            .hint(instead.words())
        }
        Refusal::Asked { window, fits } => Error::new(
            Exit::Machine,
            format!(
                "{name} does not fit in memory with a window of {} tokens",
                thousands(window)
            ),
        )
        .cause(format!("{} tokens do", thousands(fits)))
        .hint(match instead.raised {
            Some((mib, _)) => format!(
                "take --ctx {fits}; with the GPU limit raised it fits: cclocal offers that on a terminal, or {} until the next restart",
                gpu_limit::command(mib)
            ),
            None => format!("take --ctx {fits}; --no-mem-check tries it anyway"),
        }),
        Refusal::Model { longest, needed } => Error::usage(format!(
            "{name} has a context window of {} tokens at most",
            thousands(longest)
        ))
        .cause(format!("this session needs {}", thousands(needed)))
        .hint(match longest.checked_sub(smallest_window(0)) {
            Some(output @ 1..) => format!("take --ctx {longest} or less, and --out-tokens {output} or less"),
            _ => "take another model: cclocal --help lists them".into(),
        }),
        Refusal::Reply { window, needed } => {
            no_room(window, needed.saturating_sub(smallest_window(0)), None)
        }
    }
}

/// The parts of the memory plan, in words.
fn parts(shares: &Shares) -> String {
    let parts = [
        ("its weights", shares.weights),
        ("a conversation", shares.conversation),
        ("the prefix cache", shares.prefix_cache),
        (
            "reading a prompt and for copies",
            shares.copies.max(shares.working),
        ),
        ("the engine itself", shares.engine),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(_, bytes)| *bytes > 0)
        .map(|(what, bytes)| format!("{} for {what}", ui::memory(*bytes)))
        .collect();
    parts.join(", ")
}

/// Errors: no session fits in this window.
/// `most`: the largest that can be had, where there is such a limit.
pub fn check(window: ContextWindow, most: Option<u64>) -> Result<()> {
    if smallest_window(window.output) <= window.tokens {
        return Ok(());
    }
    Err(no_room(window.tokens, window.output, most))
}

/// The cause of an error about a window that is too small.
pub(crate) fn needs() -> String {
    format!(
        "a session needs {} tokens beside its longest reply: for Claude Code's first request, some work, and a summary when the window is full",
        ui::thousands(smallest_window(0))
    )
}

/// The error for a window that is too small for replies of this length. `most`: the largest window that can be had, where there is such a limit.
fn no_room(window: u64, output: u64, most: Option<u64>) -> Error {
    let needed = smallest_window(output);
    // What can be asked for is more than a session takes beside its replies.
    let room = window.saturating_sub(smallest_window(0));
    Error::usage(format!(
        "replies of {output} tokens leave no room in a window of {window} tokens"
    ))
    .cause(needs())
    .hint(match most {
        Some(most) if most < needed => format!("take --out-tokens {room} or less"),
        _ => format!("take --out-tokens {room} or less, or --ctx {needed} or more"),
    })
}

/// Warning for a model that is started although it does not fit in memory.
pub fn insisted(name: &str, estimate: &MemoryEstimate) -> Option<String> {
    let (plan, budget) = estimate.plan.as_ref().zip(estimate.budget())?;
    let usable = usable(budget);
    Some(format!(
        "{name} needs {} with a window of {} tokens, and {} are available: it may run out of memory",
        ui::memory(plan.shares.taken()),
        ui::thousands(plan.window.tokens),
        ui::memory(usable),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::catalog;
    use crate::memory::Asked;
    use crate::memory::plan::Plan;
    use crate::memory::working::Device;

    fn plan(flag: &str, gib: u64, asked: Asked) -> Result<Plan, Refusal> {
        let entry = catalog().by_flag(flag).expect("a model");
        fit::plan(entry, None, gib << 30, Device::Metal, asked).expect("known")
    }

    #[test]
    fn a_refusal_says_the_arithmetic_and_what_to_do() {
        let refusal = plan("coder", 18, Asked::default()).expect_err("too big");
        let instead = fit::instead(18 << 30, Device::Metal, Asked::default());
        let instead = Alternative {
            model: instead.map(|(entry, window)| (entry.flag.as_str(), window)),
            raised: None,
        };
        let error = refused("Qwen3-Coder-30B-A3B", &refusal, instead);
        assert_eq!(error.exit, Exit::Machine);
        insta::assert_snapshot!(error, @"
        error: Qwen3-Coder-30B-A3B does not fit in memory
          cause: it needs 18.7 GB even with a window of 22,980 tokens, and 17.1 GB are available: 16.0 GB for its weights, 2.1 GB for a conversation, 192 MB for the prefix cache, 91 MB for reading a prompt and for copies, 257 MB for the engine itself
          hint: cclocal --gemma fits, with a window of 40,960 tokens; --no-mem-check tries it anyway
        ");
        let asked = Asked {
            window: Some(190_000),
            output: None,
        };
        let error = refused(
            "GLM",
            &plan("review", 30, asked).expect_err("too wide"),
            Alternative::default(),
        );
        assert_eq!(error.exit, Exit::Machine);
        insta::assert_snapshot!(error, @"
        error: GLM does not fit in memory with a window of 190,000 tokens
          cause: 130,048 tokens do
          hint: take --ctx 130048; --no-mem-check tries it anyway
        ");
        let error = refused(
            "Qwen2.5",
            &plan("coder7b", 96, asked).expect_err("too wide"),
            Alternative::default(),
        );
        assert_eq!(error.exit, Exit::Usage);
        insta::assert_snapshot!(error, @"
        error: Qwen2.5 has a context window of 32,768 tokens at most
          cause: this session needs 190,000
          hint: take --ctx 32768 or less, and --out-tokens 13884 or less
        ");
    }

    #[test]
    fn a_refusal_without_a_way_out_and_one_of_the_reply() {
        let refusal = plan("gemma-light", 4, Asked::default()).expect_err("too big");
        let error = refused("Gemma", &refusal, Alternative::default());
        insta::assert_snapshot!(error, @"
        error: Gemma does not fit in memory
          cause: it needs 5.6 GB even with a window of 22,980 tokens, and 3.8 GB are available: 4.7 GB for its weights, 386 MB for a conversation, 92 MB for the prefix cache, 182 MB for reading a prompt and for copies, 257 MB for the engine itself
          hint: free some memory; --no-mem-check tries it anyway
        ");
        let short = Refusal::Model {
            longest: 8_192,
            needed: 22_980,
        };
        insta::assert_snapshot!(refused("Tiny", &short, Alternative::default()), @"
        error: Tiny has a context window of 8,192 tokens at most
          cause: this session needs 22,980
          hint: take another model: cclocal --help lists them
        ");
        let reply = Refusal::Reply {
            window: 30_000,
            needed: 38_884,
        };
        insta::assert_snapshot!(refused("Any", &reply, Alternative::default()), @"
        error: replies of 20000 tokens leave no room in a window of 30000 tokens
          cause: a session needs 18,884 tokens beside its longest reply: for Claude Code's first request, some work, and a summary when the window is full
          hint: take --out-tokens 11116 or less, or --ctx 38884 or more
        ");
    }

    #[test]
    fn a_reply_must_leave_room_for_the_question() {
        let check = |tokens, output| check(ContextWindow { tokens, output }, None);
        assert!(check(32_768, 8_192).is_ok());
        let error = check(32_768, 32_768).expect_err("no room");
        insta::assert_snapshot!(error, @"
        error: replies of 32768 tokens leave no room in a window of 32768 tokens
          cause: a session needs 18,884 tokens beside its longest reply: for Claude Code's first request, some work, and a summary when the window is full
          hint: take --out-tokens 13884 or less, or --ctx 51652 or more
        ");
        let error = check(20_000, 8_192).expect_err("no room");
        insta::assert_snapshot!(error, @"
        error: replies of 8192 tokens leave no room in a window of 20000 tokens
          cause: a session needs 18,884 tokens beside its longest reply: for Claude Code's first request, some work, and a summary when the window is full
          hint: take --out-tokens 1116 or less, or --ctx 27076 or more
        ");
    }
}

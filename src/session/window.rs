//! The window in words: why there is none, and what a choice changes.

use crate::error::{Error, Exit};
use crate::memory::plan::{Plan, Refusal};
use crate::memory::smallest_window;
use crate::ui;

/// Why a model is not started, with the arithmetic. `instead`: a flag of the catalogue that fits, and its window in tokens.
pub fn refused(name: &str, refusal: &Refusal, instead: Option<(&str, u64)>) -> Error {
    let thousands = ui::thousands;
    match *refusal {
        Refusal::Memory {
            needed,
            shares,
            usable,
            window,
        } => {
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
                .map(|(what, bytes)| format!("{} for {what}", ui::bytes(*bytes)))
                .collect();
            let error = Error::new(
                Exit::Machine,
                format!("{name} does not hold a session on this machine"),
            )
            .cause(format!(
                "the smallest window of use, {} tokens, needs {}, and there are {} to plan with: {}",
                thousands(window),
                ui::bytes(needed),
                ui::bytes(usable),
                parts.join(", ")
            ));
            error.hint(match instead {
                Some((flag, window)) => format!(
                    "cclocal --{flag} fits, with a window of {} tokens; --no-mem-check tries it all the same",
                    thousands(window)
                ),
                None => "free some memory, or try it all the same with --no-mem-check".into(),
            })
        }
        Refusal::Asked { window, fits } => Error::new(
            Exit::Machine,
            format!(
                "a window of {} tokens does not fit this machine with {name}",
                thousands(window)
            ),
        )
        .cause(format!("{} tokens do", thousands(fits)))
        .hint(format!(
            "leave --ctx out, or take --ctx {fits}; --no-mem-check tries it all the same"
        )),
        Refusal::Model { longest, needed } => Error::usage(format!(
            "{name} was made for contexts of {} tokens",
            thousands(longest)
        ))
        .cause(format!("{} are needed", thousands(needed)))
        .hint(match longest.checked_sub(smallest_window(0)) {
            Some(output @ 1..) => format!("take --ctx {longest} or less, and --out-tokens {output} or less"),
            _ => "take another model: cclocal --help lists them".into(),
        }),
        Refusal::Reply { window, needed } => Error::usage(format!(
            "a window of {} tokens has no room for such replies",
            thousands(window)
        ))
        .cause(format!(
            "Claude Code's own first request, what it keeps free to compact in, and the reply take {}",
            thousands(needed)
        ))
        .hint(format!("take --ctx {needed} or more, or a smaller --out-tokens")),
    }
}

/// What a change does to the window: `24k → 61k tokens`. A side that has no plan is `none`.
pub fn effect(now: &Result<Plan, Refusal>, then: &Result<Plan, Refusal>) -> String {
    let side = |plan: &Result<Plan, Refusal>| match plan {
        Ok(plan) => ui::kilo(plan.context_window),
        Err(_) => "none".into(),
    };
    format!("{} → {} tokens", side(now), side(then))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::catalog;
    use crate::memory::offer;
    use crate::memory::plan::Asked;
    use crate::memory::working::Device;

    fn plan(flag: &str, gib: u64, asked: Asked) -> Result<Plan, Refusal> {
        let entry = catalog().by_flag(flag).expect("a model");
        offer::plan(entry, None, gib << 30, Device::Metal, asked).expect("known")
    }

    #[test]
    fn a_refusal_says_the_arithmetic_and_what_to_do() {
        let refusal = plan("coder", 18, Asked::default()).expect_err("too big");
        let instead = offer::instead(18 << 30, Device::Metal, Asked::default());
        let instead = instead.map(|(entry, window)| (entry.flag.as_str(), window));
        let error = refused("Qwen3-Coder-30B-A3B", &refusal, instead);
        assert_eq!(error.exit, Exit::Machine);
        insta::assert_snapshot!(error, @"
        error: Qwen3-Coder-30B-A3B does not hold a session on this machine
          cause: the smallest window of use, 25,288 tokens, needs 22.3 GB, and there are 18.4 GB to plan with: 18.0 GB for its weights, 2.5 GB for a conversation, 1.3 GB for the prefix cache, 164 MB for reading a prompt and for copies, 270 MB for the engine itself
          hint: cclocal --gemma-light fits, with a window of 97,280 tokens; --no-mem-check tries it all the same
        ");
        let asked = Asked {
            window: Some(120_000),
            output: None,
        };
        let error = refused(
            "GLM",
            &plan("review", 36, asked).expect_err("too wide"),
            None,
        );
        assert_eq!(error.exit, Exit::Machine);
        insta::assert_snapshot!(error, @"
        error: a window of 120,000 tokens does not fit this machine with GLM
          cause: 65,536 tokens do
          hint: leave --ctx out, or take --ctx 65536; --no-mem-check tries it all the same
        ");
        let error = refused(
            "Qwen2.5",
            &plan("coder7b", 96, asked).expect_err("too wide"),
            None,
        );
        assert_eq!(error.exit, Exit::Usage);
        insta::assert_snapshot!(error, @"
        error: Qwen2.5 was made for contexts of 32,768 tokens
          cause: 120,000 are needed
          hint: take --ctx 32768 or less, and --out-tokens 11576 or less
        ");
    }

    #[test]
    fn a_refusal_without_a_way_out_and_one_of_the_reply() {
        let refusal = plan("gemma-light", 4, Asked::default()).expect_err("too big");
        let error = refused("Gemma", &refusal, None);
        insta::assert_snapshot!(error, @"
        error: Gemma does not hold a session on this machine
          cause: the smallest window of use, 25,288 tokens, needs 6.6 GB, and there are 4.1 GB to plan with: 5.0 GB for its weights, 450 MB for a conversation, 503 MB for the prefix cache, 416 MB for reading a prompt and for copies, 270 MB for the engine itself
          hint: free some memory, or try it all the same with --no-mem-check
        ");
        let short = Refusal::Model {
            longest: 8_192,
            needed: 25_288,
        };
        insta::assert_snapshot!(refused("Tiny", &short, None), @"
        error: Tiny was made for contexts of 8,192 tokens
          cause: 25,288 are needed
          hint: take another model: cclocal --help lists them
        ");
        let reply = Refusal::Reply {
            window: 30_000,
            needed: 41_192,
        };
        insta::assert_snapshot!(refused("Any", &reply, None), @"
        error: a window of 30,000 tokens has no room for such replies
          cause: Claude Code's own first request, what it keeps free to compact in, and the reply take 41,192
          hint: take --ctx 41192 or more, or a smaller --out-tokens
        ");
    }

    #[test]
    fn an_effect_is_said_in_tokens() {
        let asked = Asked::default();
        let (none, some) = (plan("gemma", 12, asked), plan("gemma", 21, asked));
        assert_eq!(effect(&none, &some), "none → 64k tokens");
    }
}

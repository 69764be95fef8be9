//! How long the window and the replies are on an engine that somebody else runs.

use crate::error::{Error, Exit, Result};
use crate::memory::{self, Asked, ContextWindow, NARROW_WINDOW, OUTPUTS};
use crate::session::window;
use crate::ui::{self, Ui};

/// The largest window that Claude Code is told, in tokens: what it assumes of a model that it does not know.
const LARGEST: u64 = 1_000_000;

/// The shortest limit on replies that is chosen where nobody asked for one, in tokens. The model is told to write files in parts of 150 lines, and
/// these have to fit.
const SHORTEST_REPLY: u64 = 2_048;

/// Window and reply limit for Claude Code and the gateway, in tokens.
#[derive(Debug, PartialEq, Eq)]
pub struct Window {
    pub window: ContextWindow,
    /// Note for the person.
    pub notices: Vec<String>,
}

/// Asks the person for the window of an engine that does not tell it, in tokens. None: there is nobody to ask.
pub fn ask(ui: &Ui, host: &str) -> Option<u64> {
    if !ui.interactive {
        return None;
    }
    ui.notice(&format!(
        "{host} does not report its context window: look at how it was started, or ask whoever runs it"
    ));
    let tokens = ui.tokens(
        "Context window in tokens?",
        NARROW_WINDOW,
        memory::smallest_window(SHORTEST_REPLY)..=LARGEST,
    )?;
    ui.say(&format!("Next time: --ctx {tokens}"));
    Some(tokens)
}

/// The window: as the engine tells, else as asked with `--ctx`, else a guess. Errors: what was asked for is more than there is, or no session fits in.
pub fn fit(told: Option<u64>, asked: Asked) -> Result<Window> {
    let mut notices = Vec::new();
    if let (Some(told), Some(asked)) = (told, asked.window)
        && asked > told
    {
        return Err(Error::usage(format!(
            "--ctx {asked} is more than the engine's window"
        ))
        .cause(format!("the engine reports {told} tokens"))
        .hint(format!(
            "leave --ctx out, or take --ctx {told} or less; or start the engine with a longer one (vLLM: --max-model-len {asked})"
        )));
    }
    let tokens = asked.window.or(told).unwrap_or_else(|| {
        notices.push(format!(
            "the engine does not report its window: cclocal assumes {} tokens; to set it: --ctx N",
            ui::thousands(NARROW_WINDOW)
        ));
        NARROW_WINDOW
    });
    let tokens = tokens.min(LARGEST);
    let room = tokens.saturating_sub(memory::smallest_window(0));
    if room < SHORTEST_REPLY {
        let needed = memory::smallest_window(SHORTEST_REPLY);
        return Err(Error::new(
            Exit::Engine,
            format!("the engine's window of {tokens} tokens is too small for Claude Code"),
        )
        .cause(window::needs())
        .hint(format!(
            "start the engine with a longer one: at least {needed} tokens, better {} (vLLM: --max-model-len {})",
            NARROW_WINDOW,
            NARROW_WINDOW
        )));
    }
    let output = asked.output.unwrap_or(OUTPUTS[0].min(room));
    let window = ContextWindow { tokens, output };
    window::check(window, told)?;
    if asked.output.is_none() && output < OUTPUTS[0] {
        notices.push(format!(
            "replies are cut at {} tokens: longer ones do not fit in a window of {}",
            ui::thousands(output),
            ui::thousands(tokens)
        ));
    }
    Ok(Window { window, notices })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(told: Option<u64>, window: Option<u64>, output: Option<u64>) -> Result<Window> {
        super::fit(told, Asked { window, output })
    }

    fn figures(told: Option<u64>, asked: Option<u64>, output: Option<u64>) -> (u64, u64) {
        let window = fit(told, asked, output).expect("it fits").window;
        (window.tokens, window.output)
    }

    #[test]
    fn the_engine_is_believed_then_the_person_then_a_guess() {
        assert_eq!(figures(Some(131_072), None, None), (131_072, 8_192));
        assert_eq!(figures(Some(131_072), Some(65_536), None), (65_536, 8_192));
        assert_eq!(
            figures(Some(131_072), Some(131_072), None),
            (131_072, 8_192)
        );
        assert_eq!(figures(None, Some(65_536), Some(16_384)), (65_536, 16_384));
        assert_eq!(figures(None, None, None), (32_768, 8_192));
        assert_eq!(figures(Some(10_000_000), None, None).0, 1_000_000);
        let guess = fit(None, None, None).expect("it fits");
        insta::assert_snapshot!(guess.notices.join("\n"), @"the engine does not report its window: cclocal assumes 32,768 tokens; to set it: --ctx N");
        assert!(
            fit(Some(65_536), None, None)
                .expect("it fits")
                .notices
                .is_empty()
        );
    }

    #[test]
    fn replies_are_shortened_where_nobody_asked_for_their_length() {
        assert_eq!(figures(Some(24_576), None, None), (24_576, 5_692));
        let short = fit(Some(24_576), None, None).expect("it fits");
        insta::assert_snapshot!(short.notices.join("\n"), @"replies are cut at 5,692 tokens: longer ones do not fit in a window of 24,576");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refused = |told, asked, output| {
            let error = fit(told, asked, output).expect_err("it does not fit");
            (error.exit, error.to_string())
        };
        let (exit, text) = refused(Some(32_768), Some(65_536), None);
        assert_eq!(exit, Exit::Usage);
        insta::assert_snapshot!(text, @"
        error: --ctx 65536 is more than the engine's window
          cause: the engine reports 32768 tokens
          hint: leave --ctx out, or take --ctx 32768 or less; or start the engine with a longer one (vLLM: --max-model-len 65536)
        ");
        let (exit, text) = refused(Some(16_384), None, None);
        assert_eq!(exit, Exit::Engine);
        insta::assert_snapshot!(text, @"
        error: the engine's window of 16384 tokens is too small for Claude Code
          cause: a session needs 18,884 tokens beside its longest reply: for Claude Code's first request, some work, and a summary when the window is full
          hint: start the engine with a longer one: at least 20932 tokens, better 32768 (vLLM: --max-model-len 32768)
        ");
        let (exit, text) = refused(Some(32_768), None, Some(16_384));
        assert_eq!(exit, Exit::Usage);
        insta::assert_snapshot!(text, @"
        error: replies of 16384 tokens leave no room in a window of 32768 tokens
          cause: a session needs 18,884 tokens beside its longest reply: for Claude Code's first request, some work, and a summary when the window is full
          hint: take --out-tokens 13884 or less
        ");
    }
}

//! The context window: how long it is, what a session needs of it, and the sizes that are chosen unasked. Pure.

use serde::{Deserialize, Serialize};

/// The window of a model that has ample room, in tokens.
pub const WIDE_WINDOW: u64 = 65_536;

/// The window where room is short or unknown, in tokens. Source: the scripts' default. Much less holds no session.
pub const NARROW_WINDOW: u64 = 32_768;

/// What Claude Code's own first request takes of the window, in tokens, with room to work in. With its chat template it measures 23 kB (2.1.331: 9 tools,
/// the system prompt, the environment), some 5,200 tokens; an end-to-end test measures it anew (`tests/e2e/first_request.rs`).
pub const FIRST_REQUEST: u64 = 8_192;

/// The least that has to fit between the first request and the compaction, in tokens. With less, Claude Code is at compacting all the time.
pub const LEAST_WORK: u64 = 8_192;

/// Room above the point of compaction for the request for a summary, in tokens: it is longer than the prompt before by its instructions. Source: 2,200
/// measured with Claude Code 2.1.332 (`tests/e2e/compaction.rs`), and some to spare.
const SUMMARY_REQUEST: u64 = 2_500;

/// How far below its window, less the longest reply, Claude Code compacts, in tokens. Source: the log of Claude Code 2.1.330 to 2.1.332
/// ("effectiveWindow", "fixed prefix > threshold"), held by `tests/e2e/compaction.rs`.
const CLIENT_RESERVE: u64 = 13_000;

/// The most of a reply's length that Claude Code takes off its window, in tokens. Source: as before.
const CLIENT_LONGEST_REPLY: u64 = 20_000;

/// Output budgets where none is asked for, in tokens, the best first: a whole file body has to fit in one tool call. Source of the first: the scripts'
/// README, problem 18. The second still holds the parts of files that Claude Code is told to write.
pub const OUTPUTS: [u64; 2] = [8_192, 4_096];

/// The smallest window that holds a session with replies of this length, in tokens.
pub fn smallest_window(output: u64) -> u64 {
    output + SUMMARY_REQUEST + FIRST_REQUEST + LEAST_WORK
}

/// How long a conversation and a reply may be, in tokens. Everything that is told of a window is told this value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextWindow {
    /// The whole window.
    #[serde(rename = "context_window")]
    pub tokens: u64,
    /// The longest reply.
    #[serde(rename = "output_tokens")]
    pub output: u64,
}

impl ContextWindow {
    /// The prompt at which Claude Code is to compact, in tokens: as late as its request for a summary and the longest reply to that still fit.
    pub fn compaction(self) -> u64 {
        self.tokens.saturating_sub(self.output + SUMMARY_REQUEST)
    }

    /// The most that files may take that Claude Code shows again behind a summary, in tokens: a quarter of what is free then.
    pub fn restored_files(self) -> u64 {
        self.work() / 4
    }

    /// The most that the result of one tool may take, in tokens: half of what is free.
    pub fn tool_result(self) -> u64 {
        self.work() / 2
    }

    /// What fits between the first request and the compaction, in tokens.
    pub fn work(self) -> u64 {
        self.compaction().saturating_sub(FIRST_REQUEST)
    }

    /// The window that Claude Code is told, in tokens: the one for which its own arithmetic compacts at that prompt. Mostly larger than the real one,
    /// which the gateway guards.
    pub fn told(self) -> u64 {
        self.compaction() + self.output.min(CLIENT_LONGEST_REPLY) + CLIENT_RESERVE
    }
}

/// The window and the replies that were asked for, in tokens. None: they are chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    pub window: Option<u64>,
    pub output: Option<u64>,
}

impl Asked {
    /// The longest reply: as asked for, else the usual one.
    pub fn output(self) -> u64 {
        self.output.unwrap_or(OUTPUTS[0])
    }

    /// The window that was asked for, else this one.
    pub fn or(self, window: u64) -> ContextWindow {
        ContextWindow {
            tokens: self.window.unwrap_or(window),
            output: self.output(),
        }
    }

    /// Whether a window is what was asked for.
    pub fn is(self, window: ContextWindow) -> bool {
        let same = |asked: Option<u64>, runs: u64| asked.is_none_or(|asked| asked == runs);
        same(self.window, window.tokens) && same(self.output, window.output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_compacts_where_a_summary_still_fits() {
        let told = |tokens, output| ContextWindow { tokens, output }.told();
        // Source: lab figures, 10,500 tokens more than the window.
        assert_eq!(told(25_288, 4_096), 25_288 + 10_500);
        assert_eq!(told(65_536, 8_192), 65_536 + 10_500);
        // The client takes no more than 20,000 tokens of a reply into account.
        assert_eq!(told(100_000, 40_000), 100_000 - 9_500);
        for output in [1, 4_096, 8_192, 32_768] {
            let window = ContextWindow {
                tokens: smallest_window(output),
                output,
            };
            assert_eq!(window.compaction(), FIRST_REQUEST + LEAST_WORK);
        }
    }
}

//! The context window: how long it is, what a session needs of it, and the sizes that are chosen unasked. Pure.

use serde::{Deserialize, Serialize};

/// The window of a model that has ample room, in tokens.
pub const WIDE_WINDOW: u64 = 65_536;

/// The window where room is short or unknown, in tokens. Source: the scripts' default. Much less holds no session.
pub const NARROW_WINDOW: u64 = 32_768;

/// What Claude Code's own first request takes of the window, in tokens, with room to work in. With its chat template it measures 23 kB (2.1.331: 9 tools,
/// the system prompt, the environment), some 5,200 tokens; an end-to-end test measures it anew (`tests/e2e/first_request.rs`).
pub const FIRST_REQUEST: u64 = 8_192;

/// What Claude Code keeps free above the point at which it compacts, beside the longest reply, in tokens. Source: Claude Code 2.1.330's log
/// for windows of 16,384 and 24,576: "fixed prefix > threshold", threshold = window - longest reply - 13,000.
pub const COMPACTION_RESERVE: u64 = 13_000;

/// Output budgets where none is asked for, in tokens, the best first: a whole file body has to fit in one tool call. Source of the first: the scripts'
/// README, problem 18. The second still holds the parts of files that Claude Code is told to write.
pub const OUTPUTS: [u64; 2] = [8_192, 4_096];

/// The smallest window that holds a session with replies of this length, in tokens: in a smaller one Claude Code would want to compact before
/// its first request.
pub fn smallest_window(output: u64) -> u64 {
    output + COMPACTION_RESERVE + FIRST_REQUEST
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
